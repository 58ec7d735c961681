"""The console's database: its own file, or a PostgreSQL; made when the console starts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table, insert, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from consumers.console import tables as t
from models.database import Database, RegistryOutdated


def open_database(url: str) -> Database:
    """The database with its tables in place; safe to call from several processes at once.

    Raises:
        RegistryError: it cannot be reached, or a newer program made it.
    """
    database = Database(url, "console database")
    try:
        if database.dialect == "sqlite":
            database.use_write_ahead_log()
        database.write(_make)
    except BaseException:
        database.close()
        raise
    return database


def upsert(
    connection: Connection, table: Table, rows: list[dict[str, Any]], *, order: tuple[str, ...] = ()
) -> None:
    """Insert rows; one that is there already is replaced unless it is newer.

    Args:
        order: columns that say which of two is newer, the most significant first; none: what is
            there stays.
    """
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    key = [column.name for column in table.primary_key]
    if not order:
        connection.execute(statement.on_conflict_do_nothing(index_elements=key), rows)
        return
    new = statement.excluded
    values = {column.name: new[column.name] for column in table.c if column.name not in key}
    replaced = statement.on_conflict_do_update(
        index_elements=key, set_=values, where=_not_older(new, table, order)
    )
    connection.execute(replaced, rows)


def _not_older(new: Any, table: Table, order: tuple[str, ...]) -> Any:
    first, *rest = order
    if not rest:
        return new[first] >= table.c[first]
    same = (new[first] == table.c[first]) & _not_older(new, table, tuple(rest))
    return or_(new[first] > table.c[first], same)


def _make(connection: Connection) -> None:
    t.metadata.create_all(connection)
    revision = connection.execute(select(t.schema.c.revision)).scalar()
    if revision is None:
        connection.execute(insert(t.schema).values(revision=t.SCHEMA))
    elif revision > t.SCHEMA:
        raise RegistryOutdated(
            f"the console's database has schema {revision}, this program knows {t.SCHEMA}; "
            "run the newer program, or give this one another DRIFTLINE_CONSOLE_URL"
        )
