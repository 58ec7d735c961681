"""History held against predictions."""

from __future__ import annotations

import json
import random
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from consumers import loop
from consumers.places import Place, Span
from consumers.proving import SHOWN, SKEW_MS, Made, predictions, prove
from consumers.relay import lifecycle
from models.registry import Registry
from models.state import Entry, LiveState
from stream.core.processor import Batch, Context, CoreSettings, Record
from stream.core.scoring import ScoreProcessor
from stream.envelope import write
from stream.events import PredictionMade
from tests.commands import registry_here, run, settle_in
from tests.fleets import CHURN as FLEET
from tests.fleets import GOOD_FEATURES, FakeLive
from tests.registries import Clock, register
from tests.test_dataset import FakeLog

CORE = CoreSettings()


def entry(generation: int, champion: int | None, changed_ms: int) -> Entry:
    return Entry(
        model="churn",
        generation=generation,
        action="promote",
        champion=champion,
        challengers=[],
        previous=None,
        probation=False,
        pinned=False,
        spec_revision=1,
        changed_ms=changed_ms,
    )


#: Version 1 from 10 s on, version 2 from 100 s; generation 3 changed something else.
HISTORY = [entry(1, None, 0), entry(2, 1, 10_000), entry(3, 1, 50_000), entry(4, 2, 100_000)]


def made(stamp_ms: int, generation: int, version: int, partition: int = 0) -> Made:
    return Made(Place(partition, stamp_ms), stamp_ms, generation, version)


def test_what_agrees_is_counted_by_generation() -> None:
    told = [made(20_000, 2, 1), made(60_000, 3, 1), made(99_000, 3, 1), made(101_000, 4, 2)]
    proof = prove(HISTORY, told)

    assert proof.contradictions == 0
    assert [(one.generation, one.version, one.predictions) for one in proof.served] == [
        (2, 1, 1),
        (3, 1, 2),
        (4, 2, 1),
    ]
    assert (proof.served[1].first_ms, proof.served[1].last_ms) == (60_000, 99_000)
    assert proof.behind_ms == 0


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (made(120_000, 4, 1), "version 1 in generation 4, whose champion is 2"),
        (made(120_000, 9, 2), "generation 9 is in no history"),
        (made(5_000, 1, 1), "whose champion is None"),
        (made(100_000 - SKEW_MS - 1, 4, 2), "generation 4 2001 ms before it was made"),
    ],
)
def test_what_cannot_be_is_a_contradiction(wrong: Made, why: str) -> None:
    proof = prove(HISTORY, [wrong])

    assert proof.contradictions == 1
    assert why in proof.examples[0]


def test_clocks_may_differ_a_little_and_replayed_stamps_say_nothing() -> None:
    early = made(100_000 - SKEW_MS, 4, 2)
    dated = made(1, 4, 2)

    assert prove(HISTORY, [early]).contradictions == 0
    assert prove(HISTORY, [dated]).contradictions == 1
    assert prove(HISTORY, [dated], dated=False).contradictions == 0


def test_a_partition_that_goes_back_is_a_contradiction_and_two_partitions_are_not() -> None:
    back = [made(101_000, 4, 2), made(102_000, 3, 1)]
    beside = [made(101_000, 4, 2), made(102_000, 3, 1, partition=1)]

    assert "generation 3 after 4" in prove(HISTORY, back).examples[0]
    assert prove(HISTORY, beside).contradictions == 0


def test_how_long_a_version_served_after_its_time_is_told() -> None:
    """A worker needs a moment to load; one that cannot load serves on with the old version."""
    proof = prove(HISTORY, [made(70_000, 2, 1), made(103_500, 3, 1), made(104_000, 4, 2, 1)])

    assert [one.behind_ms for one in proof.served] == [0, 3_500, 0]
    assert proof.behind_ms == 3_500
    assert prove(HISTORY, [made(103_500, 3, 1)], dated=False).behind_ms == 0


def test_predictions_made_elsewhere_prove_nothing() -> None:
    proof = prove(HISTORY, [made(20_000, 0, 7)] * 3)

    assert (proof.elsewhere, proof.contradictions, proof.served) == (3, 0, [])


def test_a_canary_serves_beside_the_champion_in_its_generation_only() -> None:
    entries = [replace(one, canary=3) if one.generation == 2 else one for one in HISTORY]
    told = [made(20_000, 2, 3), made(20_001, 2, 1)]
    proof = prove(entries, told)
    assert proof.contradictions == 0
    assert [(one.version, one.predictions) for one in proof.served] == [(1, 2)]
    assert prove(HISTORY, told).contradictions == 1


def test_only_the_first_contradictions_are_told_one_by_one() -> None:
    proof = prove(HISTORY, [made(20_000, 9, 1)] * 100)

    assert (proof.contradictions, len(proof.examples)) == (100, SHOWN)


class StampedLog(FakeLog):
    """What `RangeReader` is to the command: one prediction a second."""

    def __enter__(self) -> StampedLog:
        return self

    def __exit__(self, *_: object) -> None: ...

    def since(self, entity: str, time_ms: int) -> list[Span]:
        return [Span(0, 2, 3)]

    def tell(self, stamp_ms: int, generation: int, version: int, model: str = "churn") -> None:
        prediction = PredictionMade(
            prediction_id="p",
            model=model,
            version=version,
            output=0.5,
            features={},
            generation=generation,
        )
        value = write("driftline.prediction.made.v1", prediction, id="e", source="test", time_ms=1)
        records = self.records["predictions"]
        records.append(Record(len(records), stamp_ms, b"k", value))


def test_only_a_model_s_own_predictions_are_read() -> None:
    log = StampedLog()
    log.tell(1, 2, 1)
    log.tell(2, 2, 1, "other")
    log.add("predictions", b"no json")

    found = list(predictions(log, "churn", log.bounds("predictions"), 10_000))
    assert found == [made(1, 2, 1)._replace(place=Place(0, 0))]


def test_the_command_tells_what_agrees_and_exits_3_where_something_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle_in(tmp_path, monkeypatch)
    log = StampedLog()
    monkeypatch.setattr(loop, "RangeReader", lambda _: log)
    with registry_here() as registry:
        state = registry.live("churn")
        assert state is not None
        log.tell(state.changed_ms, 9, 1)
        log.tell(state.changed_ms, 9, 1)
        log.tell(state.changed_ms + 5, state.generation, 1)

    agreed = run("models", "history", "churn", "--prove", "--since", "2020-01-01")
    assert (agreed.exit_code, "1 predictions agree" in agreed.stderr) == (0, True)
    found = run("models", "history", "churn", "--prove", "--json")
    assert found.exit_code == 3
    assert json.loads(found.stdout)["contradictions"] == 3
    assert "contradiction: partition 0 offset 0: generation 9 is in no history" in found.stderr


def test_what_goes_live_while_the_command_begins_is_no_contradiction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle_in(tmp_path, monkeypatch)
    with registry_here() as registry:

        def opened(_: object) -> StampedLog:
            registry.pin("churn", who="ada")
            state = registry.live("churn")
            assert state is not None
            log = StampedLog()
            log.tell(state.changed_ms + 5, state.generation, 1)
            return log

        monkeypatch.setattr(loop, "RangeReader", opened)
        agreed = run("models", "history", "churn", "--prove")
    assert (agreed.exit_code, "1 predictions agree" in agreed.stderr) == (0, True), agreed.stderr


class Worker:
    """The score stage of one partition, which hears of what is live a while after it changed."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.made: list[Made] = []
        self.state: LiveState | None = None
        self._stage = ScoreProcessor(Context(partition, {"requests": 2, "predictions": 2}, CORE))

    def score(self, now_ms: int) -> None:
        assert self.state is not None
        live = FakeLive(FLEET)
        live.lifecycle = lifecycle(self.state)
        request = {"prediction_id": f"p{now_ms}", "model": "churn", "features": GOOD_FEATURES}
        value = msgspec.json.encode(request)
        record = Record(len(self.made), now_ms, b"k", value)
        [output] = self._stage.apply(Batch("requests", self.partition, [record]), {"churn": live})
        [told] = predictions(
            Topic(Record(0, now_ms, output.key, output.value)), "churn", [Span(0, 0, 1)], 10_000
        )
        self.made.append(told._replace(place=Place(self.partition, len(self.made))))


class Topic(FakeLog):
    """One prediction as it lies in its topic."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.records["predictions"].append(record)


@pytest.mark.parametrize("seed", range(5))
def test_what_the_registry_says_was_live_is_what_the_score_stage_said_with(
    tmp_path: Path, seed: int
) -> None:
    """Any changes, at any time, heard of late: `live_at` names the version of each prediction."""
    dice, clock, lag_ms = random.Random(seed), Clock(), 700
    workers = [Worker(0), Worker(1)]
    with Registry(f"sqlite:///{tmp_path}/r.db", clock=clock) as registry:
        registry.upgrade()
        registry.add_model(FLEET)
        for _ in range(4):
            register(registry)
        registry.promote("churn", 1)
        heard = [(clock.ms, registry.live("churn"))]
        for _ in range(300):
            clock.ms += dice.randrange(1, 400)
            if dice.random() < 0.3:
                action = dice.choice(["promote", "promote", "challenge", "reject", "rollback"])
                version = dice.choice([None, 1, 2, 3, 4])
                getattr(registry, action)("churn", version, who="test")
                heard.append((clock.ms + dice.randrange(lag_ms), registry.live("churn")))
            worker = dice.choice(workers)
            news = [state for at_ms, state in heard if at_ms <= clock.ms and state is not None]
            worker.state = max([*filter(None, [worker.state]), *news], key=lambda s: s.generation)
            worker.score(clock.ms)
        entries = registry.history("churn")
        made = [one for worker in workers for one in worker.made]
        proof = prove(entries, made)

        assert (proof.contradictions, len(made)) == (0, 300)
        assert len({one.version for one in made}) > 1
        assert 0 < proof.behind_ms <= lag_ms
        for one in made:
            moments = [one.stamp_ms, one.stamp_ms - lag_ms]
            moments += [e.changed_ms for e in entries if moments[1] < e.changed_ms <= moments[0]]
            states = [registry.live_at("churn", at_ms) for at_ms in moments]
            assert one.version in [state.champion for state in states if state is not None]
        shifted = [replace(entry, champion=1) for entry in entries]
        assert prove(shifted, made).contradictions > 0
