"""The monitor stage on the rows of `watched` as it ships: on a real broker, exactly once.

    python -m benchmarks.broker_work monitor ROWS.npz 1000x20

A worker of its own fetches predictions and labels, joins and counts them, and writes examples,
summaries, its checkpoint and the offsets in transactions; what is counted is the CPU of its
process. The rows are watched several times over, under new ids. Each turn has predictions, and the
labels of the turn before; it is written while the one before is at work, so that the worker hardly
waits.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Final

from benchmarks import workload
from benchmarks.core_work import ROW_MS, START_MS, batches, fitted, spec_of
from benchmarks.watched import Rows, load
from benchmarks.workers import Ends, Progress, Workers, kafka, release
from models.profile import encode
from tests.topics import Sent

TURNS: Final = 5
WARM: Final = 2  # turns that are left out
PASSES: Final = 2  # over all windows, in one turn
WORKER: Final = (sys.executable, "-m", "consumers", "worker", "--stages", "monitor")


def turns(windows: Sequence[Rows], size: int) -> Iterator[tuple[list[Sent], list[Sent]]]:
    """Predictions and their labels. The clock is the records', a second a row; none is so old that
    retention would take it."""
    each = [*windows] * PASSES
    tick_ms = size * ROW_MS
    ticks = (time.time_ns() // 1_000_000 - START_MS) // tick_ms - TURNS * len(each)
    for turn in range(TURNS):
        parts = (batches(turn * len(each) + place, window) for place, window in enumerate(each))
        made, told = list[Sent](), list[Sent]()
        for batch in chain.from_iterable(chain.from_iterable(parts)):
            sent = made if batch.entity == "predictions" else told
            for record in batch.records:
                stamp_ms = record.timestamp_ms + ticks * tick_ms
                sent.append(Sent(record.key, record.value, timestamp_ms=stamp_ms))
        yield made, told


def cpu_seconds(reference: Rows, windows: Sequence[Rows], size: int) -> float:
    """Of the worker's process, to watch the windows once."""
    spec = spec_of(size, lean=False)
    known = fitted(spec, reference)
    champion = workload.Version(known.artefact, encode(known.profile))
    with kafka(heap="2g") as (broker, folder):
        settings = workload.benchmark_settings(broker.bootstrap, "watched", folder)
        settings = settings.model_copy(update={"clock": "event"})
        workload.go_live(settings, [champion], spec)
        names = settings.names
        inputs = [names.topic(entity) for entity in ("predictions", "feedback")]
        write = partial(release, broker.bootstrap)
        with Workers([WORKER], workload.environment(settings), folder / "monitor.log") as workers:
            progress = Progress(broker.bootstrap, names.group("monitor"))
            began, ends, labels = 0.0, list[Ends](), list[Sent]()

            def wait() -> None:
                for end in ends:
                    progress.wait_for(workers, end)

            for number, (made, told) in enumerate(turns(windows, size)):
                first = partial(write, inputs[0], made, before_commit=wait)
                write(inputs[1], labels, before_commit=first)
                began = workers.cpu_seconds() if number == WARM else began
                ends, labels = list(map(progress.ends, inputs)), told
            wait()
            return (workers.cpu_seconds() - began) / ((TURNS - WARM) * PASSES)


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
