"""A slow model holds up itself: others are predicted at once, its own requests in their order."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from stream.core.processor import Batch, Context, CoreSettings, Fleet, Output, Record
from stream.core.scoring import ScoreProcessor
from stream.core.shares import TURN_SECONDS
from tests.fleets import CHURN, FakeLive
from tests.test_scoring import NOW, made, request

QUICK, SLOW = 0.000_01, 0.005  # seconds a row
ON = CoreSettings(slow_model_ms=1.0)


class World:
    """Models that take time on a stopwatch of their own, and one partition of score.

    Args:
        row_seconds: by model.
        call_seconds: what a call costs beside, of all but quick models.
    """

    def __init__(
        self,
        row_seconds: dict[str, float],
        settings: CoreSettings = ON,
        call_seconds: float = 0.0,
    ) -> None:
        self.now = 0.0
        self._call_seconds = call_seconds
        self.fleet: Fleet = {name: self._live(name, s) for name, s in row_seconds.items()}
        self.settings = settings
        self.stage = self.started()
        for name in row_seconds:  # so that it is known how long they take
            self.apply([request(900_000, name)])

    def started(self, *, timed: bool = True) -> ScoreProcessor:
        counts = {"requests": 1, "predictions": 1, "summaries": 1}
        stopwatch = (lambda: self.now) if timed else None
        return ScoreProcessor(Context(0, counts, self.settings, stopwatch))

    def apply(self, records: Sequence[Record], ahead: int = 0) -> list[Output]:
        return self.stage.apply(Batch("requests", 0, records, ahead), self.fleet)

    def proceed(self) -> list[Output]:
        return self.stage.proceed(self.fleet)

    def _live(self, name: str, row_seconds: float) -> FakeLive:
        def predict(_: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
            self.now += row_seconds * len(rows)
            self.now += 0.0 if name == "quick" else self._call_seconds
            return np.zeros((len(rows), 1))

        return FakeLive(msgspec.structs.replace(CHURN, name=name), predict=predict)


def mixed(count: int, *models: str, first: int = 0) -> list[Record]:
    """Requests for these models in turn."""
    return [request(first + i, models[i % len(models)]) for i in range(count)]


def ids(outputs: Sequence[Output], model: str) -> list[str]:
    found = [made(one) for one in outputs if one.entity == "predictions"]
    return [one.prediction_id for one in found if one.model == model]


def named(records: Sequence[Record], model: str) -> list[str]:
    needle = f'"model":"{model}"'.encode()
    return [f"r-{one.offset}" for one in records if needle in (one.value or b"")]


def test_others_are_predicted_at_once_and_the_slow_model_in_pieces_and_in_order() -> None:
    world = World({"quick": QUICK, "slow": SLOW})
    records = mixed(200, "quick", "slow")
    began = world.now

    outputs = world.apply(records)
    assert ids(outputs, "quick") == named(records, "quick")
    assert world.now - began < 2 * TURN_SECONDS  # without lines: 0.5 s
    assert 0 < world.stage.backlog < 100

    pieces = 0
    while world.stage.backlog:
        began, pieces = world.now, pieces + 1
        outputs += world.proceed()
        assert world.now - began < 2 * TURN_SECONDS
    assert pieces > 5
    assert ids(outputs, "slow") == named(records, "slow")


def test_what_comes_later_of_a_model_in_line_gets_in_line_however_little_it_is() -> None:
    world = World({"quick": QUICK, "slow": SLOW})
    records = mixed(200, "quick", "slow")
    outputs = world.apply(records[:199])
    outputs += world.apply(records[199:])  # one row, quickly done
    while world.stage.backlog:
        outputs += world.proceed()
    assert ids(outputs, "slow") == named(records, "slow")


def test_a_batch_that_takes_less_than_a_turn_is_predicted_whole() -> None:
    world = World({"quick": QUICK, "slow": SLOW})
    records = mixed(18, "quick", "slow")
    assert [made(one).prediction_id for one in world.apply(records)] == [
        f"r-{one.offset}" for one in records
    ]


def test_while_more_waits_a_slow_model_takes_about_as_much_time_as_another() -> None:
    """Twenty quick models of 2 ms a batch, one that would take a second of each."""
    quick = [f"quick-{i}" for i in range(20)]
    world = World(dict.fromkeys(quick, QUICK * 10) | {"slow": SLOW})
    began, outputs = world.now, list[Output]()
    for first in range(0, 20_000, 1_000):
        quicks = mixed(400, *quick, first=first)
        outputs += world.apply(quicks + mixed(200, "slow", first=first + 400), ahead=1_000)
    seconds = world.now - began
    slow = len(ids(outputs, "slow")) * SLOW
    quick_seconds = seconds - slow
    assert quick_seconds == pytest.approx(20 * 20 * 20 * QUICK * 10)
    assert 0.5 * quick_seconds / 20 < slow < quick_seconds / 20 + TURN_SECONDS


def test_many_models_whose_calls_are_dear_lose_nothing_by_small_calls() -> None:
    """Where requests pile up, more rows of a model go into a call, in lines as without."""
    seconds = {}
    for settings in (ON, CoreSettings()):
        many = [f"dear-{number}" for number in range(30)]
        world = World(dict.fromkeys(["quick", *many], QUICK), settings, call_seconds=0.003)
        began = world.now
        for first in range(0, 3_000, 300):
            world.apply(mixed(300, "quick", *many, first=first), ahead=1_000)
        while world.stage.backlog:
            world.proceed()
        seconds[settings] = world.now - began
    assert seconds[ON] < 1.1 * seconds[CoreSettings()]


def test_two_slow_models_have_their_turns_alike() -> None:
    world = World({"quick": QUICK, "slow": SLOW, "slower": 2 * SLOW})
    world.apply(mixed(1_500, "quick", "slow", "slower"))
    spent = dict.fromkeys(("slow", "slower"), 0.0)
    for _ in range(20):
        outputs = world.proceed()
        spent["slow"] += SLOW * len(ids(outputs, "slow"))
        spent["slower"] += 2 * SLOW * len(ids(outputs, "slower"))
    assert spent["slow"] == pytest.approx(spent["slower"], rel=0.3)


def test_lines_are_bounded_by_working_them_off_whatever_it_takes() -> None:
    world = World({"quick": QUICK, "slow": SLOW})
    lines = world.stage._shares.lines
    lines.max_records = 100
    records = mixed(1_000, "quick", "slow")
    outputs = list[Output]()
    for first in range(0, 1_000, 100):
        outputs += world.apply(records[first : first + 100], ahead=10**6)
        assert world.stage.backlog <= 100
    assert len(ids(outputs, "slow")) >= 400
    assert ids(outputs, "quick") == named(records, "quick")


@pytest.mark.parametrize("why", ["alone", "event clock", "no stopwatch", "switched off"])
def test_nothing_is_put_off_where_it_helps_nobody_or_must_not_be(why: str) -> None:
    settings = {
        "event clock": ON._replace(clock="event"),
        "switched off": ON._replace(slow_model_ms=0.0),
    }.get(why, ON)
    world = World({"slow": SLOW} | ({} if why == "alone" else {"quick": QUICK}), settings)
    if why == "no stopwatch":
        world.stage = world.started(timed=False)
    records = mixed(200, *world.fleet)
    for first in (0, 100):
        outputs = world.apply(records[first : first + 100])
        assert len(outputs) == 100
    assert world.stage.backlog == 0


@pytest.mark.parametrize("seed", range(60))
def test_each_request_has_one_prediction_in_its_models_order_whatever_dies_when(seed: int) -> None:
    """A process that dies loses what it did since its last commit, and another goes on from there:
    the committed parts of its state, and the offset that was committed with them."""
    rng = random.Random(seed)
    models = {"quick": QUICK, "slow": SLOW, "slower": 3 * SLOW}
    world = World(models)
    world.stage._shares.lines.max_records = rng.choice((50, 10_000))
    records = [request(i, rng.choice([*models])) for i in range(1_000)]
    parts: dict[str, bytes] = {}
    committed, at, outputs, told = 0, 0, list[Output](), list[Output]()
    while committed < len(records) or world.stage.backlog or outputs:
        step = rng.choice(("apply", "apply", "proceed", "commit", "die"))
        if step == "apply":
            end = min(len(records), at + rng.randint(1, 150))
            outputs += world.apply(records[at:end], ahead=rng.choice((0, len(records) - end)))
            at = end
        elif step == "proceed":
            outputs += world.proceed()
        elif step == "commit":
            outputs += world.stage.advance(NOW, False, world.fleet)
            changed = world.stage.changes(complete=False)
            parts |= {name: part for name, part in changed.items() if part is not None}
            parts = {name: part for name, part in parts.items() if changed.get(name, part)}
            told, committed, outputs = told + outputs, at, []
        elif rng.random() < 0.3:
            world.stage = world.started()
            world.stage.restore(parts)
            at, outputs = committed, []
    for model in models:
        assert ids(told, model) == named(records, model)


def test_a_release_that_knows_no_lines_takes_what_stands_there_for_parked() -> None:
    """It reads every `parked.*`, under whatever number."""
    world = World({"quick": QUICK, "slow": SLOW})
    world.apply(mixed(200, "quick", "slow"))
    waiting = world.stage.backlog
    lines = [part for part in world.stage.changes(complete=True).values() if part]

    world.settings = CoreSettings()
    older = world.started()
    older.restore({f"parked.{number}": part for number, part in enumerate(lines)})

    assert len(ids(older.advance(NOW, False, world.fleet), "slow")) == waiting


def test_a_model_that_is_no_more_when_its_turn_comes_is_parked_like_any_unknown_one() -> None:
    world = World({"quick": QUICK, "slow": SLOW})
    world.apply(mixed(200, "quick", "slow"))
    waiting = world.stage.backlog
    world.fleet = {"quick": world.fleet["quick"]}
    while world.stage.backlog:
        assert world.proceed() == []
    assert world.stage.gauges["parked"] == waiting
