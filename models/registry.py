"""The registry: the only door to what is registered, live, tried and decided.

Every transition is one transaction: the decision (with its command id, once), the compare-and-set
of the model's generation, the history row and the outbox row commit together, or none does.
What the rules forbid is recorded and returned as an `Outcome` with the reason; errors are for
misuse and for a database that fails (see `models.database`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from sqlalchemy import Connection

from models import changes, history
from models.changes import Request
from models.database import (
    RegistryError,
    RegistryMisuse,
    RegistryOutdated,
    RegistryUnavailable,
    UnknownModel,
)
from models.erasures import Erasures
from models.runlog import RunLog
from models.spec import ModelSpec, check
from models.state import Decision, Entry, LiveState, Outcome, Outgoing, Version, VersionCard
from models.transitions import Action, Refusal, Standing

__all__ = [
    "Audit",
    "Decision",
    "Entry",
    "LiveState",
    "Outcome",
    "Outgoing",
    "Refusal",
    "Registry",
    "RegistryError",
    "RegistryMisuse",
    "RegistryOutdated",
    "RegistryUnavailable",
    "UnknownModel",
    "Version",
    "VersionCard",
]


class Audit(TypedDict, total=False):
    """Who asks and why; the same for every transition (see `models.changes.Request`)."""

    expected_generation: int | None
    command_id: str | None
    who: str
    reason: str
    evidence: dict[str, Any]


class Registry(RunLog, Erasures):
    """One registry database. Safe to share between threads; processes open their own.

    Args:
        url: `sqlite:///driftline.db` or `postgresql://user@host/name`.
        clock: milliseconds since 1970 UTC; history never goes back even if it does.

    Raises:
        RegistryUnavailable, RegistryOutdated: by every method.
    """

    # --- models and what is live ----------------------------------------------------------------

    def add_model(self, spec: ModelSpec, **audit: Unpack[Audit]) -> Outcome:
        """Register a model. It is announced as generation 1, without a version.

        Raises:
            ValueError: the spec's parts don't fit together.
        """
        asked = Request(action="add", model=check(spec).name, **audit)
        now = self._clock()
        return self._apply(asked, changes.adding(spec, asked.who, now))

    def revise_spec(self, spec: ModelSpec, **audit: Unpack[Audit]) -> Outcome:
        """Put another revision of the model's spec in force.

        Raises:
            ValueError: the spec's parts don't fit together.
        """
        asked = Request(action="revise", model=check(spec).name, **audit)
        return self._apply(asked, changes.revising(spec, asked.who, self._clock()))

    def models(self) -> list[LiveState]:
        """What is live, for every model, by name."""

        def work(connection: Connection) -> list[LiveState]:
            rows = history.all_in_force(connection)
            return [history.compose(connection, row) for row in rows]

        return self._database.read(work)

    def live(self, model: str) -> LiveState | None:
        """What is live now; None for an unknown model."""
        return self.live_at(model, history.FOR_EVER)

    def live_at(self, model: str, time_ms: int) -> LiveState | None:
        """What was live at a time by the registry's clock; None before the model was added."""

        def work(connection: Connection) -> LiveState | None:
            row = history.row_at(connection, model, time_ms)
            return None if row is None else history.compose(connection, row)

        return self._database.read(work)

    def at_generation(self, model: str, generation: int) -> LiveState | None:
        """What was live in one generation; None if there was none of that number."""

        def work(connection: Connection) -> LiveState | None:
            row = history.row_of(connection, model, generation)
            return None if row is None else history.compose(connection, row)

        return self._database.read(work)

    def history(self, model: str) -> list[Entry]:
        """Every generation, oldest first, each with who made it, why, and on what evidence."""
        return self._database.read(lambda connection: history.entries(connection, model))

    def decisions(self, model: str, limit: int = 100) -> list[Decision]:
        """The newest things asked of a model, newest first; refused ones with the reason."""
        return self._database.read(lambda connection: history.decisions(connection, model, limit))

    # --- transitions ----------------------------------------------------------------------------

    def challenge(self, model: str, version: int, **audit: Unpack[Audit]) -> Outcome:
        """Let a registered version score in shadow beside the champion."""
        return self._transition("challenge", model, version, audit)

    def canary(self, model: str, version: int, **audit: Unpack[Audit]) -> Outcome:
        """Let a challenger answer a share of the requests (`trial.canary_share` of the spec)."""
        return self._transition("canary", model, version, audit)

    def promote(self, model: str, version: int | None = None, **audit: Unpack[Audit]) -> Outcome:
        """Make a version (or the only challenger) champion; the old one stays in shadow."""
        return self._transition("promote", model, version, audit)

    def reject(self, model: str, version: int | None = None, **audit: Unpack[Audit]) -> Outcome:
        """Take a challenger (or the only one) out of the shadow."""
        return self._transition("reject", model, version, audit)

    def rollback(self, model: str, version: int | None = None, **audit: Unpack[Audit]) -> Outcome:
        """Go back to a former champion, or to the last healthy one."""
        return self._transition("rollback", model, version, audit)

    def settle(self, model: str, version: int | None = None, **audit: Unpack[Audit]) -> Outcome:
        """End the champion's probation: the previous champion leaves the shadow."""
        return self._transition("settle", model, version, audit)

    def pin(self, model: str, version: int | None = None, **audit: Unpack[Audit]) -> Outcome:
        """Keep the champion (`version`, if given, must be it) until it is unpinned."""
        return self._transition("pin", model, version, audit)

    def unpin(self, model: str, version: int | None = None, **audit: Unpack[Audit]) -> Outcome:
        return self._transition("unpin", model, version, audit)

    def preview(
        self, action: Action, model: str, version: int | None = None, **audit: Unpack[Audit]
    ) -> Standing | Refusal:
        """Where a transition would lead now, or why it would be refused. Nothing is written."""
        asked = Request(action=action, model=model, version=version, **audit)

        def work(connection: Connection) -> Standing | Refusal:
            rule = changes.transition(action, asked)
            found = rule(connection, history.row_at(connection, model, history.FOR_EVER))
            return found if isinstance(found, Refusal) else found.standing

        return self._database.read(work)

    def republish(self, model: str, *, after: int = 0, who: str = "") -> int:
        """Publish what is live once more. Returns its generation. Raises UnknownModel.

        Args:
            after: a generation that workers have seen, as when this registry was restored from an
                older backup: if ours is not newer, the same state becomes the one that follows it.
        """
        now = self._clock()
        asked = Request(
            action="republish", model=model, who=who, reason=f"generation {after} was published"
        )
        return self._database.write(
            lambda connection: changes.republish(connection, asked, after, now)
        )

    # --- outbox -----------------------------------------------------------------------------------

    def outbox_pending(self, limit: int = 100) -> list[Outgoing]:
        """What must still be published, in the order to publish it in."""
        return self._database.read(lambda connection: history.pending(connection, limit))

    def outbox_sent(self, outbox_ids: Sequence[int]) -> None:
        """Call when the broker has acknowledged them."""
        ids, now = list(outbox_ids), self._clock()
        self._database.write(lambda connection: history.mark_sent(connection, ids, now))

    def _transition(self, action: Action, model: str, version: int | None, audit: Audit) -> Outcome:
        asked = Request(action=action, model=model, version=version, **audit)
        return self._apply(asked, changes.transition(action, asked))

    def _apply(self, asked: Request, rule: changes.Rule) -> Outcome:
        now = self._clock()
        return self._database.write(lambda connection: changes.apply(connection, asked, rule, now))
