"""The registry keeps its promises on SQLite and on PostgreSQL alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy.exc import DBAPIError

from consumers.relay import lifecycle
from models import history
from models.careers import career
from models.registry import LiveState, Outcome, Refusal, Registry, UnknownModel
from models.spec import Feature, ModelSpec, Tolerances
from models.tables import FACTS, metadata
from models.transitions import Standing
from stream.events import LifecycleChanged
from stream.events import VersionCard as CardOnTheWire
from tests.registries import BACKENDS, CHURN, Clock, database_url, register

T = TypeVar("T")
RACERS = 6


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return database_url(request, request.param, tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry(url: str, clock: Clock) -> Iterator[Registry]:
    """Version 1 of churn is live (generation 2); 2 and 3 are registered."""
    with Registry(url, clock=clock) as registry:
        registry.upgrade()
        registry.add_model(CHURN, who="ada")
        for _ in range(3):
            register(registry)
        registry.promote("churn", 1, who="ada", reason="first")
        yield registry


def live(registry: Registry) -> LiveState:
    state = registry.live("churn")
    assert state is not None
    return state


def race(url: str, act: Callable[[Registry, int], T], racers: int = RACERS) -> list[T]:
    """What `racers` processes would do at one moment: each has connections of its own."""
    start = Barrier(racers)

    def run(i: int) -> T:
        with Registry(url) as registry:
            registry.ping()
            start.wait()
            return act(registry, i)

    with ThreadPoolExecutor(racers) as pool:
        return list(pool.map(run, range(racers)))


# --- what is live -----------------------------------------------------------------------------


def test_a_new_model_is_announced_without_a_version(registry: Registry) -> None:
    added = registry.live_at("churn", 1_000_000)
    assert added is not None
    first = registry.outbox_pending()[0].state
    assert (first.generation, first.champion, first.versions) == (1, None, [])
    assert first.spec == CHURN


def test_a_state_is_field_for_field_what_lifecycle_carries(registry: Registry) -> None:
    """The relay only converts; a field missing on one side would be lost without a word."""
    assert LiveState.__struct_fields__ == LifecycleChanged.__struct_fields__
    registry.challenge("churn", 2, reason="try")
    state = live(registry)
    wire = msgspec.convert(msgspec.to_builtins(state), LifecycleChanged)
    assert msgspec.json.encode(wire) == msgspec.json.encode(state)
    assert all(isinstance(card, CardOnTheWire) for card in wire.versions)
    assert wire.shadows == (2,)


def test_a_promotion_is_told_with_who_why_and_on_what_evidence(registry: Registry) -> None:
    registry.challenge("churn", 2, who="trainer")
    registry.promote(
        "churn",
        2,
        expected_generation=3,
        command_id="c-1",
        who="evaluate",
        reason="better",
        evidence={"e_value": 25.0, "pairs": {"n": 300}},
    )
    state = live(registry)
    assert (state.champion, state.previous, state.probation) == (2, 1, True)
    assert (state.cause, state.reason, state.generation) == ("c-1", "better", 4)
    entry = registry.history("churn")[-1]
    assert (entry.action, entry.who, entry.command_id) == ("promote", "evaluate", "c-1")
    assert entry.evidence == {"e_value": 25.0, "pairs": {"n": 300}}


def test_history_tells_when_a_challenger_answered_a_share(registry: Registry, clock: Clock) -> None:
    registry.challenge("churn", 2)
    clock.ms += 10
    assert registry.canary("churn", 2, who="evaluate", evidence={"e_value": 101.0}).applied
    at_ms = clock.ms
    clock.ms += 10
    assert registry.promote("churn", 2).applied
    then = registry.live_at("churn", at_ms)
    assert then is not None
    assert (then.champion, then.canary, lifecycle(then).canary) == (1, 2, 2)
    assert (live(registry).champion, live(registry).canary) == (2, None)
    parts = [turn.part for turn in career(registry.history("churn"), 2)]
    assert parts == ["challenger", "canary", "champion"]


def test_a_command_is_handled_once_and_its_first_outcome_repeated(registry: Registry) -> None:
    registry.challenge("churn", 2)
    first = registry.promote("churn", 2, expected_generation=3, command_id="c-1")
    again = registry.promote("churn", 2, expected_generation=3, command_id="c-1")
    assert first == Outcome(applied=True, generation=4)
    assert again == Outcome(applied=True, generation=4, repeated=True)
    assert live(registry).generation == 4
    refused = registry.reject("churn", 3, expected_generation=4, command_id="c-2")
    registry.challenge("churn", 3)
    assert not refused.applied
    assert registry.reject("churn", 3, command_id="c-2") == replace(refused, repeated=True)


def test_a_command_id_used_for_something_else_does_nothing(registry: Registry) -> None:
    registry.challenge("churn", 2, command_id="c-1")
    outcome = registry.promote("churn", 2, command_id="c-1")
    assert not outcome.applied
    assert "used before, to challenge" in outcome.reason
    assert live(registry).champion == 1


def test_a_decision_on_an_older_generation_is_void_and_recorded(registry: Registry) -> None:
    registry.challenge("churn", 2)
    registry.challenge("churn", 3)
    outcome = registry.promote("churn", 2, expected_generation=3, command_id="late")
    assert outcome == Outcome(
        applied=False, generation=4, reason="decided on generation 3, it is 4 now"
    )
    decision = registry.decisions("churn")[0]
    assert (decision.applied, decision.refusal) == (False, outcome.reason)
    assert (decision.action, decision.version, decision.expected_generation) == ("promote", 2, 3)


def test_a_refusal_by_the_rules_is_recorded_and_publishes_nothing(registry: Registry) -> None:
    pending = len(registry.outbox_pending())
    outcome = registry.rollback("churn", who="evaluate", reason="harm", evidence={"e": 200})
    assert "no healthy former champion" in outcome.reason
    assert len(registry.outbox_pending()) == pending
    decision = registry.decisions("churn", limit=1)[0]
    assert (decision.who, decision.reason, decision.evidence) == ("evaluate", "harm", {"e": 200})


def test_commands_for_an_unknown_model_are_refused_not_raised(registry: Registry) -> None:
    outcome = registry.promote("nobody", 1, expected_generation=7, command_id="c-1")
    assert outcome == Outcome(applied=False, generation=0, reason="no model 'nobody'")
    assert registry.promote("nobody", 1, command_id="c-1").repeated


def test_hostile_words_and_numbers_are_recorded_not_raised(registry: Registry) -> None:
    outcome = registry.promote(
        "no\0body\ud800",
        10**30,
        expected_generation=-(10**30),
        command_id="c\0\ud800",
        who="\0",
        reason="\ud800",
        evidence={"text": "\0"},
    )
    assert not outcome.applied
    assert not registry.promote("churn", 10**30).applied
    assert not registry.promote("churn", 2, expected_generation=10**30).applied


def test_a_pin_holds_against_commands_and_people(registry: Registry) -> None:
    registry.challenge("churn", 2)
    registry.pin("churn", who="ada", reason="audit")
    assert live(registry).pinned
    assert "unpin" in registry.promote("churn", 2, expected_generation=4).reason
    assert "unpin" in registry.promote("churn", 2).reason
    assert registry.unpin("churn").applied
    assert registry.promote("churn", 2).applied


def test_a_rollback_goes_to_the_last_healthy_champion_in_history(registry: Registry) -> None:
    registry.promote("churn", 2)
    registry.promote("churn", 3)
    assert registry.rollback("churn", expected_generation=4, command_id="r-1").applied
    state = live(registry)
    assert (state.champion, state.previous, state.probation) == (2, None, False)
    assert [version.version for version in registry.versions("churn")] == [1, 2, 3]
    assert registry.rollback("churn").applied
    assert live(registry).champion == 1
    assert not registry.rollback("churn").applied


def test_a_preview_says_what_would_happen_and_changes_nothing(registry: Registry) -> None:
    assert registry.preview("promote", "churn", 2) == Standing(
        champion=2, previous=1, probation=True
    )
    assert isinstance(registry.preview("settle", "churn"), Refusal)
    assert registry.preview("promote", "nobody", 1) == Refusal("no model 'nobody'")
    assert live(registry).generation == 2


# --- history -----------------------------------------------------------------------------------


def test_live_at_answers_for_any_time(registry: Registry, clock: Clock) -> None:
    clock.ms = 2_000_000
    registry.promote("churn", 2)
    clock.ms = 3_000_000
    registry.rollback("churn")
    answers = {
        time_ms: state and state.champion
        for time_ms in (999_999, 1_000_000, 1_999_999, 2_000_000, 2_999_999, 3_000_000, 2**62)
        for state in [registry.live_at("churn", time_ms)]
    }
    assert list(answers.values()) == [None, 1, 1, 2, 2, 1, 1]


def test_what_was_live_is_known_by_generation_for_ever(registry: Registry) -> None:
    """With the spec and the versions of then: a replay of an old range is judged by them."""
    before = live(registry)
    registry.revise_spec(replace(CHURN, owner="else"), who="ada")
    register(registry)
    registry.challenge("churn", 4)
    registry.promote("churn", 4)
    assert registry.at_generation("churn", before.generation) == before
    assert before.spec.owner == CHURN.owner
    every = [
        registry.at_generation("churn", entry.generation) for entry in registry.history("churn")
    ]
    assert [state and state.generation for state in every] == [1, 2, 3, 4, 5]
    assert [state and state.champion for state in every] == [None, 1, 1, 1, 4]
    assert every[-1] == live(registry)


@pytest.mark.parametrize(("model", "generation"), [("churn", 0), ("churn", 3), ("other", 1)])
def test_a_generation_that_there_never_was_is_none(
    registry: Registry, model: str, generation: int
) -> None:
    assert registry.at_generation(model, generation) is None


def test_history_goes_forward_though_the_clock_is_set_back(
    registry: Registry, clock: Clock
) -> None:
    clock.ms -= 500_000
    registry.promote("churn", 2)
    assert [entry.changed_ms for entry in registry.history("churn")] == [1_000_000] * 3
    assert live(registry).champion == 2


def test_what_was_published_can_be_told_again_from_history(
    registry: Registry, clock: Clock
) -> None:
    """Also after more versions and another revision of the spec came."""
    for _ in range(history.NEWEST_CARDS + 5):
        register(registry)
    clock.ms += 1
    registry.challenge("churn", 2)
    clock.ms += 1
    registry.revise_spec(replace(CHURN, tolerances=Tolerances(psi=0.05)))
    register(registry)
    published = [row.state for row in registry.outbox_pending()[1:]]
    assert [registry.live_at("churn", state.changed_ms) for state in published] == published


def test_a_state_carries_the_newest_cards_and_all_that_play_a_part(registry: Registry) -> None:
    for _ in range(30):
        register(registry)
    registry.challenge("churn", 3)
    cards = [card.version for card in live(registry).versions]
    assert cards == [1, 3, *range(14, 34)]


@pytest.mark.parametrize("table", FACTS)
def test_facts_cannot_be_changed_or_deleted(registry: Registry, table: str) -> None:
    column = next(iter(metadata.tables[table].c)).name
    engine = registry._database._engine
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.exec_driver_sql(statement)


# --- specs -------------------------------------------------------------------------------------


def test_a_revised_spec_is_a_new_generation_of_the_same_standing(registry: Registry) -> None:
    revised = replace(CHURN, tolerances=Tolerances(psi=0.05))
    assert registry.revise_spec(revised, who="ada").applied
    state = live(registry)
    assert (state.spec, state.spec_revision, state.champion) == (revised, 2, 1)
    assert not registry.revise_spec(revised).applied


def test_a_spec_may_not_move_away_from_the_versions_fitted_to_it(registry: Registry) -> None:
    other = replace(CHURN, features=(*CHURN.features, Feature(name="city", type="categorical")))
    assert "features" in registry.revise_spec(other).reason
    fresh = replace(CHURN, name="fresh")
    registry.add_model(fresh)
    assert registry.revise_spec(replace(other, name="fresh")).applied


def test_a_model_is_added_once_and_a_bad_spec_never(registry: Registry) -> None:
    assert "already" in registry.add_model(CHURN).reason
    with pytest.raises(ValueError, match="at least one"):
        registry.add_model(ModelSpec(name="empty", task="regression", features=()))
    assert "add it first" in registry.revise_spec(replace(CHURN, name="other")).reason


def test_models_lists_every_model_with_what_is_live(registry: Registry) -> None:
    registry.add_model(replace(CHURN, name="apples"))
    assert [(state.model, state.champion) for state in registry.models()] == [
        ("apples", None),
        ("churn", 1),
    ]


def test_reading_an_unknown_model_finds_nothing(registry: Registry) -> None:
    assert registry.live("nobody") is None
    assert registry.history("nobody") == []
    assert registry.versions("nobody") == []
    assert registry.decisions("nobody") == []
    with pytest.raises(UnknownModel):
        registry.republish("nobody")
    with pytest.raises(UnknownModel):
        register(registry, "nobody")


# --- outbox ------------------------------------------------------------------------------------


def test_the_outbox_gives_rows_in_order_until_they_are_sent(registry: Registry) -> None:
    registry.challenge("churn", 2)
    rows = registry.outbox_pending(limit=2)
    assert [row.state.generation for row in rows] == [1, 2]
    registry.outbox_sent([row.outbox_id for row in rows])
    assert [row.state.generation for row in registry.outbox_pending()] == [3]
    registry.outbox_sent([row.outbox_id for row in registry.outbox_pending()])
    assert registry.outbox_pending() == []


def test_republishing_sends_the_state_in_force_once_more(registry: Registry) -> None:
    registry.outbox_sent([row.outbox_id for row in registry.outbox_pending()])
    assert registry.republish("churn") == 2
    assert [row.state for row in registry.outbox_pending()] == [live(registry)]


def test_a_transition_that_fails_half_way_leaves_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decision, history and outbox are one transaction."""

    def crash(*_: object) -> int:
        raise KeyboardInterrupt

    before = (registry.history("churn"), registry.decisions("churn"), registry.outbox_pending())
    monkeypatch.setattr(history, "publish", crash)
    with pytest.raises(KeyboardInterrupt):
        registry.promote("churn", 2, command_id="c-1")
    monkeypatch.undo()
    after = (registry.history("churn"), registry.decisions("churn"), registry.outbox_pending())
    assert after == before
    assert not registry.promote("churn", 2, command_id="c-1").repeated


# --- races -------------------------------------------------------------------------------------


def test_of_many_decisions_on_one_generation_one_is_applied(url: str, registry: Registry) -> None:
    for version in (2, 3, *(register(registry) for _ in range(RACERS - 2))):
        registry.challenge("churn", version)
    generation = live(registry).generation
    outcomes = race(
        url,
        lambda r, i: r.promote("churn", i + 2, expected_generation=generation, command_id=f"c{i}"),
    )
    assert sum(outcome.applied for outcome in outcomes) == 1
    assert live(registry).generation == generation + 1
    assert all("decided on" in outcome.reason for outcome in outcomes if not outcome.applied)


def test_one_command_delivered_to_many_is_applied_once(url: str, registry: Registry) -> None:
    outcomes = race(url, lambda r, _: r.promote("churn", 2, command_id="same"))
    assert [outcome.repeated for outcome in outcomes].count(False) == 1
    assert {outcome.generation for outcome in outcomes} == {3}
    assert len(registry.history("churn")) == 3


def test_people_at_the_same_moment_are_served_one_after_the_other(
    url: str, registry: Registry
) -> None:
    outcomes = race(url, lambda r, i: r.promote("churn", 2 + i % 2))
    generations = sorted(outcome.generation for outcome in outcomes if outcome.applied)
    assert generations == list(range(3, 3 + len(generations)))
    assert [entry.generation for entry in registry.history("churn")] == [1, 2, *generations]
    pending = [row.state.generation for row in registry.outbox_pending()]
    assert pending == [1, 2, *generations]


def test_versions_registered_at_the_same_moment_count_on(url: str, registry: Registry) -> None:
    assert sorted(race(url, lambda r, _: register(r))) == list(range(4, 4 + RACERS))


def test_one_model_added_by_many_is_added_once(url: str, registry: Registry) -> None:
    spec = replace(CHURN, name="new")
    outcomes = race(url, lambda r, _: r.add_model(spec))
    assert sum(outcome.applied for outcome in outcomes) == 1
    assert len(registry.history("new")) == 1


def test_a_restored_registry_catches_up_with_what_workers_have_seen(registry: Registry) -> None:
    """Republished after a generation that it has lost, the same state is newer than that."""
    before = live(registry)
    assert registry.republish("churn", after=7, who="ann") == 8
    after = live(registry)
    assert (after.generation, after.champion) == (8, before.champion)
    assert [row.state.generation for row in registry.outbox_pending()][-1] == 8
    assert [entry.action for entry in registry.history("churn")][-1] == "republish"
    assert registry.republish("churn", after=7) == 8
    assert registry.republish("churn", after=8) == 9
