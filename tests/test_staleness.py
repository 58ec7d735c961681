"""Missing data is stale: never healthy, never harm."""

from __future__ import annotations

from typing import Any

import msgspec

from models.spec import Alerts
from stream.events import Alert
from tests.summaries import DAY_MS, batch, processor, verdicts
from tests.test_alert_lifecycle import said, tell
from tests.test_evaluate import World

THREE_DAYS = Alerts(stale_seconds=3 * 86_400.0)


def silent(world: World, days: int) -> list[Any]:
    """Time passes and nothing comes; one report for all of it."""
    world.tick += days
    world.monitor.progress(world.tick)
    outputs = world.core.apply(batch(world.monitor.drain()), world.trainer.fleet)
    found = verdicts(outputs)
    world.log += found
    return found


def test_no_predictions_are_stale_as_of_the_moment_at_which_it_was_too_long() -> None:
    world = World(alerts=THREE_DAYS)
    world.days(10)
    assert silent(world, 2) == []
    last_ms = (world.tick - 2) * DAY_MS
    (alert,) = silent(world, 20)
    assert (alert.problem, alert.verdict, alert.severity) == ("stale", "data missing", "warning")
    assert alert.opened_ms == last_ms + 3 * DAY_MS
    assert alert.evidence == {"since_ms": last_ms, "limit_ms": 3 * DAY_MS}
    assert silent(world, 20) == []
    world.days(1)
    assert world.newest("stale").state == "resolved"
    assert world.commands == []


def test_a_gap_that_is_learned_of_when_it_is_over_is_told_all_the_same() -> None:
    """However rarely progress is reported, what is found is the same."""
    seldom, often = World(alerts=THREE_DAYS), World(alerts=THREE_DAYS)
    for world in (seldom, often):
        world.days(10)
    for _ in range(30):
        silent(often, 1)
    seldom.tick += 30
    for world in (seldom, often):
        world.days(1)
    assert [a for a in seldom.log if isinstance(a, Alert)] == [
        a for a in often.log if isinstance(a, Alert)
    ]
    assert [a.state for a in seldom.log if isinstance(a, Alert)] == ["open", "resolved"]


def test_predictions_without_labels_are_neither_harm_nor_healthy() -> None:
    world = World(alerts=THREE_DAYS)
    world.days(10)
    world.days(20, labelled=False, bad=0.9)
    assert {f.problem for f in world.log if isinstance(f, Alert)} == {"unlabelled"}
    alert = world.newest("unlabelled")
    assert alert.evidence["limit_ms"] == 2 * DAY_MS  # the label horizon
    world.days(1)
    assert world.newest("unlabelled").state == "resolved"


def test_closed_by_hand_it_stays_closed_until_data_has_come_and_gone_again() -> None:
    world = World(alerts=THREE_DAYS)
    world.days(10)
    silent(world, 5)
    tell(world, said(world.newest("stale"), "resolve"))
    silent(world, 50)
    assert world.newest("stale").state == "resolved"
    world.days(1)
    (alert,) = silent(world, 5)
    assert (alert.state, alert.reopened) == ("open", 0)


def test_it_survives_a_restart() -> None:
    world = World(alerts=THREE_DAYS)
    world.days(10)
    silent(world, 5)
    parts = {n: d for n, d in world.core.changes(complete=True).items() if d}
    world.core = processor()
    world.core.restore(parts)
    assert silent(world, 5) == []
    world.days(1)
    assert world.newest("stale").state == "resolved"


def test_a_model_that_has_predicted_nothing_yet_is_not_stale() -> None:
    world = World(alerts=msgspec.structs.replace(THREE_DAYS))
    world.monitor.progress(5_000)
    assert verdicts(world.core.apply(batch(world.monitor.drain()), world.trainer.fleet)) == []
