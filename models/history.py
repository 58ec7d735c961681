"""What is and was live: reads and appends history, on a connection that the registry hands in.

History rows hold version numbers only. Specs, versions and decisions never change, so the whole
state of any moment is composed from them, byte for byte as it was published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, func, insert, or_, select, update

from models import tables as t
from models.database import UnknownModel
from models.state import Decision, Entry, LiveState, Outgoing, Version
from models.transitions import Past, Standing

#: Cards of this many newest versions go out with every state, beside those that play a part.
NEWEST_CARDS: Final = 20
#: As `lifecycle` can carry them.
MOST_TRACES: Final = 3
TRACE_CHARACTERS: Final = 55
FOR_EVER: Final = 2**63 - 1  # ms


def locked(connection: Connection, model: str) -> Row[tuple[Any, ...]]:
    """The history row in force, held against other writers until the transaction ends.

    Raises:
        UnknownModel
    """
    # SQLite leaves FOR UPDATE out: it has one writer at a time anyway.
    row = select(t.models.c.name).where(t.models.c.name == model).with_for_update()
    if connection.execute(row).first() is None:
        raise UnknownModel(f"no model {model!r}")
    return in_force(connection, model)


def in_force(connection: Connection, model: str) -> Row[tuple[Any, ...]]:
    """The newest history row. Raises UnknownModel."""
    row = row_at(connection, model, FOR_EVER)
    if row is None:
        raise UnknownModel(f"no model {model!r}")
    return row


def row_at(connection: Connection, model: str, time_ms: int) -> Row[tuple[Any, ...]] | None:
    """The history row that was in force at `time_ms` (from its own millisecond on)."""
    rows = _rows().where(t.history.c.model == model, t.history.c.changed_ms <= time_ms)
    return connection.execute(rows.order_by(t.history.c.generation.desc()).limit(1)).first()


def row_of(connection: Connection, model: str, generation: int) -> Row[tuple[Any, ...]] | None:
    """The history row of one generation."""
    same = (t.history.c.model == model) & (t.history.c.generation == generation)
    return connection.execute(_rows().where(same)).first()


def all_in_force(connection: Connection) -> Sequence[Row[tuple[Any, ...]]]:
    """The newest history row of every model, by name."""
    newest = select(t.history.c.model, func.max(t.history.c.generation).label("generation"))
    of_each = newest.group_by(t.history.c.model).subquery()
    same = (t.history.c.model == of_each.c.model) & (t.history.c.generation == of_each.c.generation)
    return connection.execute(_rows().join(of_each, same).order_by(t.history.c.model)).all()


def _rows() -> Select[tuple[Any, ...]]:
    """History rows, each with its spec and with who made it so."""
    decided = t.decisions.c
    audit = (decided.command_id, decided.who, decided.reason, decided.evidence)
    joined = t.history.join(t.decisions).join(t.specs)
    return select(t.history, *audit, t.specs.c.spec).select_from(joined)


def standing(row: Row[tuple[Any, ...]]) -> Standing:
    return Standing(
        champion=row.champion,
        challengers=tuple(row.challengers),
        previous=row.previous,
        probation=row.probation,
        pinned=row.pinned,
        canary=row.canary,
    )


def past(connection: Connection, model: str) -> list[Past]:
    """Every standing so far, oldest first, as the rollback rule reads it."""
    rows = _with_decisions(model, t.history.c.champion, t.history.c.pinned, t.decisions.c.action)
    return [
        Past(action=row.action, champion=row.champion, pinned=row.pinned)
        for row in connection.execute(rows)
    ]


def append(
    connection: Connection,
    model: str,
    after: Standing,
    *,
    before: Row[tuple[Any, ...]] | None,
    decision_id: int,
    spec_revision: int,
    now_ms: int,
    generation: int | None = None,
) -> None:
    """Add a generation, the one that follows `before` if none is said, and its outbox row.

    Raises sqlalchemy's IntegrityError if another transaction took the same generation first.
    """
    row = {
        "model": model,
        "generation": generation or (1 if before is None else before.generation + 1),
        "decision_id": decision_id,
        "spec_revision": spec_revision,
        "newest": newest_version(connection, model),
        # A clock that was set back must not put a generation before the one it follows.
        "changed_ms": now_ms if before is None else max(now_ms, before.changed_ms),
        **msgspec.structs.asdict(after),
    }
    connection.execute(insert(t.history).values(row))
    publish(connection, model, now_ms)


def publish(connection: Connection, model: str, now_ms: int) -> int:
    """Put the state in force into the outbox. Returns its generation."""
    state = compose(connection, in_force(connection, model))
    connection.execute(
        insert(t.outbox).values(
            model=model,
            generation=state.generation,
            state=msgspec.json.encode(state).decode(),
            created_ms=now_ms,
        )
    )
    return state.generation


def compose(connection: Connection, row: Row[tuple[Any, ...]]) -> LiveState:
    """The whole state that a history row stands for."""
    now = standing(row)
    return LiveState(
        model=row.model,
        generation=row.generation,
        spec=row.spec,
        spec_revision=row.spec_revision,
        champion=now.champion,
        challengers=list(now.challengers),
        previous=now.previous,
        probation=now.probation,
        pinned=now.pinned,
        canary=now.canary,
        versions=[version.card for version in _carried(connection, row, now.named)],
        changed_ms=row.changed_ms,
        cause=row.command_id or row.who,
        reason=row.reason,
        traces=_traces(row.evidence),
    )


def _traces(evidence: dict[str, Any]) -> list[str]:
    """Those that a decision's evidence names. It came from elsewhere, and may hold anything."""
    named = evidence.get("traces")
    texts = named if isinstance(named, list) else []
    return [one for one in texts if isinstance(one, str) and len(one) <= TRACE_CHARACTERS][
        :MOST_TRACES
    ]


def versions(connection: Connection, model: str) -> list[Version]:
    return _versions(connection, select(t.versions).where(t.versions.c.model == model))


def newest_version(connection: Connection, model: str) -> int:
    rows = select(func.max(t.versions.c.version)).where(t.versions.c.model == model)
    return connection.execute(rows).scalar() or 0


def registered(connection: Connection, model: str, version: int) -> bool:
    """Whether there is such a version: numbers given elsewhere may leave gaps."""
    same = (t.versions.c.model == model) & (t.versions.c.version == version)
    return connection.execute(select(t.versions.c.version).where(same)).first() is not None


def entries(connection: Connection, model: str) -> list[Entry]:
    """The model's history, oldest first."""
    columns = [_column(name) for name in Entry.__struct_fields__]
    return [Entry(**row) for row in connection.execute(_with_decisions(model, *columns)).mappings()]


def decisions(connection: Connection, model: str, limit: int) -> list[Decision]:
    """The newest `limit` decisions, newest first."""
    rows = select(t.decisions).where(t.decisions.c.model == model)
    newest_first = rows.order_by(t.decisions.c.decision_id.desc()).limit(limit)
    return [Decision(**row) for row in connection.execute(newest_first).mappings()]


def pending(connection: Connection, limit: int) -> list[Outgoing]:
    rows = (
        select(t.outbox)
        .where(t.outbox.c.sent_ms.is_(None))
        .order_by(t.outbox.c.outbox_id)
        .limit(limit)
    )
    return [
        Outgoing(outbox_id=row.outbox_id, state=msgspec.json.decode(row.state, type=LiveState))
        for row in connection.execute(rows)
    ]


def mark_sent(connection: Connection, outbox_ids: list[int], now_ms: int) -> None:
    unsent = t.outbox.c.outbox_id.in_(outbox_ids) & t.outbox.c.sent_ms.is_(None)
    connection.execute(update(t.outbox).where(unsent).values(sent_ms=now_ms))


def _carried(
    connection: Connection, row: Row[tuple[Any, ...]], named: tuple[int, ...]
) -> list[Version]:
    """Versions whose cards go out: the newest at that moment, and all that play a part."""
    number = t.versions.c.version
    recent = (number > row.newest - NEWEST_CARDS) & (number <= row.newest)
    rows = select(t.versions).where(t.versions.c.model == row.model, or_(recent, number.in_(named)))
    return _versions(connection, rows)


def _versions(connection: Connection, rows: Select[tuple[Any, ...]]) -> list[Version]:
    ascending = connection.execute(rows.order_by(t.versions.c.version)).mappings()
    return [Version(**row) for row in ascending]


def _column(name: str) -> ColumnElement[Any]:
    """A field of `Entry`: what was live is in history, who made it so in decisions."""
    return t.history.c[name] if name in t.history.c else t.decisions.c[name]


def _with_decisions(model: str, *columns: ColumnElement[Any]) -> Select[tuple[Any, ...]]:
    joined = t.history.join(t.decisions)
    rows = select(*columns).select_from(joined)
    ordered: Select[tuple[Any, ...]] = rows.where(t.history.c.model == model).order_by(
        t.history.c.generation
    )
    return ordered
