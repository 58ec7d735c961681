"""Counts of very many models wait for the end of a tick, and nothing else changes by it."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from models.spec import Ticks
from stream.core import telling
from stream.core.evaluate import EvaluateProcessor
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Output, Record
from stream.core.telling import CROWD, MUCH
from stream.events import SummaryComputed
from tests.monitoring import SPEC, Live, data_of, keep, monitor, reference, summaries_of

T0 = 1_000_000_000  # a tick begins
TICK_MS = 10_000
MODELS = CROWD
PROFILE = reference()


@cache
def fleet(models: int, generation: int = 1) -> Fleet:
    ticks = Ticks(seconds=TICK_MS / 1000, allowed_lateness_seconds=0.5)
    specs = [replace(SPEC, name=f"m{number}", ticks=ticks) for number in range(models)]
    return {
        spec.name: Live(spec, generation=generation, known=replace(PROFILE, model=spec.name))
        for spec in specs
    }


class Played:
    """Once a second, all models predict, and monitor reports."""

    def __init__(self, models: int = MODELS, *, each: int = 1) -> None:
        self.stage, self.models, self.each = monitor(), models, each
        self.made = 0
        self.parts: dict[str, bytes] = {}

    def second(self, at: int, generation: int = 1) -> list[Output]:
        live, stamp_ms = fleet(self.models, generation), T0 + at * 1000
        records = [self._record(stamp_ms) for _ in range(self.models * self.each)]
        outputs = self.stage.apply(Batch("predictions", 0, records), live)
        outputs += self.stage.advance(stamp_ms + 500, True, live)
        keep(self.parts, self.stage.changes(complete=False))
        return outputs

    def told(self, *seconds: int, generation: int = 1) -> list[SummaryComputed]:
        return [one for at in seconds for one in summaries_of(self.second(at, generation))]

    def _record(self, stamp_ms: int) -> Record:
        place, self.made = self.made, self.made + 1
        data: dict[str, Any] = {
            "prediction_id": f"p{place}",
            "model": f"m{place % self.models}",
            "version": 1,
            "output": 0.8,
            "features": {"age": 20.0, "plan": "ab"[place % 2]},
        }
        return Record(place, stamp_ms, f"p{place}".encode(), msgspec.json.encode(data))


def test_counts_of_many_models_wait_until_their_tick_is_over() -> None:
    played = Played()
    played.told(0)  # the first report: the watermark has come from nowhere
    assert not played.told(*range(1, 10))
    told = [one for one in played.told(10, 11, 12) if not one.segment]
    assert {one.tick for one in told} == {T0 // TICK_MS}
    assert len(told) == MODELS


def test_all_is_told_once_its_tick_is_over() -> None:
    played = Played()
    told = [one for one in played.told(*range(23)) if not one.segment]
    first, second = (
        sum(one.predictions for one in told if one.tick == T0 // TICK_MS + n) for n in (0, 1)
    )
    assert (first, second) == (10 * MODELS, 10 * MODELS)


def test_few_models_are_told_of_at_once() -> None:
    played = Played(models=5)
    assert all(len({one.model for one in played.told(at)}) == 5 for at in range(1, 5))


def test_much_is_told_at_once() -> None:
    played = Played(each=2 * MUCH)
    played.told(0)
    assert len({one.model for one in played.told(1) if not one.segment}) == MODELS


def test_no_more_waits_than_a_part_of_the_checkpoint_can_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telling, "MOST", MODELS)  # with their segments there are more places
    played = Played()
    played.told(0)
    assert played.told(1)


def test_what_waits_is_told_when_the_spec_may_have_changed() -> None:
    played = Played()
    played.told(0, 1, 2)
    told = [one for one in played.told(3, generation=2) if not one.segment]
    assert sum(one.predictions for one in told) == 3 * MODELS


def test_what_waited_says_where_it_came_from() -> None:
    """Ranges as evidence: they hold every record that was counted, and nothing told before."""
    played = Played()
    played.told(0)
    first = played.made
    told = played.told(*range(1, 13))
    assert told
    for one in told:
        begin, end = one.offsets["predictions/0"]
        assert begin == first
        assert end >= first + 9 * MODELS


def test_what_waits_survives_a_restart() -> None:
    through, again = Played(), Played()
    through.told(*range(5))
    again.told(*range(5))
    stage = monitor()
    stage.restore(again.parts)
    again.stage = stage
    for at in range(5, 13):
        assert through.second(at) == again.second(at)


def test_what_is_measured_and_decided_is_the_same_without_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = said()
    monkeypatch.setattr(telling, "CROWD", 10**6)
    assert said() == waiting != []


def said() -> list[Any]:
    """Everything that evaluate publishes about forty seconds of many models."""
    played = Played()
    evaluate = EvaluateProcessor(Context(0, {"summaries": 1}, CoreSettings()))
    offset, found = 0, list[Any]()
    for at in range(43):
        sent = [one for one in played.second(at) if one.entity == "summaries"]
        records = [Record(offset + n, T0, one.key, one.value) for n, one in enumerate(sent)]
        offset += len(records)
        outputs = evaluate.apply(Batch("summaries", 0, records), fleet(MODELS))
        for entity in ("accuracy", "drift", "alerts", "commands"):
            found += data_of(outputs, entity)
    return found
