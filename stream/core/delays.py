"""How late labels come: the delay curve of one model and segment, out of mergeable counts.

Predictions and the delays of their first labels are counted by cohort: the predictions of a few
ticks. A cohort that is complete, so old that it has nearly all labels it will ever get, tells how
soon labels of each stratum came; younger ones are censored at their age.

What is told as of a tick is told from labels that had arrived by then and from nothing later, so
it is the same whenever it is asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.spec import ModelSpec, complete_seconds
from stream.core.lateness import BINS, EDGES, lateness_bin
from stream.core.ticks import added_by_name
from stream.core.windows import RESTATE_TICKS, Plan
from stream.events import SummaryComputed

COHORTS: Final = 64  # until one is complete
REMEMBERED: Final = 16  # complete cohorts that the curve is made of
FEWEST_LABELS: Final = 20  # to learn how soon they come
ENOUGH_LABELS: Final = 100  # of a pair of strata, for one with a curve of its own

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Ages(Struct, frozen=True):
    """How cohorts are cut and when they are complete, in ticks.

    Attributes:
        slack: what is told of may be so much older than the newest closed tick.
    """

    tick_ms: int
    cohort: int
    complete: int
    slack: int

    @property
    def last_bin(self) -> int:
        """Of the delays that a complete cohort knows all labels of."""
        return int(lateness_bin(np.array([self.complete * self.tick_ms]))[0])


def ages(spec: ModelSpec, cuts: Iterable[Plan]) -> Ages:
    complete = max(1, round(complete_seconds(spec.labels) * 1000 / spec.tick_ms))
    slack = max((plan.cell for plan in cuts), default=0) + RESTATE_TICKS
    return Ages(spec.tick_ms, max(1, complete // COHORTS), complete, slack)


class Cohort(Struct, array_like=True):
    """Predictions from tick `start` on by stratum, and the delays of their first labels."""

    start: int
    predicted: dict[str, int] = {}
    arrivals: dict[str, dict[str, int]] = {}


class Curve(Struct, omit_defaults=True):
    """The cohorts of one model and segment, oldest first."""

    cohorts: list[Cohort] = []

    def add(self, delta: SummaryComputed, ages: Ages, closed: int) -> None:
        """Take a delta in; what is older than the cohorts held changes nothing."""
        if not (delta.predicted or delta.arrivals):
            return
        start = delta.tick // ages.cohort * ages.cohort
        at = bisect_left(self.cohorts, start, key=_start)
        if at == len(self.cohorts) or self.cohorts[at].start != start:
            if start + ages.cohort <= closed - ages.complete - ages.slack:
                return
            self.cohorts.insert(at, Cohort(start))
        cohort = self.cohorts[at]
        cohort.predicted = added_by_name(cohort.predicted, delta.predicted)
        for stratum, delays in delta.arrivals.items():
            known = cohort.arrivals.get(stratum, {})
            cohort.arrivals = {**cohort.arrivals, stratum: added_by_name(known, delays)}

    def forget(self, closed: int, ages: Ages) -> None:
        """Keep the newest complete cohorts of whatever may still be asked for."""
        oldest = closed - ages.complete - ages.slack
        known = sum(1 for cohort in self.cohorts if cohort.start + ages.cohort <= oldest)
        self.cohorts = self.cohorts[max(0, known - REMEMBERED) :]

    def known(self, ages: Ages, as_of: int) -> Delays:
        """How soon labels came, by cohorts that were complete at the beginning of a tick."""
        complete, _ = self._as_of(ages, as_of)
        counts: dict[str, Ints] = {}
        for cohort in complete:
            for stratum, delays in cohort.arrivals.items():
                row = counts.setdefault(stratum, np.zeros(BINS, dtype=np.int64))
                for late, count in delays.items():
                    row[int(late)] += count
        for row in counts.values():
            row[ages.last_bin + 1 :] = 0
        return Delays({name: row for name, row in sorted(counts.items()) if row.any()})

    def survival(self, ages: Ages, as_of: int) -> dict[str, Survival]:
        """Share labelled by age, by predicted stratum and for all (""): Kaplan, Meier (1958).

        A cohort is at risk of being labelled in a bin of delays if all of it had that age at the
        beginning of the tick; labels that it has got beyond its age are not looked at.
        """
        complete, young = self._as_of(ages, as_of)
        cohorts, now = [*complete, *young], as_of // ages.cohort * ages.cohort
        if not cohorts:
            return {}
        youngest_ms = [(now - c.start - ages.cohort) * ages.tick_ms for c in cohorts]
        at_least = np.array(youngest_ms, dtype=np.int64)[:, None] // 1000
        known = at_least >= EDGES[1 : ages.last_bin + 2]  # (cohorts, bins)
        labelled = _labelled(cohorts)
        predicted = _predicted(cohorts)
        return {
            name: _survival(made, labelled.get(name, np.zeros_like(labelled[""])), known)
            for name, made in sorted(predicted.items())
            if made.any()
        }

    def _as_of(self, ages: Ages, as_of: int) -> tuple[list[Cohort], list[Cohort]]:
        """Newest cohorts that were complete at the beginning of a tick, and those that were not."""
        now = as_of // ages.cohort * ages.cohort
        past = [c for c in self.cohorts if c.start + ages.cohort <= now]
        complete = [c for c in past if c.start + ages.cohort <= now - ages.complete]
        return complete[-REMEMBERED:], past[len(complete) :]


class Delays:
    """Labels of complete cohorts by delay, by stratum.

    Args:
        counts: "1/0" -> shape (BINS,).
    """

    def __init__(self, counts: Mapping[str, Ints]) -> None:
        self.counts = counts

    def of(self, stratum: str) -> Ints | None:
        """Counts of a stratum; where they are few, those of all with its label; None: too few."""
        own = self.counts.get(stratum)
        if own is not None and own.sum() >= ENOUGH_LABELS:
            return own
        return self.by_label.get(stratum.partition("/")[2])

    @cached_property
    def by_label(self) -> dict[str, Ints]:
        """Counts by true stratum, of those with enough labels."""
        pooled: dict[str, Ints] = {}
        for name, row in self.counts.items():
            true = name.partition("/")[2]
            pooled[true] = row + pooled.get(true, 0)
        return {name: row for name, row in pooled.items() if row.sum() >= FEWEST_LABELS}


def labelled_by(counts: Ints, ages_seconds: Floats) -> Floats:
    """Share of labels that are at most so late; between the edges of bins in proportion."""
    reached = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    shares: Floats = np.interp(ages_seconds, EDGES, reached)
    return shares


class Survival(NamedTuple):
    """A Kaplan-Meier curve.

    Attributes:
        shares: labelled before EDGES[1], EDGES[2], ...; as far as any cohort is old enough.
    """

    predictions: int
    labelled: int
    shares: list[float]


def _survival(predicted: Ints, labelled: Ints, known: NDArray[np.bool_]) -> Survival:
    """Of cohorts: predictions (cohorts,), labels by delay (cohorts, BINS), and which are known."""
    labelled = labelled[:, : known.shape[1]] * known
    before = np.cumsum(labelled, axis=1) - labelled
    at_risk = ((predicted[:, None] - before) * known).sum(axis=0)
    hazard = labelled.sum(axis=0) / np.maximum(1, at_risk)
    shares = 1.0 - np.cumprod(1.0 - np.minimum(1.0, hazard))
    reached = int(known.any(axis=0).sum())
    return Survival(int(predicted.sum()), int(labelled.sum()), shares[:reached].tolist())


def _predicted(cohorts: Sequence[Cohort]) -> dict[str, Ints]:
    """Predictions of each cohort, by predicted stratum and of all ("")."""
    names = {name for cohort in cohorts for name in cohort.predicted}
    rows = {name: np.array([c.predicted.get(name, 0) for c in cohorts]) for name in names}
    return rows | {"": np.array([sum(c.predicted.values()) for c in cohorts])}


def _labelled(cohorts: Sequence[Cohort]) -> dict[str, Ints]:
    """Labels of each cohort by delay, shape (cohorts, BINS), by predicted stratum and of all."""
    cells: dict[str, list[int]] = {}
    counts: dict[str, list[int]] = {}
    for i, cohort in enumerate(cohorts):
        for stratum, delays in cohort.arrivals.items():
            name = stratum.partition("/")[0]
            cells.setdefault(name, []).extend([i * BINS + int(late) for late in delays])
            counts.setdefault(name, []).extend(delays.values())
    rows = {}
    for name, some in cells.items():
        row = np.zeros(len(cohorts) * BINS, dtype=np.int64)
        np.add.at(row, some, counts[name])
        rows[name] = row.reshape(-1, BINS)
    return rows | {"": sum(rows.values(), start=np.zeros((len(cohorts), BINS), dtype=np.int64))}


def _start(cohort: Cohort) -> int:
    return cohort.start
