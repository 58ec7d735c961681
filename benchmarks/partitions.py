"""What partitions and workers cost at one rate of events: flat where it should be?

    python -m benchmarks.partitions [--quick] [--json] [--rate 1000] [--seconds 20] [--rounds 1]

The same requests a second, each answered with its label at once, on the real broker with all three
stages: one worker with more and more partitions, then more and more workers with sixteen. CPU is
that of all processes of Driftline, and beside it the broker's, an event (a prediction and its
label), after a warm-up; the client that sends and reads is not counted. Partitions are those of
every topic. An exponent is the slope of the logarithms by least squares, of 1 to 16 partitions of
one worker: 0 is flat, 1 is proportional.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import psutil

from benchmarks import workload
from benchmarks.latency import WARM_SECONDS, Driver
from benchmarks.reporting import parser, report, say, spread
from benchmarks.scale import exponent
from benchmarks.workers import Workers, kafka
from tests.broker import Broker
from tests.topics import delete_topics

COLUMNS: Final = ("workers", "partitions", "stages us", "broker us", "p50 ms", "p99 ms", "lost")
SHARED: Final = 16  # partitions that several workers share
GOAL: Final = 0.3


class Point(NamedTuple):
    """So many workers, so many partitions."""

    workers: int
    partitions: int


class Cost(NamedTuple):
    """What it took.

    Attributes:
        stages, broker: CPU in microseconds an event.
        p50, p99: milliseconds from a request to its visible prediction.
        lost: requests without one.
    """

    stages: float
    broker: float
    p50: float
    p99: float
    lost: int


POINTS: Final = (
    *(Point(1, partitions) for partitions in (1, 4, 16, 64)),
    *(Point(workers, SHARED) for workers in (2, 4)),
)
QUICK: Final = (Point(1, 1), Point(1, 4))


class Meter:
    """CPU of the workers and of the broker, from when the warm-up is over."""

    def __init__(self, workers: Workers, broker: Broker) -> None:
        self._workers = workers
        self._broker = psutil.Process(broker.pid)
        self._since = (0.0, 0.0)

    def begin_after_warming(self, _: float) -> None:
        timer = threading.Timer(WARM_SECONDS, self._begin)
        timer.daemon = True
        timer.start()

    def _begin(self) -> None:
        self._since = self._now()

    def _now(self) -> tuple[float, float]:
        return self._workers.cpu_seconds(), sum(self._broker.cpu_times()[:2])

    def spent(self) -> tuple[float, float]:
        """Seconds of each."""
        stages, broker = self._now()
        return stages - self._since[0], broker - self._since[1]


def measure(broker: Broker, folder: Path, point: Point, rate: float, seconds: float) -> Cost:
    """All stages at work at that rate."""
    folder.mkdir(exist_ok=True)
    prefix = f"partitions-{folder.name}-{point.workers}-{point.partitions}"
    settings = workload.benchmark_settings(broker.bootstrap, prefix, folder).model_copy(
        update={"partitions": point.partitions}
    )
    workload.go_live(settings, workload.versions(1))
    warm = round(rate * WARM_SECONDS)
    requests = list(workload.requests(warm + round(rate * seconds)))
    commands = [[sys.executable, "-m", "consumers", "worker"]] * point.workers
    with Workers(commands, workload.environment(settings), folder / f"{prefix}.log") as workers:
        driver = Driver(settings, requests, rate)
        meter = Meter(workers, broker)
        latencies = driver.run(workers, meter.begin_after_warming)[warm:]
        spent = meter.spent()
        driver.close()
    delete_topics(broker.bootstrap, prefix)
    stages, theirs = (1e6 * one / len(latencies) for one in spent)
    p50, p99 = (float(1000 * np.nanquantile(latencies, q)) for q in (0.5, 0.99))
    return Cost(stages, theirs, p50, p99, int(np.isnan(latencies).sum()))


def main() -> None:
    one = parser("CPU an event of more partitions and more workers, at one rate.")
    one.add_argument("--rate", type=float, default=1_000.0, help="requests a second")
    one.add_argument("--seconds", type=float, help="of each measurement")
    one.add_argument("--rounds", type=int, default=1)
    given = one.parse_args()
    points = QUICK if given.quick else POINTS
    seconds = given.seconds or (5.0 if given.quick else 20.0)
    found: dict[Point, list[Cost]] = {point: [] for point in points}
    with kafka(heap="2g", optimised=not given.quick) as (broker, folder):
        for number in range(given.rounds):
            for point in points:
                cost = measure(broker, folder / str(number), point, given.rate, seconds)
                found[point].append(cost)
                say(f"round {number + 1}: {point}, {cost}")
    rows, figures = [], dict[str, object](rate=given.rate, seconds=seconds, rounds=given.rounds)
    for point, costs in found.items():
        row = [str(point.workers), str(point.partitions)]
        for field in Cost._fields:
            values = spread([getattr(cost, field) for cost in costs])
            row.append(f"{values:.0f}")
            figures[f"{point.workers}_workers_{point.partitions}_{field}"] = round(values.median, 2)
        rows.append(row)
    alone = [point for point in points if point.workers == 1 and point.partitions <= SHARED]
    costs_alone = [spread([cost.stages for cost in found[point]]).median for point in alone]
    grown = exponent([point.partitions for point in alone], costs_alone)
    figures["exponent of partitions"] = round(grown, 3)
    if Point(4, SHARED) in found:
        several, single = (found[Point(workers, SHARED)] for workers in (4, 1))
        ratio = (
            spread([c.stages for c in several]).median / spread([c.stages for c in single]).median
        )
        figures["four_to_one"] = round(ratio, 2)
    rows.append(["exponent", "1 - 16", f"{grown:.2f}", f"wanted: at most {GOAL}", "", "", ""])
    title = f"CPU an event at {given.rate:,.0f} requests/s; median (lowest-highest) of the rounds"
    report(title, list(COLUMNS), rows, figures, as_json=given.json)


if __name__ == "__main__":
    main()
