"""The registry's door to SQL: SQLite in one file, or PostgreSQL by URL.

RegistryError
├── RegistryUnavailable   the database cannot be reached, is locked or full; trying again may help
├── RegistryOutdated      its schema is not this program's: `driftline migrate` helps, or a newer
│                         program where the schema is ahead
└── RegistryMisuse        the caller asked for something that makes no sense (unknown run, ...)
    └── UnknownModel

Business refusals are no errors: transitions say them in their `Outcome`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models import masking
from models.state import Health

T = TypeVar("T")

MIGRATIONS: Final = Path(__file__).parent / "migrations"
#: Alembic's own table, named so that a database shared with another alembic user stays whole.
VERSION_TABLE: Final = "driftline_schema"
BUSY_SECONDS: Final = 15.0
ATTEMPTS: Final = 3
# PostgreSQL's lock that lets one process migrate at a time; any fixed number does.
MIGRATION_LOCK: Final = 0x64726966
# Alembic keeps the running migration in globals, so threads of one process take turns too.
_MIGRATING: Final = threading.Lock()


class RegistryError(Exception):
    """Base of what the registry raises. Refused transitions are outcomes, not errors."""


class RegistryUnavailable(RegistryError):
    """The database cannot be reached, is locked or full; trying again may help."""


class RegistryOutdated(RegistryError):
    """The schema is not this program's."""


class RegistryMisuse(RegistryError):
    """The caller asked for something that makes no sense."""


class UnknownModel(RegistryMisuse):
    """No such model is registered."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Database:
    """Transactions on one database; safe to use from many threads and processes.

    Args:
        name: what errors call it.
    """

    def __init__(self, url: str, name: str = "registry") -> None:
        self._name = name
        self._engine = _engine(url)
        self.url = masking.url(self._engine.url.render_as_string(hide_password=True))

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return str(self._engine.dialect.name)

    def clock_ms(self) -> int | None:
        """The time by the database server's clock; None: it is a file, and has none."""
        if self.dialect == "sqlite":
            return None
        asked = text("SELECT extract(epoch FROM clock_timestamp()) * 1000")
        return int(self.read(lambda connection: connection.execute(asked).scalar_one()))

    def close(self) -> None:
        self._engine.dispose()

    def read(self, work: Callable[[Connection], T]) -> T:
        with self._errors(), self._engine.begin() as connection:
            return work(connection)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, again if another process inserted the same row first."""
        with self._errors():
            for _ in range(ATTEMPTS - 1):
                try:
                    return self._write(work)
                except IntegrityError:
                    continue
            return self._write(work)

    def _write(self, work: Callable[[Connection], T]) -> T:
        with (
            self._engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
        ):
            return work(connection)

    def upgrade(self) -> str:
        """Bring the schema to this program's, in one transaction. Returns its revision."""
        with self._errors():
            if self._engine.dialect.name == "sqlite":
                self.use_write_ahead_log()
            with _MIGRATING:
                health = self.health()
                if not health.known:
                    raise RegistryOutdated(health.problem)
                self._write(_migrate)
        return head()

    def health(self) -> Health:
        def revision(connection: Connection) -> str | None:
            context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            return context.get_current_revision()

        found = self.read(revision)
        return Health(url=self.url, revision=found, head=head(), revisions=revisions())

    def use_write_ahead_log(self) -> None:
        # Kept in the file, so once is enough; it cannot be done inside a transaction.
        raw = self._engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode = WAL")
        finally:
            raw.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> RegistryError:
        cause = getattr(error, "orig", error)
        detail = str(cause).strip()
        undefined_table = getattr(cause, "sqlstate", "") == "42P01"
        if undefined_table or detail.startswith("no such table"):
            return RegistryOutdated(f"{self._name} {self.url}: {detail}; run `driftline migrate`")
        return RegistryUnavailable(f"{self._name} {self.url}: {detail}")


class Door:
    """What every part of the registry has: a database, a clock, and a way to see if it is there."""

    def __init__(self, url: str, *, clock: Callable[[], int] = now_ms) -> None:
        self._database = Database(url)
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    # --- the database ---------------------------------------------------------------------------

    def upgrade(self) -> str:
        """Bring the schema to this program's; safe to call from several processes at once."""
        return self._database.upgrade()

    def ping(self) -> Health:
        """Reach the database and read its schema revision."""
        return self._database.health()

    def clock_ms(self) -> int | None:
        """The time by the database server's clock; None: SQLite, a file on this machine."""
        return self._database.clock_ms()

    def wait(self, timeout_seconds: float = 30.0) -> Health:
        """Wait until the database answers and has this program's schema.

        Raises:
            RegistryUnavailable, RegistryOutdated: the last of them, when the time is over.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                health = self.ping()
                if health.current:
                    return health
                problem: RegistryError = RegistryOutdated(health.problem)
            except RegistryUnavailable as error:
                problem = error
            if time.monotonic() >= deadline:
                raise problem
            time.sleep(0.2)


def head() -> str:
    """The schema revision of this program."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head() or ""


def revisions() -> frozenset[str]:
    """All schema revisions that this program can start from."""
    scripts = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    return frozenset(script.revision for script in scripts)


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "head")


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise RegistryMisuse(f"registry URL: {error}") from error
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise RegistryMisuse(
            f"registry URL {masking.url(str(parsed))!r}: must begin with sqlite:/// or postgresql://"
        )
    engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() == "postgresql")
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say, see below
    for pragma in (
        f"busy_timeout = {BUSY_SECONDS * 1000:.0f}",
        "foreign_keys = ON",
        "synchronous = FULL",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A reader that turns writer half-way may fail at once; one that says so at the start waits.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
