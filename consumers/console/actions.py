"""What a person may change: by the registry, as the command line does, an audit row for each."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from consumers import spans
from consumers.console.access import Access, Deed, Visitor
from consumers.relay import pump_once
from models.registry import LiveState, Refusal, Registry, RegistryError
from models.transitions import Standing
from stream.settings import Settings

Action = Literal["promote", "rollback", "pin", "unpin"]


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person asks for.

    Attributes:
        generation: that the person saw; what is live by now must still be that.
        force: also a version that is not on trial.
    """

    action: Action
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    generation: int | None = None
    reason: Annotated[str, Meta(max_length=500)] = ""
    force: bool = False


class Preview(Struct, frozen=True, kw_only=True):
    """What would happen, in sentences, before anything does.

    Attributes:
        refusal: why not; empty where it may be done.
        effect: what changes; warning: what speaks against it, to be confirmed by `force`.
    """

    action: Action
    model: str
    version: int | None
    generation: int
    refusal: str = ""
    effect: str = ""
    warning: str = ""


class Done(Struct, frozen=True, kw_only=True):
    """What came of it."""

    applied: bool
    generation: int
    sentence: str


class Unknown(Exception):
    """No such model."""


class Actions:
    """Previews and does. Safe to share between threads."""

    def __init__(self, registry: Registry, access: Access, settings: Settings) -> None:
        self._registry = registry
        self._access = access
        self._settings = settings

    def preview(self, model: str, asked: Asked) -> Preview:
        """Raises:
        Unknown: no such model.
        """
        state = self._live(model)
        after = self._registry.preview(asked.action, model, asked.version)
        if isinstance(after, Refusal):
            return Preview(
                action=asked.action,
                model=model,
                version=asked.version,
                generation=state.generation,
                refusal=after.reason,
            )
        return Preview(
            action=asked.action,
            model=model,
            version=after.champion,
            generation=state.generation,
            effect=effect(asked.action, state, after),
            warning=warning(asked.action, state, after),
        )

    def act(self, model: str, asked: Asked, visitor: Visitor, address: str) -> Done:
        """Do it, publish it, and leave a row of the audit, whatever comes of it.

        Raises:
            RegistryError: the registry or the audit cannot be written; then nothing was done.
        """
        audit_id = self._access.record(
            Deed(
                who=visitor.name,
                role=visitor.role,
                address=address,
                action=asked.action,
                model=model,
                version=asked.version,
                reason=asked.reason,
            )
        )
        with spans.deed(asked.action, model, visitor.role) as span:
            try:
                done = self._act(model, asked, visitor)
            except Unknown as error:
                done = Done(applied=False, generation=0, sentence=str(error))
            except RegistryError as error:
                self._access.conclude(audit_id, "failed", str(error))
                raise
            span.set_attribute("driftline.outcome", "applied" if done.applied else "refused")
        self._access.conclude(audit_id, "done" if done.applied else "refused", done.sentence)
        return done

    def _act(self, model: str, asked: Asked, visitor: Visitor) -> Done:
        if not visitor.operates:
            return _refused(0, f"{visitor.name} may read, not operate")
        preview = self.preview(model, asked)
        if asked.generation is not None and preview.generation != asked.generation:
            return _refused(
                preview.generation,
                f"generation {asked.generation} was seen, {preview.generation} is live: look again",
            )
        if preview.refusal or (preview.warning and not asked.force):
            return _refused(preview.generation, preview.refusal or preview.warning)
        outcome = getattr(self._registry, asked.action)(
            model,
            asked.version,
            who=f"{visitor.name} (console)",
            reason=asked.reason or f"{PAST[asked.action]} in the console",
        )
        if not outcome.applied:
            return _refused(outcome.generation, outcome.reason)
        published = pump_once(self._registry, self._settings)
        return Done(applied=True, generation=outcome.generation, sentence=published)

    def _live(self, model: str) -> LiveState:
        state = self._registry.live(model)
        if state is None:
            raise Unknown(f"no model {model[:100]!r} is registered")
        return state


PAST: Final[dict[Action, str]] = {
    "promote": "promoted",
    "rollback": "rolled back",
    "pin": "pinned",
    "unpin": "unpinned",
}


def effect(action: Action, before: LiveState, after: Standing) -> str:
    """What a transition changes, for the person who is about to confirm it."""
    model, version = before.model, after.champion
    if action == "pin":
        return (
            f"Version {version} of {model} stays live until it is unpinned, whatever the evidence "
            "says: nothing is promoted or rolled back meanwhile."
        )
    if action == "unpin":
        return f"The champion of {model}, version {version}, may be replaced by evidence again."
    verb = "becomes the champion" if action == "promote" else "is the champion again"
    now = f", in place of version {before.champion}" if before.champion is not None else ""
    sentence = (
        f"Version {version} {verb} of {model}{now}. Every worker scores with it from the next "
        "event on; none is restarted."
    )
    if after.previous is not None:
        sentence += (
            f" Version {after.previous} stays in shadow: if the new champion does worse on the "
            "same events, it is rolled back."
        )
    return sentence


def warning(action: Action, before: LiveState, after: Standing) -> str:
    if action == "promote" and after.champion not in before.challengers:
        return f"Version {after.champion} is not on trial, so nothing shows that it is better."
    return ""


def _refused(generation: int, sentence: str) -> Done:
    return Done(applied=False, generation=generation, sentence=sentence)
