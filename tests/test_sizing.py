"""The arithmetic of docs/scaling.md, and of the page that `benchmarks.all` writes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from benchmarks.all import JOBS, LIMIT_MINUTES, LINES, MARK, PAGE, Line, row, within
from benchmarks.pages import Table, write_page
from benchmarks.sizing import PARTITIONS_EACH, POINT, Unit, plan, units
from stream.settings import Settings

UNIT = Unit(score=100_000, loop=25_000, transaction=0.004, partition=0.001, pending=50)


def test_the_costs_of_a_transaction_and_of_a_partition_are_told_apart() -> None:
    """Made from a = 4 ms a transaction and b = 1 ms a partition, they are found again."""
    interval = Settings().commit_interval_seconds("score", POINT)
    records = round(2000 * interval / POINT)
    transactions = {
        "rate": 2000,
        f"partition_{POINT}_broker": (4000 + 1000) / records,
        f"worker_{POINT}_broker": (4000 + POINT * 1000) / records / POINT,
    }
    throughput = {"score_events_per_cpu_second": 100_000, "loop_events_per_cpu_second": 25_000}

    found = units(throughput, transactions, {"checkpoint_bytes": 5_000, "pending": 100})

    assert found == pytest.approx(UNIT)


def test_ten_times_the_workers_are_ten_times_of_all_but_what_a_partition_holds() -> None:
    one, ten = (plan(count, UNIT, 0.7, 3600) for count in (1, 10))

    for name in ("events", "others", "partitions", "commits", "broker_cores", "one_each"):
        assert getattr(ten, name) == pytest.approx(10 * getattr(one, name)), name
    assert ten.checkpoint == pytest.approx(one.checkpoint)
    assert one.events == pytest.approx(70_000)
    assert one.others == pytest.approx(70_000 * (1 / 25_000 - 1 / 100_000) / 0.7)
    assert one.broker_cores == pytest.approx(one.commits * 0.008)
    assert one.one_each == pytest.approx(one.commits * PARTITIONS_EACH * 0.005)


def test_all_benchmarks_together_have_forty_minutes_and_every_line_has_one_of_them() -> None:
    assert sum(job.minutes for job in JOBS) <= LIMIT_MINUTES
    assert {line.job for line in LINES} <= {job.name for job in JOBS}
    assert f"<!-- end of {MARK} -->" in PAGE.read_text()


def test_a_line_says_whether_what_was_wanted_is_reached_and_never_invents() -> None:
    speed, delay = Line("x", "speed", "a", 2, more=True), Line("x", "delay", "a", 2, "ms")

    assert row(speed, {"a": 3})[1:4] == ["2", "3", "yes"]
    assert row(delay, {"a": 3, "a_low": 2, "a_high": 4})[1:4] == ["2 ms", "3 ms (2-4)", "no"]
    assert row(delay, {})[2:4] == ["not measured", ""]


def test_a_benchmark_that_takes_too_long_is_ended() -> None:
    started = time.monotonic()

    assert within([sys.executable, "-c", "import time; time.sleep(60)"], 0.5) is None
    assert time.monotonic() - started < 30
    assert within([sys.executable, "-c", "print(1); raise SystemExit(1)"], 30) == ""


def test_a_page_without_its_marks_is_not_written_over(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("by hand")

    with pytest.raises(ValueError, match="has no"):
        write_page(page, [Table("t", ["a"], [["1"]])], "run")

    assert page.read_text() == "by hand"
