"""One model's verdicts: a fold over groups of closed ticks, and what changes when lifecycle does.

Everything is keyed by version. Detectors and trials begin with a champion's reign and end with it;
ticks of an earlier champion that come later restate windows and judge nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct, field

from stream.core import describing, policy, trials, watching
from stream.core.alerts import Book, Problem
from stream.core.policy import Asking, Issued, Situation, Told
from stream.core.ticks import Group
from stream.core.trials import Judgement, TrialState
from stream.core.watching import Kind, Kit, Watch
from stream.events import (
    AccuracyMeasured,
    Alert,
    AlertHandled,
    Command,
    DriftMeasured,
    LifecycleChanged,
    RetrainHeld,
)

Fact = AccuracyMeasured | DriftMeasured | Alert | Command | RetrainHeld

#: What each problem's alert follows: the signals of these kinds that are open.
KINDS: Final[tuple[tuple[Problem, tuple[Kind, ...]], ...]] = (
    ("harm", ("harm",)),
    ("estimate", ("estimate",)),
    ("data", ("broken", "schema")),
    ("prediction", ("prediction",)),
    ("drift", ("feature",)),
)
RECOVERED: Final[dict[Problem, str]] = {
    "harm": "version {} is back near its validated loss",
    "estimate": "version {} is expected to do about as well as validated again",
    "data": "the data of version {} is whole again",
    "prediction": "what version {} predicts is distributed as before",
    "drift": "inputs are again as version {} was trained on",
    "probation": "version {} no longer does worse than the one before it",
}


class Verdicts(Struct, omit_defaults=True):
    """Detectors, trials, open alerts and issued commands of one model."""

    watch: Watch | None = None
    trials: dict[int, TrialState] = {}
    canaries: dict[int, TrialState] = {}  # of the canary, on what it answers
    book: Book = field(default_factory=Book)
    issued: dict[str, Issued] = {}
    labels: int = 0  # since the last retrain was commanded
    retrains: list[int] = []  # when they were commanded, of the last week
    held: dict[str, Told] = {}  # why they were not, by what asked, as far as it was told


class Case(NamedTuple):
    """What one judgement of a group is made with."""

    verdicts: Verdicts
    watch: Watch
    kit: Kit
    lifecycle: LifecycleChanged
    now_ms: int

    @property
    def situation(self) -> Situation:
        verdicts = self.verdicts
        return Situation(
            self.lifecycle, verdicts.issued, self.now_ms, verdicts.labels, verdicts.retrains
        )

    def report(self, problem: Problem, finding: describing.Finding, **more: Any) -> Alert:
        sentence, evidence = finding
        card = self.lifecycle.card(self.watch.version)
        evidence = {**evidence, **more, "profile": card.profile_digest if card else None}
        return self.verdicts.book.report(
            problem,
            sentence,
            evidence,
            model=self.lifecycle.model,
            version=self.watch.version,
            now_ms=self.now_ms,
            cooldown_ms=round(self.lifecycle.spec.alerts.cooldown_seconds * 1000),
            paging=problem == "estimate" and self.lifecycle.spec.policy.estimated_harm == "page",
        )

    def recovered(self, problem: Problem) -> Alert:
        sentence = RECOVERED[problem].format(self.watch.version)
        return self.verdicts.book.resolve(problem, self.now_ms, sentence)

    def issue(self, command: Command) -> Command:
        self.verdicts.issued[command.kind] = Issued(command.generation, command.issued_ms)
        if command.kind == "retrain":
            since_ms = command.issued_ms - policy.WEEK_MS
            recent = [time_ms for time_ms in self.verdicts.retrains if time_ms > since_ms]
            self.verdicts.retrains = [*recent, command.issued_ms]
            self.verdicts.labels = 0
            self.verdicts.held = {}
        return command


def adopt(verdicts: Verdicts, lifecycle: LifecycleChanged, now_ms: int) -> list[Alert]:
    """Follow lifecycle to a new generation; returns the alerts that this settles."""
    book, champion = verdicts.book, lifecycle.champion
    verdicts.canaries = {v: t for v, t in verdicts.canaries.items() if v == lifecycle.canary}
    if verdicts.watch is not None and verdicts.watch.version == champion:
        shadows = set(lifecycle.shadows)
        verdicts.trials = {v: t for v, t in verdicts.trials.items() if v in shadows}
        if lifecycle.probation or "probation" not in book.open:
            return []
        return [_settled(book, "probation", now_ms, "the probation is over")]
    left = verdicts.watch.version if verdicts.watch else None
    verdicts.watch = None if champion is None else Watch(version=champion)
    verdicts.trials, verdicts.canaries, verdicts.held = {}, {}, {}
    why = f" ({lifecycle.reason})" if lifecycle.reason else ""
    sentence = f"version {champion} went live in place of version {left}{why}"
    return [_settled(book, problem, now_ms, sentence) for problem in sorted(book.open)]


def handle(verdicts: Verdicts, said: AlertHandled, now_ms: int) -> Alert | None:
    """Do what a person says about an alert; None if it is not open.

    What is resolved by hand is watched again from no evidence.
    """
    problem = verdicts.book.problem_of(said.alert_id)
    if problem is None:
        return None
    kinds = next((kinds for name, kinds in KINDS if name == problem), ())
    if said.kind == "resolve" and verdicts.watch is not None:
        for kind in kinds:
            verdicts.watch.close(kind)
    return verdicts.book.handle(problem, said, now_ms)


def judge(case: Case, group: Group) -> list[Fact]:
    """Take one group of closed ticks in: measurements of trials, alerts, commands."""
    case.verdicts.labels += group.counts.labels
    watching.observe(case.watch, case.kit, group)
    trials.observe(case.verdicts.trials, case.lifecycle, group)
    facts: list[Fact] = []
    alerts: dict[str, Alert] = {}
    for step in (_report, _judge_probation, _judge_challengers, _judge_harm, _keep_fresh):
        for fact in step(case):
            if isinstance(fact, Alert):
                alerts[fact.alert_id] = fact  # the last word of this group on it
            else:
                facts.append(fact)
    return [*alerts.values(), *facts]


def _report(case: Case) -> Iterator[Fact]:
    """Alerts follow the signals that are open."""
    for problem, kinds in KINDS:
        names = sorted(name for kind in kinds for name in case.watch.open(kind))
        alert = case.verdicts.book.open.get(problem)
        if names and (alert is None or alert.evidence.get("names") != names):
            promised = msgspec.structs.asdict(case.kit.promise)
            yield case.report(problem, _describe(case, problem), names=names, promise=promised)
        elif alert is not None and not names:
            yield case.recovered(problem)


def _judge_probation(case: Case) -> Iterator[Fact]:
    """A new champion that does worse than the one before goes back."""
    previous, trial = case.lifecycle.previous, case.lifecycle.spec.trial
    state = case.verdicts.trials.get(previous) if previous is not None else None
    if previous is None or state is None or not case.lifecycle.probation:
        return
    judgement = trials.judge_probation(previous, state, trial)
    book = case.verdicts.book
    if judgement is not None and judgement.kind == "rollback":
        if "probation" not in book.open:
            yield case.report("probation", describing.probation(case.watch.version, judgement))
        yield from _act(case, judgement, "probation")
    elif "probation" in book.open and trials.is_refuted(state, trial):
        yield case.recovered("probation")
    elif judgement is not None:
        yield from _act(case, judgement, None)


def _judge_challengers(case: Case) -> Iterator[Fact]:
    """At most one challenger is promoted: the one with the most evidence."""
    harmed = "harm" in case.verdicts.book.open
    judgements = []
    for version in sorted(set(case.lifecycle.challengers)):
        state = case.verdicts.trials.get(version)
        if state is not None and version != case.lifecycle.previous:
            judgements.append(_judge_challenger(case, version, state, harmed=harmed))
    found = [judgement for judgement in judgements if judgement is not None]
    found.sort(key=lambda j: (j.kind == "reject", -float(str(j.evidence["e_value"])), j.version))
    for judgement in found:
        yield from _act(case, judgement, "harm")


def _judge_challenger(
    case: Case, version: int, state: TrialState, *, harmed: bool
) -> Judgement | None:
    """What is proven goes live, or first answers a share of the requests, and then goes live."""
    spec, lifecycle = case.lifecycle.spec.trial, case.lifecycle
    segments = case.kit.guarded
    if version == lifecycle.canary:
        answered = case.verdicts.canaries.get(version)
        return trials.judge_canary(version, answered, spec) if answered else None
    judgement = trials.judge_challenger(version, state, spec, harmed=harmed, segments=segments)
    served_here = lifecycle.spec.served == "here"
    if judgement and judgement.kind == "promote" and spec.canary_share and served_here:
        return judgement._replace(kind="canary")
    return judgement


def _judge_harm(case: Case) -> Iterator[Fact]:
    """Harm that nothing else mends asks for a retrain; the alert says what is done about it."""
    alert = case.verdicts.book.open.get("harm")
    if alert is None:
        case.verdicts.held.pop("harm", None)
        return
    held = _retrain_held(case)
    if held is None:
        yield case.issue(policy.retrain(case.situation, alert))
    else:
        yield from _record(case, Asking("harm", alert.sentence, alert), held)
    yield from _note(case, "harm", "retrain: commanded" if held is None else f"held: {held}")


def _keep_fresh(case: Case) -> Iterator[Fact]:
    """A challenger that the policy asks for. Beside harm there is one anyhow, or a reason why not.

    An alert on drift says what is done about it, where the policy lets drift ask.
    """
    since_ms, opened = case.watch.began_ms, case.verdicts.book.open
    problem: Problem = "drift" if "drift" in opened else "prediction"
    asks = opened.get(problem) if case.lifecycle.spec.policy.retrain_on_drift else None
    asking = policy.due(case.situation, since_ms, asks)
    if "harm" in opened:
        return
    told = case.verdicts.held
    case.verdicts.held = {c: t for c, t in told.items() if asking and c == asking.cause}
    if asking is None:
        return
    held = _retrain_held(case)
    if held is None:
        yield case.issue(policy.refresh(case.situation, since_ms, asking))
    else:
        yield from _record(case, asking, held)
    if asks is not None:
        yield from _note(case, problem, "retrain: commanded" if held is None else f"held: {held}")


def _retrain_held(case: Case) -> str | None:
    lifecycle, data = case.lifecycle, case.verdicts.book.open.get("data")
    previous = case.verdicts.trials.get(lifecycle.previous or 0) if lifecycle.probation else None
    return policy.may_retrain(case.situation, data=data, previous=previous)


def _record(case: Case, asking: Asking, reason: str) -> Iterator[Fact]:
    held = policy.held(case.situation, asking, reason, case.verdicts.held)
    if held is not None:
        yield held


def _act(case: Case, judgement: Judgement, problem: Problem | None) -> Iterator[Fact]:
    """Command what a trial says, or note in the alert why not."""
    held = policy.may_act(case.situation, judgement)
    judgement = _traced(case, judgement)
    alert = case.verdicts.book.open.get(problem) if problem else None
    if held is None:
        yield case.issue(policy.act(case.situation, judgement, alert))
    if problem == "probation":
        what = f"rollback to version {judgement.version}"
        yield from _note(case, problem, f"{what}: commanded" if held is None else f"held: {held}")


def _traced(case: Case, judgement: Judgement) -> Judgement:
    """With a few traces of what the trial compared, where events carry any."""
    since_ms, until_ms = (judgement.evidence.get(name) for name in ("since_ms", "until_ms"))
    if not isinstance(since_ms, int) or not isinstance(until_ms, int):
        return judgement
    traces = case.watch.trail.traces(since_ms, until_ms)
    return (
        judgement._replace(evidence={**judgement.evidence, "traces": traces})
        if traces
        else judgement
    )


def _note(case: Case, problem: Problem, action: str) -> Iterator[Fact]:
    alert = case.verdicts.book.note(problem, case.now_ms, action=action)
    if alert is not None:
        yield alert


def _describe(case: Case, problem: Problem) -> describing.Finding:
    if problem == "harm":
        return describing.harm(case.watch, case.kit)
    if problem == "estimate":
        return describing.expected(case.watch, case.kit)
    if problem == "data":
        return describing.broken(case.watch, case.kit)
    kind: Kind = "prediction" if problem == "prediction" else "feature"
    return describing.changed(case.watch, case.kit, kind)


def _settled(book: Book, problem: str, now_ms: int, sentence: str) -> Alert:
    return book.resolve(problem, max(now_ms, book.open[problem].updated_ms), sentence)
