"""What may be commanded, and the reason why not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.spec import Policy
from stream.core.alerts import Book
from stream.core.policy import (
    WEEK_MS,
    Issued,
    Situation,
    act,
    due,
    may_act,
    may_retrain,
    may_roll_back,
    retrain,
)
from stream.core.trials import Judgement, TrialState
from stream.events import Alert, LifecycleChanged, Pairs
from tests.summaries import DAY_MS, SPEC

NOW_MS = 1000 * DAY_MS


def situation(
    issued: dict[str, Issued] | None = None, policy: Policy | None = None, **fields: Any
) -> Situation:
    spec = msgspec.structs.replace(SPEC, policy=policy or SPEC.policy)
    lifecycle = LifecycleChanged(
        model="bikes", generation=7, spec=spec, spec_revision=1, champion=2, changed_ms=0
    )
    return Situation(msgspec.structs.replace(lifecycle, **fields), issued or {}, NOW_MS)


def alert(**evidence: Any) -> Alert:
    return Book().report("data", "so it is", evidence, model="bikes", version=2, now_ms=NOW_MS)


def ago(days: float, generation: int = 6) -> Issued:
    return Issued(generation, NOW_MS - round(days * DAY_MS))


def weekly(*retrains_ms: int) -> Situation:
    """Two a week may be commanded, and these were."""
    return situation(policy=Policy(retrains_per_week=2))._replace(retrains=retrains_ms)


@pytest.mark.parametrize(
    ("now", "more", "reason"),
    [
        (situation(), {}, None),
        (situation(policy=Policy(retrain=False)), {}, "leaves retraining to people"),
        (situation(pinned=True), {}, "pinned"),
        (situation(challengers=[3]), {}, "on trial"),
        (situation(), {"data": alert(missing=["x"])}, "mended first"),
        (situation(), {"data": alert(missing=[], unseen=["c"])}, None),
        (situation({"retrain": ago(13)}), {}, "not again before"),
        (situation({"retrain": ago(14)}), {}, None),
        (situation({"rollback": ago(0, generation=7)}), {}, "command to rollback"),
        (situation({"rollback": ago(0)}), {}, None),
        (situation({"settle": ago(101, generation=7)}), {}, None),
        (
            situation(policy=Policy(retrain_minimum_labels=500))._replace(labels=499),
            {},
            "asks for 500 new labels",
        ),
        (situation(policy=Policy(retrain_minimum_labels=500))._replace(labels=500), {}, None),
        (weekly(NOW_MS - WEEK_MS + 1, NOW_MS - 1), {}, "budget of 2 is spent"),
        (weekly(NOW_MS - WEEK_MS, NOW_MS - 1), {}, None),
    ],
)
def test_when_a_harmed_champion_is_retrained(
    now: Situation, more: dict[str, Any], reason: str | None
) -> None:
    held = may_retrain(now, **{"data": None, "previous": None, **more})
    assert (held is None) == (reason is None)
    assert reason is None or (held is not None and reason in held)


@pytest.mark.parametrize(
    ("n", "d_mean", "rollback", "is_held"),
    [
        (50, -0.2, True, True),  # too few pairs to know
        (500, 0.2, True, True),  # the previous version does better
        (500, -0.2, True, False),
        (500, 0.2, False, False),  # a person would have to roll back, so do not wait
    ],
)
def test_a_retrain_waits_while_a_rollback_is_near(
    n: int, d_mean: float, rollback: bool, is_held: bool
) -> None:
    tests = {"worse than before": [float(n), n * d_mean, 1.0]}
    trial = TrialState(started_ms=0, totals=Pairs(n=n), tests=tests)
    now = situation(previous=1, probation=True, policy=Policy(rollback=rollback))
    assert (may_retrain(now, data=None, previous=trial) is not None) == is_held


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (situation(previous=1), None),
        (situation(), "nothing to roll back to"),
        (situation(previous=1, pinned=True), "pinned"),
        (situation(previous=1, policy=Policy(rollback=False)), "to people"),
        (situation({"rollback": ago(6)}, previous=1), "not again before"),
        (situation({"rollback": ago(8)}, previous=1), None),
        (situation({"retrain": ago(0, generation=7)}, previous=1), None),  # a fit never delays it
    ],
)
def test_when_a_bad_champion_is_rolled_back(now: Situation, reason: str | None) -> None:
    held = may_roll_back(now)
    assert (held is None) == (reason is None)
    assert reason is None or (held is not None and reason in held)


@pytest.mark.parametrize(
    ("kind", "now", "is_held"),
    [
        ("promote", situation(challengers=[3]), False),
        ("promote", situation(challengers=[3], pinned=True), True),
        ("promote", situation(challengers=[3], policy=Policy(promote=False)), True),
        ("promote", situation({"promote": ago(0, 7)}, challengers=[3]), True),
        ("promote", situation({"promote": ago(0)}, challengers=[3]), False),
        ("canary", situation(challengers=[3]), False),
        ("canary", situation(challengers=[3, 4], canary=4), True),
        ("canary", situation(challengers=[3], pinned=True), True),
        ("canary", situation(challengers=[3], policy=Policy(promote=False)), True),
        ("promote", situation({"canary": ago(0, 7)}, challengers=[3]), True),
        ("reject", situation(challengers=[3], pinned=True), False),
        ("settle", situation({"retrain": ago(1, 7)}, previous=1), True),  # would void the fit
        ("settle", situation({"retrain": ago(1)}, previous=1), False),
    ],
)
def test_when_a_trial_is_followed(kind: Any, now: Situation, is_held: bool) -> None:
    assert (may_act(now, Judgement(kind, 3, "", {})) is not None) == is_held


def test_a_command_is_the_same_when_the_same_is_decided_again() -> None:
    one, other = (retrain(situation(), alert(n=3, loss=0.5)) for _ in range(2))
    assert one == other
    assert one.evidence["loss"] == 0.5
    later = retrain(situation(generation=8), alert(n=3, loss=0.5))
    assert later.command_id != one.command_id
    aimed = act(situation(), Judgement("promote", 3, "it does better", {}), None)
    assert (aimed.kind, aimed.version, aimed.generation) == ("promote", 3, 7)


MONTHLY = Policy(retrain_every_seconds=30 * 86_400)


@pytest.mark.parametrize(
    ("champion_days", "retrained_days", "asks"),
    [
        (29, None, False),
        (30, None, True),  # version 1: nothing was fitted since it is watched
        (5, 30, True),  # the trial took 25 days: its newest examples are 30 days old
        (40, 29, False),
    ],
)
def test_the_clock_counts_from_what_was_fitted_last_however_long_its_trial_took(
    champion_days: float, retrained_days: float | None, asks: bool
) -> None:
    issued = {} if retrained_days is None else {"retrain": ago(retrained_days)}
    asking = due(situation(issued, MONTHLY), NOW_MS - round(champion_days * DAY_MS), None)
    assert (asking is not None) is asks
