"""The tests' own PostgreSQL."""

from __future__ import annotations

from sqlalchemy import create_engine, text

from models.database import now_ms
from models.registry import Registry


def test_gives_each_test_an_empty_database(postgres_url: str) -> None:
    """A fixture's database is reachable by its URL and holds no tables."""
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        tables = connection.execute(
            text("select count(*) from information_schema.tables where table_schema = 'public'")
        ).scalar()
    engine.dispose()

    assert tables == 0


def test_tells_its_time_by_its_own_clock(postgres_url: str) -> None:
    """On the same machine it is ours."""
    with Registry(postgres_url) as registry:
        told_ms = registry.clock_ms()
    assert told_ms is not None
    assert abs(told_ms - now_ms()) < 1_000
