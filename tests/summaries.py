"""A fake monitor and a fake trainer: summaries of a made-up model, and lifecycle that obeys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.facets import Facet, Slices
from models.profile import Estimator, ReferenceProfile, SignalProfile, Validation
from models.spec import Feature, Labels, ModelSpec, Policy, Ticks, Trial, Window
from stream.core.evaluate import EvaluateProcessor
from stream.core.lateness import lateness_bin
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Output, Record
from stream.core.ticks import Tick, added, added_outcomes
from stream.envelope import open_record, read, write
from stream.events import (
    EVENT_TYPES,
    LOSS_BINS,
    MICRO,
    Alert,
    Command,
    LifecycleChanged,
    Outcomes,
    Pairs,
    ProgressReported,
    SummaryComputed,
    VersionCard,
)

DAY_MS = 86_400_000
BAD, GOOD = 15, 1  # bins of the bounded loss that a bad and a good prediction fall in
EVENTS = {struct: kind for kind, (struct, _) in EVENT_TYPES.items()}

SPEC = ModelSpec(
    name="bikes",
    task="binary",
    classes=("quiet", "busy"),
    features=(Feature(name="x"), Feature(name="c", type="categorical")),
    windows=(Window(seconds=7 * 86_400), Window(labels=200)),
    labels=Labels(horizon_seconds=2 * 86_400, correction_horizon_seconds=86_400),
    ticks=Ticks(seconds=86_400, minimum_events=24),
    trial=Trial(
        minimum_pairs=100, maximum_pairs=2000, cycle_seconds=7 * 86_400, probation_pairs=1000
    ),
    policy=Policy(cooldown_seconds=14 * 86_400, rollback_cooloff_seconds=7 * 86_400),
)


def estimator(rows: int = 1000) -> Estimator:
    """One that knows two kinds of predictions: nearly sure, and as often wrong as right."""
    correct = (round(0.98 * rows), round(0.5 * rows))
    losses = [round(rows * _loss(False)) + _loss(True) * (rows - right) for right in correct]
    return Estimator(
        points={"x": (0,) * 13},
        stratum_points=(0, 0),
        cuts=(0,),
        rare={"x": (0, 11)},
        counts=(rows, rows, 0),
        sums={
            "correct": tuple(n * MICRO for n in correct),
            "loss": tuple(round(total * MICRO) for total in losses),
        },
        squares={
            "correct": tuple(n * MICRO for n in correct),
            "loss": tuple(round(total * MICRO) for total in losses),
        },
    )


def profile(bad: float = 0.05, rows: int = 2000) -> ReferenceProfile:
    """A version that validated with this share of bad predictions."""
    bins = [0] * LOSS_BINS
    bins[BAD], bins[GOOD] = round(rows * bad), rows - round(rows * bad)
    tenth = rows // 10
    return ReferenceProfile(
        model="bikes",
        rows=rows,
        signals=(
            SignalProfile(
                name="x",
                kind="numeric",
                edges=tuple(map(float, range(11))),
                counts=(0, *[tenth] * 10, 0, 0),
            ),
            SignalProfile(
                name="c",
                kind="categorical",
                categories=("a", "b"),
                counts=(rows // 2, rows // 2, 0, 0),
            ),
            SignalProfile(
                name="prediction",
                kind="numeric",
                edges=(0.0, 0.5, 1.0),
                counts=(0, rows // 2, rows // 2, 0, 0),
            ),
        ),
        validation=Validation(
            n=rows, loss_bins=tuple(bins), loss_scale=4.0, metrics={"correct": 1 - bad}
        ),
        estimator=estimator(rows // 2),
        slices=_slices(rows, bad),
    )


def _slices(rows: int, bad: float) -> Slices:
    """Both values of c did alike."""
    lost = [rows / 2 * (bad * _loss(True) ** k + (1 - bad) * _loss(False) ** k) for k in (1, 2)]
    sums, squares = ((round(MICRO * x), round(MICRO * x), 0) for x in lost)
    facets = (Facet(feature="c", values=("a", "b")),)
    return Slices(facets=facets, n=(rows // 2, rows // 2, 0), sums=sums, squares=squares)


class Live:
    """A model as a worker holds it; every version validated alike."""

    def __init__(self, lifecycle: LifecycleChanged, known: ReferenceProfile | None = None) -> None:
        self.lifecycle = lifecycle
        self._profile = known or profile()

    def predict(self, version: int, rows: object) -> NDArray[np.float64]:
        raise NotImplementedError

    def profile(self, version: int) -> ReferenceProfile | None:
        return self._profile


class Trainer:
    """The registry side: does what commands say, at once, and counts generations."""

    def __init__(self, spec: ModelSpec = SPEC) -> None:
        self.lifecycle = LifecycleChanged(
            model=spec.name, generation=1, spec=spec, spec_revision=1, champion=1, changed_ms=0
        )
        self.newest = 1

    @property
    def fleet(self) -> Fleet:
        return {self.lifecycle.model: Live(self.lifecycle)}

    def change(self, **fields: Any) -> None:
        cards = [
            VersionCard(
                version=v,
                artefact_url="",
                artefact_digest="",
                profile_url="",
                profile_digest=f"digest {v}",
            )
            for v in range(1, self.newest + 1)
        ]
        self.lifecycle = msgspec.structs.replace(
            self.lifecycle, generation=self.lifecycle.generation + 1, versions=cards, **fields
        )

    def challenge(self) -> int:
        self.newest += 1
        self.change(challengers=[*self.lifecycle.challengers, self.newest])
        return self.newest

    def promote(self, version: int) -> None:
        rest = [v for v in self.lifecycle.challengers if v != version]
        old = self.lifecycle.champion
        self.change(champion=version, previous=old, probation=True, challengers=rest, canary=None)

    def obey(self, command: Command) -> None:
        if command.generation != self.lifecycle.generation:
            return
        match command.kind:
            case "retrain":
                self.challenge()
            case "canary":
                self.change(canary=command.version)
            case "promote":
                assert command.version is not None
                self.promote(command.version)
            case "reject":
                rest = [v for v in self.lifecycle.challengers if v != command.version]
                canary = self.lifecycle.canary
                self.change(challengers=rest, canary=None if canary == command.version else canary)
            case "rollback":
                self.change(champion=command.version, previous=None, probation=False)
            case "settle":
                self.change(previous=None, probation=False)


class Monitor:
    """Makes each partition's log of summaries and progress, from draws of a seeded generator."""

    def __init__(self, partitions: int = 2, seed: int = 7) -> None:
        self.partitions = partitions
        self.logs: list[list[msgspec.Struct]] = [[] for _ in range(partitions)]
        self._draw = np.random.default_rng(seed)
        self._strata = np.random.default_rng(seed)  # apart, so that it changes no other draw
        self._place = np.random.default_rng(
            seed
        )  # apart, so that more partitions see the same events
        self._open: dict[tuple[int, int, int], SummaryComputed] = {}
        self._later: list[tuple[int, int, int, int, dict[str, Any]]] = []

    def day(
        self,
        tick: int,
        version: int,
        *,
        n: int = 24,
        bad: float = 0.05,
        shadows: Mapping[int, float] | None = None,
        shift: int = 0,
        missing: float = 0.0,
        unsure: float = 0.05,
        outside: float = 0.0,
        labelled: bool = True,
        label_tick: int | None = None,
        refused: int = 0,
    ) -> None:
        """One tick of traffic; `bad` is the share of bad predictions, `shadows` have theirs.

        `unsure` is the share of predictions that the estimator expects to be no better than chance,
        `outside` that of predictions with values that the reference did not have.

        Args:
            refused: dead letters beside the `n` predictions.
        """
        for _ in range(refused):
            counters = {"refused:predictions:bad-features": 1}
            self._add(int(self._place.integers(self.partitions)), version, tick, counters=counters)
        for _ in range(n):
            partition = int(self._place.integers(self.partitions))
            predicted = int(self._strata.integers(2))
            self._add(
                partition,
                version,
                tick,
                predictions=1,
                signals=self._signals(shift, missing),
                predicted={str(predicted): 1},
                estimates=self._estimates(unsure, outside),
            )
            if labelled:
                is_bad = bool(self._draw.random() < bad)
                pairs = {str(v): self._pair(is_bad, its) for v, its in (shadows or {}).items()}
                stratum = f"{predicted}/{predicted ^ is_bad}"
                self._label(partition, version, tick, label_tick or tick, stratum, pairs)
        self._flush()

    def _label(
        self,
        partition: int,
        version: int,
        tick: int,
        label_tick: int,
        stratum: str,
        pairs: dict[str, Pairs],
    ) -> None:
        """A label: sums go to its prediction's tick, bets and pairs to that in which it comes."""
        is_bad = stratum[0] != stratum[-1]
        sums, squares = _sums(is_bad)
        late = int(lateness_bin(np.array([(label_tick - tick) * DAY_MS]))[0])
        bets = _one(LOSS_BINS, BAD if is_bad else GOOD)
        cell, loss = (
            str((tick + is_bad) % 2),
            _loss(is_bad),
        )  # all that is bad today is of one value
        lost = (1, round(MICRO * loss), round(MICRO * loss**2))
        parts: list[tuple[int, dict[str, Any]]] = [
            (
                tick,
                {
                    "labelled": 1,
                    "sums": sums,
                    "squares": squares,
                    "outcomes": {stratum: Outcomes(n=1, sums=sums, squares=squares)},
                    "arrivals": {stratum: {str(late): 1}},
                    "latest": label_tick,
                },
            ),
            (label_tick, {"bets": bets, "slices": {cell: lost}, "pairs": pairs}),
        ]
        if label_tick > tick:
            self._later += [(label_tick, partition, version, *part) for part in parts]
        else:
            for at, fields in parts:
                self._add(partition, version, at, **fields)

    def _estimates(self, unsure: float, outside: float) -> list[int]:
        is_unsure, is_outside = self._strata.random(2) < (unsure, outside)
        return [int(not is_unsure), int(is_unsure), int(is_outside)]

    def _signals(self, shift: int, missing: float) -> dict[str, list[int]]:
        draw = self._draw
        x = min(11, 1 + int(draw.integers(10)) + shift)
        return {
            "x": _one(13, 12 if draw.random() < missing else x),
            "c": _one(4, int(draw.integers(2))),
            "prediction": _one(5, 1 + int(draw.integers(2))),
        }

    def _pair(self, is_bad: bool, others_bad: float) -> Pairs:
        loss = _loss(is_bad)
        other = _loss(bool(self._draw.random() < others_bad))
        return Pairs(
            n=1,
            d_sum=round((loss - other) * MICRO),
            d_squares=round((loss - other) ** 2 * MICRO),
            losses=round(4 * loss * MICRO),
            shadow_losses=round(4 * other * MICRO),
        )

    def _add(self, partition: int, version: int, tick: int, **fields: Any) -> None:
        """Collect a delta; a few make one summary."""
        delta = SummaryComputed(
            model="bikes", version=version, tick=tick, partition=partition, **fields
        )
        at = (partition, version, tick)
        self._open[at] = _merged(self._open[at], delta) if at in self._open else delta
        if self._place.random() < 0.1:
            self._flush()

    def _flush(self) -> None:
        for (partition, _, _), delta in self._open.items():
            self.logs[partition].append(delta)
        self._open.clear()

    def progress(self, tick: int, *, only: int | None = None) -> None:
        """Every partition has passed the beginning of a tick; labels due before it have come."""
        for label_tick, partition, version, at, fields in self._later:
            if label_tick < tick:
                self._add(partition, version, at, **fields)
        self._later = [label for label in self._later if label[0] >= tick]
        self._flush()
        for partition, log in enumerate(self.logs):
            if only in (None, partition):
                log.append(
                    ProgressReported(
                        partition=partition,
                        partitions=self.partitions,
                        sequence=len(log),
                        watermark_ms=tick * DAY_MS,
                        clock_ms=tick * DAY_MS,
                        caught_up=True,
                    )
                )

    def drain(self) -> list[msgspec.Struct]:
        """All logs, one after the other, and forget them."""
        events = [event for log in self.logs for event in log]
        for log in self.logs:
            log.clear()
        return events


def processor() -> EvaluateProcessor:
    return EvaluateProcessor(Context(0, {"summaries": 4}, CoreSettings()))


def batch(events: Iterable[msgspec.Struct]) -> Batch:
    return Batch("summaries", 0, [record(event) for event in events])


def record(event: msgspec.Struct) -> Record:
    kind = EVENTS[type(event)]
    return Record(0, 0, b"bikes", write(kind, event, id="1", source="test", time_ms=0))


def facts(outputs: Iterable[Output]) -> list[Any]:
    """The events in outputs."""
    found = []
    for output in outputs:
        opened = open_record(output.entity, Record(0, 0, output.key, output.value), max_bytes=10**9)
        found.append(read(opened, EVENT_TYPES[opened.type][0]))
    return found


def verdicts(outputs: Iterable[Output]) -> list[Alert | Command]:
    return [fact for fact in facts(outputs) if isinstance(fact, (Alert, Command))]


def _loss(is_bad: bool) -> float:
    return (BAD if is_bad else GOOD) / (LOSS_BINS - 1)


def _sums(is_bad: bool) -> tuple[dict[str, int], dict[str, int]]:
    log_loss = 4 * _loss(is_bad)
    correct = MICRO * (not is_bad)
    return (
        {"correct": correct, "log_loss": round(log_loss * MICRO)},
        {"correct": correct, "log_loss": round(log_loss**2 * MICRO)},
    )


def _merged(one: SummaryComputed, other: SummaryComputed) -> SummaryComputed:
    tick = Tick()
    tick.add(one)
    tick.add(other)
    return msgspec.structs.replace(
        one,
        predictions=tick.predictions,
        signals=tick.signals,
        bets=tick.bets,
        slices=tick.slices,
        pairs=tick.pairs,
        labelled=one.labelled + other.labelled,
        counters=_added(one.counters, other.counters),
        sums=_added(one.sums, other.sums),
        squares=_added(one.squares, other.squares),
        predicted=_added(one.predicted, other.predicted),
        estimates=added(one.estimates, other.estimates),
        outcomes={
            name: added_outcomes(
                one.outcomes.get(name, Outcomes()), other.outcomes.get(name, Outcomes())
            )
            for name in {**one.outcomes, **other.outcomes}
        },
        arrivals={
            name: _added(one.arrivals.get(name, {}), other.arrivals.get(name, {}))
            for name in {**one.arrivals, **other.arrivals}
        },
        latest=max((t for t in (one.latest, other.latest) if t is not None), default=None),
    )


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in [*one, *other]}


def _one(bins: int, at: int) -> list[int]:
    counts = [0] * bins
    counts[at] = 1
    return counts
