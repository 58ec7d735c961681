"""The tests' own PostgreSQL."""

from __future__ import annotations

from sqlalchemy import create_engine, text


def test_gives_each_test_an_empty_database(postgres_url: str) -> None:
    """A fixture's database is reachable by its URL and holds no tables."""
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        tables = connection.execute(
            text("select count(*) from information_schema.tables where table_schema = 'public'")
        ).scalar()
    engine.dispose()

    assert tables == 0
