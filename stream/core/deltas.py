"""What a partition adds to summaries since it last reported: integers that add up in any order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from stream.core.processor import Parts
from stream.core.ticks import added_pairs
from stream.core.trails import Offsets, after
from stream.events import Outcomes, Pairs, SummaryComputed

PART: Final = "deltas"


class Place(NamedTuple):
    """Where a delta belongs. Segment "" is all, else "<feature>=<value>"."""

    model: str
    version: int
    segment: str
    tick: int


class Delta(Struct, omit_defaults=True):
    """The counts of one place; fields as in `SummaryComputed`, but for `since`."""

    predictions: int = 0
    signals: dict[str, list[int]] = {}
    labelled: int = 0
    sums: dict[str, int] = {}
    squares: dict[str, int] = {}
    predicted: dict[str, int] = {}
    estimates: list[int] = []
    outcomes: dict[str, Outcomes] = {}
    arrivals: dict[str, dict[str, int]] = {}
    latest: int | None = None
    bets: list[int] = []
    judged: dict[str, list[int]] = {}
    slices: dict[str, tuple[int, int, int]] = {}
    pairs: dict[str, Pairs] = {}
    delays: dict[str, int] = {}
    counters: dict[str, int] = {}
    traces: list[str] = []
    since: dict[str, int] | None = None  # of what waits: where inputs were before it; by partition

    @property
    def events(self) -> int:
        """How much there is to tell."""
        return self.predictions + self.labelled + sum(self.bets)

    def add_signal(self, name: str, index: int, size: int, count: int) -> None:
        """Add a count to one of a signal's `size` bins."""
        counts = self.signals.get(name)
        if counts is None:
            counts = self.signals[name] = [0] * size
        counts[index] += count

    def add_each(self, signals: Sequence[tuple[str, int]], bins: Sequence[int]) -> None:
        """Add one event to a bin of each signal. `signals`: names, and how many bins they have."""
        known = self.signals
        for (name, size), index in zip(signals, bins, strict=True):
            counts = known.get(name)
            if counts is None:
                counts = known[name] = [0] * size
            counts[index] += 1

    def add_signals(self, signals: Sequence[tuple[str, int]], counts: list[int]) -> None:
        """Add counts on all bins of signals, one signal's after the other's. `signals`: names, and
        how many bins they have."""
        known, start = self.signals, 0
        for name, size in signals:
            end = start + size
            before, more = known.get(name), counts[start:end]
            known[name] = list(map(add, before, more)) if before else more
            start = end

    def add_estimate(self, index: int, size: int, count: int) -> None:
        """Add a count to one of the estimator's `size` bins; the one after them: outside."""
        if not self.estimates:
            self.estimates = [0] * (size + 1)
        self.estimates[index] += count

    def add_outcomes(
        self,
        stratum: str,
        count: int,
        measures: Sequence[str],
        sums: Sequence[int],
        squares: Sequence[int],
    ) -> None:
        """Add what labels said of one stratum, there and in all."""
        known = self.outcomes.get(stratum)
        here, here_squared = (known.sums, known.squares) if known else ({}, {})
        all_, all_squared = self.sums, self.squares
        for name, total, squared in zip(measures, sums, squares, strict=True):
            here[name] = here.get(name, 0) + total
            all_[name] = all_.get(name, 0) + total
            here_squared[name] = here_squared.get(name, 0) + squared
            all_squared[name] = all_squared.get(name, 0) + squared
        n = count + (known.n if known else 0)
        self.outcomes[stratum] = Outcomes(n=n, sums=here, squares=here_squared)


class Deltas:
    """Deltas by place, until they are reported."""

    def __init__(self) -> None:
        self._deltas: dict[Place, Delta] = {}
        self._changed = False
        self._written = False

    def at(self, place: Place) -> Delta:
        """The delta of a place, to be added to."""
        self._changed = True
        delta = self._deltas.get(place)
        if delta is None:
            delta = self._deltas[place] = Delta()
        return delta

    def all_at(self, places: Sequence[Place]) -> list[Delta]:
        """The deltas of places, each to be added to."""
        self._changed = True
        found: list[Any] = list(map(self._deltas.get, places))
        for i, delta in enumerate(found):
            if delta is None:
                found[i] = self.at(places[i])
        return found

    def take(self, partition: int) -> list[SummaryComputed]:
        """All deltas, in order of their places, names in order too; none are left."""
        return self.tell(partition, list(self._deltas), {}, {})

    def tell(
        self, partition: int, due: Sequence[Place], before: Offsets, now: Offsets
    ) -> list[SummaryComputed]:
        """Deltas of these places, in their order, names in order too. The others wait.

        Args:
            before: ranges of all that had been applied when the last ones were told.
            now: the same, until now.
        """
        told = [
            SummaryComputed(
                **place._asdict(), **_ordered(self._deltas.pop(place), now), partition=partition
            )
            for place in sorted(due)
        ]
        ends = {place: end for place, (_, end) in before.items()}
        for delta in self._deltas.values():
            if delta.since is None:
                delta.since = ends
                self._changed = True
        self._changed |= bool(told)
        return told

    @property
    def places(self) -> Mapping[Place, Delta]:
        """What is to be told of."""
        return self._deltas

    def changes(self, *, complete: bool) -> Parts:
        """The part `deltas`, if it differs from the last call."""
        if not self._changed and not (complete and self._deltas):
            return {}
        self._changed = False
        if self._deltas:
            self._written = True
            return {
                PART: msgspec.msgpack.encode(sorted(self._deltas.items()), order="deterministic")
            }
        written, self._written = self._written, False
        return {PART: None} if written else {}

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Take over the part that `changes` wrote; others are left alone."""
        if PART in parts:
            self._deltas = dict(_CODEC.decode(parts[PART]))
            self._written = True


_CODEC = msgspec.msgpack.Decoder(list[tuple[Place, Delta]])
_COUNTS: Final = tuple(name for name in Delta.__struct_fields__ if name not in ("latest", "since"))


def _ordered(delta: Delta, now: Offsets) -> dict[str, Any]:
    """Fields of a delta; in what order names came depends on how events were cut into batches.

    One that did not wait leaves its offsets to the report that it is part of.
    """
    fields = {name: value for name in _COUNTS if (value := getattr(delta, name))}
    found = {name: _sorted(v) if type(v) is dict else v for name, v in fields.items()}
    if delta.latest is not None:
        found["latest"] = delta.latest
    if delta.since is not None:
        found["offsets"] = after(now, delta.since)
    return found


def _sorted(value: dict[str, Any]) -> dict[str, Any]:
    names = sorted(value)
    found = dict(zip(names, map(value.__getitem__, names), strict=True))
    if names and type(found[names[0]]) is dict:  # then all are
        return {name: _sorted(inner) for name, inner in found.items()}
    return found


def add_named(into: dict[str, int], name: str, count: int) -> None:
    """Add a count under a name; nothing where it is 0."""
    if count:
        into[name] = into.get(name, 0) + count


def add_pairs(into: dict[str, Pairs], version: str, more: Pairs) -> None:
    """Add outcomes against a shadow version."""
    into[version] = added_pairs(into[version], more) if version in into else more
