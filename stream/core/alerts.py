"""Alerts: one object per problem, from opening to resolving; the newest revision wins."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from stream.envelope import derived_id
from stream.events import Alert

Problem = Literal["harm", "data", "prediction", "drift", "probation"]
Evidence = dict[str, Any]

# problem -> (verdict, severity). Only harm and broken data page or command; drift explains.
MEANING: Final[dict[Problem, tuple[Any, Any]]] = {
    "harm": ("performance harmed", "critical"),
    "data": ("data broken", "warning"),
    "prediction": ("predictions changed", "info"),
    "drift": ("data changed", "info"),
    "probation": ("performance harmed", "critical"),
}


class Book(Struct, omit_defaults=True):
    """Open alerts of one model, by problem. What a method returns is to be published."""

    open: dict[str, Alert] = {}

    def report(
        self,
        problem: Problem,
        sentence: str,
        evidence: Evidence,
        *,
        model: str,
        version: int,
        now_ms: int,
    ) -> Alert:
        """Open an alert, or tell more in the one that is open."""
        alert = self.open.get(problem)
        if alert is None:
            verdict, severity = MEANING[problem]
            alert = Alert(
                alert_id=derived_id("alert", model, version, problem, now_ms),
                model=model,
                problem=problem,
                verdict=verdict,
                state="open",
                severity=severity,
                sentence=sentence,
                version=version,
                opened_ms=now_ms,
                updated_ms=now_ms,
                evidence=evidence,
            )
        else:
            alert = _changed(alert, now_ms, sentence=sentence, evidence=evidence)
        self.open[problem] = alert
        return alert

    def note(self, problem: Problem, now_ms: int, **more: str) -> Alert | None:
        """Add to an open alert's evidence; None if nothing is new, or nothing is open."""
        alert = self.open.get(problem)
        if alert is None or more.items() <= alert.evidence.items():
            return None
        alert = _changed(alert, now_ms, evidence={**alert.evidence, **more})
        self.open[problem] = alert
        return alert

    def resolve(self, problem: str, now_ms: int, sentence: str) -> Alert:
        alert = self.open.pop(problem)
        return msgspec.structs.replace(
            alert,
            state="resolved",
            sentence=sentence,
            updated_ms=now_ms,
            resolved_ms=now_ms,
            revision=alert.revision + 1,
        )


def _changed(alert: Alert, now_ms: int, **fields: Any) -> Alert:
    """The next revision; what is told at one moment is one revision."""
    revision = alert.revision + (now_ms != alert.updated_ms)
    return msgspec.structs.replace(alert, updated_ms=now_ms, revision=revision, **fields)
