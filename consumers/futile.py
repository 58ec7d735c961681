"""An alert about retrains that came to nothing: information, until one is accepted.

It is a pure function of the runs that the registry holds, so however often a trainer dies and says
it again, it is the same alert and revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from models.runs import Run
from stream.core.alerts import RAISED_STEP
from stream.envelope import derived_id
from stream.events import Alert

PROBLEM: Final = "retrain"
FUTILE: Final = frozenset({"refused", "failed"})


def alert_after(run: Run, runs: Sequence[Run]) -> Alert | None:
    """What a run that has ended makes known; None if nothing.

    Args:
        runs: of the same model, in any order; later ones than `run` are left out.
    """
    before = _futile_before(run, runs)
    futile = [*before, run] if run.verdict in FUTILE else before
    if not futile or run.verdict not in FUTILE | {"accepted"}:
        return None
    first, over = futile[0], run.verdict == "accepted"
    ended_ms = run.finished_ms or run.started_ms
    what = "succeeded" if over else f"was {run.verdict}: {run.reason}"
    if run.verdict == "failed":
        what = f"failed: {run.reason}"
    return Alert(
        alert_id=derived_id("alert", run.model, PROBLEM, first.run_id),
        model=run.model,
        problem=PROBLEM,
        verdict="operation failed",
        state="resolved" if over else "open",
        severity="info",
        sentence=f"run {run.run_id}, a retrain for {run.cause!r}, {what}"[:500],
        opened_ms=first.finished_ms or first.started_ms,
        updated_ms=ended_ms,
        resolved_ms=ended_ms if over else None,
        revision=RAISED_STEP * (len(futile) if over else len(futile) - 1),
        evidence={
            "run": run.run_id,
            "verdict": run.verdict,
            "reason": run.reason,
            "futile": [one.run_id for one in futile],
            "command_id": run.command_id,
            "alert_id": run.alert_id,
        },
    )


def _futile_before(run: Run, runs: Sequence[Run]) -> list[Run]:
    """Runs that came to nothing since the last accepted one, oldest first."""
    found: list[Run] = []
    for one in sorted(runs, key=lambda one: one.run_id):
        if one.run_id >= run.run_id:
            break
        if one.verdict == "accepted":
            found = []
        elif one.verdict in FUTILE and one.command_id is not None:
            found.append(one)
    return found
