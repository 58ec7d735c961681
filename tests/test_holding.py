"""Versions are loaded when their model is first asked for, or ahead of a swap; few are held."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

import msgspec
import pytest

from stream import holding
from stream.core.processor import Batch, Context, CoreSettings, Record
from stream.core.scoring import ScoreProcessor
from stream.loading import Live
from tests.patience import PATIENCE_SECONDS
from tests.test_lifecycle import Follower

MANY = 100
NAMES = [f"model-{number}" for number in range(6)]


class Started(Follower):
    """A worker of score that was told of its models as it started."""

    def __init__(self, *names: str, keep: int = MANY) -> None:
        super().__init__(keep=keep)
        self.take(*(self.state(1, 1, model=name) for name in names))
        self.lifecycle._ready.set()

    def ask(self, model: str = "churn") -> Live | None:
        live = self.lifecycle.fleet.get(model)
        assert live is None or isinstance(live, Live)
        return live

    @property
    def loaded(self) -> set[str]:
        return {name for name, held in self.lifecycle._held.items() if held.versions}


def request(offset: int, model: str = "churn") -> Record:
    body = {"model": model, "prediction_id": f"id-{offset}", "features": {"age": 1.0}}
    return Record(offset, 1_000, f"id-{offset}".encode(), msgspec.json.encode(body))


def score() -> ScoreProcessor:
    return ScoreProcessor(Context(0, {"requests": 1, "predictions": 1}, CoreSettings()))


def values(follower: Started, processor: ScoreProcessor, *records: Record) -> list[str]:
    """Where each output of these records went."""
    outputs = processor.apply(Batch("requests", 0, records), follower.lifecycle.fleet)
    return [output.entity for output in outputs]


def test_at_the_start_nothing_is_loaded_and_all_is_known() -> None:
    """A fleet of many models costs what is asked of it; a restore needs their generations alone."""
    started = Started(*NAMES)

    assert started.shelf.fetched == []
    assert len(started.lifecycle.fleet) == len(NAMES)
    assert started.lifecycle.reached(dict.fromkeys(NAMES, 1))
    assert started.lifecycle.generations == dict.fromkeys(NAMES, 1)
    assert started.shelf.fetched == []


def test_the_first_record_of_a_model_is_answered_by_its_versions_loaded_then() -> None:
    started, processor = Started(*NAMES), score()

    assert values(started, processor, request(0, "model-3")) == ["predictions"]
    assert values(started, processor, request(1, "model-3")) == ["predictions"]
    assert started.shelf.fetched == ["file:v1"]
    assert started.loaded == {"model-3"}


@pytest.mark.parametrize(("stage", "is_there"), [("score", True), ("monitor", False)])
def test_scikit_learn_is_there_before_the_first_record(stage: str, *, is_there: bool) -> None:
    """It takes seconds; and who predicts nothing does without."""
    code = (
        "import sys; from stream import app, settings; "
        f"app.factory({stage!r}, settings.load()); "
        "print('sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(is_there)


def test_partitions_that_ask_at_once_load_once() -> None:
    started = Started("churn")
    threads = [threading.Thread(target=started.ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert started.shelf.fetched == ["file:v1"]


def test_a_change_under_traffic_is_loaded_before_it_is_live() -> None:
    """So no record of an active model ever waits for a load."""
    started = Started("churn")
    started.ask()
    started.take(started.state(2, 2, 1))

    assert started.shelf.fetched == ["file:v1", "file:v2"]
    live = started.ask()
    assert live
    assert live.lifecycle.champion == 2
    assert started.shelf.fetched == ["file:v1", "file:v2"]


def test_a_change_of_a_model_without_traffic_must_prove_that_it_can_be_loaded() -> None:
    """The old version goes on, and people hear of it, though nobody has asked yet."""
    started = Started("churn")
    state = started.state(2, 2)
    started.shelf.bytes["file:v2"] = b"tampered"
    started.take(state)

    assert [alert.problem for alert in started.alerts] == ["bad-artefact:2"]
    assert "version 1 goes on" in started.alerts[0].sentence
    live = started.ask()
    assert live
    assert live.lifecycle.champion == 1


def test_a_change_that_brings_no_version_loads_none() -> None:
    """A pin, or a challenger that is rejected, is no reason to load a model that nobody asks."""
    started = Started()
    started.lifecycle._ready.clear()
    started.take(started.state(1, 1, 2))
    started.lifecycle._ready.set()
    started.take(started.state(2, 1))

    assert started.shelf.fetched == []
    assert started.lifecycle.generations == {"churn": 2}


def test_what_fails_when_first_asked_waits_then_is_refused_and_told_once() -> None:
    """As of a model that nobody knows, and others of the same batch are answered."""
    started, processor = Started("churn", "other"), score()
    started.shelf.bytes["file:v1"] = b"tampered"
    assert values(started, processor, request(0)) == []
    assert started.ask() is None
    started.lifecycle.tend()
    started.lifecycle._adopt(list(started.lifecycle._failed.values()))

    assert [(a.problem, a.state) for a in started.alerts] == [("bad-artefact:1", "open")]
    assert "nothing is served" in started.alerts[0].sentence
    assert processor.gauges["parked"] == 1
    started.shelf.bytes["file:v1"] = b"1"
    assert values(started, processor, request(1, "other")) == ["predictions"]
    processor.advance(0, True, started.lifecycle.fleet)
    (letter,) = [
        output
        for output in processor.advance(5_000, True, started.lifecycle.fleet)
        if output.entity == "requests.dlq"
    ]
    assert b"unknown-model" in dict(letter.headers).values()


def test_a_shadow_that_can_t_be_loaded_at_a_start_does_not_keep_its_champion_from_serving() -> None:
    """Nothing of it is lost: it is told, tried again, and beside the champion when it can be."""
    started = Started()
    started.lifecycle._ready.clear()
    started.take(started.state(1, 1, 2, 3))
    started.lifecycle._ready.set()
    started.shelf.bytes["file:v2"] = started.shelf.bytes["file:v3"] = b"tampered"
    assert values(started, score(), request(0)) == ["predictions"]
    started.lifecycle.tend()
    retried = list(started.lifecycle._failed.values())
    started.lifecycle._adopt(retried)

    assert len(started.alerts) >= 1
    assert all("version 1 goes on" in alert.sentence for alert in started.alerts)
    started.shelf.bytes |= {"file:v2": b"2", "file:v3": b"3"}
    started.lifecycle._adopt(retried)
    live = started.ask()
    assert live
    assert set(live.models) == {1, 2, 3}
    assert {alert.state for alert in started.alerts[len(started.alerts) // 2 :]} == {"resolved"}


def test_what_waited_is_answered_when_it_can_be_loaded_at_last() -> None:
    started, processor = Started("churn"), score()
    started.shelf.bytes["file:v1"] = b"tampered"
    values(started, processor, request(0))
    started.lifecycle.tend()
    started.shelf.bytes["file:v1"] = b"1"
    started.lifecycle._adopt(list(started.lifecycle._failed.values()))

    outputs = processor.advance(100, True, started.lifecycle.fleet)
    assert [output.entity for output in outputs] == ["predictions"]
    assert [alert.state for alert in started.alerts] == ["open", "resolved"]


def test_a_store_that_hangs_holds_a_partition_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One wait for all models that it keeps from us; they are there when it answers."""
    monkeypatch.setattr(holding, "PATIENCE_SECONDS", 5.0)
    started, answer = Started(*NAMES), threading.Event()
    fetch = started.shelf.fetch

    def hang(url: str, digest: str) -> bytes:
        answer.wait(PATIENCE_SECONDS)
        return fetch(url, digest)

    monkeypatch.setattr(started.lifecycle._load, "_fetch", hang)
    begun = time.monotonic()
    assert [started.ask(name) for name in NAMES] == [None] * len(NAMES)
    assert time.monotonic() - begun < 5.0 * 5
    waiting = started.lifecycle.fleet
    answer.set()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while started.ask(NAMES[-1]) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(map(started.ask, NAMES))
    started.lifecycle.tend()
    assert started.lifecycle.fleet is not waiting  # so that what is parked is tried again


def test_no_more_versions_are_held_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest unasked go first, and are loaded again when they are asked for."""
    monkeypatch.setattr(holding, "IDLE_SECONDS", 0.0)
    started = Started(*NAMES, keep=2)
    for name in (*NAMES, NAMES[0]):
        started.ask(name)
    started.lifecycle.tend()

    assert started.loaded == {NAMES[0], NAMES[-1]}
    assert started.ask(NAMES[2]) is not None


def test_models_with_traffic_stay_however_many_they_are() -> None:
    started = Started(*NAMES, keep=2)
    for name in NAMES:
        started.ask(name)
    started.lifecycle.tend()

    assert started.loaded == set(NAMES)


def test_a_batch_that_began_keeps_what_is_let_go_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "IDLE_SECONDS", 0.0)
    started = Started(*NAMES, keep=1)
    before = started.lifecycle.fleet
    for name in NAMES[:2]:
        started.ask(name)
    started.lifecycle.tend()

    fetched = len(started.shelf.fetched)
    assert before[NAMES[0]].predict(1, [(0.0,)]).tolist() == [[1.0]]
    assert len(started.shelf.fetched) == fetched


def test_versions_that_are_retired_and_models_that_are_removed_are_released() -> None:
    started = Started("churn")
    started.ask()
    started.lifecycle.tend()
    started.take(started.state(2, 2, 1))
    live = started.ask()
    assert live is not None
    first, second = (weakref.ref(live.models[version]) for version in (1, 2))
    del live
    started.take(started.state(3, 2))
    gc.collect()
    assert (first() is None, second() is None) == (True, False)
    started.lifecycle.take([Record(9, 0, b"churn", None)])
    gc.collect()
    assert second() is None


def test_a_revised_spec_is_in_force_without_a_restart() -> None:
    """Between two batches of one process, loaded before: what it was fitted to stays the same."""
    started, processor = Started("churn"), score()

    def revision(offset: int) -> int:
        batch = Batch("requests", 0, [request(offset)])
        (output,) = processor.apply(batch, started.lifecycle.fleet)
        assert output.value
        return int(msgspec.json.decode(output.value)["data"]["spec_revision"])

    assert revision(0) == 1
    state = started.state(2, 1)
    spec = msgspec.structs.replace(state.spec, segments=("age",))
    started.take(msgspec.structs.replace(state, spec=spec, spec_revision=2))
    loads = len(started.shelf.fetched)
    assert revision(1) == 2
    assert len(started.shelf.fetched) == loads
