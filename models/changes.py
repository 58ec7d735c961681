"""One change of a model, in one transaction: decision, compare-and-set, history, outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from sqlalchemy import Connection, Row, insert, select

from models import history
from models import tables as t
from models.database import UnknownModel
from models.features import listed
from models.spec import Feature, ModelSpec
from models.state import Outcome
from models.transitions import Action, Asked, Refusal, Standing, decide


class Request(Struct, frozen=True, kw_only=True):
    """What is asked, by whom, and why.

    Attributes:
        expected_generation: the generation the decision was made on; None for a person, who takes
            whatever is in force and may do what commands may not (see models.transitions).
        command_id: handled once; a repeated one changes nothing and has its first outcome again.
    """

    action: str
    model: str
    version: int | None = None
    expected_generation: int | None = None
    command_id: str | None = None
    who: str = ""
    reason: str = ""
    evidence: dict[str, Any] = {}


class Change(Struct, frozen=True):
    """Where a model is to stand next."""

    standing: Standing
    spec_revision: int


#: Looks at the row in force (None: no such model) and says what is to follow it.
Rule = Callable[[Connection, Row[tuple[Any, ...]] | None], Change | Refusal]


def apply(connection: Connection, asked: Request, rule: Rule, now_ms: int) -> Outcome:
    """Do what is asked unless it was done before, is stale, or the rule refuses; record it."""
    row = _locked(connection, asked.model)
    earlier = _handled(connection, asked)
    if earlier is not None:
        return earlier
    generation = 0 if row is None else row.generation
    found = _stale(asked, generation) or rule(connection, row)
    if isinstance(found, Refusal):
        outcome = Outcome(applied=False, generation=generation, reason=found.reason)
        _record(connection, asked, outcome, now_ms)
        return outcome
    outcome = Outcome(applied=True, generation=generation + 1)
    history.append(
        connection,
        asked.model,
        found.standing,
        before=row,
        decision_id=_record(connection, asked, outcome, now_ms),
        spec_revision=found.spec_revision,
        now_ms=now_ms,
    )
    return outcome


def republish(connection: Connection, asked: Request, after: int, now_ms: int) -> int:
    """Publish the state in force, as a generation newer than `after`. Returns it.

    Raises:
        UnknownModel
    """
    row = history.locked(connection, asked.model)
    if row.generation > after:
        return history.publish(connection, asked.model, now_ms)
    outcome = Outcome(applied=True, generation=after + 1)
    history.append(
        connection,
        asked.model,
        history.standing(row),
        before=row,
        decision_id=_record(connection, asked, outcome, now_ms),
        spec_revision=row.spec_revision,
        now_ms=now_ms,
        generation=after + 1,
    )
    return after + 1


def _locked(connection: Connection, model: str) -> Row[tuple[Any, ...]] | None:
    try:
        return history.locked(connection, model)
    except UnknownModel:
        return None


def transition(action: Action, asked: Request) -> Rule:
    """The rule of `models.transitions` for `action`, with the facts it needs."""

    def rule(connection: Connection, row: Row[tuple[Any, ...]] | None) -> Change | Refusal:
        if row is None:
            return Refusal(f"no model {asked.model!r}")
        newest, version = history.newest_version(connection, asked.model), asked.version or 0
        # Numbers given elsewhere may leave gaps; those beyond the newest the rules refuse.
        if 1 <= version <= newest and not history.registered(connection, asked.model, version):
            return Refusal(f"version {version} is not registered")
        facts = Asked(
            version=asked.version,
            automatic=asked.expected_generation is not None,
            newest=newest,
            past=history.past(connection, asked.model) if action == "rollback" else (),
        )
        after = decide(action, history.standing(row), facts)
        return after if isinstance(after, Refusal) else Change(after, row.spec_revision)

    return rule


def adding(spec: ModelSpec, who: str, now_ms: int) -> Rule:
    """A new model: its row, its spec, and generation 1 without a version."""

    def rule(connection: Connection, row: Row[tuple[Any, ...]] | None) -> Change | Refusal:
        if row is not None:
            return Refusal(f"model {spec.name!r} is registered already; revise its spec instead")
        connection.execute(insert(t.models).values(name=spec.name, created_ms=now_ms, who=who))
        _insert_spec(connection, spec, 1, who, now_ms)
        return Change(Standing(), 1)

    return rule


def revising(spec: ModelSpec, who: str, now_ms: int) -> Rule:
    """Another revision of a known model's spec; who scores stays as it is."""

    def rule(connection: Connection, row: Row[tuple[Any, ...]] | None) -> Change | Refusal:
        if row is None:
            return Refusal(f"no model {spec.name!r}; add it first")
        reason = revision_refusal(row.spec, spec, history.newest_version(connection, spec.name) > 0)
        if reason:
            return Refusal(reason)
        _insert_spec(connection, spec, row.spec_revision + 1, who, now_ms)
        return Change(history.standing(row), row.spec_revision + 1)

    return rule


def revision_refusal(old: ModelSpec, new: ModelSpec, has_versions: bool) -> str:
    """Why `new` may not follow `old`; empty if it may.

    Versions are fitted to the task, the classes and the features in their order, so once there is
    one, these stay: what would differ in them is another model. Optional features may follow: a
    version knows the first so many of the spec's, and does without the others.
    """
    if new == old:
        return "the spec is the same as the one in force"
    if not has_versions:
        return ""
    fitted = ("task", "classes")
    differing = [name for name in fitted if getattr(new, name) != getattr(old, name)]
    if differing:
        return f"versions were fitted to its {', '.join(differing)}; add another model instead"
    return _features_refusal(old.features, new.features)


def _features_refusal(old: Sequence[Feature], new: Sequence[Feature]) -> str:
    """Why features may not follow others that versions were fitted to; empty if they may."""
    names = {feature.name for feature in new}
    gone = [feature.name for feature in old if feature.name not in names]
    if gone:
        return (
            f"features: versions were fitted to {listed(gone)}; keep what is no longer known, with "
            "optional = true, or add another model instead"
        )
    for before, after in zip(old, new, strict=False):
        if before.name != after.name:
            return (
                f"features: versions were fitted to {before.name!r} where {after.name!r} is now; "
                "keep the order, and put new features last"
            )
        if before.type != after.type:
            return (
                f"features: versions were fitted to {before.name!r} as {before.type}; give it as "
                f"{after.type} under another name, last and with optional = true"
            )
        if before.optional and not after.optional:
            return f"features: records may lack {before.name!r} already; leave it optional = true"
    added = [feature.name for feature in new[len(old) :] if not feature.optional]
    if added:
        return (
            f"features: versions and records know nothing of {listed(added)}; say optional = true, "
            "or add another model instead"
        )
    return ""


def _insert_spec(
    connection: Connection, spec: ModelSpec, revision: int, who: str, now_ms: int
) -> None:
    row = {"model": spec.name, "revision": revision, "spec": spec, "created_ms": now_ms, "who": who}
    connection.execute(insert(t.specs).values(row))


def _stale(asked: Request, generation: int) -> Refusal | None:
    if asked.expected_generation in (None, generation) or generation == 0:
        return None
    return Refusal(f"decided on generation {asked.expected_generation}, it is {generation} now")


def _handled(connection: Connection, asked: Request) -> Outcome | None:
    if asked.command_id is None:
        return None
    rows = select(t.decisions).where(t.decisions.c.command_id == asked.command_id)
    row = connection.execute(rows).first()
    if row is None:
        return None
    if (row.action, row.model) != (asked.action, asked.model):
        reason = f"command id {asked.command_id!r} was used before, to {row.action} {row.model!r}"
        return Outcome(applied=False, generation=row.generation, reason=reason)
    return Outcome(
        applied=row.applied, generation=row.generation, reason=row.refusal, repeated=True
    )


def _record(connection: Connection, asked: Request, outcome: Outcome, now_ms: int) -> int:
    row = (
        insert(t.decisions)
        .values(
            model=asked.model,
            action=asked.action,
            version=asked.version,
            command_id=asked.command_id,
            expected_generation=asked.expected_generation,
            who=asked.who,
            reason=asked.reason,
            evidence=asked.evidence,
            decided_ms=now_ms,
            applied=outcome.applied,
            generation=outcome.generation,
            refusal=outcome.reason,
        )
        .returning(t.decisions.c.decision_id)
    )
    decision_id: int = connection.execute(row).scalar_one()
    return decision_id
