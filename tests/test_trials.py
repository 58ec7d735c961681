"""Paired trials: what is promoted, rejected, rolled back, and when."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from models.spec import Trial
from stream.core.ticks import Group, Tick
from stream.core.trials import TrialState, judge_challenger, judge_probation, observe
from stream.events import MICRO, LifecycleChanged, Pairs
from tests.summaries import DAY_MS, SPEC

TRIAL = Trial(
    alpha=0.05,
    margin=0.05,
    minimum_pairs=100,
    maximum_pairs=3000,
    cycle_seconds=0,
    probation_pairs=2000,
)


def lifecycle(trial: Trial = TRIAL, **fields: object) -> LifecycleChanged:
    spec = msgspec.structs.replace(SPEC, trial=trial)
    return LifecycleChanged(
        model="bikes",
        generation=1,
        spec=spec,
        spec_revision=1,
        champion=1,
        changed_ms=0,
        **{"challengers": [2], **fields},  # type: ignore[arg-type]
    )


def group(number: int, differences: list[float]) -> Group:
    d = np.array(differences)
    pairs = Pairs(
        n=len(d), d_sum=round(d.sum() * MICRO), d_squares=round(float((d**2).sum()) * MICRO)
    )
    return Group(number * DAY_MS, (number + 1) * DAY_MS, Tick(pairs={"2": pairs}))


def draws(seed: int, better: float, worse: float) -> list[float]:
    """A hundred pairs: the shadow is right alone in `better` of them, wrong alone in `worse`."""
    draw = np.random.default_rng(seed).random(100)
    return [1.0 if x < better else -1.0 if x < better + worse else 0.0 for x in draw]


def outcome(better: float, worse: float, *, harmed: bool = False) -> tuple[str, int]:
    """How a challenger's trial ends, and after how many pairs."""
    states: dict[int, TrialState] = {}
    for number in range(50):
        observe(states, lifecycle(), group(number, draws(number, better, worse)))
        judgement = judge_challenger(2, states[2], TRIAL, harmed=harmed)
        if judgement is not None:
            return judgement.kind, states[2].totals.n
    return "undecided", states[2].totals.n


@pytest.mark.parametrize(
    ("better", "worse", "harmed", "expected"),
    [
        (0.20, 0.05, False, "promote"),
        (0.05, 0.20, False, "reject"),
        (0.05, 0.05, False, "reject"),
        (0.05, 0.05, True, "promote"),  # the champion is harmed, and it is not worse
        (0.05, 0.25, True, "reject"),
    ],
)
def test_how_a_trial_ends(better: float, worse: float, harmed: bool, expected: str) -> None:
    assert outcome(better, worse, harmed=harmed)[0] == expected


FRESH = msgspec.structs.replace(TRIAL, to_prove="not worse", alpha=0.01)


def test_where_not_worse_is_enough_an_equal_challenger_goes_live_and_a_worse_one_hardly_ever() -> (
    None
):
    """One that is worse by the margin is promoted in at most the share that the spec allows."""

    def share(worse: float, wanted: str) -> float:
        kinds = []
        for seed in range(200):
            states: dict[int, TrialState] = {}
            for number in range(30):
                pairs = draws(1000 * seed + number, 0.05, worse)
                observe(states, lifecycle(FRESH), group(number, pairs))
                judgement = judge_challenger(2, states[2], FRESH, harmed=False)
                if judgement is not None:
                    kinds.append(judgement.kind)
                    break
        return kinds.count(wanted) / 200  # type: ignore[arg-type]

    assert share(0.05, "promote") >= 0.95
    assert share(0.10, "promote") <= FRESH.alpha
    assert share(0.15, "reject") >= 0.95


def test_nothing_is_decided_before_the_minimum_of_pairs() -> None:
    states: dict[int, TrialState] = {}
    observe(states, lifecycle(), group(0, [1.0] * 99))
    assert judge_challenger(2, states[2], TRIAL, harmed=True) is None
    observe(states, lifecycle(), group(1, [1.0]))
    judgement = judge_challenger(2, states[2], TRIAL, harmed=True)
    assert judgement is not None
    assert judgement.kind == "promote"


def test_what_cannot_be_told_apart_is_rejected_at_the_maximum() -> None:
    patient = msgspec.structs.replace(TRIAL, margin=0.0)
    states: dict[int, TrialState] = {}
    judgement, number = None, 0
    while judgement is None:
        observe(states, lifecycle(patient), group(number, draws(number, 0.05, 0.05)))
        judgement = judge_challenger(2, states[2], patient, harmed=False)
        number += 1
    assert (judgement.kind, states[2].totals.n) == ("reject", 3000)


def test_an_alternating_challenger_does_not_fool_a_trial_judged_at_whole_cycles() -> None:
    """Better on workdays, worse at weekends, equal over the week."""
    week = [[0.4] * 10 + [0.0] * 90] * 5 + [[-1.0] * 10 + [0.0] * 90] * 2
    outcomes = {}
    for cycle_days in (0, 7):
        trial = msgspec.structs.replace(
            TRIAL, cycle_seconds=cycle_days * 86_400.0, margin=0.0, maximum_pairs=10**6
        )
        states: dict[int, TrialState] = {}
        kinds = set()
        for number in range(7 * 30):
            observe(states, lifecycle(trial), group(number, week[number % 7]))
            judgement = judge_challenger(2, states[2], trial, harmed=False)
            kinds |= {judgement.kind} if judgement else set()
        outcomes[cycle_days] = kinds
    assert outcomes == {0: {"promote"}, 7: set()}


def test_a_new_champion_that_is_worse_goes_back_and_an_equal_one_settles() -> None:
    for better, expected in ((0.25, "rollback"), (0.05, "settle")):
        states: dict[int, TrialState] = {}
        changed = lifecycle(challengers=[], previous=2, probation=True)
        judgement, number = None, 0
        while judgement is None:
            observe(states, changed, group(number, draws(number, better, 0.05)))
            judgement = judge_probation(2, states[2], TRIAL)
            number += 1
        assert judgement.kind == expected
        assert expected == "rollback" or states[2].totals.n == TRIAL.probation_pairs


def test_pairs_with_a_version_that_left_the_shadow_start_no_trial() -> None:
    states: dict[int, TrialState] = {}
    observe(states, lifecycle(challengers=[3]), group(0, [1.0]))
    assert states == {}


def test_a_trial_survives_plain_data() -> None:
    states: dict[int, TrialState] = {}
    for number in range(3):
        observe(states, lifecycle(), group(number, draws(number, 0.1, 0.05)))
    again = msgspec.json.decode(msgspec.json.encode(states), type=dict[int, TrialState])
    assert again == states
