"""Every figure of docs/performance.md, measured and written down, in at most 40 minutes.

    python -m benchmarks.all [--only throughput,latency] [--write]

Each benchmark is a process of its own with a limit of time; the limits add up to 40 minutes. What
it says is kept in `benchmarks/results/<name>.json` with date and command; what failed or took too
long is said aloud, and what was kept of it before stays, with its own date. `--write` measures
nothing and writes the page from what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.pages import Rows, Table, write_page
from benchmarks.reporting import say

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "performance.md"
RESULTS: Final = Path(__file__).with_name("results")
MARK: Final = "wanted"
LIMIT_MINUTES: Final = 40


class Job(NamedTuple):
    """One benchmark as it is run here, and its part of the time.

    Attributes:
        called: of one that is run more than once, with other arguments.
    """

    module: str
    arguments: tuple[str, ...]
    minutes: float
    called: str = ""

    @property
    def name(self) -> str:
        return self.called or self.module

    @property
    def command(self) -> str:
        return " ".join(("python -m", f"benchmarks.{self.module}", *self.arguments))


class Line(NamedTuple):
    """One line of the table.

    Attributes:
        key: of the figure in what the job says; with dots into what lies deeper.
        wanted: at least that if `more`, else at most; None: nothing was promised.
    """

    job: str
    what: str
    key: str
    wanted: float | None = None
    unit: str = ""
    more: bool = False


JOBS: Final = (
    Job("throughput", ("--events", "200000", "--rounds", "1"), 6),
    Job("latency", ("--seconds", "30"), 4.5),
    Job("partitions", ("--seconds", "10"), 5),
    Job("transactions", ("--seconds", "8", "--rounds", "1"), 2),
    Job("overload", ("--events", "1000000", "--rounds", "1"), 1.5),
    Job("isolation", (), 1),
    Job("recovery", (), 4),
    Job("bad_input", ("--events", "500000"), 3),
    Job("swaps", ("--swaps", "20"), 2),
    Job("rollback", ("--rounds", "2"), 2.5),
    Job("fleet", (), 1.5),
    Job("scale", ("--only", "models", "--rounds", "1"), 2, "models"),
    Job("scale", ("--only", "pending"), 4, "pending"),
    Job("alarms", ("--quick",), 1),
)
LINES: Final = (
    Line(
        "throughput",
        "score exactly once, events per CPU second, to a librdkafka byte copy",
        "score_to_copy",
        0.5,
        more=True,
    ),
    Line(
        "throughput", "the same with two shadow versions", "score_shadows_to_copy", 0.35, more=True
    ),
    Line("throughput", "score to quixstreams, which copies only", "score_to_quix", 3, more=True),
    Line(
        "throughput",
        "score to Bytewax, at least once, which decodes and encodes and has no model",
        "score_to_bytewax",
        1,
        more=True,
    ),
    Line("throughput", "monitor, a prediction and its label, to the byte copy", "monitor_to_copy"),
    Line("throughput", "the whole loop to the byte copy", "loop_to_copy", 0.25, more=True),
    Line(
        "latency",
        "request to visible prediction, 2,000 events/s, p99",
        "predictions_2000_p99_ms",
        200,
        "ms",
    ),
    Line("latency", "the same, p99.9", "predictions_2000_p999_ms", None, "ms"),
    Line("latency", "the same, 100 events/s, p99", "predictions_100_p99_ms", None, "ms"),
    Line("latency", "the same, 10,000 events/s, p99", "predictions_10000_p99_ms", None, "ms"),
    Line(
        "latency",
        "label to the accuracy that counts it, 2,000 events/s, p99 (15 s by the spec)",
        "accuracy_2000_p99_ms",
        None,
        "ms",
    ),
    Line(
        "transactions",
        "CPU of the broker a record, 64 partitions, one transaction per partition",
        "partition_64_broker",
        None,
        "us",
    ),
    Line("transactions", "the same, one per worker", "worker_64_broker", None, "us"),
    Line(
        "overload",
        "all requests at once: the slowest partition's progress to the fastest's",
        "shed_fairness",
    ),
    Line("overload", "memory that a worker needs more", "shed_grown_mib", None, "MiB"),
    Line(
        "recovery",
        "restart of monitor after a SIGKILL, past the session timeout",
        "seconds_past_session_timeout",
        15,
        "s",
    ),
    Line(
        "bad_input",
        "half of the requests poison, CPU an event to that of clean ones",
        "poison_cost_ratio",
        2,
    ),
    Line("bad_input", "the same, seconds", "poison_seconds_ratio", 2),
    Line("bad_input", "memory after the hostile events to that at a quarter", "memory_growth"),
    Line(
        "fleet",
        "one worker of score that holds 1,000 models, 50 of them asked, CPU a request to 50 held",
        "request_to_fewer",
        2,
    ),
    Line("swaps", "predictions lost in swaps under 5,000 requests/s", "lost", 0),
    Line("swaps", "predictions doubled in them", "audit_doubled", 0),
    Line(
        "rollback", "a bad champion: from the evidence to the command", "command_seconds", None, "s"
    ),
    Line(
        "partitions",
        "growth of CPU an event with the partitions of one worker, 1 to 16, exponent",
        "exponent of partitions",
        0.3,
    ),
    Line(
        "partitions",
        "CPU an event of four workers with 16 partitions to that of one",
        "four_to_one",
    ),
    Line(
        "models",
        "growth of CPU an event with the number of models, exponent",
        "exponent of models",
        0.3,
    ),
    Line("models", "CPU an event of 1,000 models to that of one", "models, last to first", 2),
    Line(
        "pending",
        "growth of CPU with predictions that wait, 1 to 10 million, exponent",
        "exponent of pending",
        1.05,
    ),
    Line(
        "pending",
        "memory that 10 million of them add",
        "10000000 pending.mib.median",
        None,
        "MiB",
    ),
    Line(
        "isolation",
        "p99 of the others beside a slow model that floods its partition, in lines",
        "flood_lines_others_p99_seconds",
        None,
        "s",
    ),
    Line("isolation", "the same in one order", "flood_together_others_p99_seconds", None, "s"),
    Line(
        "alarms",
        "a deciding test, CPU a signal and tick",
        "microseconds_per_signal_and_tick",
        12,
        "us",
    ),
)


def run(job: Job) -> str | None:
    """Measure and keep; why not, if it came to nothing."""
    command = [sys.executable, "-m", f"benchmarks.{job.module}", *job.arguments, "--json"]
    said = within(command, job.minutes * 60)
    if said is None:
        return f"not done within {job.minutes:g} minutes"
    if not said:
        return "it failed"
    figures = json.loads(said.strip().splitlines()[-1])
    kept = {"date": datetime.now(UTC).date().isoformat(), "command": job.command, **figures}
    path = RESULTS / f"{job.name}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    return None


def within(command: list[str], seconds: float) -> str | None:
    """What it says on stdout, "" if it failed; None if it took longer and was ended."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, text=True, start_new_session=True
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the workers that it started, too
        process.communicate()
        return None
    return said if process.returncode == 0 else ""


def kept(name: str) -> dict[str, Any]:
    """What was measured last; empty if nothing was."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def found(figures: Any, key: str) -> Any:
    """
    >>> found({"a": {"b": 3}}, "a.b"), found({"a": 1}, "b")
    (3, None)
    """
    if key in figures:
        return figures[key]
    for name in key.split("."):
        if not isinstance(figures, dict) or name not in figures:
            return None
        figures = figures[name]
    return figures


def row(line: Line, figures: dict[str, Any]) -> list[str]:
    """
    >>> row(Line("x", "speed", "a", 2, more=True), {"a": 3, "date": "today", "command": "run x"})
    ['speed', '2', '3', 'yes', 'today', '`run x`']
    >>> row(Line("x", "delay", "a", 2, "ms"), {"a": 3, "a_low": 2, "a_high": 4})[1:4]
    ['2 ms', '3 ms (2-4)', 'no']
    >>> row(Line("x", "delay", "a", 2), {})[2:4]
    ['not measured', '']
    """
    value = found(figures, line.key)
    unit = f" {line.unit}" if line.unit else ""
    wanted = "" if line.wanted is None else f"{line.wanted:,g}{unit}"
    date, command = str(figures.get("date", "")), f"`{figures.get('command', '')}`"
    if value is None:
        return [line.what, wanted, "not measured", "", date, command]
    low, high = (found(figures, f"{line.key}_{end}") for end in ("low", "high"))
    told = f"{value:,.3g}{unit}" if abs(value) < 1000 else f"{value:,.0f}{unit}"
    if low is not None and low != high:
        told += f" ({low:,.3g}-{high:,.3g})"
    reached = ""
    if line.wanted is not None:
        is_reached = value >= line.wanted if line.more else value <= line.wanted
        reached = "yes" if is_reached else "no"
    return [line.what, wanted, told, reached, date, command]


def write() -> None:
    """The page's table from all that is kept."""
    rows: Rows = [row(line, kept(line.job)) for line in LINES]
    columns = ["what", "wanted", "measured", "reached", "date", "command"]
    write_page(PAGE, [Table("What is wanted, and what is so", columns, rows)], COMMAND, MARK)


COMMAND: Final = "python -m benchmarks.all"


def main() -> None:
    one = argparse.ArgumentParser(description="Every figure of docs/performance.md.")
    one.add_argument("--only", help=f"some of {','.join(job.name for job in JOBS)}")
    one.add_argument("--write", action="store_true", help="from what is kept, nothing is measured")
    given = one.parse_args()
    names = given.only.split(",") if given.only else [job.name for job in JOBS]
    failed = False
    for job in JOBS if not given.write else ():
        if job.name in names:
            say(f"[bold]{job.command}[/]")
            if why := run(job):
                failed = True
                say(f"[bold]no new figures of {job.name}[/]: {why}")
    write()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
