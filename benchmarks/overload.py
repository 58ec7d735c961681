"""More than score can carry: memory, fair progress, and what leaving shadows out brings.

    python -m benchmarks.overload [--quick] [--json]

All requests are there at once, which is as far beyond what can be carried as it gets, and one
worker of score with two shadows works them off: once with shadows whatever waits, once leaving them
out while more than a twentieth of the requests waits in a partition. Memory is the worker's own,
beside what it had before. `fairness` is what the slowest partition has done, to the fastest, when
half of all is done. Every request must have its prediction once.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import Consumer, TopicPartition

from benchmarks import workload
from benchmarks.reporting import parser, report, say, spread
from benchmarks.workers import Progress, Workers, committed, kafka, release
from tests.topics import Sent, delete_topics, quiet_client, read_all

MIB: Final = 2**20
SAMPLE_SECONDS: Final = 0.05


class Found(NamedTuple):
    """One run: requests a second, share of predictions without shadows, and as above."""

    per_second: float
    shed: float
    grown_mib: float
    fairness: float


class Watch:
    """Samples memory and progress from a thread of its own, until it is left."""

    def __init__(self, bootstrap: str, group: str, topic: str, partitions: int, half: int) -> None:
        self.most_mib = 0.0
        self.fairness = 0.0
        self._half = half
        # Stable offsets would have to wait for a moment between two transactions.
        how = {"group.id": group, "isolation.level": "read_uncommitted"}
        self._reader = Consumer(quiet_client(bootstrap, **how))
        self._places = [TopicPartition(topic, number) for number in range(partitions)]
        self._stopped = threading.Event()

    def run(self, workers: Workers) -> None:
        (process,) = workers.processes
        while not self._stopped.wait(SAMPLE_SECONDS):
            self.most_mib = max(self.most_mib, process.memory_info().rss / MIB)
            if not self.fairness:
                done = [max(0, place.offset) for place in committed(self._reader, self._places)]
                if sum(done) >= self._half:
                    self.fairness = min(done) / max(done)

    def stop(self) -> None:
        self._stopped.set()


def measure(
    bootstrap: str, folder: Path, prefix: str, requests: list[Sent], *, sheds: bool
) -> Found:
    """One run on topics of its own."""
    limit = len(requests) // 20 if sheds else 0
    settings = workload.benchmark_settings(bootstrap, prefix, folder).model_copy(
        update={"shed_shadows_lag": limit}
    )
    workload.go_live(settings, workload.versions(3))
    topic, group = settings.names.topic("requests"), settings.names.group("score")
    warm, rest = requests[: len(requests) // 20], requests[len(requests) // 20 :]
    command = [sys.executable, "-m", "consumers", "worker", "--stages", "score"]
    half = len(warm) + len(rest) // 2
    watch = Watch(bootstrap, group, topic, settings.partitions, half)
    environment = workload.environment(settings)
    with Workers([command], environment, folder / f"{prefix}.log") as workers:
        progress = Progress(bootstrap, group)
        release(bootstrap, topic, warm)
        progress.wait_for_end(workers, topic)
        before = workers.processes[0].memory_info().rss / MIB
        thread = threading.Thread(target=watch.run, args=(workers,), daemon=True)
        thread.start()
        started = [time.monotonic()]
        release(bootstrap, topic, rest, before_commit=lambda: started.append(time.monotonic()))
        progress.wait_for_end(workers, topic)
        seconds = time.monotonic() - started[-1]
        watch.stop()
        thread.join(30)
    assert watch.fairness, "it was never seen when half of all was done"
    seen = read_all(bootstrap, settings.names.topic("predictions"))
    assert len({one.key for one in seen}) == len(seen) == len(requests), f"{len(seen)} predictions"
    alone = sum(b'"shadow"' not in (one.value or b"") for one in seen)
    delete_topics(bootstrap, prefix)
    share = alone / len(requests)
    return Found(len(rest) / seconds, share, watch.most_mib - before, watch.fairness)


def main() -> None:
    one = parser("Memory, fairness and shadows when more comes than can be carried.")
    one.add_argument("--events", type=int, help="requests that are there at once")
    one.add_argument("--rounds", type=int)
    given = one.parse_args()
    events = given.events or (60_000 if given.quick else 400_000)
    rounds = given.rounds or (1 if given.quick else 3)
    runs: dict[str, list[Found]] = {"kept": [], "shed": []}
    with kafka(heap="2g") as (broker, folder):
        requests = list(workload.requests(events))
        for number in range(rounds):
            for way, found in runs.items():
                prefix = f"overload-{number}-{way}"
                sheds = way == "shed"
                found.append(measure(broker.bootstrap, folder, prefix, requests, sheds=sheds))
                say(f"shadows {way}: {found[-1]}")
    rows, figures = [], dict[str, object](events=events, rounds=rounds)
    for way, found in runs.items():
        rows.append([f"shadows {way}"])
        for field, kind in zip(Found._fields, (",.0f", ".2f", ",.0f", ".2f"), strict=True):
            values = spread([getattr(run, field) for run in found])
            rows[-1].append(format(values, kind))
            figures[f"{way}_{field}"] = round(values.median, 3)
    columns = ["", "requests/s", "without shadows", "MiB more", "fairness"]
    report(f"{events:,} requests at once", columns, rows, figures, as_json=given.json)


if __name__ == "__main__":
    main()
