"""How long `driftline replay` takes for a million events, and whether it says the same twice.

    python -m benchmarks.replay [--quick] [--json] [--events N]

Predictions and their labels pass through monitor and evaluate on the real broker. Then the finished
log is folded again by the command line, twice whole and once from the counts alone, each a process
of its own with two more for the partitions: start, reading, monitor, evaluate and the comparison
with what was told are all in the time.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks import workload
from benchmarks.recovery import CHUNK, predictions
from benchmarks.reporting import parser, report, say
from benchmarks.workers import Progress, Workers, kafka, release
from stream.settings import Settings

STAGES: Final = ("monitor", "evaluate")
PROCESSES: Final = 2
WANTED_SECONDS: Final = 60.0


class Run(NamedTuple):
    """
    Attributes:
        said: what the command printed.
    """

    seconds: float
    cpu_seconds: float
    said: dict[str, Any]


def live_through(settings: Settings, events: int, folder: Path) -> None:
    """A log of so many events, a label for each prediction; every second one is a surprise."""
    names = settings.names
    workload.go_live(settings, workload.versions(1))
    commands = [(sys.executable, "-m", "stream.worker", stage) for stage in STAGES]
    with Workers(commands, workload.environment(settings), folder / "workers.log") as workers:
        progress = Progress(settings.bootstrap_servers, names.group("monitor"))
        for first in range(0, events // 2, CHUNK):
            count = min(CHUNK, events // 2 - first)
            made = predictions(first, count)
            labels = (
                workload.feedback_for(f"p-{number:09d}", number % 2 == 0)
                for number in range(first, first + count)
            )
            release(settings.bootstrap_servers, names.topic("predictions"), made)
            release(settings.bootstrap_servers, names.topic("feedback"), labels)
            progress.wait_for_end(workers, names.topic("predictions"))
            progress.wait_for_end(workers, names.topic("feedback"))
            say(f"{2 * (first + count):,} events have passed")
        spec = workload.SPEC.ticks  # till the last tick is closed
        time.sleep(spec.seconds + spec.allowed_lateness_seconds + 5)


def again(settings: Settings, *options: str) -> Run:
    """One replay by the command line."""
    command = [sys.executable, "-m", "consumers", "replay", workload.SPEC.name, "--json", *options]
    environment = {**os.environ, **workload.environment(settings)}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    before, begun = _children_seconds(), time.monotonic()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    seconds = time.monotonic() - begun
    said = msgspec.json.decode(done.stdout.splitlines()[-1])
    return Run(seconds, _children_seconds() - before, said)


def measure(bootstrap: str, folder: Path, events: int) -> tuple[Run, Run, Run]:
    """Twice whole, and once from the counts alone."""
    settings = workload.benchmark_settings(bootstrap, "replay", folder)
    live_through(settings, events, folder)
    whole = ("--processes", str(PROCESSES))
    return again(settings, *whole), again(settings, *whole), again(settings, "--counts")


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    one = parser("Seconds to replay a finished log, twice, and whether both say the same.")
    one.add_argument("--events", type=int, help="predictions and labels")
    given = one.parse_args()
    events = given.events or (40_000 if given.quick else 1_000_000)
    with kafka(heap="2g") as (broker, folder):
        first, second, quick = measure(broker.bootstrap, folder, events)
    digests = {run.said["digest"] for run in (first, second, quick)}
    figures = {
        "events": sum(first.said["events"].values()),
        "seconds": round(max(first.seconds, second.seconds), 1),
        "seconds_wanted": WANTED_SECONDS,
        "cpu_seconds": round(max(first.cpu_seconds, second.cpu_seconds), 1),
        "counts_only_seconds": round(quick.seconds, 1),
        "byte_identical": len(digests) == 1,
        "summaries": first.said["summaries"]["made"],
        "summaries_as_recorded": first.said["summaries"]["as_recorded"],
        "verdicts_as_recorded": first.said["as_recorded"],
        "alerts": len(first.said["verdicts"]["alerts"]),
        "commands": len(first.said["verdicts"]["commands"]),
    }
    report(
        "A finished log replayed, two processes",
        ["events", "seconds", "CPU seconds", "counts alone", "byte-identical", "as recorded"],
        [
            [
                f"{figures['events']:,}",
                f"{first.seconds:.1f}, {second.seconds:.1f}",
                f"{first.cpu_seconds:.1f}, {second.cpu_seconds:.1f}",
                f"{quick.seconds:.1f}",
                "yes" if figures["byte_identical"] else "no",
                "yes" if figures["verdicts_as_recorded"] else "no",
            ]
        ],
        figures,
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
