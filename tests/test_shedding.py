"""Score falls behind: shadows go first, in whole batches, and their trial is told."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stream.core.processor import Batch, Context, CoreSettings, LiveModel, Output
from stream.core.scoring import ScoreProcessor
from stream.core.ticks import Group, Pending, Tick
from stream.core.trials import TrialState, judge_challenger, observe
from stream.events import SummaryComputed
from tests.fleets import CHURN, FakeLive
from tests.summaries import facts
from tests.test_scoring import CANARY, NOW, made, request
from tests.test_trials import TRIAL, draws, group, lifecycle

LIMIT = 100
SHADOWED = {"churn": FakeLive(challengers=(2, 3))}


def score(limit: int = LIMIT) -> ScoreProcessor:
    counts = {"requests": 4, "predictions": 4, "summaries": 4}
    return ScoreProcessor(Context(1, counts, CoreSettings(shed_shadows_lag=limit)))


def scored(
    stage: ScoreProcessor, *, ahead: int, fleet: Mapping[str, LiveModel] = SHADOWED
) -> list[Output]:
    records = [request(1), request(2)]
    return stage.apply(Batch("requests", 1, records, ahead), fleet)


def test_with_more_requests_waiting_than_the_limit_only_the_champion_predicts() -> None:
    stage = score()

    shed = [made(output) for output in scored(stage, ahead=LIMIT + 1)]
    kept = [made(output) for output in scored(stage, ahead=LIMIT)]

    assert [one.shadow for one in shed] == [{}, {}]
    assert [set(one.shadow) for one in kept] == [{"2", "3"}] * 2
    assert [one.output for one in shed] == [one.output for one in kept]
    assert stage.counters["shadow_shed"] == 4


def test_a_limit_of_0_never_sheds() -> None:
    assert all(made(output).shadow for output in scored(score(0), ahead=10**9))


def test_a_canary_is_not_shed_because_it_answers_requests() -> None:
    live = FakeLive(CANARY, challengers=(2, 3))
    live.lifecycle = msgspec.structs.replace(live.lifecycle, canary=2)

    shown = [made(one) for one in scored(score(), ahead=LIMIT + 1, fleet={"churn": live})]

    assert all("3" not in one.shadow for one in shown)
    assert all({one.version, *map(int, one.shadow)} == {1, 2} for one in shown)


def test_what_was_shed_is_told_by_version_and_tick_once_an_interval() -> None:
    stage = score()
    scored(stage, ahead=LIMIT + 1)

    (told,) = facts(stage.advance(NOW, False, SHADOWED))

    assert isinstance(told, SummaryComputed)
    assert (told.model, told.version, told.tick) == ("churn", 1, NOW // CHURN.tick_ms)
    assert told.shed == {"2": 2, "3": 2}
    assert told.offsets == {"requests/1": (1, 3)}
    assert stage.advance(NOW + 5_000, False, SHADOWED) == []


def test_evaluate_takes_it_in_whatever_else_came_in_that_tick() -> None:
    pending = Pending()
    delta = SummaryComputed(model="churn", version=1, tick=7, partition=0, shed={"2": 5})

    assert pending.add(delta, closed=9) == 9
    assert pending.open[9].shed == {"2": 5}


def test_the_evidence_of_a_trial_says_how_many_requests_its_shadow_missed() -> None:
    states: dict[int, TrialState] = {}
    verdict = None
    for number in range(50):
        observe(states, lifecycle(), group(number, draws(number, 0.2, 0.05)))
        end_ms = states[2].ended_ms
        observe(states, lifecycle(), Group(end_ms, end_ms, Tick(shed={"2": 10})))
        verdict = verdict or judge_challenger(2, states[2], TRIAL, harmed=False)
        if verdict:
            break

    assert verdict is not None
    assert verdict.kind == "promote"
    assert verdict.evidence["shed"] == 10 * (number + 1)
