"""The rules of the lifecycle, without a database."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.transitions import (
    MAX_CHALLENGERS,
    RULES,
    Action,
    Asked,
    Past,
    Refusal,
    Standing,
    decide,
)

CALM = Standing(champion=1)
TRIAL = Standing(champion=1, challengers=(2, 3))
PROBATION = Standing(champion=2, previous=1, probation=True, challengers=(3,))


def asked(version: int | None = None, *, automatic: bool = False, past: str = "") -> Asked:
    """`past` as words: "promote:1 pin:1! rollback:2", "!" for pinned."""
    return Asked(version=version, automatic=automatic, newest=20, past=told(past))


def told(words: str) -> list[Past]:
    return [
        Past(action=action, champion=int(champion.rstrip("!")), pinned=champion.endswith("!"))
        for action, champion in (word.split(":") for word in words.split())
    ]


def refused(found: Standing | Refusal) -> str:
    assert isinstance(found, Refusal), found
    return found.reason


def test_a_challenger_joins_the_shadow_and_nothing_else_changes() -> None:
    assert decide("challenge", CALM, asked(2)) == Standing(champion=1, challengers=(2,))


def test_a_promoted_challenger_keeps_the_old_champion_in_shadow_on_probation() -> None:
    after = decide("promote", TRIAL, asked(2, automatic=True))
    assert after == Standing(champion=2, challengers=(3,), previous=1, probation=True)


def test_a_first_champion_has_nobody_to_be_compared_with() -> None:
    assert decide("promote", Standing(), asked(1)) == CALM


def test_only_a_person_promotes_what_no_trial_has_seen() -> None:
    assert "only a person" in refused(decide("promote", CALM, asked(5, automatic=True)))
    assert decide("promote", CALM, asked(5)) == Standing(champion=5, previous=1, probation=True)


def test_a_promotion_during_probation_replaces_the_previous_version() -> None:
    after = decide("promote", PROBATION, asked(3, automatic=True))
    assert after == Standing(champion=3, previous=2, probation=True)


def test_a_rejected_challenger_leaves_and_the_other_stays() -> None:
    assert decide("reject", TRIAL, asked(3)) == Standing(champion=1, challengers=(2,))


def test_a_canary_is_a_challenger_until_it_is_promoted_rejected_or_the_champion_changes() -> None:
    canary = decide("canary", TRIAL, asked(2, automatic=True))
    assert canary == Standing(champion=1, challengers=(2, 3), canary=2)
    after = decide("promote", canary, asked(2, automatic=True))
    assert after == Standing(champion=2, challengers=(3,), previous=1, probation=True)
    assert decide("reject", canary, asked(2)) == Standing(champion=1, challengers=(3,))
    assert decide("reject", canary, asked(3)) == Standing(champion=1, challengers=(2,), canary=2)
    back = decide("rollback", canary, asked(past="promote:4 promote:1"))
    assert back == Standing(champion=4, challengers=(2, 3))
    assert decide("pin", canary, asked()) == Standing(champion=1, challengers=(2, 3), pinned=True)


@pytest.mark.parametrize(
    ("standing", "version", "reason"),
    [
        (TRIAL, 5, "no challenger"),
        (TRIAL, None, "no challenger"),
        (Standing(champion=1, challengers=(2,), pinned=True), 2, "pinned"),
        (Standing(champion=1, challengers=(2, 3), canary=3), 2, "one at a time"),
    ],
)
def test_when_there_is_no_canary(standing: Standing, version: int | None, reason: str) -> None:
    assert reason in refused(decide("canary", standing, asked(version)))


def test_settling_ends_probation() -> None:
    assert decide("settle", PROBATION, asked(1)) == Standing(champion=2, challengers=(3,))


def test_a_rollback_returns_to_the_previous_champion_and_keeps_challengers() -> None:
    after = decide("rollback", PROBATION, asked(past="promote:1 promote:2"))
    assert after == Standing(champion=1, challengers=(3,))


@pytest.mark.parametrize(
    ("past", "target"),
    [
        ("promote:1 promote:2 promote:3", 2),
        ("promote:1 promote:2 settle:2 promote:3", 2),
        # 2 was rolled back from, so it isn't healthy
        ("promote:1 promote:2 rollback:1 promote:3", 1),
        # it was promoted again, and replaced by a better one: healthy
        ("promote:1 promote:2 rollback:1 promote:2 promote:3", 2),
        # from 4 to 3, from 3: neither is a target again
        ("promote:1 promote:3 promote:4 rollback:3", 1),
        # never past a version that a person pinned, also when the pin is off again
        ("promote:1 promote:2 pin:2! unpin:2 promote:3", 2),
    ],
)
def test_a_rollback_finds_the_last_healthy_champion(past: str, target: int) -> None:
    champion = told(past)[-1].champion
    after = decide("rollback", Standing(champion=champion), asked(automatic=True, past=past))
    assert after == Standing(champion=target)


@pytest.mark.parametrize(
    "past",
    [
        "promote:1",
        "promote:1 promote:2 rollback:1",
        "promote:1 promote:2 pin:2! unpin:2",
        "promote:1 promote:2 pin:2! unpin:2 promote:3 rollback:2",
    ],
)
def test_with_no_healthy_version_to_go_back_to_a_rollback_is_refused(past: str) -> None:
    champion = told(past)[-1].champion
    found = decide("rollback", Standing(champion=champion), asked(automatic=True, past=past))
    assert "no healthy former champion" in refused(found)


def test_a_command_may_not_name_an_unhealthy_target_but_a_person_may() -> None:
    past = "promote:1 promote:2 rollback:1"
    assert "no healthy" in refused(decide("rollback", CALM, asked(2, automatic=True, past=past)))
    assert decide("rollback", CALM, asked(2, past=past)) == Standing(champion=2)


def test_a_rollback_goes_to_former_champions_only() -> None:
    assert "never was champion" in refused(decide("rollback", CALM, asked(7, past="promote:1")))
    assert "already" in refused(decide("rollback", CALM, asked(1, past="promote:1")))


@pytest.mark.parametrize("automatic", [True, False])
def test_a_pin_stops_every_change_of_champion_until_it_is_off(automatic: bool) -> None:
    pinned = decide("pin", TRIAL, asked())
    assert isinstance(pinned, Standing)
    assert pinned.pinned
    for action in ("promote", "rollback"):
        found = decide(action, pinned, asked(2, automatic=automatic, past="promote:2 promote:1"))
        assert "unpin" in refused(found)
    assert decide("unpin", pinned, asked()) == TRIAL


@pytest.mark.parametrize(
    ("action", "standing", "version", "reason"),
    [
        ("challenge", CALM, None, "name the version"),
        ("challenge", CALM, 1, "is the champion"),
        ("challenge", TRIAL, 2, "already"),
        ("challenge", PROBATION, 1, "already, as the previous"),
        ("challenge", CALM, 21, "not registered"),
        ("challenge", CALM, 0, "not registered"),
        ("promote", CALM, 1, "already"),
        ("promote", TRIAL, None, "not exactly one"),
        ("reject", TRIAL, None, "not exactly one"),
        ("reject", TRIAL, 1, "no challenger"),
        ("rollback", Standing(), None, "no champion"),
        ("settle", CALM, None, "no probation"),
        ("settle", PROBATION, 3, "is not the previous champion"),
        ("pin", Standing(), None, "no champion"),
        ("pin", TRIAL, 2, "is not the champion"),
        ("pin", Standing(champion=1, pinned=True), None, "already"),
        ("unpin", CALM, None, "nothing is pinned"),
        ("unpin", Standing(champion=1, pinned=True), 2, "is not the champion"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_reason(
    action: Action, standing: Standing, version: int | None, reason: str
) -> None:
    assert reason in refused(decide(action, standing, asked(version)))


def test_the_number_of_challengers_is_limited() -> None:
    full = Standing(champion=1, challengers=tuple(range(2, 2 + MAX_CHALLENGERS)))
    assert "reject one first" in refused(decide("challenge", full, asked(20)))


def test_every_action_has_a_rule() -> None:
    assert set(RULES) == set(get_args(Action))


versions = st.integers(1, 5)


@given(st.lists(st.tuples(st.sampled_from(list(RULES)), st.none() | versions, st.booleans())))
def test_whatever_is_asked_in_whatever_order_a_standing_makes_sense(
    steps: list[tuple[Action, int | None, bool]],
) -> None:
    """One champion, whom no other part names; a previous version exactly during probation."""
    standing, past = Standing(), [Past(action="add", champion=None)]
    for action, version, automatic in steps:
        facts = Asked(version=version, automatic=automatic, newest=5, past=past)
        after = decide(action, standing, facts)
        if isinstance(after, Refusal):
            assert after.reason
            continue
        parts = [after.champion, after.previous, *after.challengers]
        filled = [part for part in parts if part is not None]
        assert len(filled) == len(set(filled)), "a version plays one part"
        assert after.probation == (after.previous is not None)
        assert after.champion is not None or not (after.pinned or standing.champion)
        assert after != standing
        if standing.pinned:
            assert after.champion == standing.champion
        standing = after
        past.append(Past(action=action, champion=after.champion, pinned=after.pinned))
