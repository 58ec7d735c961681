"""Worker processes under measurement: start, watch their progress, count their CPU seconds."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.topics import Sent, quiet_client

PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.05


class Workers:
    """Processes that are started together; SIGTERM and, if need be, SIGKILL at the end."""

    def __init__(
        self, commands: Sequence[Sequence[str]], environment: Mapping[str, str], log: Path
    ) -> None:
        # One thread for linear algebra: it is events per core that is measured.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._environment = {**os.environ, **threads, **environment}
        self._commands = commands
        self._log = log
        self._processes: list[psutil.Popen] = []

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            for command in self._commands:
                process = psutil.Popen(list(command), env=self._environment, stdout=log, stderr=log)
                self._processes.append(process)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(15)
            except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
                process.kill()
                process.wait(15)

    def cpu_seconds(self) -> float:
        """User and system time of all of them and of their children, so far."""
        return sum(
            sum(one.cpu_times()[:2])
            for process in self._processes
            for one in (process, *process.children(recursive=True))
        )

    def check(self) -> None:
        """Raises:
        RuntimeError: one has ended by itself; the message holds the end of the log.
        """
        if any(process.poll() is not None for process in self._processes):
            raise RuntimeError(f"a worker ended:\n{self._log.read_text(errors='replace')[-3000:]}")


class Progress:
    """How far a consumer group is, seen from the broker."""

    def __init__(self, bootstrap: str, group: str) -> None:
        self._admin = AdminClient(quiet_client(bootstrap))
        self._group = group

    def wait_for_end(self, workers: Workers, topic: str) -> None:
        """Until the group has committed all of a topic that is written in transactions only."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._lag(topic) > 0:
            workers.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._group} did not reach the end of {topic}")
            time.sleep(POLL_SECONDS)

    def _lag(self, topic: str) -> int:
        """Offsets to the end. The last one of each partition is a commit marker: not counted."""
        committed = self._committed(topic)
        latest = {TopicPartition(topic, number): OffsetSpec.latest() for number in committed}
        ends = self._admin.list_offsets(latest)
        behind = {place.partition: end.result(30).offset for place, end in ends.items()}
        return sum(max(0, end - committed[number] - 1) for number, end in behind.items())

    def _committed(self, topic: str) -> dict[int, int]:
        partitions = self._admin.list_topics(topic, timeout=30).topics[topic].partitions
        wanted = [TopicPartition(topic, number) for number in partitions]
        request = [ConsumerGroupTopicPartitions(self._group, wanted)]
        [answer] = self._admin.list_consumer_group_offsets(request).values()
        places = answer.result(30).topic_partitions
        return {place.partition: max(0, place.offset) for place in places}


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
        producer.produce(topic, record.value, record.key)
    producer.flush(60)
    before_commit()
    producer.commit_transaction(60)
