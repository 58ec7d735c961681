"""Whatever people and commands ask of a registry, and in whatever order, its records agree."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from models.registry import LiveState, Outcome, Registry
from models.spec import Tolerances
from models.transitions import Action
from tests.registries import BACKENDS, CHURN, Clock, database_url, register

NAMES = itertools.count()
STEPS = 25
actions: st.SearchStrategy[Action] = st.sampled_from(get_args(Action))
versions = st.none() | st.integers(0, 6)


class Lifecycle(RuleBasedStateMachine):
    """One model of a registry that all examples share, so that the schema is made once."""

    registry: Registry
    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.model = f"model-{next(NAMES)}"
        self.spec = replace(CHURN, name=self.model)
        self.versions = 0
        self.asked = 1
        self.commands: dict[str, tuple[Action, Outcome]] = {}
        self.states: list[LiveState] = []
        self.registry.outbox_sent([row.outbox_id for row in self.registry.outbox_pending(10_000)])
        self.took(self.registry.add_model(self.spec))

    def took(self, outcome: Outcome) -> None:
        """Check the outcome against the generation before, and keep what is live after it."""
        before = len(self.states)
        assert outcome.generation == before + outcome.applied
        assert bool(outcome.reason) != outcome.applied
        if outcome.applied:
            state = self.registry.live(self.model)
            assert state is not None
            self.states.append(state)

    @rule()
    def register(self) -> None:
        self.versions += 1
        assert register(self.registry, self.model) == self.versions

    @rule(forward=st.integers(-50, 100))
    def time_passes(self, forward: int) -> None:
        self.clock.ms += forward

    @rule(action=actions, version=versions)
    def a_person_asks(self, action: Action, version: int | None) -> None:
        self.asked += 1
        self.took(getattr(self.registry, action)(self.model, version, who="ada"))

    @rule(action=actions, version=versions, behind=st.integers(0, 1))
    def a_command_asks(self, action: Action, version: int | None, behind: int) -> None:
        self.asked += 1
        command_id = f"{self.model}/{self.asked}"
        was_pinned, champion = self.states[-1].pinned, self.states[-1].champion
        outcome: Outcome = getattr(self.registry, action)(
            self.model,
            version,
            expected_generation=len(self.states) - behind,
            command_id=command_id,
        )
        assert not (outcome.applied and behind)
        self.took(outcome)
        assert not was_pinned or self.states[-1].champion == champion
        self.commands[command_id] = (action, outcome)

    @rule(data=st.data())
    def a_command_comes_again(self, data: st.DataObject) -> None:
        if self.commands:
            command_id = data.draw(st.sampled_from(sorted(self.commands)))
            action, outcome = self.commands[command_id]
            again = getattr(self.registry, action)(self.model, 1, command_id=command_id)
            assert again == replace(outcome, repeated=True)

    @rule(psi=st.floats(0, 1))
    def the_spec_is_revised(self, psi: float) -> None:
        self.asked += 1
        self.spec = replace(self.spec, tolerances=Tolerances(psi=psi))
        self.took(self.registry.revise_spec(self.spec))

    @invariant()
    def never_two_champions(self) -> None:
        state = self.states[-1]
        parts = [p for p in (state.champion, state.previous, *state.challengers) if p is not None]
        assert len(set(parts)) == len(parts), "a version plays one part"
        assert state.probation == (state.previous is not None)
        assert set(parts) <= {card.version for card in state.versions}

    @invariant()
    def one_outbox_row_for_each_applied_transition(self) -> None:
        pending = self.registry.outbox_pending(10_000)
        assert [row.state for row in pending] == self.states

    @invariant()
    def history_says_what_was_live_and_every_request_is_on_record(self) -> None:
        entries = self.registry.history(self.model)
        told = [(e.generation, e.champion, e.previous, e.challengers, e.pinned) for e in entries]
        assert told == [
            (s.generation, s.champion, s.previous, s.challengers, s.pinned) for s in self.states
        ]
        decisions = self.registry.decisions(self.model, limit=10_000)
        assert len(decisions) == self.asked
        assert sum(decision.applied for decision in decisions) == len(entries)

    @invariant()
    def live_at_agrees_with_history_at_any_time(self) -> None:
        times = [state.changed_ms for state in self.states]
        assert times == sorted(times)
        for time_ms in {t + d for t in times[-2:] for d in (-1, 0)}:
            then = [state for state in self.states if state.changed_ms <= time_ms]
            assert self.registry.live_at(self.model, time_ms) == (then[-1] if then else None)


@pytest.fixture(params=BACKENDS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[type[Lifecycle]]:
    clock = Clock()
    url = database_url(request, request.param, tmp_path)
    with Registry(url, clock=clock) as registry:
        registry.upgrade()
        yield type("Lifecycle", (Lifecycle,), {"registry": registry, "clock": clock})


def test_records_agree_after_any_sequence_of_requests(machine: type[Lifecycle]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8,
            stateful_step_count=STEPS,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert msgspec.json.encode(machine.registry.models())  # every model's state is still whole
