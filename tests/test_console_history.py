"""The console's past: bounded, stored with how far it was read, and the same after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from consumers.console import history as module
from consumers.console import tables as t
from consumers.console.board import Board
from consumers.console.history import Came, History
from consumers.console.store import open_database, upsert
from models.database import Database, RegistryOutdated
from tests.consoles import HOUR, START, alert, command, drifted, held, lifecycle, measured
from tests.registries import BACKENDS, database_url


@pytest.fixture(params=BACKENDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    opened = open_database(database_url(request, request.param, tmp_path))
    yield opened
    opened.close()


def rows(database: Database, table: object) -> int:
    count = select(func.count()).select_from(table)  # type: ignore[arg-type]
    return int(database.read(lambda c: c.execute(count).scalar_one()))


def came(*events: object) -> list[Came]:
    return [Came(START, event) for event in events]  # type: ignore[arg-type]


def test_a_restart_shows_the_past(database: Database) -> None:
    """What was live, the newest windows, open alerts and the trend are there without a broker."""
    events = [
        lifecycle(),
        *(measured(0.9, hour=h) for h in range(24, 30)),
        alert("harm"),
        command(),
        held("harm", hour=20),
        held("harm", hour=25, reason="cooling off"),
    ]
    History(database, points=100).add(came(*events), {("topic", 0): 9})
    board = Board()
    board.begin(History(database, points=100).present())

    entry = board.entry("churn")
    assert entry is not None
    assert entry.champion == 1
    assert entry.heard_ms == START
    assert list(entry.alerts) == ["alert-harm"]
    assert entry.commands["retrain"] == command()
    assert entry.held["harm"].reason == "cooling off"
    assert [value for _, value in entry.trend["86400s"]] == [0.9] * 6


def test_a_trend_is_the_champions_whoever_was_measured_beside_them(database: Database) -> None:
    """A version that was live once and one in shadow leave no hole in it after a restart."""
    events = [
        *(measured(0.8, hour=h) for h in range(24, 30)),
        *(measured(0.7, hour=h, version=1, champion=False) for h in range(30, 90)),
        *(measured(0.9, hour=h, version=2) for h in range(30, 90)),
    ]
    History(database, points=100).add(came(*events), {})
    board = Board()
    board.begin(History(database, points=100).present())

    entry = board.entry("churn")
    assert entry is not None
    ends = [end for end, _ in entry.trend["86400s"]]
    assert ends == [START + h * HOUR for h in range(90 - module.TREND, 90)]


def test_records_and_positions_are_stored_together_or_not_at_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A console that is killed while it writes reads the same records again."""
    history = History(database, points=100)

    def failing(connection: object, table: object, *rest: object, **more: object) -> None:
        upsert(connection, table, *rest, **more)  # type: ignore[arg-type]
        if table is t.accuracy:
            raise KeyError("killed")

    monkeypatch.setattr(module, "upsert", failing)
    with pytest.raises(KeyError):
        history.add(came(measured()), {("topic", 0): 1})

    assert history.positions() == {}
    assert rows(database, t.accuracy) == 0


def test_a_record_that_comes_again_changes_nothing(database: Database) -> None:
    history = History(database, points=100)
    batch = came(measured(0.9), drifted(), alert(), command(), lifecycle(), held())
    history.add(batch, {("topic", 0): 5})
    history.add(batch, {("topic", 0): 5})

    for table in (t.accuracy, t.drift, t.alerts, t.commands, t.held, t.lifecycle):
        assert rows(database, table) == 1, table.name


def test_the_newest_revision_wins_in_whatever_order_they_come(database: Database) -> None:
    history = History(database, points=100)
    history.add(came(measured(0.8, revision=1), alert(revision=2, state="resolved")), {})
    history.add(came(measured(0.9, revision=0), alert(revision=1)), {})
    history.add(came(measured(0.7, hour=25), measured(0.6, hour=23)), {})

    assert [m.metrics["accuracy"].value for m in history.accuracies("churn", "86400s")] == [
        0.6,
        0.8,
        0.7,
    ]
    assert [a.state for a in history.alerts()] == ["resolved"]
    [newest] = history.newest("churn", "version")
    assert newest == measured(0.7, hour=25)


def test_positions_never_go_back(database: Database) -> None:
    history = History(database, points=100)
    history.add([], {("topic", 0): 7})
    history.add([], {("topic", 0): 5})
    assert history.positions() == {("topic", 0): 7}

    history.rewind("topic")
    assert history.positions() == {}


def test_each_series_is_bounded_and_keeps_the_newest(database: Database) -> None:
    """Many windows of one model neither grow without end nor push another model's out."""
    history = History(database, points=100)
    history.add(came(measured(model="small")), {})
    for start in range(24, 624, 50):
        hours = range(start, start + 50)
        history.add(came(*(measured(hour=h) for h in hours), *(drifted(hour=h) for h in hours)), {})

    kept = history.accuracies("churn", "86400s")
    assert 100 <= len(kept) <= 150
    assert kept[-1] == measured(hour=623)
    assert len(history.accuracies("small", "86400s")) == 1
    assert module.SIGNAL_POINTS <= rows(database, t.drift) <= module.SIGNAL_POINTS + 50


def test_what_is_held_back_again_and_again_pushes_no_other_model_out(database: Database) -> None:
    """Each model has so many of its own; two causes at one moment are two."""
    history = History(database, points=100)
    history.add(came(held(model="small"), held("drift", model="small")), {})
    for start in range(0, 600, 50):
        history.add(came(*(held("clock", hour=h) for h in range(start, start + 50))), {})

    kept = history.held("churn")
    assert module.HELD <= len(kept) <= module.HELD + 50
    assert kept[0].held_ms == START + 599 * HOUR
    assert len(history.held("small")) == 2


def test_resolved_alerts_are_bounded_and_open_ones_stay(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT", 10)
    history = History(database, points=100)
    history.add(came(alert("harm", alert_id="old", updated_ms=1)), {})
    history.add(
        came(
            *(
                alert("drift", alert_id=f"a{i}", state="resolved", updated_ms=2 + i)
                for i in range(40)
            )
        ),
        {},
    )

    left = {a.alert_id for a in history.alerts()}
    assert "old" in left
    assert "a39" in left
    assert len(left) <= 11


def test_segments_and_pairs_are_no_part_of_the_series(database: Database) -> None:
    history = History(database, points=100)
    history.add(came(measured(segment="plan=gold"), measured(window="paired with 2")), {})

    assert history.accuracies("churn", "86400s") == []
    assert history.newest("churn", "segment", "86400s") == [measured(segment="plan=gold")]
    assert history.newest("churn", "pair") == [measured(window="paired with 2")]


def test_names_that_no_database_likes_are_stored(database: Database) -> None:
    """A null in a signal's name stops nobody."""
    history = History(database, points=100)
    history.add(came(drifted("a\0b"), drifted("ü")), {})

    assert rows(database, t.drift) == 2


def test_a_database_of_a_newer_program_is_refused(database: Database) -> None:
    newer = update(t.schema).values(revision=t.SCHEMA + 1)
    database.write(lambda c: c.execute(newer))

    with pytest.raises(RegistryOutdated, match="run the newer program"):
        open_database(database._engine.url.render_as_string(hide_password=False))


def test_the_board_is_bounded_by_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sent: so many models, versions and alerts are held, and no more."""
    from consumers.console import board as boards

    monkeypatch.setattr(boards, "MAX_MODELS", 5)
    board = Board()
    board.take(came(*(measured(model=f"m{i}") for i in range(50))))
    board.take(came(*(measured(model="m0", version=v, hour=v) for v in range(1, 200))))
    board.take(came(*(alert(alert_id=str(i), model="m0", updated_ms=i) for i in range(200))))

    entry = board.entry("m0")
    assert entry is not None
    assert len(board.entries()) == 5
    assert len(entry.accuracy) == boards.MAX_VERSIONS
    assert len(entry.alerts) == boards.MAX_ALERTS
