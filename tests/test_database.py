"""The registry's door to SQL: schema, settings, and failures that say what to do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from models import database
from models.database import RegistryMisuse, RegistryOutdated, RegistryUnavailable
from models.registry import Registry
from models.tables import metadata
from tests.patience import PATIENCE_SECONDS
from tests.registries import BACKENDS, CHURN, database_url

UPGRADE = "import sys; from models.registry import Registry; print(Registry(sys.argv[1]).upgrade())"


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return database_url(request, request.param, tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


def test_migrations_make_exactly_the_tables_that_the_code_names(url: str) -> None:
    with Registry(url) as registry:
        registry.upgrade()
        with registry._database._engine.connect() as connection:
            options = {"version_table": database.VERSION_TABLE, "compare_type": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, metadata) == []


def test_upgrading_again_keeps_what_is_there(url: str) -> None:
    with Registry(url) as registry:
        assert not registry.ping().current
        assert registry.upgrade() == registry.ping().revision
        registry.add_model(CHURN)
        registry.upgrade()
        assert registry.live("churn") is not None
        assert registry.wait(0).current


def test_processes_that_upgrade_at_the_same_moment_take_turns(url: str) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", UPGRADE, url], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert {process.communicate(timeout=PATIENCE_SECONDS)[0].strip() for process in started} == {
        database.head()
    }
    assert [process.returncode for process in started] == [0, 0, 0]


def test_a_registry_without_tables_says_to_migrate(url: str) -> None:
    with Registry(url) as registry:
        with pytest.raises(RegistryOutdated, match="driftline migrate"):
            registry.models()
        with pytest.raises(RegistryOutdated, match="driftline migrate"):
            registry.add_model(CHURN)
        with pytest.raises(RegistryOutdated, match="this program needs"):
            registry.wait(0)


def test_sqlite_is_durable_and_lets_readers_read_beside_a_writer(file: Path) -> None:
    with Registry(f"sqlite:///{file}") as registry:
        registry.upgrade()
        with registry._database._engine.connect() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert pragmas == {
            "journal_mode": "wal",
            "synchronous": 2,
            "foreign_keys": 1,
            "busy_timeout": 15_000,
        }
        writer = sqlite3.connect(file, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        assert registry.models() == []
        writer.close()


def test_a_locked_database_is_unavailable_after_a_while(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    with Registry(f"sqlite:///{file}") as registry:
        registry.upgrade()
        writer = sqlite3.connect(file, isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryUnavailable, match="locked"):
            registry.add_model(CHURN)
        writer.close()
        assert registry.add_model(CHURN).applied


def test_a_file_that_is_no_database_is_unavailable(file: Path) -> None:
    file.write_bytes(b"not a database " * 100)
    with Registry(f"sqlite:///{file}") as registry:
        with pytest.raises(RegistryUnavailable, match="not a database"):
            registry.models()
        with pytest.raises(RegistryUnavailable, match="not a database"):
            registry.upgrade()


def test_a_folder_that_does_not_exist_is_unavailable(tmp_path: Path) -> None:
    with (
        Registry(f"sqlite:///{tmp_path}/none/registry.db") as registry,
        pytest.raises(RegistryUnavailable, match="unable to open"),
    ):
        registry.ping()


def test_waiting_for_a_server_that_is_down_ends_in_time_and_keeps_the_password() -> None:
    with Registry("postgresql://user:secret@127.0.0.1:1/name") as registry:
        begun = time.monotonic()
        with pytest.raises(RegistryUnavailable) as caught:
            registry.wait(0.5)
        assert time.monotonic() - begun < 90
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bad", ["", "registry.db", "mysql://host/name", "nonsense://host"])
def test_a_url_of_no_known_database_is_refused_at_once(bad: str) -> None:
    with pytest.raises(RegistryMisuse, match="registry URL"):
        Registry(bad)
