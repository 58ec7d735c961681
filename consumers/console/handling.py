"""What a person says of an alert: told to evaluate, as the command line does, with an audit row."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from consumers import alerting, spans
from consumers.console.access import Access, Deed, Visitor
from consumers.console.actions import Done, Unknown
from consumers.console.history import History
from models.database import RegistryError
from stream.core.alerts import refusal
from stream.errors import DriftlineError
from stream.events import Alert
from stream.settings import Settings

Kind = Literal["acknowledge", "snooze", "resolve", "reopen"]
SNOOZE_SECONDS: Final = 86_400.0


class Said(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person's word; `seconds` are of a snooze, in event time."""

    kind: Kind
    note: Annotated[str, Meta(max_length=2000)] = ""
    seconds: Annotated[float, Meta(gt=0, lt=10**9)] = SNOOZE_SECONDS


class Handling:
    """Safe to share between threads."""

    def __init__(self, history: History, access: Access, settings: Settings) -> None:
        self._history = history
        self._access = access
        self._settings = settings

    def handle(self, alert_id: str, said: Said, visitor: Visitor, address: str) -> Done:
        """Tell evaluate; what it makes of it comes back on `alerts`.

        Raises:
            Unknown: no such alert was heard of.
            DriftlineError: it could not be written, or not be signed; then nothing was said.
        """
        alert = self._history.alert(alert_id)
        audit_id = self._access.record(
            Deed(
                who=visitor.name,
                role=visitor.role,
                address=address,
                action=f"{said.kind} alert",
                model="" if alert is None else alert.model,
                reason=said.note,
                detail=alert_id[:100],
            )
        )
        if alert is None:
            self._access.conclude(audit_id, "refused", f"no alert {alert_id[:100]!r}")
            raise Unknown(f"no alert {alert_id[:100]!r} was heard of")
        why_not = None if visitor.operates else f"{visitor.name} may read, not operate"
        why_not = why_not or refusal(alert, said.kind)
        if why_not:
            self._access.conclude(audit_id, "refused", why_not)
            return Done(applied=False, generation=0, sentence=why_not)
        try:
            with spans.deed(f"{said.kind} alert", alert.model, visitor.role):
                self._tell(alert, said, visitor)
        except (DriftlineError, RegistryError) as error:
            self._access.conclude(audit_id, "failed", str(error))
            raise
        self._access.conclude(audit_id, "done", f"{alert.problem}: told to evaluate")
        return Done(applied=True, generation=0, sentence="told to evaluate, which does it at once")

    def _tell(self, alert: Alert, said: Said, visitor: Visitor) -> None:
        alerting.handle(
            self._settings,
            alert,
            said.kind,
            who=f"{visitor.name} (console)",
            note=said.note,
            seconds=said.seconds if said.kind == "snooze" else None,
            wait_seconds=0,
        )
