"""Alerts: one object per problem, from opening to resolving; the newest revision wins.

A problem has one alert for as long as it lasts. What comes back within the cool-down after it was
resolved is the same alert, opened again, so that flapping pages nobody twice. People acknowledge,
snooze or resolve; that changes what an alert says of itself, never what is found or commanded.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from stream.envelope import derived_id
from stream.events import Alert, AlertHandled

Problem = Literal[
    "harm", "estimate", "data", "prediction", "drift", "probation", "stale", "unlabelled"
]
Evidence = dict[str, Any]

#: Alerts that workers and the trainer raise and resolve go this many revisions at a time: those in
#: between are for what people say of them, so that a raiser's next word is always newer.
RAISED_STEP: Final = 1000
#: Those whose raiser tells every further occurrence, so that resolving one by hand hides nothing.
TOLD_AGAIN: Final = frozenset({"retrain"})

# problem -> (verdict, severity). Only harm and broken data page or command; drift explains, and
# what is missing is neither healthy nor harm.
MEANING: Final[dict[str, tuple[Any, Any]]] = {
    "harm": ("performance harmed", "critical"),
    "estimate": ("performance harmed", "info"),  # estimated; pages if the spec's policy says so
    "data": ("data broken", "warning"),
    "prediction": ("predictions changed", "info"),
    "drift": ("data changed", "info"),
    "probation": ("performance harmed", "critical"),
    "stale": ("data missing", "warning"),
    "unlabelled": ("data missing", "warning"),
}


class Handling(Struct, frozen=True, omit_defaults=True):
    """What a person last said of an open alert."""

    state: Literal["acknowledged", "snoozed"]
    who: str
    note: str
    handled_ms: int
    until_ms: int | None = None


class Book(Struct, omit_defaults=True):
    """Alerts of one model, by problem. What a method returns is to be published.

    Attributes:
        open: as they are without what people said, so that older versions can read them.
        handled: what people said of them.
        closed: the last one that was resolved.
    """

    open: dict[str, Alert] = {}
    handled: dict[str, Handling] = {}
    closed: dict[str, Alert] = {}

    def report(
        self,
        problem: Problem,
        sentence: str,
        evidence: Evidence,
        *,
        model: str,
        version: int | None,
        now_ms: int,
        cooldown_ms: int = 0,
        paging: bool = False,
    ) -> Alert:
        """Open an alert, tell more in the one that is open, or open again what was closed just now.

        Args:
            cooldown_ms: for so long after it was resolved, the same problem is the same alert.
            paging: critical, whatever problems of this sort are otherwise.
        """
        alert = self.open.get(problem)
        closed = self.closed.pop(problem, None)
        if alert is not None:
            alert = _changed(alert, now_ms, sentence=sentence, evidence=evidence)
        elif closed is not None and _is_recent(closed, version, now_ms, cooldown_ms):
            alert = msgspec.structs.replace(
                closed,
                state="open",
                sentence=sentence,
                evidence=evidence,
                updated_ms=now_ms,
                resolved_ms=None,
                revision=closed.revision + 1,
                reopened=closed.reopened + 1,
            )
        else:
            verdict, severity = MEANING[problem]
            alert = Alert(
                alert_id=derived_id("alert", model, version, problem, now_ms),
                model=model,
                problem=problem,
                verdict=verdict,
                state="open",
                severity="critical" if paging else severity,
                sentence=sentence,
                version=version,
                opened_ms=now_ms,
                updated_ms=now_ms,
                evidence=evidence,
            )
        self.open[problem] = alert
        return self._told(problem)

    def note(self, problem: str, now_ms: int, **more: str) -> Alert | None:
        """Add to an open alert's evidence; None if nothing is new, or nothing is open."""
        alert = self.open.get(problem)
        if alert is None or more.items() <= alert.evidence.items():
            return None
        self.open[problem] = _changed(alert, now_ms, evidence={**alert.evidence, **more})
        return self._told(problem)

    def resolve(self, problem: str, now_ms: int, sentence: str) -> Alert:
        alert = self.open.pop(problem)
        self.handled.pop(problem, None)
        self.closed[problem] = msgspec.structs.replace(
            alert,
            state="resolved",
            sentence=sentence,
            updated_ms=now_ms,
            resolved_ms=now_ms,
            revision=alert.revision + 1,
        )
        return self.closed[problem]

    def problem_of(self, alert_id: str) -> str | None:
        """The problem of an open alert; None if it is not open here."""
        return next((p for p, alert in self.open.items() if alert.alert_id == alert_id), None)

    def handle(self, problem: str, said: AlertHandled, now_ms: int) -> Alert:
        """Do what a person says about an open alert. Each time it is said is a revision."""
        if said.kind == "resolve":
            resolved = self.resolve(problem, now_ms, f"resolved by {said.who}: {said.note}")
            self.closed[problem] = msgspec.structs.replace(
                resolved, handled_by=said.who, handled_ms=said.handled_ms, note=said.note
            )
            return self.closed[problem]
        if said.kind == "reopen":
            self.handled.pop(problem, None)
        else:
            snoozed = said.kind == "snooze"
            self.handled[problem] = Handling(
                state="snoozed" if snoozed else "acknowledged",
                who=said.who,
                note=said.note,
                handled_ms=said.handled_ms,
                until_ms=now_ms + round((said.seconds or 0.0) * 1000) if snoozed else None,
            )
        return self._next(problem)

    def wake(self, now_ms: int) -> list[Alert]:
        """Alerts whose snooze is over are open again."""
        over = [
            problem
            for problem, handling in self.handled.items()
            if handling.until_ms is not None and handling.until_ms <= now_ms
        ]
        for problem in over:
            del self.handled[problem]
        return [self._next(problem) for problem in over]

    def _next(self, problem: str) -> Alert:
        alert = self.open[problem]
        self.open[problem] = msgspec.structs.replace(alert, revision=alert.revision + 1)
        return self._told(problem)

    def _told(self, problem: str) -> Alert:
        """An open alert with what people said of it."""
        alert, handling = self.open[problem], self.handled.get(problem)
        if handling is None:
            return alert
        return msgspec.structs.replace(
            alert,
            state=handling.state,
            handled_by=handling.who,
            handled_ms=handling.handled_ms,
            note=handling.note,
            snoozed_until_ms=handling.until_ms,
        )


def answered(said: AlertHandled) -> Alert | None:
    """What a person says of an alert that a worker or the trainer raised: its next revision.

    It is made of their word alone, for the raiser's own are not read here. None if it cannot be
    said: the alert is one of `Book`, is over, or would hide what still goes on.
    """
    seen = said.alert
    if seen is None or (seen.alert_id, seen.model) != (said.alert_id, said.model):
        return None
    if refusal(seen, said.kind) or seen.problem in MEANING:
        return None
    handled: dict[str, Any] = {
        "handled_by": said.who,
        "handled_ms": said.handled_ms,
        "note": said.note,
        "snoozed_until_ms": None,
    }
    match said.kind:
        case "acknowledge":
            handled["state"] = "acknowledged"
        case "snooze":
            handled["state"] = "snoozed"
            handled["snoozed_until_ms"] = said.handled_ms + round((said.seconds or 0.0) * 1000)
        case "resolve":
            handled |= {"state": "resolved", "resolved_ms": said.handled_ms}
            handled["sentence"] = f"resolved by {said.who}: {said.note}"
        case "reopen":
            handled |= {"state": "open", "handled_by": "", "handled_ms": None, "note": ""}
    return msgspec.structs.replace(
        seen, revision=seen.revision + 1, updated_ms=said.handled_ms, **handled
    )


def refusal(alert: Alert, kind: str) -> str | None:
    """Why this cannot be said of an alert; None if it can."""
    if alert.state == "resolved":
        return f"alert {alert.alert_id} is resolved"
    if kind == "resolve" and alert.problem not in MEANING and alert.problem not in TOLD_AGAIN:
        return (
            f"alert {alert.alert_id} ({alert.problem}) resolves by itself, when its cause is gone; "
            "acknowledge or snooze it"
        )
    return None


def as_of(alert: Alert, now_ms: int) -> Alert:
    """An alert as it stands now: a snooze that evaluate will not end, for it did not raise the
    alert, is over by the clock."""
    until_ms = alert.snoozed_until_ms
    if (
        alert.problem in MEANING
        or alert.state != "snoozed"
        or until_ms is None
        or until_ms > now_ms
    ):
        return alert
    return msgspec.structs.replace(alert, state="open")


def _is_recent(closed: Alert, version: int | None, now_ms: int, cooldown_ms: int) -> bool:
    since_ms = now_ms - (closed.resolved_ms or now_ms)
    return closed.version == version and since_ms < cooldown_ms


def _changed(alert: Alert, now_ms: int, **fields: Any) -> Alert:
    """The next revision; what is told at one moment is one revision."""
    revision = alert.revision + (now_ms != alert.updated_ms)
    return msgspec.structs.replace(alert, updated_ms=now_ms, revision=revision, **fields)
