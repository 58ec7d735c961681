"""A spec changes while events flow: monitor and evaluate say what an offline fold of the log says.

A partition is run as its keeper runs it: outputs, checkpoint and positions are one transaction.
What dies before it is delivered again, in other batches, by another clock, and with whatever
lifecycle has told meanwhile. Nobody knows of the new feature at the same moment, nor of the version
that learnt it; on a real broker: `tests/kafka/test_spec_change.py`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from hypothesis import given, settings
from msgspec.structs import replace

from models.profile import ReferenceProfile
from models.spec import Feature, ModelSpec
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Output, Record
from stream.core.replaying import Adoption, counted, judged
from stream.events import Alert, Applied, GenerationAdopted
from tests import summaries
from tests.monitoring import (
    SPEC,
    T0,
    Live,
    Sent,
    keep,
    logs_of,
    merged,
    monitor,
    progress_of,
    reference,
    summaries_of,
)
from tests.summaries import facts
from tests.test_monitor_properties import END_MS, SEEDS, examples_of, some_log

REVISED = replace(SPEC, features=(*SPEC.features, Feature(name="income", optional=True)))
BEFORE = reference()
LEARNT = reference(REVISED, income=True)


class Known(Live):
    """Versions with references of their own."""

    def __init__(self, spec: ModelSpec, generation: int, *profiles: ReferenceProfile) -> None:
        super().__init__(spec, generation=generation, known=BEFORE)
        self._profiles = dict(enumerate(profiles, start=1))


#: By generation: as it was; the feature is known; and a version that learnt it.
LIVES = {
    1: Known(SPEC, 1, BEFORE),
    2: Known(REVISED, 2, BEFORE),
    3: Known(REVISED, 3, BEFORE, LEARNT),
}
WAIT_MS = END_MS  # longer than anything here is not known yet


def revised_log(rng: random.Random) -> list[Sent]:
    """All that `some_log` has; some keys bring the feature, some are of the version that knows it.

    A key is one way or the other: what waits for a revision is behind what does not.
    """
    sent = some_log(rng)
    ids = sorted({one.id for one in sent})
    bring = {id_: round(rng.gauss(0, 1), 3) for id_ in ids if rng.random() < 0.5}
    newer = {id_ for id_ in ids if rng.random() < 0.3}
    return [_revised(one, bring.get(one.id), newer=one.id in newer) for one in sent]


def _revised(one: Sent, income: float | None, *, newer: bool) -> Sent:
    if one.entity != "predictions":
        return one
    features = one.data["features"] | ({} if income is None else {"income": income})
    more: dict[str, Any] = {"version": 2, "shadow": {}} if newer else {}
    return one._replace(data={**one.data, "features": features, **more})


class Committed(NamedTuple):
    """What is left of a keeper when its process dies."""

    parts: dict[str, bytes]
    positions: dict[str, int]
    generation: int


class Keeper:
    """One partition of monitor over one log, from its beginning to the end.

    Attributes:
        outputs: that were committed.
        waited: records that waited for a revision as something was committed, added up.
    """

    def __init__(self, rng: random.Random, logs: dict[str, list[Record]]) -> None:
        self.rng, self.logs = rng, logs
        self.outputs: list[Output] = []
        self._told: list[Output] = []  # since it last committed
        self.crashes, self.waited = 0, 0
        self.clock_ms, self.generation = T0, 1
        self._left = Committed({}, dict.fromkeys(logs, 0), 1)
        self._start()

    def run(self) -> None:
        while any(self.positions[entity] < len(log) for entity, log in self.logs.items()):
            if self.rng.random() < 0.15:
                self.generation = min(3, self.generation + 1)
            self._fetch(self.rng.choice(list(self.logs)))
            if self.rng.random() < 0.5:
                self._advance()
            if self.rng.random() < 0.4:
                self._commit()
            elif self.rng.random() < 0.2:
                self._crash()
        self.generation, self.clock_ms = 3, max(self.clock_ms, END_MS)
        self._told += self.processor.advance(self.clock_ms, True, self.fleet)
        self._commit()

    @property
    def fleet(self) -> Fleet:
        return {SPEC.name: LIVES[self.generation]}

    def _fetch(self, entity: str) -> None:
        start = self.positions[entity]
        piece = self.logs[entity][start : start + self.rng.randint(1, 5)]
        if piece:
            self._told += self.processor.apply(Batch(entity, 0, piece), self.fleet)
            self.positions[entity] += len(piece)
            self.clock_ms = max(self.clock_ms, piece[-1].timestamp_ms)

    def _advance(self) -> None:
        """By a clock that tells the truth of what lies ahead."""
        self.clock_ms += self.rng.choice((0, 500, 2_000))
        waiting = [log[self.positions[entity] :][:1] for entity, log in self.logs.items()]
        caught_up = all(one.timestamp_ms > self.clock_ms for left in waiting for one in left)
        self._told += self.processor.advance(self.clock_ms, caught_up, self.fleet)

    def _commit(self) -> None:
        self.waited += self.processor.gauges["parked"]
        parts = dict(self._left.parts)
        keep(parts, self.processor.changes(complete=self.rng.random() < 0.2))
        self._left = Committed(parts, dict(self.positions), self.generation)
        self.outputs += self._told
        self._told = []

    def _crash(self) -> None:
        """Another process takes over; it knows of lifecycle what the checkpoint does, or more."""
        self.crashes += 1
        self.generation = self.rng.randint(self._left.generation, self.generation)
        self._start()

    def _start(self) -> None:
        self.processor = new_monitor()
        self.processor.restore(self._left.parts)
        self.positions = dict(self._left.positions)
        self._told = []


def new_monitor() -> MonitorProcessor:
    return monitor(unknown_model_wait_ms=WAIT_MS)


def folded(outputs: Sequence[Output], logs: dict[str, list[Record]]) -> list[Output]:
    """What the product's own replay makes of the journal."""

    def fetch(run: Applied) -> list[Record]:
        return logs[run.entity][run.first : run.end]

    context = new_monitor()._context
    told = counted(context, progress_of(outputs), fetch, lambda _, number: LIVES[number], {})
    return [output for piece in told for output in piece]


def known_from_the_start(logs: dict[str, list[Record]]) -> list[Output]:
    """Everything at once, by the newest spec: nothing ever waits."""
    processor, fleet = new_monitor(), {SPEC.name: LIVES[3]}
    outputs = [
        output
        for entity, log in logs.items()
        for output in processor.apply(Batch(entity, 0, log), fleet)
        if log
    ]
    return outputs + processor.advance(END_MS, True, fleet)


@settings(max_examples=60)
@given(SEEDS)
def test_a_spec_that_changes_under_load_changes_no_byte_of_a_replay_and_no_count(seed: int) -> None:
    """The journal gives the very bytes again; and they say what one says who knew all at once."""
    rng = random.Random(seed)
    logs = {entity: log for (entity, _), log in logs_of(revised_log(rng), 1).items()}
    keeper = Keeper(rng, logs)
    keeper.run()
    again, straight = folded(keeper.outputs, logs), known_from_the_start(logs)
    was = [output for output in keeper.outputs if output.entity == "summaries"]
    assert [output for output in again if output.entity == "summaries"] == was
    assert examples_of(again) == examples_of(keeper.outputs)
    assert not [output for output in keeper.outputs if output.entity.endswith(".dlq")]
    assert examples_of(keeper.outputs) == examples_of(straight)
    assert merged(summaries_of(keeper.outputs)) == merged(summaries_of(straight))


def test_the_logs_above_make_keepers_crash_and_events_wait() -> None:
    """Otherwise the property might hold of calm alone."""
    crashes, waited, wider = 0, 0, 0
    for seed in range(12):
        rng = random.Random(seed)
        logs = {entity: log for (entity, _), log in logs_of(revised_log(rng), 1).items()}
        keeper = Keeper(rng, logs)
        keeper.run()
        crashes += keeper.crashes
        waited += keeper.waited
        wider += sum(bool(delta.signals.get("income")) for delta in summaries_of(keeper.outputs))
    assert min(crashes, waited, wider) > 5


# --- evaluate ------------------------------------------------------------------------------------

GAINED = replace(
    summaries.SPEC, features=(*summaries.SPEC.features, Feature(name="income", optional=True))
)


def evaluated(
    rng: random.Random, records: Sequence[Record], lives: dict[int, summaries.Live]
) -> list[Output]:
    """What evaluate commits of a log in which the spec changes at some moment, with crashes."""
    committed: list[Output] = []
    told: list[Output] = []
    parts: dict[str, bytes] = {}
    core, place, kept, generation = summaries.processor(), 0, (0, 1), 1
    revised_at = rng.randrange(len(records))
    while place < len(records):
        generation = max(generation, 2 if place >= revised_at else 1)
        fleet = {"bikes": lives[generation]}
        some = list(records[place : place + rng.randint(1, 40)])
        told += core.advance(0, False, fleet)
        told += core.apply(Batch("summaries", 0, some), fleet)
        place += len(some)
        if rng.random() < 0.5:
            keep(parts, core.changes(complete=rng.random() < 0.2))
            committed, told, kept = committed + told, [], (place, generation)
        elif rng.random() < 0.4:
            core, told, (place, generation) = summaries.processor(), [], kept
            core.restore(parts)
    return committed + told + core.advance(0, False, {"bikes": lives[2]})


@settings(max_examples=6)
@given(SEEDS)
def test_evaluate_says_again_what_it_said_of_a_log_in_which_the_spec_changed(seed: int) -> None:
    rng, source = random.Random(seed), summaries.Monitor(2, seed % 7)
    for day in range(30):
        source.day(day + 100, 1, bad=0.6 if day >= 12 else 0.05)
        source.progress(day + 101)
    records = [
        summaries.record(event)._replace(offset=3 * number)
        for number, event in enumerate(source.drain())
    ]
    trainer = summaries.Trainer()
    lives = {1: summaries.Live(trainer.lifecycle)}
    trainer.change(spec=GAINED)
    lives[2] = summaries.Live(trainer.lifecycle)

    was = evaluated(rng, records, lives)

    adoptions = [
        Adoption(fact.offset, fact.generation)
        for fact in facts(was)
        if isinstance(fact, GenerationAdopted)
    ]
    context = Context(0, {"summaries": 4}, CoreSettings())
    assert [one.generation for one in adoptions] == [1, 2]
    assert list(judged(context, "bikes", records, adoptions, lives, lambda _: None)) == was
    assert any(isinstance(fact, Alert) for fact in facts(was))
