"""Paired trials: the champion against its shadows on the same labelled events.

A challenger goes live when it is proven better, or proven not worse by more than the margin where
the champion is harmed or the spec asks for no more (`to_prove`); and, either way, only if it breaks
no guard rail (`guards`). A new champion on probation goes back when the previous version is proven
better. D = bounded loss of the champion - that of the shadow, so positive speaks for the shadow;
the tests may be looked at after every group (`trial.PairedTest`).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from msgspec import Struct, field

from models.spec import Trial
from stream.core import guards
from stream.core.guards import Finding, Guarded, Guards
from stream.core.ticks import Group, added_pairs
from stream.core.trial import PairedTest
from stream.events import MICRO, LifecycleChanged, Pairs

Name = Literal["better", "not worse", "not better", "worse", "worse than before"]
#: Of what a canary answers, D is the other way round: its loss - the champion's, as in probation.
ON_CANARY: Final[Name] = "worse than before"
NOBODY: Final[Guarded] = {}
TESTS: Final[tuple[Name, ...]] = ("better", "not worse", "not better", "worse", "worse than before")


class TrialState(Struct, omit_defaults=True):
    """One shadow beside one champion, from the first pair on."""

    started_ms: int
    ended_ms: int = 0  # end of the last group seen
    cycles: int = 0  # whole business cycles that were judged
    shed: int = 0  # requests that the shadow did not predict, because score was too far behind
    totals: Pairs = Pairs()
    tests: dict[str, list[float]] = {}
    guards: Guards = field(default_factory=Guards)


class Judgement(NamedTuple):
    """What a trial says should happen with a shadow version, and why."""

    kind: Literal["canary", "promote", "reject", "rollback", "settle"]
    version: int
    reason: str
    evidence: dict[str, object]


def observe(trials: dict[int, TrialState], lifecycle: LifecycleChanged, group: Group) -> None:
    """Take one group's pairs in; the trial of a shadow starts with its first pair."""
    spec = lifecycle.spec.trial
    for version in sorted(set(lifecycle.shadows)):
        pairs = group.counts.pairs.get(str(version))
        if version in trials:
            trials[version].shed += group.counts.shed.get(str(version), 0)
        if pairs is None:
            continue
        state = trials.setdefault(version, TrialState(started_ms=group.start_ms))
        state.ended_ms = group.end_ms
        state.totals = added_pairs(state.totals, pairs)
        for test in TESTS:
            paired = read_test(state, spec, test)
            paired.update(pairs.n, pairs.d_sum / MICRO, pairs.d_squares / MICRO)
            state.tests[test] = paired.snapshot()
        state.guards.observe(lifecycle.champion or 0, version, group)


def judge_challenger(
    version: int, state: TrialState, spec: Trial, *, harmed: bool, segments: Guarded = NOBODY
) -> Judgement | None:
    """Promote, reject, or wait: asked after each group, answered at whole business cycles only.

    A business that is good for one version on weekdays and for another on weekends would otherwise
    promote whichever is asked about at the right time.

    Args:
        segments: that are guarded.
    """
    if not _at_whole_cycle(state, spec) or state.guards.n < spec.minimum_pairs:
        return None
    found = guards.judge(state.guards, spec, segments)
    kind, reason, test = _decided(state, spec, found, harmed=harmed)
    if kind == "wait":
        return None
    judgement = _judgement(kind, version, reason, state, spec, test)
    judgement.evidence["guards"] = guards.evidence(state.guards, spec, segments)
    return judgement


def _decided(
    state: TrialState, spec: Trial, found: Finding, *, harmed: bool
) -> tuple[Literal["promote", "reject", "wait"], str, Name]:
    """What is to happen, why, and the test that says so."""
    n = state.totals.n
    not_worse_is_enough = harmed or spec.to_prove == "not worse"
    if found.broken:
        return "reject", found.broken, "better"
    if not found.unproven:
        if _proven(state, spec, "better"):
            return "promote", "it does better", "better"
        if not_worse_is_enough and _proven(state, spec, "not worse"):
            why = "the champion is harmed, and it" if harmed else "it is newer, and"
            return "promote", f"{why} is not worse by {spec.margin:g}", "not worse"
    # Where it need not be better, being no better is no fault, being worse is.
    futile: Name = "worse" if not_worse_is_enough else "not better"
    if _proven(state, spec, futile):
        reason = "it does worse" if not_worse_is_enough else f"it is not better by {spec.margin:g}"
        return "reject", reason, futile
    if n < spec.maximum_pairs:
        return "wait", "", "better"
    if _proven(state, spec, "better"):
        where = ", ".join(found.unproven)
        reason = f"not shown to be no worse where {where} after {n} labelled events"
        return "reject", reason, "better"
    return "reject", f"not proven better after {n} labelled events", "better"


def observe_canary(states: dict[int, TrialState], canary: int, champion: int, group: Group) -> None:
    """Take in one group of what the canary answered; D = its loss - the champion's."""
    pairs = group.counts.pairs.get(str(champion))
    if pairs is None:
        return
    state = states.setdefault(canary, TrialState(started_ms=group.start_ms))
    state.ended_ms = group.end_ms
    state.totals = added_pairs(state.totals, pairs)
    test = PairedTest()
    if ON_CANARY in state.tests:
        test.restore(state.tests[ON_CANARY])
    test.update(pairs.n, pairs.d_sum / MICRO, pairs.d_squares / MICRO)
    state.tests[ON_CANARY] = test.snapshot()


def judge_canary(canary: int, state: TrialState, spec: Trial) -> Judgement | None:
    """Promote what was proven in shadow and is not worse where it answers; reject it, or wait."""
    if _proven(state, spec, ON_CANARY):
        reason = "it does worse on the requests that it answers"
        return _judgement("reject", canary, reason, state, spec, ON_CANARY)
    if state.totals.n < spec.canary_pairs or not _at_whole_cycle(state, spec):
        return None
    reason = f"it does better, and not worse on {state.totals.n} labelled requests that it answered"
    return _judgement("promote", canary, reason, state, spec, ON_CANARY)


def judge_probation(version: int, state: TrialState, spec: Trial) -> Judgement | None:
    """Roll back to the previous version (`version`), end the probation, or wait."""
    test: Name = "worse than before"
    if _proven(state, spec, test):
        reason = f"version {version} does better on the same events"
        return _judgement("rollback", version, reason, state, spec, test)
    if state.totals.n >= spec.probation_pairs:
        reason = f"not worse than version {version} on {state.totals.n} labelled events"
        return _judgement("settle", version, reason, state, spec, test)
    return None


def is_refuted(state: TrialState, spec: Trial) -> bool:
    """Whether the evidence that the champion is worse than before is gone again."""
    return read_test(state, spec, "worse than before").e_value < 1


def read_test(state: TrialState, spec: Trial, name: Name) -> PairedTest:
    """A test as it stands."""
    null_mean, sign = {
        "better": (0.0, 1),
        "not worse": (-spec.margin, 1),
        "not better": (spec.margin, -1),
        "worse": (0.0, -1),
        "worse than before": (spec.rollback_tolerance, 1),
    }[name]
    test = PairedTest(null_mean=null_mean, sign=sign)
    if name in state.tests:
        test.restore(state.tests[name])
    return test


def _alpha(spec: Trial, name: Name) -> float:
    return spec.rollback_alpha if name == "worse than before" else spec.alpha


def _proven(state: TrialState, spec: Trial, name: Name) -> bool:
    return read_test(state, spec, name).e_value >= 1 / _alpha(spec, name)


def _at_whole_cycle(state: TrialState, spec: Trial) -> bool:
    """Whether the last group completed a cycle; that cycle then counts as judged."""
    if spec.cycle_seconds == 0:
        return True
    completed = int((state.ended_ms - state.started_ms) // (spec.cycle_seconds * 1000))
    if completed <= state.cycles:
        return False
    state.cycles = completed
    return True


def _judgement(
    kind: Literal["canary", "promote", "reject", "rollback", "settle"],
    version: int,
    reason: str,
    state: TrialState,
    spec: Trial,
    name: Name,
) -> Judgement:
    test = read_test(state, spec, name)
    low, high = test.interval()
    totals = state.totals
    evidence: dict[str, object] = {
        "test": name,
        "e_value": test.e_value,
        "needed": 1 / _alpha(spec, name),
        "pairs": totals.n,
        "difference": test.mean,  # of the bounded loss, champion - shadow
        "difference_low": low,
        "difference_high": high,
        "champion_loss": totals.losses / MICRO / max(1, totals.n),
        "shadow_loss": totals.shadow_losses / MICRO / max(1, totals.n),
        "since_ms": state.started_ms,
        "until_ms": state.ended_ms,
        "cycles": state.cycles,
        "shed": state.shed,
    }
    return Judgement(kind, version, reason, evidence)
