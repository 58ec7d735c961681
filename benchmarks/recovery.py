"""From a SIGKILL of the monitor stage to its first commit afterwards, with a million rows pending.

    python -m benchmarks.recovery [--quick] [--json]

Predictions and labels pass through monitor on the real broker until so many predictions wait for
labels that never come. Then its process is killed, a new one is started at once, and one more
prediction is sent. What is measured is the time from the kill until the group's offset has passed
that prediction. The broker gives a dead member's partitions away when its session has timed out,
which no restore can shorten, so that is told apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from benchmarks import workload
from benchmarks.reporting import parser, report, say
from benchmarks.workers import Progress, Workers, kafka, release
from stream.settings import Settings
from tests.topics import Sent, read_all

COMMAND: Final = (sys.executable, "-m", "stream.worker", "monitor")
CHUNK: Final = 100_000
SESSION_SECONDS: Final = 6.0


class Restart(NamedTuple):
    """
    Attributes:
        read: records and bytes that the checkpoint topic holds, a little more than was restored.
    """

    seconds: float
    read: tuple[int, int]


def predictions(first: int, count: int) -> Iterator[Sent]:
    """Made elsewhere, of the benchmarks' model."""
    features = np.random.default_rng(first).normal(size=(count, 8)).round(4).tolist()
    names = workload.SPEC.feature_names
    for number, row in enumerate(features, first):
        key = f"p-{number:09d}"
        body = {
            "prediction_id": key,
            "model": workload.SPEC.name,
            "version": 1,
            "output": 0.25,
            "features": dict(zip(names, row, strict=True)),
        }
        yield Sent(key.encode(), msgspec.json.encode(body))


def fill(settings: Settings, workers: Workers, pending: int, passed: int) -> None:
    """Let predictions through, of which `passed` get their label and `pending` do not."""
    names = settings.names
    progress = Progress(settings.bootstrap_servers, names.group("monitor"))
    share = passed / (pending + passed)
    for first in range(0, pending + passed, CHUNK):
        count = min(CHUNK, pending + passed - first)
        release(settings.bootstrap_servers, names.topic("predictions"), predictions(first, count))
        labelled = np.random.default_rng(first + 1).random(count) < share
        told = (
            workload.feedback_for(f"p-{first + int(number):09d}", True)
            for number in np.flatnonzero(labelled)
        )
        release(settings.bootstrap_servers, names.topic("feedback"), told)
        progress.wait_for_end(workers, names.topic("predictions"))
        progress.wait_for_end(workers, names.topic("feedback"))
        say(f"{first + count:,} predictions have passed")


def measure(bootstrap: str, folder: Path, pending: int, passed: int) -> Restart:
    settings = workload.benchmark_settings(bootstrap, "recovery", folder).model_copy(
        update={"session_timeout_seconds": SESSION_SECONDS}
    )
    names = settings.names
    environment = workload.environment(settings) | {
        "DRIFTLINE_SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS)
    }
    workload.go_live(settings, workload.versions(1))
    log = folder / "worker.log"
    with Workers([COMMAND], environment, log) as before:
        fill(settings, before, pending, passed)
        time.sleep(2 * settings.summary_interval_ms / 1000)
        before.kill()
        killed = time.monotonic()
    with Workers([COMMAND], environment, log) as after:
        release(bootstrap, names.topic("predictions"), predictions(pending + passed, 1_000))
        progress = Progress(bootstrap, names.group("monitor"))
        progress.wait_for_end(after, names.topic("predictions"))
        seconds = time.monotonic() - killed
    held = read_all(bootstrap, names.checkpoints("monitor"))
    return Restart(seconds, (len(held), sum(len(one.value or b"") for one in held)))


def main() -> None:
    one = parser("Seconds from a SIGKILL to the first commit afterwards.")
    one.add_argument("--pending", type=int, help="predictions whose label never comes")
    one.add_argument("--passed", type=int, help="predictions that get their label")
    given = one.parse_args()
    pending = given.pending or (50_000 if given.quick else 1_000_000)
    passed = given.passed or (100_000 if given.quick else 2_000_000)
    with kafka(heap="2g") as (broker, folder):
        found = measure(broker.bootstrap, folder, pending, passed)
    beyond = found.seconds - SESSION_SECONDS
    figures = {
        "pending": pending,
        "passed": passed,
        "seconds": round(found.seconds, 1),
        "session_timeout_seconds": SESSION_SECONDS,
        "seconds_past_session_timeout": round(beyond, 1),
        "checkpoint_records": found.read[0],
        "checkpoint_bytes": found.read[1],
    }
    row = [
        f"{pending:,}",
        f"{passed:,}",
        f"{found.read[1] / 2**20:,.0f}",
        f"{found.seconds:.1f}",
        f"{beyond:.1f}",
    ]
    report(
        "Restart of monitor after a SIGKILL, all partitions on one worker",
        ["pending", "passed", "checkpoint MiB", "seconds", "past the session timeout"],
        [row],
        figures,
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
