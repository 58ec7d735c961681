"""Copying workers for tests: started, ended, and what their outputs and state must add up to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from stream.settings import Settings
from stream.supervising import environment
from stream.topics import Stage
from tests.patience import PATIENCE_SECONDS
from tests.topics import Sent, make_topics, produce, read_all

ROOT = Path(__file__).parents[2]
PARTITIONS = 4


@contextmanager
def copying(settings: Settings, directory: Path) -> Iterator[Workers]:
    """Workers over topics of their own; none outlives the block."""
    make_topics(settings)
    workers = Workers(settings, directory)
    yield workers
    for process in workers.running:
        process.kill()
        process.wait()


class Workers:
    """Copying workers of one test, each its own process.

    Args:
        program: the interpreter's arguments before the module and its stage.
    """

    def __init__(
        self, settings: Settings, directory: Path, program: Sequence[str] = ("-m",)
    ) -> None:
        self.settings = settings
        self._program = program
        self.running: list[subprocess.Popen[bytes]] = []
        self._directory = directory
        self._started = 0

    def start(self, stage: Stage = "score", **more: str) -> subprocess.Popen[bytes]:
        self._started += 1
        with (self._directory / f"worker-{self._started}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *self._program, "tests.kafka.copy_worker", stage],
                cwd=ROOT,
                env={**environment(self.settings, 0), "DRIFTLINE_SUPERVISOR": "0", **more},
                stderr=log,
            )
        self.running.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        process.send_signal(number)
        try:
            return process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"no end after signal {number}:\n{self.logs}")

    def count(self, event: str) -> int:
        """Log lines so far with this text."""
        return self.logs.count(event)

    def until_log(self, event: str, times: int) -> None:
        until(lambda: self.count(event) >= times, self)

    @property
    def logs(self) -> str:
        files = sorted(self._directory.glob("worker-*.log"))
        return "".join(f"\n{file.name}\n{file.read_text()}" for file in files)


def send(
    settings: Settings, first: int, count: int, entity: str = "requests", more: bytes = b""
) -> None:
    """The numbers first..first+count-1, spread over the partitions; after a colon, `more`."""
    topic = settings.names.topic(entity)
    numbers = range(first, first + count)
    produce(
        settings.bootstrap_servers,
        topic,
        (Sent(b"k%d" % n, b"%d%s" % (n, more), n % PARTITIONS) for n in numbers),
    )


def outputs(settings: Settings, entity: str = "predictions") -> list[tuple[int, int, int]]:
    """(number, partition, count) of every committed output."""
    seen = read_all(settings.bootstrap_servers, settings.names.topic(entity))
    return [tuple(map(int, (record.value or b"").split(b":"))) for record in seen]  # type: ignore[misc]


def state(settings: Settings, stage: Stage = "score") -> tuple[int, int]:
    """Count and sum over all partitions, as the checkpoints have them."""
    newest: dict[int, bytes] = {}
    for record in read_all(settings.bootstrap_servers, settings.names.checkpoints(stage)):
        if record.key == b"part/state":
            newest[record.partition] = record.value or b""
    sums = [json.loads(value) for value in newest.values()]
    return sum(count for count, _ in sums), sum(total for _, total in sums)


def until(what: Callable[[], bool], workers: Workers, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"not within {seconds} s:\n{workers.logs}"
        time.sleep(0.2)


def exact(workers: Workers, total: int) -> None:
    """Every number 0..total-1 came out once, and state and outputs tell the same story."""
    settings = workers.settings
    until(lambda: state(settings)[0] >= total, workers)
    copies = outputs(settings)
    assert sorted(number for number, _, _ in copies) == list(range(total)), workers.logs
    for partition in range(PARTITIONS):
        counts = [count for _, where, count in copies if where == partition]
        assert counts == list(range(1, len(counts) + 1)), workers.logs
    assert state(settings) == (total, sum(range(total)))
