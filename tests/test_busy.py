"""Which models take the time, by names that stay few."""

from __future__ import annotations

from stream.core.busy import MOST_NAMED, OTHERS, Busy


def test_a_model_is_slow_while_its_newest_rows_take_long() -> None:
    busy = Busy(slow_seconds=0.001)

    busy.note("heavy", rows=10, seconds=0.05)
    busy.note("light", rows=1_000, seconds=0.05)
    assert busy.slow == {"heavy"}
    assert busy.row_seconds("heavy") == 0.005

    busy.note("heavy", rows=1_000, seconds=0.01)  # its first call was dear, not its rows
    assert busy.slow == set()


def test_without_a_limit_no_model_is_slow() -> None:
    busy = Busy(slow_seconds=0.0)
    busy.note("heavy", rows=1, seconds=5.0)
    assert busy.slow == set()


def test_a_model_has_a_name_once_it_takes_a_twentieth_and_no_second_is_lost() -> None:
    busy = Busy(0.0)
    for _ in range(50):
        for number in range(100):
            busy.note(f"small-{number}", 1, 0.01)
        busy.note("large", 1, 0.2)

    assert set(busy.seconds) == {"large", OTHERS}
    assert abs(sum(busy.seconds.values()) - 50 * 1.2) < 1e-9
    assert busy.seconds["large"] > 0.9 * 50 * 0.2


def test_one_that_becomes_slow_late_is_named_whatever_was_before() -> None:
    busy = Busy(0.0)
    for _ in range(10_000):
        busy.note("old", 1, 1.0)
    for _ in range(120):
        busy.note("late", 1, 1.0)
    assert "late" in busy.seconds


def test_names_are_bounded_however_models_come_and_go() -> None:
    busy = Busy(0.0)
    told = [0.0]
    for number in range(200):
        for _ in range(10):
            busy.note(f"model-{number}", 1, 10.0)
        told.append(sum(busy.seconds.values()))

    assert len(busy.seconds) == MOST_NAMED + 1
    assert told == sorted(told)
