"""The runtime on the real broker: whatever happens to workers, every record counts once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from stream.settings import Settings
from stream.supervising import environment
from stream.topics import Stage
from tests.topics import Sent, make_topics, produce, read_all

ROOT = Path(__file__).parents[2]
PARTITIONS = 4


class Workers:
    """Copying workers of one test, each its own process."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings = settings
        self.running: list[subprocess.Popen[bytes]] = []
        self._directory = directory
        self._started = 0

    def start(self, stage: Stage = "score", **more: str) -> subprocess.Popen[bytes]:
        self._started += 1
        with (self._directory / f"worker-{self._started}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.kafka.copy_worker", stage],
                cwd=ROOT,
                env={**environment(self.settings, 0), "DRIFTLINE_SUPERVISOR": "0", **more},
                stderr=log,
            )
        self.running.append(process)
        return process

    def end(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        process.send_signal(number)
        self.running.remove(process)
        return process.wait(20)

    @property
    def logs(self) -> str:
        files = sorted(self._directory.glob("worker-*.log"))
        return "".join(f"\n{file.name}\n{file.read_text()}" for file in files)

    def check(self, alive: bool = True) -> None:
        for process in self.running:
            assert not alive or process.poll() is None, self.logs


@pytest.fixture
def workers(kafka_settings: Settings, tmp_path: Path) -> Iterator[Workers]:
    make_topics(kafka_settings)
    started = Workers(kafka_settings, tmp_path)
    yield started
    for process in started.running:
        process.kill()
        process.wait()


def send(settings: Settings, first: int, count: int, entity: str = "requests") -> None:
    """The numbers first..first+count-1, spread over the partitions."""
    topic = settings.names.topic(entity)
    numbers = range(first, first + count)
    produce(
        settings.bootstrap_servers,
        topic,
        (Sent(b"k%d" % n, b"%d" % n, n % PARTITIONS) for n in numbers),
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


def until(what: Callable[[], bool], seconds: float, workers: Workers) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        workers.check()
        assert time.monotonic() < deadline, f"not within {seconds} s:\n{workers.logs}"
        time.sleep(0.2)


def exact(workers: Workers, total: int, seconds: float = 60) -> None:
    """Every number 0..total-1 came out once, and state and outputs tell the same story."""
    settings = workers.settings
    until(lambda: state(settings)[0] >= total, seconds, workers)
    copies = outputs(settings)
    assert sorted(number for number, _, _ in copies) == list(range(total)), workers.logs
    for partition in range(PARTITIONS):
        counts = [count for _, where, count in copies if where == partition]
        assert counts == list(range(1, len(counts) + 1)), workers.logs
    assert state(settings) == (total, sum(range(total)))


def test_records_are_copied_once_and_sigterm_drains(workers: Workers) -> None:
    """A quiet run is exact, and SIGTERM ends it with 0 within ten seconds, all committed."""
    send(workers.settings, 0, 10_000)
    worker = workers.start()
    exact(workers, 10_000)
    send(workers.settings, 10_000, 1000)
    time.sleep(0.3)
    started = time.monotonic()
    assert workers.end(worker) == 0, workers.logs
    assert time.monotonic() - started < 10
    workers.start()
    exact(workers, 11_000)


def test_sigkill_loses_and_doubles_nothing(workers: Workers) -> None:
    """Workers killed in mid-stream, four times, two at work: every record still counts once."""
    dice = random.Random(7)
    total = 0
    started = [workers.start(COPY_PACE_SECONDS="0.0002") for _ in range(2)]
    for _ in range(4):
        send(workers.settings, total, 5000)
        total += 5000
        time.sleep(dice.uniform(1.0, 3.0))
        victim = started.pop(dice.randrange(2))
        workers.end(victim, signal.SIGKILL)
        started.append(workers.start(COPY_PACE_SECONDS="0.0002"))
    exact(workers, total)


def test_a_stopped_worker_comes_back_fenced(workers: Workers) -> None:
    """SIGSTOP past the session timeout: others go on, and the zombie can't write when it wakes."""
    send(workers.settings, 0, 4000)
    zombie = workers.start(COPY_PACE_SECONDS="0.001")
    until(lambda: state(workers.settings)[0] > 0, 60, workers)
    workers.start(COPY_PACE_SECONDS="0.0002")
    time.sleep(3)
    zombie.send_signal(signal.SIGSTOP)
    send(workers.settings, 4000, 4000)
    until(lambda: state(workers.settings)[0] == 8000, 60, workers)
    zombie.send_signal(signal.SIGCONT)
    send(workers.settings, 8000, 4000)
    time.sleep(4)
    if zombie.poll() is not None:
        workers.running.remove(zombie)
    exact(workers, 12_000)


@pytest.mark.parametrize(
    "failpoint",
    ["init", "restore", "apply:2", "begin:3", "produce:2", "send_offsets:2", "before_commit:3", "after_commit:2"],
)
def test_death_at_each_step_is_exact(workers: Workers, failpoint: str) -> None:
    """A worker that dies at a step of its work leaves nothing lost or doubled for the next."""
    send(workers.settings, 0, 2000)
    doomed = workers.start(DRIFTLINE_FAILPOINT=failpoint, COPY_PACE_SECONDS="0.0005")
    workers.running.remove(doomed)
    assert doomed.wait(60) == 137, workers.logs
    workers.start()
    send(workers.settings, 2000, 500)
    exact(workers, 2500)


def test_a_rebalance_in_the_moment_of_a_commit_is_exact(workers: Workers) -> None:
    """Members come and go while every commit takes long."""
    send(workers.settings, 0, 6000)
    slow = {"DRIFTLINE_FAILPOINT": "before_commit:1:0.4", "COPY_PACE_SECONDS": "0.0003"}
    first = workers.start(**slow)
    time.sleep(4)
    second = workers.start(**slow)
    send(workers.settings, 6000, 2000)
    time.sleep(4)
    assert workers.end(first) == 0, workers.logs
    workers.start(**slow)
    time.sleep(2)
    workers.end(second, signal.SIGKILL)
    exact(workers, 8000, 90)


def test_an_init_that_comes_late_is_harmless(workers: Workers) -> None:
    """A worker whose init comes when its partitions have gone may fence their owner, no more."""
    send(workers.settings, 0, 3000)
    late = workers.start(DRIFTLINE_FAILPOINT="init:1:6")
    time.sleep(4)
    others = [workers.start(COPY_PACE_SECONDS="0.002")]
    time.sleep(8)
    send(workers.settings, 3000, 1000)
    for process in [late, *others]:  # the fenced owner may have ended; the supervisor's part
        if process.poll() is not None:
            workers.running.remove(process)
            workers.start()
    exact(workers, 4000)


def test_more_workers_than_partitions(workers: Workers) -> None:
    """The fifth and sixth of four partitions stand by, and take over when others go."""
    send(workers.settings, 0, 4000)
    started = [workers.start(COPY_PACE_SECONDS="0.0005") for _ in range(6)]
    time.sleep(6)
    send(workers.settings, 4000, 4000)
    for process in started[:3]:
        workers.end(process, signal.SIGKILL)
    exact(workers, 8000, 90)
    assert workers.end(started[5]) == 0, workers.logs


def test_a_bug_in_a_processor_ends_the_worker(workers: Workers) -> None:
    """An exception is not continued past: exit code 1, and the log names the offsets."""
    produce(
        workers.settings.bootstrap_servers,
        workers.settings.names.topic("requests"),
        [Sent(b"k", b"1", 2), Sent(b"k", b"poison", 2)],
    )
    worker = workers.start()
    workers.running.remove(worker)
    assert worker.wait(60) == 1
    assert "requests.v1[2] 0..0" in workers.logs
    assert outputs(workers.settings) == []
