"""What to set for 10, 100, 1,000 workers, from what one was measured to cost.

    python -m benchmarks.sizing [--load 0.7] [--label-hours 1] [--write]

Reads `benchmarks/results/{throughput,transactions,recovery}.json`, which `benchmarks.all` keeps,
and does arithmetic on them; `--write` puts the table into docs/scaling.md. It assumes that costs
add up and that no machine is slower than the one that was measured. A worker here is one process
of score on one core; monitor needs further cores, in the ratio that `loop` has to `score`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.all import kept
from benchmarks.pages import Table, write_page
from benchmarks.reporting import report
from stream.settings import Settings

PAGE: Final = Path(__file__).parent.parent / "docs" / "scaling.md"
WORKERS: Final = (1, 10, 100, 1_000)
PARTITIONS_EACH: Final = 4  # so that what one worker held spreads over several others
POINT: Final = 64  # partitions, at which both ways of committing were measured


class Unit(NamedTuple):
    """What one thing costs.

    Attributes:
        score: events a CPU second of score.
        loop: events a CPU second of all three stages.
        transaction, partition: CPU seconds of the broker, for a transaction, and for each partition
            with its records in it.
        pending: bytes of monitor's checkpoint a prediction that waits for its label.
    """

    score: float
    loop: float
    transaction: float
    partition: float
    pending: float


def units(throughput: Any, transactions: Any, recovery: Any) -> Unit:
    """From what the benchmarks said.

    One transaction per partition costs the broker a + b, one for P partitions a + P b.
    """
    interval = Settings().commit_interval_seconds("score", POINT)
    records = max(1, round(transactions["rate"] * interval / POINT))  # of a partition in one commit
    each = transactions[f"partition_{POINT}_broker"] * records / 1e6
    whole = transactions[f"worker_{POINT}_broker"] * records * POINT / 1e6
    per_partition = max(0.0, (whole - each) / (POINT - 1))
    return Unit(
        score=throughput["score_events_per_cpu_second"],
        loop=throughput["loop_events_per_cpu_second"],
        transaction=max(0.0, each - per_partition),
        partition=per_partition,
        pending=recovery["checkpoint_bytes"] / recovery["pending"],
    )


class Plan(NamedTuple):
    """So many workers of score.

    Attributes:
        events: a second.
        others: further cores, for monitor and evaluate.
        commits: transactions of score, a second, at the interval that is set.
        broker_cores: CPU of the brokers for them; `one_each`: for one a partition, as in 0.1.
        checkpoint: bytes of monitor's state in one partition.
    """

    workers: int
    events: float
    others: float
    partitions: int
    commits: float
    broker_cores: float
    one_each: float
    checkpoint: float


def plan(workers: int, unit: Unit, load: float, label_seconds: float) -> Plan:
    """
    Args:
        load: share of its core that a worker is to be busy.
        label_seconds: how long a prediction waits for its label.
    """
    events = workers * load * unit.score
    partitions = workers * PARTITIONS_EACH
    interval = Settings().commit_interval_seconds("score", PARTITIONS_EACH)
    commits = workers / interval
    cost = unit.transaction + PARTITIONS_EACH * unit.partition
    apart = partitions / interval * (unit.transaction + unit.partition)
    return Plan(
        workers=workers,
        events=events,
        others=events * max(0.0, 1 / unit.loop - 1 / unit.score) / load,
        partitions=partitions,
        commits=commits,
        broker_cores=commits * cost,
        one_each=apart,
        checkpoint=events * label_seconds * unit.pending / partitions,
    )


COLUMNS: Final = [
    "workers of score",
    "requests/s",
    "cores of monitor, evaluate",
    "partitions",
    "commits/s",
    "broker cores for them",
    "with one a partition",
    "checkpoint of monitor, MiB a partition",
]


def row(one: Plan) -> list[str]:
    figures = (one.workers, one.events, math.ceil(one.others), one.partitions, one.commits)
    cores = (f"{one.broker_cores:,.1f}", f"{one.one_each:,.1f}")
    return [*(f"{figure:,.0f}" for figure in figures), *cores, f"{one.checkpoint / 2**20:,.0f}"]


def main() -> None:
    one = argparse.ArgumentParser(description="What to set for more workers.")
    one.add_argument("--load", type=float, default=0.7, help="share of a core that is busy")
    one.add_argument("--label-hours", type=float, default=1.0, help="how long labels take")
    one.add_argument("--write", action="store_true", help="into docs/scaling.md, too")
    one.add_argument("--json", action="store_true", help="one JSON object at the end")
    given = one.parse_args()
    said = {name: kept(name) for name in ("throughput", "transactions", "recovery")}
    absent = [name for name, figures in said.items() if not figures]
    if absent:
        one.error(f"nothing kept of {', '.join(absent)}: python -m benchmarks.all makes it")
    unit = units(**said)
    plans = [plan(count, unit, given.load, given.label_hours * 3600) for count in WORKERS]
    title = f"At {given.load:.0%} of a core, labels after {given.label_hours:g} h"
    rows = [row(one) for one in plans]
    figures = {**unit._asdict(), "plans": [one._asdict() for one in plans]}
    report(title, COLUMNS, rows, figures, as_json=given.json)
    if given.write:
        write_page(PAGE, [Table(title, COLUMNS, rows)], "python -m benchmarks.sizing")


if __name__ == "__main__":
    main()
