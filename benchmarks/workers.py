"""What is measured: a broker of its own, worker processes, their progress and CPU seconds."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from benchmarks.reporting import say
from tests.broker import Broker
from tests.topics import Sent, quiet_client

PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.05
ATTEMPTS = 20
Ends = list[TopicPartition]  # the offsets behind the last records, by partition
UNKNOWN_COORDINATOR = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


@contextmanager
def kafka(*, heap: str = "1g", optimised: bool = False) -> Iterator[tuple[Broker, Path]]:
    """A real broker and a new folder for all that a benchmark writes; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name:
        say("starting Kafka")
        with Broker(Path(name) / "kafka", heap=heap, optimised=optimised) as broker:
            yield broker, Path(name)


class Workers:
    """Processes that are started together; SIGTERM and, if need be, SIGKILL at the end.

    Attributes:
        processes: those that were started.
    """

    def __init__(
        self, commands: Sequence[Sequence[str]], environment: Mapping[str, str], log: Path
    ) -> None:
        # One thread for linear algebra: it is events per core that is measured.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._environment = {**os.environ, **threads, **environment}
        self._commands = commands
        self._log = log
        self.processes: list[psutil.Popen] = []

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            for command in self._commands:
                process = psutil.Popen(list(command), env=self._environment, stdout=log, stderr=log)
                self.processes.append(process)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
                process.kill()
                process.wait(15)

    def kill(self) -> None:
        """End all of them at once, as a power cut would."""
        for process in self.processes:
            process.kill()
            process.wait(15)

    def cpu_seconds(self) -> float:
        """User and system time of all of them and of their children, so far."""
        return sum(
            sum(one.cpu_times()[:2])
            for process in self.processes
            for one in (process, *process.children(recursive=True))
        )

    def check(self) -> None:
        """Raises:
        RuntimeError: one has ended by itself; the message holds the end of the log.
        """
        if any(process.poll() is not None for process in self.processes):
            raise RuntimeError(f"a worker ended:\n{self._log.read_text(errors='replace')[-3000:]}")


class Progress:
    """How far a consumer group is, seen from the broker."""

    def __init__(self, bootstrap: str, group: str) -> None:
        # It never subscribes, so it is no member of the group. It sees what lies in transactions
        # whose commit is still on its way, too: that is to be waited for.
        look = {"group.id": group, "isolation.level": "read_uncommitted"}
        self._reader = Consumer(quiet_client(bootstrap, **look))

    def wait_for_end(self, workers: Workers, topic: str) -> None:
        """Until the group has committed all of a topic that is written in transactions only."""
        partitions = self._reader.list_topics(topic, timeout=30).topics[topic].partitions
        self._wait(workers, topic, lambda: self._ends(topic, partitions))

    def ends(self, topic: str) -> Ends:
        """Where a topic ends now, to be waited for while more is written."""
        partitions = self._reader.list_topics(topic, timeout=30).topics[topic].partitions
        return self._ends(topic, partitions)

    def wait_for(self, workers: Workers, ends: Ends) -> None:
        """Until the group has committed all that lies before these ends."""
        self._wait(workers, ends[0].topic, lambda: ends)

    def _ends(self, topic: str, partitions: Iterable[int]) -> Ends:
        places = [TopicPartition(topic, number) for number in partitions]
        for place in places:
            place.offset = self._reader.get_watermark_offsets(place, timeout=30)[1]
        return places

    def _wait(self, workers: Workers, topic: str, ends: Callable[[], Ends]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._lag(ends()) > 0:
            workers.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the end of {topic} was not reached")
            time.sleep(POLL_SECONDS)

    def _lag(self, ends: Ends) -> int:
        """Offsets to the ends. The last one of each partition is a commit marker: not counted."""
        reached = committed(self._reader, [TopicPartition(e.topic, e.partition) for e in ends])
        pairs = zip(reached, ends, strict=True)
        return sum(max(0, end.offset - max(0, place.offset) - 1) for place, end in pairs)


def committed(reader: Consumer, places: list[TopicPartition]) -> list[TopicPartition]:
    """Offsets of the reader's group; asked again while its coordinator is not found."""
    for _ in range(ATTEMPTS):
        try:
            found: list[TopicPartition] = reader.committed(places, timeout=30)
        except KafkaException as error:
            if error.args[0].code() not in UNKNOWN_COORDINATOR:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return found
    raise TimeoutError("the group has no coordinator")


class Written:
    """How many records lie in a topic that is not written in transactions."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._reader = Consumer(quiet_client(bootstrap, **{"group.id": f"{topic}.written"}))
        partitions = self._reader.list_topics(topic, timeout=30).topics[topic].partitions
        self._places = [TopicPartition(topic, number) for number in partitions]

    def wait_for(self, workers: Workers, count: int) -> None:
        """Until so many do."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._count() < count:
            workers.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._count():,} of {count:,} records were written")
            time.sleep(POLL_SECONDS)

    def _count(self) -> int:
        ends = (self._reader.get_watermark_offsets(place, timeout=30) for place in self._places)
        return sum(end for _, end in ends)


def release(
    bootstrap: str,
    topic: str,
    records: Iterable[Sent],
    *,
    before_commit: Callable[[], object] = lambda: None,
) -> None:
    """Write records in one transaction: readers of committed ones see all of them at once."""
    config = {"transactional.id": f"release.{topic}", "partitioner": "murmur2_random"}
    producer = Producer(
        quiet_client(bootstrap, **config, **{"queue.buffering.max.messages": 2_000_000})
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    for record in records:
        producer.produce(topic, record.value, record.key, timestamp=record.timestamp_ms)
    producer.flush(60)
    before_commit()
    producer.commit_transaction(60)
