"""What bad input costs: half the traffic poison, and ten million hostile events.

    python -m benchmarks.bad_input [--quick] [--json]

The first table is the score stage on the real broker: the same number of requests, all clean or
every second one poison of many kinds, in interleaved rounds. The second feeds the monitor stage's
core, in this process, with duplicate ids, labels without a prediction, corrections, and times far
ahead and far behind, and reads this process's memory as it goes.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from msgspec import structs

from benchmarks import throughput, workload
from benchmarks.reporting import parser, report, say, spread
from benchmarks.throughput import WORKER, Bench, Run
from benchmarks.workers import Progress, kafka
from models.spec import Labels, ModelSpec
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Context, CoreSettings, Record
from tests import monitoring
from tests.topics import Sent, delete_topics, read_all

POISON: Final = (
    b"no json at all",
    b"\xff\xfe\x00",
    b"[" * 5_000,
    b'{"prediction_id": "r", "model": "bench"}',
    b'{"prediction_id": "r", "model": "bench", "features": {"x0": 1e999}}',
    b'{"prediction_id": "r", "model": "bench", "features": {"x0": "one"}}',
    b'{"prediction_id": "\\ud800", "model": "bench", "features": {}}',
    b'{"prediction_id": "", "model": "bench", "features": {}}',
    b'{"specversion": "9", "type": "x", "id": "", "source": ""}',
)
MILLION: Final = 1_000_000
PER_MS: Final = 2  # events in a millisecond of event time
BATCH: Final = 1_000
LABELS: Final = Labels(horizon_seconds=60, correction_horizon_seconds=20, early_seconds=20)
SPEC: Final[ModelSpec] = structs.replace(monitoring.SPEC, labels=LABELS)


def half_poison(clean: Sequence[Sent]) -> list[Sent]:
    """Every second request in the place of a clean one, under its key."""
    return [
        one if number % 2 else Sent(one.key, POISON[number // 2 % len(POISON)])
        for number, one in enumerate(clean)
    ]


def run_once(bench: Bench, prefix: str) -> Run:
    """The score stage on all of the requests."""
    settings = bench.settings(prefix)
    workload.go_live(settings, bench.versions)
    requests = settings.names.topic("requests")
    with bench.workers(prefix, (*WORKER, "score")) as workers:
        progress = Progress(bench.bootstrap, settings.names.group("score"))
        run = throughput.measure(
            bench, workers, requests, lambda _: progress.wait_for_end(workers, requests)
        )
    topics = (settings.names.topic("predictions"), f"{requests}.dlq")
    found = sum(len(read_all(bench.bootstrap, topic)) for topic in topics)
    assert found == len(bench.requests), f"{found} of {len(bench.requests)} came out"
    delete_topics(bench.bootstrap, prefix)
    return run


def compare(events: int, rounds: int) -> list[tuple[Run, Run]]:
    """Clean and half-poisoned traffic, round by round."""
    with kafka(heap="2g") as (broker, folder):
        clean = list(workload.requests(events))
        versions = workload.versions(1)
        kinds = [
            Bench(broker.bootstrap, folder, requests, (), versions)
            for requests in (clean, half_poison(clean))
        ]
        done = []
        for number in range(rounds):
            clean_run, bad_run = (
                run_once(kind, f"bad-{number}-{i}") for i, kind in enumerate(kinds)
            )
            say(f"round {number + 1}: {_told(clean_run)} clean, {_told(bad_run)} half poison")
            done.append((clean_run, bad_run))
    return done


def _told(run: Run) -> str:
    return f"{run.cpu_seconds / run.events * 1e6:.1f} us, {run.events / run.seconds / 1000:.0f}k/s"


def hostile(seed: int) -> Iterator[tuple[str, monitoring.Sent]]:
    """Endless events, each with the entity that it is written to, `PER_MS` to a millisecond."""
    chance = random.Random(seed)
    number = 0
    while True:
        at = number // PER_MS
        id_, old = f"h-{number}", f"h-{max(0, number - chance.randrange(1, 40_000))}"
        kind = chance.random()
        if kind < 0.4:
            yield "predictions", monitoring.prediction(id_, at)
        elif kind < 0.7:
            yield "feedback", monitoring.feedback(old, at, chance.choice(("yes", "no")))
        elif kind < 0.8:
            yield "predictions", monitoring.prediction(old, at)
        elif kind < 0.9:
            yield "feedback", monitoring.feedback(f"orphan-{number}", at)
        elif kind < 0.95:
            yield "predictions", monitoring.prediction(id_, at + 10**9, delay=-(10**9))
        else:
            yield "predictions", monitoring.prediction(id_, at - 10**10, delay=10**10)
        number += 1


def memory(events: int) -> list[tuple[int, float, int]]:
    """Events so far, MiB of this process and rows that wait, at twenty points."""
    fleet = {SPEC.name: monitoring.Live(SPEC)}
    counts = dict.fromkeys(("predictions", "feedback", "examples", "summaries"), 1)
    processor = MonitorProcessor(Context(0, counts, CoreSettings()))
    stream, offsets = hostile(7), dict.fromkeys(("predictions", "feedback"), 0)
    seen, done = [], 0
    while done < events:
        clock_ms = 0
        runs: dict[str, list[Record]] = {"predictions": [], "feedback": []}
        for entity, sent in islice(stream, BATCH):
            runs[entity].append(sent.record(offsets[entity]))
            offsets[entity] += 1
            clock_ms = max(clock_ms, sent.stamp_ms)
        for entity, records in runs.items():
            processor.apply(Batch(entity, 0, records), fleet)
        processor.advance(clock_ms, True, fleet)
        processor.changes(complete=False)
        done += BATCH
        if done % (events // 20) < BATCH:
            gc.collect()
            seen.append((done, resident_mib(), processor.gauges["pending"]))
            say(f"{done:,} events: {seen[-1][1]:.0f} MiB, {seen[-1][2]:,} rows")
    return seen


def resident_mib() -> float:
    """Of this process, now."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def main() -> None:
    one = parser("What bad input costs in time, and that it costs no memory.")
    one.add_argument("--events", type=int, help="hostile events for the core")
    arguments = one.parse_args()
    quick = arguments.quick
    started = time.monotonic()
    pairs = compare(40_000 if quick else 200_000, 1 if quick else 3)
    ratio = spread([bad.cpu_seconds / clean.cpu_seconds for clean, bad in pairs])
    slower = spread([bad.seconds / clean.seconds for clean, bad in pairs])
    seen = memory(arguments.events or (400_000 if quick else 10 * MILLION))
    settled = [mib for _, mib, _ in seen[len(seen) // 4 :]]
    growth = settled[-1] / settled[0]
    figures = {
        "poison_cost_ratio": round(ratio.median, 3),
        "poison_seconds_ratio": round(slower.median, 3),
        "hostile_events": seen[-1][0],
        "resident_mib_at_a_quarter": round(settled[0]),
        "resident_mib_at_the_end": round(settled[-1]),
        "memory_growth": round(growth, 3),
        "seconds": round(time.monotonic() - started),
    }
    rows = [
        ["CPU per event, half of them poison, to all clean", f"{ratio:.2f}"],
        ["seconds for as many events, half of them poison, to all clean", f"{slower:.2f}"],
        [f"memory after {seen[-1][0]:,} hostile events, to a quarter of them", f"{growth:.2f}"],
    ]
    report("Bad input", ["", "ratio"], rows, figures, as_json=arguments.json)


if __name__ == "__main__":
    main()
