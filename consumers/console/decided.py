"""What was wanted of one model and what came of it: pure, from commands, runs and what was held."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from models.runs import Run
from models.state import Decision
from stream.events import Command, RetrainHeld

MOST: Final = 100  # of each kind, and in one answer


class Decided(Struct, frozen=True, kw_only=True):
    """One thing that evaluate wanted done, or that something asked for and evaluate held back.

    Attributes:
        t: ms, event time.
        outcome: held: it was never commanded; commanded: nobody has dealt with it yet; begun: a
            training run is about it; applied, refused: by the registry.
        cause: of a retrain that was held: harm, drift, clock or labels.
        asked: what asks for it, in words.
        reason: why it was held or refused; empty of all else.
        run_id, run_verdict: of the training run that a retrain led to.
    """

    t: int
    kind: str
    outcome: Literal["held", "commanded", "begun", "applied", "refused"]
    asked: str
    version: int | None = None
    cause: str = ""
    reason: str = ""
    alert_id: str | None = None
    run_id: int | None = None
    run_verdict: str = ""


def merged(
    commands: Iterable[Command],
    held: Iterable[RetrainHeld],
    decisions: Iterable[Decision],
    runs: Iterable[Run],
) -> list[Decided]:
    """All of them, the newest first; what a person asked for by itself is not among them."""
    dealt = {one.command_id: one for one in decisions if one.command_id is not None}
    begun = {run.command_id: run for run in runs if run.command_id is not None}
    found = [_commanded(c, dealt.get(c.command_id), begun.get(c.command_id)) for c in commands]
    return sorted([*found, *map(_held, held)], key=lambda one: -one.t)


def _held(one: RetrainHeld) -> Decided:
    return Decided(
        t=one.held_ms,
        kind="retrain",
        outcome="held",
        asked=one.asked,
        version=one.version,
        cause=one.cause,
        reason=one.reason,
        alert_id=one.alert_id,
    )


def _commanded(command: Command, decision: Decision | None, run: Run | None) -> Decided:
    outcome: Literal["commanded", "begun", "applied", "refused"] = "commanded"
    if decision is not None:
        outcome = "applied" if decision.applied else "refused"
    elif run is not None:
        outcome = "begun"
    return Decided(
        t=command.issued_ms,
        kind=command.kind,
        outcome=outcome,
        asked=command.reason,
        version=command.version,
        reason=decision.refusal if decision is not None else "",
        alert_id=command.alert_id,
        run_id=run.run_id if run is not None else None,
        run_verdict=run.verdict if run is not None else "",
    )
