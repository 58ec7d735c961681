"""What to do about what was found: commands to the trainer, or the reason why there is none.

Only a harm alert asks for a retrain, unless the policy also lets the clock, new labels or drift
ask, and only a paired trial for a promotion, a rejection or a rollback. A person's pin stops all of
it. A command is good for one lifecycle
generation: it is not repeated until that has changed, or the trainer had ample time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from msgspec import Struct

from models.spec import ModelSpec
from stream.core.trials import Judgement, TrialState, read_test
from stream.envelope import derived_id, from_ms
from stream.events import Alert, Command, LifecycleChanged, RetrainHeld

RETRY_MS: Final = 3_600_000
RETRY_TICKS: Final = 100
WEEK_MS: Final = 7 * 86_400_000


class Issued(Struct, frozen=True):
    """The newest command of a kind."""

    generation: int
    time_ms: int


class Situation(NamedTuple):
    """What a decision is made on, as of the end of one group of ticks.

    Attributes:
        labels: that came since the last retrain was commanded, or since the model is watched.
        retrains: when they were commanded, of the last seven days.
    """

    lifecycle: LifecycleChanged
    issued: Mapping[str, Issued]  # by kind of command
    now_ms: int
    labels: int = 0
    retrains: Sequence[int] = ()

    @property
    def spec(self) -> ModelSpec:
        return self.lifecycle.spec


class Asking(NamedTuple):
    """What asks for a retrain.

    Attributes:
        reason: in words.
        period: number of the period in which it asks; another one is told of anew.
    """

    cause: Literal["harm", "drift", "clock", "labels"]
    reason: str
    alert: Alert | None = None
    period: int = 0


class Told(Struct, frozen=True):
    """Why a retrain was held, as far as it was told in this period of this cause."""

    period: int
    reasons: list[str]


def may_retrain(now: Situation, *, data: Alert | None, previous: TrialState | None) -> str | None:
    """Why a champion is not retrained now, though something asks for it; None if it may be.

    Args:
        data: the open alert on broken data: a model cannot learn its way out of missing inputs.
        previous: the trial against the previous version, which may be the quicker way out.
    """
    policy = now.spec.policy
    if not policy.retrain:
        return "the policy leaves retraining to people"
    if now.lifecycle.pinned:
        return "a person pinned this version"
    if now.lifecycle.challengers:
        return "a challenger is on trial"
    if data is not None and data.evidence.get("refused"):
        return "records are refused: the data must be mended first"
    if data is not None and data.evidence.get("missing"):
        return "inputs are missing: the data must be mended first"
    if previous is not None and _rollback_is_near(now, previous):
        return "going back to the previous version is weighed first"
    if waiting := _outstanding(now, "retrain", "promote", "canary", "reject", "rollback", "settle"):
        return f"the command to {waiting} is being carried out"
    if now.labels < policy.retrain_minimum_labels:
        return f"the policy asks for {policy.retrain_minimum_labels:,} new labels, there are fewer"
    return _spent(now) or _cooling(now, "retrain", policy.cooldown_seconds)


def _spent(now: Situation) -> str | None:
    """The budget of any seven days is spent."""
    budget = now.spec.policy.retrains_per_week
    recent = [time_ms for time_ms in now.retrains if now.now_ms - time_ms < WEEK_MS]
    if budget is None or len(recent) < budget:
        return None
    until = from_ms(recent[-budget] + WEEK_MS)
    return f"the week's budget of {budget} is spent: not again before {until:%Y-%m-%d %H:%M} UTC"


def due(now: Situation, champion_since_ms: int, drift: Alert | None) -> Asking | None:
    """What asks for a challenger though nothing is harmed: only what the policy lets ask.

    The clock counts from the last retrain, whatever came of it: so old are the newest examples that
    anything was fitted on. Before the first it counts from the champion's first tick.
    """
    policy = now.spec.policy
    if drift is not None and policy.retrain_on_drift:
        return Asking("drift", f"the policy asks for it on drift: {drift.sentence}", drift)
    wanted = policy.retrain_after_labels
    if wanted is not None and now.labels >= wanted:
        reason = f"{now.labels:,} new labels: nothing is wrong"
        return Asking("labels", reason, period=now.labels // wanted)
    every, issued = policy.retrain_every_seconds, now.issued.get("retrain")
    since_ms = issued.time_ms if issued else champion_since_ms
    if every is not None and now.now_ms - since_ms >= every * 1000:
        period = int((now.now_ms - since_ms) // (every * 1000))
        return Asking("clock", "by the clock: nothing is wrong", period=period)
    return None


def held(now: Situation, asking: Asking, reason: str, told: dict[str, Told]) -> RetrainHeld | None:
    """The record of a retrain that is asked for and not commanded; None if it was told before.

    Args:
        told: by cause; what is told now is added.
    """
    known = told.get(asking.cause)
    reasons = known.reasons if known is not None and known.period == asking.period else []
    if reason in reasons or now.lifecycle.champion is None:
        return None
    told[asking.cause] = Told(asking.period, [*reasons, reason])
    return RetrainHeld(
        model=now.lifecycle.model,
        version=now.lifecycle.champion,
        generation=now.lifecycle.generation,
        cause=asking.cause,
        asked=asking.reason,
        reason=reason,
        held_ms=now.now_ms,
        labels=now.labels,
        alert_id=asking.alert.alert_id if asking.alert else None,
    )


def may_act(now: Situation, judgement: Judgement) -> str | None:
    """Why what a trial says is not done now; None if it may be."""
    match judgement.kind:
        case "canary" if now.lifecycle.canary is not None:
            return f"version {now.lifecycle.canary} is the canary"
        case "canary" | "promote":
            return _may_promote(now)
        case "rollback":
            return may_roll_back(now)
        case kind:
            # These change the generation, which would make a fit that runs void.
            waiting = _outstanding(now, kind, "retrain", "rollback", "promote", "canary")
            return f"the command to {waiting} is being carried out" if waiting else None


def may_roll_back(now: Situation) -> str | None:
    policy = now.spec.policy
    if not policy.rollback:
        return "the policy leaves rolling back to people"
    if now.lifecycle.pinned:
        return "a person pinned this version"
    if now.lifecycle.previous is None:
        return "there is nothing to roll back to"
    if _outstanding(now, "rollback"):
        return "the command to rollback is being carried out"
    return _cooling(now, "rollback", policy.rollback_cooloff_seconds)


def retrain(now: Situation, alert: Alert) -> Command:
    """The command to fit candidates, because of an open alert."""
    names = ("n", "loss", "validated", "bound", "since_ms")
    evidence: dict[str, object] = {name: alert.evidence.get(name) for name in names}
    return _command(now, "retrain", None, alert.sentence, evidence, alert)


def refresh(now: Situation, champion_since_ms: int, asking: Asking) -> Command:
    """The command to fit candidates, because the policy asks for it (`due`)."""
    every = now.spec.policy.retrain_every_seconds
    evidence: dict[str, object] = {"every_seconds": every, "champion_since_ms": champion_since_ms}
    evidence["labels"] = now.labels
    return _command(now, "retrain", None, asking.reason, evidence, asking.alert)


def act(now: Situation, judgement: Judgement, alert: Alert | None) -> Command:
    """The command that a trial's judgement asks for."""
    return _command(
        now, judgement.kind, judgement.version, judgement.reason, judgement.evidence, alert
    )


def _may_promote(now: Situation) -> str | None:
    if not now.spec.policy.promote:
        return "the policy leaves promoting to people"
    if now.lifecycle.pinned:
        return "a person pinned this version"
    waiting = _outstanding(now, "promote", "canary", "rollback")
    return f"the command to {waiting} is being carried out" if waiting else None


def _rollback_is_near(now: Situation, previous: TrialState) -> bool:
    """The previous version may soon be proven better, and could then be gone back to."""
    trial = now.spec.trial
    mean = read_test(previous, trial, "worse than before").mean
    undecided = previous.totals.n < trial.minimum_pairs or mean > trial.rollback_tolerance
    return undecided and may_roll_back(now) is None


def _outstanding(now: Situation, *kinds: str) -> str | None:
    """The first of these commands that was issued on this very generation and has time left."""
    spec = now.spec
    for kind in kinds:
        issued = now.issued.get(kind)
        patience_ms: float = max(RETRY_MS, RETRY_TICKS * spec.tick_ms)
        if kind == "retrain":
            patience_ms = max(patience_ms, spec.policy.cooldown_seconds * 1000)
        if (
            issued is not None
            and issued.generation == now.lifecycle.generation
            and now.now_ms - issued.time_ms < patience_ms
        ):
            return kind
    return None


def _cooling(now: Situation, kind: str, seconds: float) -> str | None:
    issued = now.issued.get(kind)
    if issued is None or now.now_ms - issued.time_ms >= seconds * 1000:
        return None
    until = from_ms(issued.time_ms + round(seconds * 1000))
    return f"the last {kind} is recent: not again before {until:%Y-%m-%d %H:%M} UTC"


def _command(
    now: Situation,
    kind: Any,  # one of Command's kinds
    version: int | None,
    reason: str,
    evidence: dict[str, object],
    alert: Alert | None,
) -> Command:
    model, generation = now.lifecycle.model, now.lifecycle.generation
    if alert is not None and "traces" in alert.evidence:
        evidence = {**evidence, "traces": alert.evidence["traces"]}
    return Command(
        command_id=derived_id("command", model, kind, version, generation, now.now_ms),
        kind=kind,
        model=model,
        generation=generation,
        reason=reason,
        issued_ms=now.now_ms,
        version=version,
        alert_id=alert.alert_id if alert else None,
        evidence=evidence,
    )
