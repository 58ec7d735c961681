"""The monitor stage on the rows of `watched` as it ships: on a real broker, exactly once.

    python -m benchmarks.broker_work monitor ROWS.npz 1000x20

A worker of its own fetches the predictions and then the labels of all windows, joins and counts
them, and writes examples, summaries, its checkpoint and the offsets in transactions. What is
counted is the CPU of its process; the rows are watched several times over, under new ids, since
a process that has just begun says little.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Final

from benchmarks import workload
from benchmarks.core_work import ROW_MS, START_MS, batches, fitted, spec_of
from benchmarks.watched import Rows, load
from benchmarks.workers import Progress, Workers, kafka, release
from models.profile import encode
from tests.topics import Sent

TURNS: Final = 5
WORKER: Final = (sys.executable, "-m", "consumers", "worker", "--stages", "monitor")
Turn = tuple[list[Sent], list[Sent]]  # predictions, and their labels


def turns(windows: Sequence[Rows], size: int) -> Iterator[Turn]:
    """All windows, once more each turn. The clock is the records', a second a row; no row is so old
    that retention would take it."""
    tick_ms = size * ROW_MS
    ticks = (time.time_ns() // 1_000_000 - START_MS) // tick_ms - TURNS * len(windows)
    for number in range(TURNS):
        parts = [
            batches(number * len(windows) + place, window) for place, window in enumerate(windows)
        ]
        sent: Turn = ([], [])
        for batch in chain.from_iterable(chain.from_iterable(parts)):
            sent[batch.entity == "feedback"].extend(
                Sent(record.key, record.value, timestamp_ms=record.timestamp_ms + ticks * tick_ms)
                for record in batch.records
            )
        yield sent


def cpu_seconds(reference: Rows, windows: Sequence[Rows], size: int) -> float:
    """Of the worker's process, to watch the windows once; the first turn is left out."""
    spec = spec_of(size, lean=False)
    known = fitted(spec, reference)
    first, *others = turns(windows, size)
    with kafka(heap="2g") as (broker, folder):
        settings = workload.benchmark_settings(broker.bootstrap, "watched", folder)
        settings = settings.model_copy(update={"clock": "event"})
        workload.go_live(settings, [workload.Version(known.artefact, encode(known.profile))], spec)
        names = settings.names
        inputs = [names.topic(entity) for entity in ("predictions", "feedback")]
        environment = workload.environment(settings)
        with Workers([WORKER], environment, folder / "monitor.log") as workers:
            progress = Progress(broker.bootstrap, names.group("monitor"))

            def watch(turn: Turn) -> None:
                for topic, records in zip(inputs, turn, strict=True):
                    release(broker.bootstrap, topic, records)
                    progress.wait_for_end(workers, topic)

            watch(first)
            began = workers.cpu_seconds()
            for turn in others:
                watch(turn)
            return (workers.cpu_seconds() - began) / len(others)


def main(arguments: Sequence[str]) -> None:
    """Say what `watched.answer` says of other ways."""
    _, path, *cuts = arguments
    reference, watched = load(Path(path))
    seconds = {}
    for cut in cuts:
        size, count = map(int, cut.split("x"))
        seconds[size] = cpu_seconds(reference, watched.windows(size, count), size)
    said = {"digest": watched.digest(), "version": version("driftline"), "cpu_seconds": seconds}
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1:])
