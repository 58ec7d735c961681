"""Alerts about records that nobody trusted has signed: one for each model, however many come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from stream.core.alerts import RAISED_STEP
from stream.core.processor import Record
from stream.envelope import derived_id
from stream.errors import Refused
from stream.events import Alert

MOST: Final = 100  # alerts open at a time: whoever forges chooses the model's name
QUIET_SECONDS: Final = 3600.0  # after the last one the alert is resolved
WHAT: Final = {"forged-command": "a command", "forged-lifecycle": "a statement of what is live"}


class Suspects:
    """
    Attributes:
        count: records that were refused.
    """

    def __init__(
        self,
        problem: Literal["forged-command", "forged-lifecycle"],
        tell: Callable[[Alert], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.count = 0
        self._problem = problem
        self._tell = tell
        self._clock = clock
        self._open: dict[str, tuple[Alert, float]] = {}

    def report(self, record: Record, refused: Refused) -> None:
        """Alert, unless an alert on this model is open. Processes that see the same record first
        raise the same alert."""
        self.count += 1
        said = (record.key or b"").decode(errors="replace")[:100]
        model = "".join(c if c.isprintable() else "?" for c in said) or "?"
        known = self._open.get(model)
        if known is None and len(self._open) >= MOST:
            return
        alert = self._alert(model, record, refused) if known is None else known[0]
        if known is None:
            self._tell(alert)
        self._open[model] = alert, self._clock()

    def settle(self) -> None:
        """Resolve what has been quiet for long. Call it now and then."""
        now = self._clock()
        for model, (alert, last) in list(self._open.items()):
            if now - last > QUIET_SECONDS:
                del self._open[model]
                now_ms = int(now * 1000)
                self._tell(
                    msgspec.structs.replace(
                        alert,
                        state="resolved",
                        resolved_ms=now_ms,
                        updated_ms=now_ms,
                        revision=RAISED_STEP,
                    )
                )

    def _alert(self, model: str, record: Record, refused: Refused) -> Alert:
        return Alert(
            alert_id=derived_id(self._problem, model, record.offset, record.timestamp_ms),
            model=model,
            problem=self._problem,
            verdict="operation failed",
            state="open",
            severity="critical",
            sentence=f"Refused {WHAT[self._problem]} that no trusted key has signed: "
            f"{refused.detail}. Who may write this topic? `driftline topics acls`"[:500],
            opened_ms=record.timestamp_ms,
            updated_ms=record.timestamp_ms,
            evidence={"offset": record.offset},
        )
