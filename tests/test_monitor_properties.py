"""What the monitor must keep for any log: equal results and replays, ticks that stay closed.

R1: replaying the journal gives the same bytes. R2: neither the order in which the two topics are
read nor the number of partitions changes a sum, as long as events come within the allowed lateness.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from models import losses
from stream.core import batchjoin
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Fleet, Output, Record
from stream.events import ProgressReported
from tests.monitoring import (
    CORRECTION_MS,
    EARLY_MS,
    FLEET,
    HORIZON_MS,
    LATENESS_MS,
    SPEC,
    T0,
    TICK_MS,
    Live,
    Logs,
    Sent,
    examples_in,
    feedback,
    keep,
    logs_of,
    merged,
    monitor,
    prediction,
    progress_of,
    summaries_of,
)

SEEDS = st.integers(0, 2**32 - 1)
END_MS = T0 + 10**7


@pytest.fixture(autouse=True, scope="module")
def small_batches_are_joined_together() -> Iterator[None]:
    """As large ones are, from two events on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batchjoin, "FEW", 2)
        yield


def some_log(rng: random.Random, *, late: bool = False, version_two: bool = False) -> list[Sent]:
    """Predictions with shadows, labels early, twice, corrected, orphaned, too late or never."""
    sent: list[Sent] = []
    worst = 15_000 if late else LATENESS_MS

    def delay() -> int:
        return rng.choice((0, rng.randint(0, LATENESS_MS), rng.randint(0, worst)))

    for number in range(rng.randint(1, 14)):
        id_, at = f"id-{number}", rng.randint(0, 15_000)
        output, plan = rng.choice((0.1, 0.5, 0.93)), rng.choice("abc")
        more: dict[str, Any] = {"shadow": {"2": 0.3}} if rng.random() < 0.4 else {}
        if version_two and rng.random() < 0.5:
            more["version"] = 2
        for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 3))):
            said = output if rng.random() < 0.8 else 0.77
            sent.append(prediction(id_, at, output=said, plan=plan, delay=delay(), **more))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 5))):
            gap = rng.choice((rng.randint(-4_000, 3_000), rng.randint(0, HORIZON_MS + 6_000)))
            label = rng.choice(("yes", "no"))
            weight = {"weight": 2.5} if rng.random() < 0.1 else {}
            sent.append(feedback(id_, max(0, at + gap), label, delay=delay(), **weight))
    return sent


Call = tuple[str, Any]


def some_calls(rng: random.Random, logs: Logs, partition: int) -> Iterator[Call]:
    """Batches of both topics in some order, and clocks that tell the truth, until all is read."""
    places = {"predictions": 0, "feedback": 0}
    clock = T0
    while any(places[entity] < len(logs[entity, partition]) for entity in places):
        entity = rng.choice(list(places))
        log, start = logs[entity, partition], places[entity]
        piece = log[start : start + rng.randint(1, 5)]
        if piece:
            yield "apply", Batch(entity, partition, piece)
            places[entity] += len(piece)
            clock = max(clock, piece[-1].timestamp_ms)
        if rng.random() < 0.5:
            clock += rng.choice((0, 500, 2_000))
            waiting = [logs[e, partition][place:][:1] for e, place in places.items()]
            caught_up = all(record.timestamp_ms > clock for left in waiting for record in left)
            yield "advance", (clock, caught_up)
    yield "advance", (max(clock, END_MS), True)


def run(processor: MonitorProcessor, calls: Iterator[Call], fleet: Fleet = FLEET) -> list[Output]:
    outputs: list[Output] = []
    for call, what in calls:
        if call == "apply":
            outputs += processor.apply(what, fleet)
        else:
            clock_ms, caught_up = what
            outputs += processor.advance(clock_ms, caught_up, fleet)
    return outputs


def run_all(rng: random.Random, sent: list[Sent], partitions: int) -> list[Output]:
    logs = logs_of(sent, partitions)
    outputs = []
    for partition in range(partitions):
        processor = monitor(partition, partitions)
        outputs += run(processor, some_calls(rng, logs, partition))
    return outputs


def examples_of(outputs: list[Output]) -> list[tuple[Any, ...]]:
    """Examples without the place of the prediction, which the number of partitions decides."""
    return sorted(
        (
            *(one.prediction_id, one.revision, one.version, one.label, one.weight),
            *(one.predicted_ms, one.labelled_ms),
        )
        for one in examples_in(outputs)
    )


class Fold:
    """The rules of the join and of the sums, by hand: one id at a time, all its events known."""

    def __init__(self, sent: list[Sent]) -> None:
        self.counters: Counter[tuple[int, str]] = Counter()
        self.labelled: Counter[tuple[str, int]] = Counter()
        self.log_loss: Counter[tuple[str, int]] = Counter()
        self.bets: Counter[int] = Counter()
        self.pairs: Counter[int] = Counter()
        self.predictions: Counter[tuple[str, int]] = Counter()
        self.examples: list[tuple[Any, ...]] = []
        ordered = sorted(sent, key=lambda one: one.stamp_ms)
        for id_ in {one.id for one in sent}:
            mine = [one for one in ordered if one.id == id_]
            self._one(
                id_,
                [one for one in mine if one.entity == "predictions"],
                [one for one in mine if one.entity == "feedback"],
            )

    def _count(self, name: str, time_ms: int) -> None:
        self.counters[time_ms // TICK_MS, name] += 1

    def _one(self, id_: str, made: list[Sent], labels: list[Sent]) -> None:
        first = made[0] if made else None
        for other in made[1:]:
            same = first and other.data["output"] == first.data["output"]
            self._count("duplicates" if same else "conflicts", other.time_ms)
        if first:
            for segment in self._segments(first):
                self.predictions[segment, first.time_ms // TICK_MS] += 1
        arrived = before = None
        revision = 0
        for label in labels:
            gap = label.time_ms - first.time_ms if first else 0
            if first is None or gap < -EARLY_MS:
                self._count("orphans", label.time_ms + EARLY_MS)
            elif arrived is None and gap <= HORIZON_MS:
                arrived = max(first.time_ms, label.time_ms)
                before = label
                self._first(id_, first, label, arrived)
            elif before and arrived is not None and label.time_ms <= arrived + CORRECTION_MS:
                if _said(label) == _said(before):
                    self._count("duplicates", max(first.time_ms, label.time_ms))
                    continue
                self._count("corrections", max(first.time_ms, label.time_ms))
                revision += 1
                self._sum(first, before, -1)
                self._sum(first, label, 1)
                self._example(id_, revision, first, label)
                before = label
            else:
                self._count("orphans", label.time_ms + EARLY_MS)
        if first and arrived is None:
            self._count("expired", first.time_ms + HORIZON_MS)

    def _first(self, id_: str, made: Sent, label: Sent, arrived: int) -> None:
        self.bets[arrived // TICK_MS] += 1
        self.pairs[arrived // TICK_MS] += bool(made.data.get("shadow"))
        for segment in self._segments(made):
            self.labelled[segment, made.time_ms // TICK_MS] += 1
        self._sum(made, label, 1)
        self._example(id_, 0, made, label)

    def _sum(self, made: Sent, label: Sent, sign: int) -> None:
        outputs, labels = np.array([[made.data["output"]]]), np.array([_said(label)[0] == "yes"])
        loss = losses.losses(SPEC, outputs, labels.astype(float))[0]
        for segment in self._segments(made):
            self.log_loss[segment, made.time_ms // TICK_MS] += sign * round(float(loss) * 1e6)

    def _example(self, id_: str, revision: int, made: Sent, label: Sent) -> None:
        self.examples.append((id_, revision, 1, *_said(label), made.time_ms, label.time_ms))

    def _segments(self, made: Sent) -> tuple[str, str]:
        plan = made.data["features"]["plan"]
        return "", f"plan={plan if plan in 'ab' else '(other)'}"


def _said(label: Sent) -> tuple[str, float]:
    return label.data["label"], label.data.get("weight", 1)


@settings(max_examples=150)
@given(SEEDS)
def test_joins_and_sums_equal_a_naive_fold_of_the_whole_log(seed: int) -> None:
    rng = random.Random(seed)
    sent = some_log(rng)
    outputs = run_all(rng, sent, 1)
    fold, totals = Fold(sent), merged(summaries_of(outputs))
    found = {
        name: Counter({(p[2], p[3]): t[name] for p, t in totals.items() if name in t})
        for name in ("predictions", "labelled")
    }
    assert examples_of(outputs) == sorted(fold.examples)
    assert found["predictions"] == fold.predictions
    assert found["labelled"] == fold.labelled
    whole = {place[3]: total for place, total in totals.items() if place[2] == ""}
    counters = {(k, n): c for k, t in whole.items() for n, c in t.get("counters", {}).items()}
    assert counters == fold.counters
    assert {k: sum(t["bets"]) for k, t in whole.items() if "bets" in t} == fold.bets
    assert {k: t["pairs"]["2"]["n"] for k, t in whole.items() if "pairs" in t} == +fold.pairs
    log_loss = {(p[2], p[3]): t.get("sums", {}).get("log_loss", 0) for p, t in totals.items()}
    assert {k: v for k, v in log_loss.items() if v} == {k: v for k, v in fold.log_loss.items() if v}


@settings(max_examples=150)
@given(SEEDS, st.integers(1, 8))
def test_r2_no_interleaving_and_no_partition_count_changes_a_sum(
    seed: int, partitions: int
) -> None:
    rng = random.Random(seed)
    sent = some_log(rng)
    one, other = run_all(rng, sent, 1), run_all(rng, sent, partitions)
    assert examples_of(other) == examples_of(one)
    assert merged(summaries_of(other)) == merged(summaries_of(one))


@settings(max_examples=150)
@given(SEEDS, st.booleans())
def test_a_closed_tick_stays_closed(seed: int, late: bool) -> None:
    """Bets, pairs, delays and counters never fall in a tick that the watermark has passed, however
    late events are; predictions do only if they are late themselves."""
    rng = random.Random(seed)
    logs = logs_of(some_log(rng, late=late), 1)
    processor, watermark = monitor(), 0
    for call in some_calls(rng, logs, 0):
        outputs = run(processor, iter([call]))
        for delta in summaries_of(outputs):
            if (delta.tick + 1) * TICK_MS <= watermark:
                assert not any([delta.bets, delta.pairs, delta.delays, delta.counters])
                assert late or not delta.predictions
        watermark = max([watermark, *(report.watermark_ms for report in progress_of(outputs))])
    assert watermark > T0


@settings(max_examples=100)
@given(SEEDS)
def test_late_events_change_nothing_of_what_is_counted_by_arrival_but_its_tick(seed: int) -> None:
    """Every label is bet on once, whatever the interleaving, also if it comes late."""
    rng = random.Random(seed)
    outputs = run_all(rng, some_log(rng, late=True), 1)
    bets = sum(sum(one.bets) for one in summaries_of(outputs) if not one.segment)
    assert bets == sum(one.revision == 0 for one in examples_in(outputs))


class World:
    """A log whose second model version becomes known in the middle, and crashes on the way."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.logs = logs_of(some_log(rng, late=True, version_two=True), 1)
        self.fleets: list[Fleet] = [FLEET, {"churn": Live(generation=2, versions=(1, 2))}]
        self.change = rng.randint(0, 12)  # the call from which the second fleet is there

    def first_run(self) -> tuple[list[Output], MonitorProcessor]:
        outputs: list[Output] = []
        processor, stored = monitor(), dict[str, bytes]()
        for number, (call, what) in enumerate(some_calls(self.rng, self.logs, 0)):
            fleet = self.fleets[number >= self.change]
            if call == "apply":
                outputs += processor.apply(what, fleet)
            else:
                clock_ms, caught_up = what
                outputs += processor.advance(clock_ms, caught_up, fleet)
            if self.rng.random() < 0.4:
                keep(stored, processor.changes(complete=self.rng.random() < 0.2))
                if self.rng.random() < 0.5:
                    processor = monitor()
                    processor.restore(stored)
        return outputs, processor

    def replay(self, reports: list[ProgressReported]) -> tuple[list[Output], MonitorProcessor]:
        """Nothing but the journal and the log decides."""
        outputs: list[Output] = []
        processor, fleet = monitor(), self.fleets[0]
        for report in reports:
            for applied in report.applied:
                if applied.generations:
                    fleet = self.fleets[applied.generations["churn"] - 1]
                for batch in self._batches(applied.entity, applied.first, applied.end):
                    outputs += processor.apply(batch, fleet)
            outputs += processor.advance(report.clock_ms, report.caught_up, fleet)
        return outputs, processor

    def _batches(self, entity: str, first: int, end: int) -> list[Batch]:
        if not entity:
            return []
        records: list[Record] = self.logs[entity, 0][first:end]
        cut = self.rng.randint(0, len(records))
        return [Batch(entity, 0, piece) for piece in (records[:cut], records[cut:]) if piece]


@settings(max_examples=200)
@given(SEEDS)
def test_r1_replaying_the_journal_gives_the_same_bytes(seed: int) -> None:
    """Also if the first run was restored at any point from whole checkpoints or from deltas."""
    world = World(random.Random(seed))
    outputs, processor = world.first_run()
    again, twin = world.replay(progress_of(outputs))
    assert Counter(examples_in(again)) == Counter(examples_in(outputs))
    for entity in ("summaries", "predictions.dlq", "feedback.dlq"):
        assert [o for o in again if o.entity == entity] == [
            o for o in outputs if o.entity == entity
        ]
    assert _whole(twin) == _whole(processor)


def _whole(processor: MonitorProcessor) -> dict[str, bytes]:
    stored: dict[str, bytes] = {}
    keep(stored, processor.changes(complete=True))
    return stored


@settings(max_examples=100)
@given(SEEDS)
def test_a_restored_processor_writes_the_same_deltas_as_one_that_went_on(seed: int) -> None:
    world = World(random.Random(seed))
    processor, twin, stored = monitor(), monitor(), dict[str, bytes]()
    for call in some_calls(world.rng, world.logs, 0):
        assert run(processor, iter([call])) == run(twin, iter([call]))
        if world.rng.random() < 0.5:
            complete = world.rng.random() < 0.2
            changed = processor.changes(complete=complete)
            assert twin.changes(complete=complete) == changed
            keep(stored, changed)
            twin = monitor()
            twin.restore(stored)
