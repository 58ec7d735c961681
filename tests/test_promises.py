"""What is promised of a version, said where the user sees it."""

from __future__ import annotations

import msgspec
import pytest

from models.profile import ReferenceProfile
from models.spec import Budget, ModelSpec
from stream.core.promises import promise
from stream.core.ticks import Group, Tick
from stream.core.watching import MONTH_MS, Kit, Watch, observe
from tests.summaries import SPEC, profile


def with_budget(**more: float) -> ModelSpec:
    return msgspec.structs.replace(SPEC, budget=Budget(**more))


def test_the_smallest_harm_is_what_the_validation_cannot_tell_from_chance() -> None:
    few, many = (promise(SPEC, profile(rows=rows), signals=6) for rows in (200, 20_000))
    assert few.smallest_harm > 3 * many.smallest_harm > 0
    assert few.bound == few.validated + few.smallest_harm


def test_an_objective_takes_the_place_of_the_bound() -> None:
    tolerances = msgspec.structs.replace(SPEC.tolerances, loss_objective=1.2)
    spec = msgspec.structs.replace(SPEC, tolerances=tolerances)
    kit = Kit(spec, profile(rows=200))
    assert kit.promise.bound == pytest.approx(1.2 / kit.promise.loss_scale)
    assert kit.bank.tables["harm/loss"].past is None


def test_what_is_guaranteed_and_what_is_approximate_is_told_apart() -> None:
    one = promise(SPEC, profile(), signals=6)
    assert "at most 1 false alarms per month are expected over all 6 signals" in one.guaranteed
    assert any("normal" in sentence for sentence in one.approximate)
    assert not any("neighbouring" in sentence for sentence in one.approximate)


def test_dependence_that_was_divided_by_is_named_and_called_approximate() -> None:
    reference: ReferenceProfile = profile()
    signals = tuple(
        msgspec.structs.replace(s, deflation=4.0 if s.name == "x" else 1.0)
        for s in reference.signals
    )
    one = promise(SPEC, msgspec.structs.replace(reference, signals=signals), signals=6)
    assert one.deflated == {"x": 4.0}
    assert any("neighbouring" in sentence for sentence in one.approximate)


def test_a_budget_by_events_grows_with_events_and_not_with_time() -> None:
    by_month, by_events = (
        Kit(with_budget(**budget), profile())
        for budget in ({}, {"false_alarms_per_million_events": 2.0})
    )
    group = Group(0, round(MONTH_MS), Tick(predictions=500))
    assert by_month.periods(group, 0) == 1
    assert by_events.periods(group, 0) == 500 / 1_000_000
    assert by_events.promise.per == "million events"


def test_a_budget_by_events_alarms_at_the_same_evidence_whatever_the_pace() -> None:
    kit = Kit(with_budget(false_alarms_per_million_events=1.0), profile())
    slow, quick = Watch(version=1), Watch(version=1)
    for watch, length_ms in ((slow, 10**9), (quick, 10**3)):
        bets = [0] * 20
        bets[1], bets[15] = 90, 10
        observe(watch, kit, Group(0, length_ms, Tick(predictions=100, bets=bets)))
    assert slow.level("harm/loss") == quick.level("harm/loss") > 0
