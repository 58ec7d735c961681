"""The fleet on a terminal of 80 columns and 24 lines."""

from __future__ import annotations

import io

from msgspec import structs
from rich.console import Console

from consumers.console.pipeline import GroupView
from consumers.console.pulse import Rate
from consumers.console.views import WORDS, fleet_row
from consumers.top import MARKS, Now, _newest_decisions, _rank, screen
from tests.consoles import HOUR, START, alert, command, entry, held, lifecycle, measured

NOW = START + 24 * HOUR


def now(models: int = 3, alerts: int = 2, decisions: int = 1, name: str = "churn") -> Now:
    entries = [
        entry(lifecycle(), measured(0.83), alert("harm")),
        *(entry(lifecycle(), measured(0.91)) for _ in range(models - 1)),
    ]
    rows = [fleet_row(one, NOW) for one in entries]
    named = [structs.replace(row, model=f"{name}-{n}") for n, row in enumerate(rows)]
    return Now(
        at_ms=NOW,
        told_ms=NOW,
        brokers="kafka:9092",
        standing="following",
        models=sorted(named, key=_rank),
        rate=Rate(812.0, 640.0),
        label_delays=(3.0, 63.0),
        stages=[
            GroupView(
                role=role,
                entity="x",
                lag=lag,
                rate_in=1.0,
                rate_out=1.0,
                members=1,
                word="nobody runs it" if role == "trainer" else "keeping up",
                lags=[lag],
            )
            for role, lag in (("score", 0), ("monitor", 12), ("evaluate", 0), ("trainer", 0))
        ],
        dead_letters=2,
        alerts=[alert("harm")] * alerts,
        decisions=[command(hour=23)] * decisions,
    )


def drawn(told: Now, height: int = 24, width: int = 80, **colour: object) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, **colour)  # type: ignore[arg-type]
    console.print(screen(told, height=height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_everything_fits_the_smallest_terminal() -> None:
    """Whatever there is of models, alerts, decisions and long names: 80 columns, 24 lines."""
    for told in (now(), now(1, 0, 0), now(1000, 50, 20), now(30, name="x" * 100)):
        lines = drawn(told)
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 80


def test_the_worst_model_comes_first_and_the_rest_is_counted() -> None:
    lines = drawn(now(40))
    first = next(n for n, line in enumerate(lines) if line.startswith("STATE"))
    assert "✗ harmed" in lines[first + 1]
    assert "accuracy 0.83 (0.91)" in lines[first + 1]
    shown = sum(line.startswith(("✗", "✓")) for line in lines)
    assert f"{40 - shown} more models" in lines[-1]


def test_a_higher_terminal_shows_more_models() -> None:
    assert len(drawn(now(100), height=60)) > 55


def test_flow_stages_alerts_and_decisions_are_told() -> None:
    text = "\n".join(drawn(now()))
    assert "predictions 812/s  labels 640/s: half in 3 s, 95 % in 1 min" in text
    assert "dead letters 2" in text
    assert "lag: score 0  monitor 12  evaluate 0  trainer 0 (nobody runs it)" in text
    assert "ALERTS  2" in text
    assert "retrain" in text


def test_what_was_held_back_is_among_the_decisions() -> None:
    told = structs.replace(
        now(), decisions=_newest_decisions([entry(lifecycle(), command(hour=20), held(hour=23))])
    )
    lines = drawn(told, width=120)
    first = next(n for n, line in enumerate(lines) if line.startswith("DECISIONS"))
    assert "churn: retrain for harm: the week's budget of 2 is spent" in lines[first + 1]
    assert lines[first + 2].startswith("retrain")


def test_a_state_can_be_told_without_colour() -> None:
    """Each has its word, and nothing is coloured where that is not wanted."""
    assert set(MARKS) == set(WORDS)
    assert len(set(WORDS.values())) == len(WORDS)
    plain = "\n".join(drawn(now(), force_terminal=True, no_color=True, color_system=None))
    assert "\x1b" not in plain


def test_names_of_strangers_are_shown_and_not_obeyed() -> None:
    text = "\n".join(drawn(now(2, name="[red]\x1b[2J\nevil")))
    assert "\x1b[2J" not in text
    assert "[red]?[2J?" in text
