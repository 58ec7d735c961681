"""Many models, few of them asked: what one worker of score needs for them.

    python -m benchmarks.fleet [--quick] [--json] [--registered N] [--active N]

For each size of the fleet, a fresh worker of score on a real broker: seconds from its start until
it has answered requests of all active models, its memory then, and the CPU that a request cost
afterwards. Every model has its own name and artefact; the rate and the active models are the same.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import psutil
from msgspec.structs import replace

from benchmarks import workload
from benchmarks.reporting import parser, report, say
from benchmarks.workers import Progress, Workers, kafka, release
from models import artefacts
from stream.envelope import derived_id, write
from stream.events import LifecycleChanged
from stream.settings import Settings
from tests.topics import Sent, make_topics, produce

REQUESTS: Final = 50_000
VERSIONS: Final = 20  # different artefacts; models share them, workers load each model's by itself


class Needed(NamedTuple):
    """What one worker needed."""

    registered: int
    start_seconds: float
    memory_mb: float
    request_us: float


def names(count: int) -> list[str]:
    return [f"model-{number:04}" for number in range(count)]


def announce(settings: Settings, registered: int) -> None:
    """Every model has its first version live."""
    store = artefacts.open_store(settings.artefact_url)
    fitted = workload.versions(VERSIONS)
    now_ms = time.time_ns() // 1_000_000
    records = []
    for number, name in enumerate(names(registered)):
        changed = LifecycleChanged(
            model=name,
            generation=1,
            spec=replace(workload.SPEC, name=name),
            spec_revision=1,
            champion=1,
            versions=[workload.card(store, 1, fitted[number % VERSIONS])],
            changed_ms=now_ms,
            cause="benchmark",
        )
        kind, id_ = "driftline.lifecycle.changed.v1", derived_id("fleet", name)
        value = write(kind, changed, id=id_, source="benchmarks", time_ms=now_ms)
        records.append(Sent(name.encode(), value))
    produce(settings.bootstrap_servers, settings.names.topic("lifecycle"), records)


def requests(count: int, active: int, prefix: str) -> Iterator[Sent]:
    """As those of the workload, of each active model in turn."""
    known = names(active)
    for number, sent in enumerate(workload.requests(count, prefix=prefix)):
        body = msgspec.json.decode(sent.value or b"")
        body["model"] = known[number % active]
        yield Sent(sent.key, msgspec.json.encode(body))


def measure(bootstrap: str, folder: Path, registered: int, active: int) -> Needed:
    prefix = f"fleet-{registered}"
    settings = workload.benchmark_settings(bootstrap, prefix, folder / prefix)
    make_topics(settings)
    announce(settings, registered)
    topic = settings.names.topic("requests")
    release(bootstrap, topic, requests(active * 20, active, "first"))
    command = [sys.executable, "-m", "consumers", "worker", "--stages", "score"]
    progress = Progress(bootstrap, settings.names.group("score"))
    log = folder / f"{prefix}.log"
    started = time.monotonic()
    with Workers([command], workload.environment(settings), log) as workers:
        progress.wait_for_end(workers, topic)
        start_seconds = time.monotonic() - started
        memory_mb = sum(process.memory_info().rss for process in _all(workers)) / 2**20
        cpu_seconds = workers.cpu_seconds()
        release(bootstrap, topic, requests(REQUESTS, active, "then"))
        progress.wait_for_end(workers, topic)
        request_us = (workers.cpu_seconds() - cpu_seconds) / REQUESTS * 1e6
    return Needed(registered, start_seconds, memory_mb, request_us)


def _all(workers: Workers) -> list[psutil.Process]:
    return [one for mine in workers.processes for one in (mine, *mine.children(recursive=True))]


def main() -> None:
    one = parser("What a worker needs for many models.")
    one.add_argument("--registered", type=int, help="models of the largest fleet")
    one.add_argument("--active", type=int, default=50, help="models that are asked")
    given = one.parse_args()
    most = given.registered or (200 if given.quick else 1_000)
    found = []
    with kafka() as (broker, folder):
        for registered in (given.active, most):
            say(f"{registered} models")
            found.append(measure(broker.bootstrap, folder, registered, given.active))
    rows = [
        [
            f"{one.registered:,}",
            f"{one.start_seconds:.1f}",
            f"{one.memory_mb:.0f}",
            f"{one.request_us:.0f}",
        ]
        for one in found
    ]
    figures = {f"{one.registered}_models": one._asdict() for one in found}
    report(
        f"One worker of score, {given.active} of its models asked",
        ["models", "start, s", "memory, MiB", "CPU us/request"],
        rows,
        {
            "active": given.active,
            "request_to_fewer": round(found[-1].request_us / found[0].request_us, 2),
            **figures,
        },
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
