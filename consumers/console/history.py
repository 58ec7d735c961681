"""The past that a restart shows: what the topics said, bounded, with how far they were read.

Records and positions are stored in one transaction, and a record that comes again replaces itself,
so a console may be killed at any moment.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Table, delete, func, select

from consumers.console import tables as t
from consumers.console.store import upsert
from models.database import Database
from stream.core.alerts import as_of
from stream.envelope import derived_id
from stream.events import (
    AccuracyMeasured,
    Alert,
    Command,
    DriftMeasured,
    LifecycleChanged,
    Measure,
    RetrainHeld,
)

SIGNAL_POINTS: Final = 200  # of each drift signal and window
HELD: Final = 200  # retrains held back, of each model
KEPT: Final = 10_000  # resolved alerts, and commands, of all models together
TREND: Final = 32  # newest windows of a champion that a board begins with
SLACK: Final = 0.25  # pruned when a series has outgrown its limit by this share
MANY: Final = 500  # of small rows, such as alerts, in one answer

Rows = dict[Table, dict[Any, dict[str, Any]]]  # by table and key
Series = tuple[str, ...]  # (model,), (model, window) or (model, window, signal)


class Came(NamedTuple):
    """One event, and when it was heard by this clock or, where it lay there longer, its own."""

    heard_ms: int
    event: Struct


class Drifted(Struct, frozen=True):
    """One point of a signal's past."""

    signal: str
    end_ms: int
    psi: float
    psi_noise: float
    evidence: float


class Point(Struct, frozen=True):
    """Of a window what a trend needs: to read no more, a large fleet's console begins sooner."""

    end_ms: int
    champion: bool = False
    metrics: dict[str, Measure] = {}


class Present(NamedTuple):
    """All that a board needs to begin with; `trends` by (model, window), oldest first."""

    lifecycles: list[LifecycleChanged]
    accuracies: list[Came]
    trends: dict[tuple[str, str], list[Point]]
    alerts: list[Alert]
    commands: list[Command]
    held: list[RetrainHeld]


class History:
    """Stores what came and finds it again. Safe to share between threads.

    Args:
        points: windows that are kept of each model and kind of window.
    """

    def __init__(self, database: Database, *, points: int) -> None:
        self._database = database
        self._limits: dict[Table, int] = {
            t.accuracy: points,
            t.drift: SIGNAL_POINTS,
            t.held: HELD,
        }
        self._grown: Counter[tuple[Table, Series]] = Counter()

    # --- writing ----------------------------------------------------------------------------------

    def positions(self) -> dict[tuple[str, int], int]:
        """(topic, partition) -> the next offset to read."""
        rows = self._database.read(lambda c: c.execute(select(t.positions)).all())
        return {(row.topic, row.partition): row.next for row in rows}

    def add(self, batch: Sequence[Came], positions: dict[tuple[str, int], int]) -> None:
        """Store a batch and how far it brings the reader, then forget what is too old."""
        rows = _rows(batch)

        def work(connection: Connection) -> None:
            for table, order in ORDER.items():
                upsert(connection, table, list(rows.get(table, {}).values()), order=order)
            places = [{"topic": k[0], "partition": k[1], "next": n} for k, n in positions.items()]
            upsert(connection, t.positions, places, order=("next",))

        self._database.write(work)
        self._prune(rows)

    def rewind(self, topic: str) -> None:
        """Forget how far a topic was read, because it is another one by now."""
        gone = delete(t.positions).where(t.positions.c.topic == topic)
        self._database.write(lambda connection: connection.execute(gone))

    def _prune(self, rows: Rows) -> None:
        """One transaction for all series that have outgrown their limit, mostly none."""
        due: list[_Pruning | _Shortening] = [
            *self._outgrown(rows),
            *(cut for cut in SHORTENED if cut.table in rows),
        ]

        def work(connection: Connection) -> None:
            for cut in due:
                cut.run(connection)

        if due:
            self._database.write(work)

    def _outgrown(self, rows: Rows) -> Iterator[_Pruning]:
        for table, limit in self._limits.items():
            for row in rows.get(table, {}).values():
                series = _series(table, row)
                self._grown[table, series] += 1
                if self._grown[table, series] > limit * SLACK:
                    del self._grown[table, series]
                    yield _Pruning(table, series, limit)

    # --- reading ----------------------------------------------------------------------------------

    def present(self) -> Present:
        """What is live, every version's newest windows, alerts not resolved, newest commands and
        retrains that were held back."""
        of_versions = select(t.newest).where(t.newest.c.kind == "version")
        opened = select(t.alerts.c.body).where(t.alerts.c.state != "resolved")
        issued = select(t.commands.c.body).order_by(t.commands.c.issued_ms.desc()).limit(KEPT)
        held = select(t.held.c.body).order_by(t.held.c.held_ms.desc()).limit(KEPT)

        def work(connection: Connection) -> Present:
            bodies = connection.execute(select(t.lifecycle.c.body)).scalars()
            newest = connection.execute(of_versions).all()
            trends = {
                (model, window): _recent(connection, model, window)
                for model, window in {(row.model, row.window) for row in newest}
            }
            last = [Came(row.heard_ms, *_decoded([row.body], AccuracyMeasured)) for row in newest]
            return Present(
                _decoded(bodies, LifecycleChanged),
                last,
                trends,
                _decoded(connection.execute(opened).scalars(), Alert),
                _decoded(connection.execute(issued).scalars(), Command),
                _decoded(connection.execute(held).scalars(), RetrainHeld),
            )

        return self._database.read(work)

    def accuracies(
        self, model: str, window: str, start_ms: int | None = None, end_ms: int | None = None
    ) -> list[AccuracyMeasured]:
        """One kind of window of every version, by end; both times belong to the answer."""
        c = t.accuracy.c
        rows = select(c.body).where(c.model == model, c.window == window)
        if start_ms is not None:
            rows = rows.where(c.end_ms >= start_ms)
        if end_ms is not None:
            rows = rows.where(c.end_ms <= end_ms)
        return self._bodies(rows.order_by(c.end_ms, c.version), AccuracyMeasured)

    def newest(self, model: str, kind: str, window: str | None = None) -> list[Struct]:
        """The last word on each version, segment, pair or signal of a model."""
        struct: type[Struct] = DriftMeasured if kind == "signal" else AccuracyMeasured
        c = t.newest.c
        rows = select(c.body).where(c.model == model, c.kind == kind)
        if window is not None:
            rows = rows.where(c.window == window)
        return self._bodies(rows.order_by(c.name), struct)

    def signal(self, model: str, window: str, signal: str) -> DriftMeasured | None:
        c = t.newest.c
        where = (c.model == model, c.kind == "signal", c.window == window, c.name == signal)
        found = self._bodies(select(c.body).where(*where), DriftMeasured)
        return found[0] if found else None

    def drifted(self, model: str, window: str, signals: Sequence[str]) -> list[Drifted]:
        """The past of some signals, by time."""
        c = t.drift.c
        columns = (c.signal, c.end_ms, c.psi, c.psi_noise, c.evidence)
        where = (c.model == model, c.window == window, c.signal.in_(signals))
        rows = select(*columns).where(*where).order_by(c.end_ms)
        return self._database.read(lambda x: [Drifted(*row) for row in x.execute(rows)])

    def alert(self, alert_id: str) -> Alert | None:
        rows = select(t.alerts.c.body).where(t.alerts.c.alert_id == alert_id)
        found = self._alerts(rows)
        return found[0] if found else None

    def alerts(
        self, model: str | None = None, state: str | None = None, limit: int = MANY
    ) -> list[Alert]:
        """The newest first."""
        c = t.alerts.c
        rows = select(c.body).order_by(c.updated_ms.desc(), c.alert_id).limit(limit)
        if model is not None:
            rows = rows.where(c.model == model)
        if state == "open":  # acknowledged and snoozed ones, too: their problem is there
            rows = rows.where(c.state != "resolved")
        elif state is not None:
            rows = rows.where(c.state == state)
        return self._alerts(rows)

    def _alerts(self, rows: Any) -> list[Alert]:
        now_ms = int(time.time() * 1000)
        return [as_of(alert, now_ms) for alert in self._bodies(rows, Alert)]

    def commands(self, model: str, limit: int = MANY) -> list[Command]:
        """The newest first."""
        c = t.commands.c
        rows = select(c.body).where(c.model == model).order_by(c.issued_ms.desc()).limit(limit)
        return self._bodies(rows, Command)

    def held(self, model: str, limit: int = MANY) -> list[RetrainHeld]:
        """Retrains that were held back, the newest first."""
        c = t.held.c
        rows = select(c.body).where(c.model == model).order_by(c.held_ms.desc()).limit(limit)
        return self._bodies(rows, RetrainHeld)

    def _bodies(self, rows: Any, struct: type[Any]) -> list[Any]:
        return self._database.read(lambda x: _decoded(x.execute(rows).scalars(), struct))


#: Columns that say which of two rows with the same key is newer.
ORDER: Final[dict[Table, tuple[str, ...]]] = {
    t.lifecycle: ("generation",),
    t.accuracy: ("revision",),
    t.drift: ("revision",),
    t.newest: ("end_ms", "revision"),
    t.alerts: ("revision",),
    t.commands: (),
    t.held: (),
}

#: Tables that are cut series by series: the columns that tell series apart, and that of time.
SERIES: Final[dict[Table, tuple[tuple[str, ...], str]]] = {
    t.accuracy: (("model", "window"), "end_ms"),
    t.drift: (("model", "window", "signal"), "end_ms"),
    t.held: (("model",), "held_ms"),
}


def _recent(connection: Connection, model: str, window: str) -> list[Point]:
    """The champions' newest windows of one kind, oldest first; others were measured beside them."""
    c = t.accuracy.c
    rows = select(c.body).where(c.model == model, c.window == window)
    newest = rows.order_by(c.end_ms.desc()).limit(2 * TREND)
    found = map(_POINT.decode, connection.execute(newest).scalars())
    return [*islice((point for point in found if point.champion), TREND)][::-1]


_POINT: Final = msgspec.json.Decoder(Point)


def _decoded(bodies: Iterable[str], struct: type[Any]) -> list[Any]:
    decoder = msgspec.json.Decoder(struct)
    return [decoder.decode(body) for body in bodies]


def _rows(batch: Sequence[Came]) -> Rows:
    """A batch by table and key: of one key only the newest, for one statement takes it once."""
    found: Rows = {}
    for came in batch:
        for table, row in _facts(came):
            key = tuple(row[column.name] for column in table.primary_key)
            known = found.setdefault(table, {}).get(key)
            order = ORDER[table]
            if known is None or [row[name] for name in order] >= [known[name] for name in order]:
                found[table][key] = row
    return found


def _facts(came: Came) -> list[tuple[Table, dict[str, Any]]]:
    """The rows that one event makes."""
    event = came.event
    body = msgspec.json.encode(event).decode()
    match event:
        case LifecycleChanged():
            return [(t.lifecycle, _columns(t.lifecycle, event, body))]
        case Alert():
            return [(t.alerts, _columns(t.alerts, event, body))]
        case Command():
            return [(t.commands, _columns(t.commands, event, body))]
        case RetrainHeld(model=model, held_ms=held_ms):
            id_ = derived_id("held", model, held_ms, event.cause, event.reason)
            row = {"held_id": id_, "model": model, "held_ms": held_ms, "body": body}
            return [(t.held, row)]
        case DriftMeasured():
            point = _columns(t.drift, event)
            return [(t.drift, point), _newest(came, "signal", event.signal, body)]
        case AccuracyMeasured(segment=""):
            if event.window.startswith("paired"):
                return [_newest(came, "pair", str(event.version), body)]
            point = _columns(t.accuracy, event, body)
            return [(t.accuracy, point), _newest(came, "version", str(event.version), body)]
        case AccuracyMeasured(champion=True):
            return [_newest(came, "segment", event.segment, body)]
    return []


def _columns(table: Table, event: Struct, body: str | None = None) -> dict[str, Any]:
    """An event as a row: columns are called as its fields, but for the event as a whole."""
    row = {c.name: getattr(event, c.name) for c in table.c if c.name != "body"}
    return row if body is None else row | {"body": body}


def _newest(came: Came, kind: str, name: str, body: str) -> tuple[Table, dict[str, Any]]:
    event: Any = came.event
    return t.newest, {
        "model": event.model,
        "kind": kind,
        "window": event.window,
        "name": name,
        "end_ms": event.end_ms,
        "revision": event.revision,
        "heard_ms": came.heard_ms,
        "body": body,
    }


def _series(table: Table, row: dict[str, Any]) -> Series:
    names, _ = SERIES[table]
    return tuple(row[name] for name in names)


class _Pruning(NamedTuple):
    """Leave the newest `limit` points of one series."""

    table: Table
    series: Series
    limit: int

    def run(self, connection: Connection) -> None:
        c = self.table.c
        names, end = SERIES[self.table]
        where = [c[name] == value for name, value in zip(names, self.series, strict=True)]
        newest_first = select(c[end]).where(*where).order_by(c[end].desc())
        oldest = connection.execute(newest_first.offset(self.limit - 1).limit(1)).scalar()
        if oldest is not None:
            connection.execute(delete(self.table).where(*where, c[end] < oldest))


class _Shortening(NamedTuple):
    """Leave the newest rows of a table; alerts stay until they are resolved."""

    table: Table
    column: str

    def run(self, connection: Connection) -> None:
        time = self.table.c[self.column]
        if connection.execute(select(func.count()).select_from(self.table)).scalar_one() <= KEPT:
            return
        oldest = connection.execute(
            select(time).order_by(time.desc()).offset(KEPT - 1).limit(1)
        ).scalar()
        rows = delete(self.table).where(time < oldest)
        if self.table is t.alerts:
            rows = rows.where(self.table.c.state == "resolved")
        connection.execute(rows)


SHORTENED: Final = (_Shortening(t.alerts, "updated_ms"), _Shortening(t.commands, "issued_ms"))
