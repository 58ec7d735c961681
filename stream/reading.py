"""Reads outside any consumer group: offsets, counts, checkpoints, the lifecycle topic.

A few librdkafka consumers per process, made once: many short-lived ones time out under load. They
never subscribe, so they are no members of the group whose id they carry.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from stream.core.processor import Record
from stream.errors import CheckpointError, ConfigurationError
from stream.settings import Settings
from stream.topics import TAIL_GROUP

TIMEOUT_SECONDS = 10.0
ATTEMPTS = 3
FORBIDDEN = KafkaError.TOPIC_AUTHORIZATION_FAILED
STALL_SECONDS = 60.0  # a read that gets no further than this long has failed
READ_SECONDS = 0.05  # a read of less than it asked for lasts so long
WINDOWS = (16, 4096)  # how far back the newest record of a key is looked for, offsets


class LogReader:
    """What a stage must know of its log, from any thread.

    Raises (every method):
        KafkaException: the broker did not answer within three attempts.
    """

    def __init__(self, settings: Settings, group: str) -> None:
        self._lookups = consumer(settings, group, "read_uncommitted")
        self._reader = consumer(settings, group, "read_committed")
        self._reading, self._tailing = threading.Lock(), threading.Lock()
        self._group = group
        self._admin = AdminClient(settings.client(log_level=3))

    def counts(self, topics: Iterable[str]) -> dict[str, int]:
        """Partition counts of those topics that exist."""
        return partition_counts(self._lookups, topics)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset that the log still holds, and the end, open transactions included."""
        return _watermarks(self._lookups, topic, partition)

    def ends(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The ends of many partitions, open transactions included; one request for all of them.

        By a consumer, as all else here, whose calls keep their time limits whatever is cut.
        """
        asked = [TopicPartition(*place, OFFSET_END) for place in places]
        found = _retried(lambda: self._found(asked)) if asked else []
        return {(place.topic, place.partition): place.offset for place in found}

    def _found(self, asked: list[TopicPartition]) -> list[TopicPartition]:
        """To a broker the end is what lies at a time, too."""
        found: list[TopicPartition] = self._lookups.offsets_for_times(asked, TIMEOUT_SECONDS)
        for place in found:
            if place.error:
                raise KafkaException(place.error)
        return found

    def committed(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The group's committed offsets; places without one are left out.

        While an open transaction holds any of them, nothing is told: a reader of committed records
        asks for stable offsets, and librdkafka again and again. `ATTEMPTS` times `TIMEOUT_SECONDS`
        is longer than a broker lets a transaction of ours stay open.
        """
        asked = [TopicPartition(*place) for place in places]
        found = _retried(lambda: self._reader.committed(asked, timeout=TIMEOUT_SECONDS))
        for place in found:
            if place.error:
                raise KafkaException(place.error)
        return {(tp.topic, tp.partition): tp.offset for tp in found if tp.offset >= 0}

    def members(self) -> set[str]:
        """What the members of the group call themselves: the transactional ids of live workers."""
        group = _retried(self._described)
        return {member.client_id for member in group.members}

    def _described(self) -> Any:
        asked = self._admin.describe_consumer_groups([self._group], request_timeout=TIMEOUT_SECONDS)
        return asked[self._group].result()

    def newest(self, topic: str, partition: int, key: bytes) -> bytes | None:
        """The newest record of a key, committed or not; None if there is none near the end."""
        first, end = self.bounds(topic, partition)
        for window in WINDOWS:
            found = self._newest_since(topic, partition, key, (max(first, end - window), end))
            if found is not None or end - window <= first:
                return found
        return None

    def _newest_since(
        self, topic: str, partition: int, key: bytes, bounds: tuple[int, int]
    ) -> bytes | None:
        start, end = bounds
        found = None
        with self._tailing:
            self._lookups.assign([TopicPartition(topic, partition, start)])
            try:
                for name, value in _until(self._lookups, end, start):
                    found = value if name == key else found
            finally:
                self._lookups.unassign()
        return found

    def latest(self, topic: str, partition: int, end: int) -> dict[bytes, bytes]:
        """The newest committed value of every key below offset `end`.

        Raises:
            CheckpointError: `end` was not reached: a transaction holds it for too long.
        """
        values: dict[bytes, bytes] = {}
        with self._reading:
            self._reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
            try:
                for key, value in _until(self._reader, end):
                    if value is None:
                        values.pop(key, None)
                    else:
                        values[key] = value
            finally:
                self._reader.unassign()
        return values

    def close(self) -> None:
        for one in (self._lookups, self._reader):
            one.close()


class Tail:
    """Follows all partitions of one topic from its beginning."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._consumer = consumer(settings, settings.names.group(TAIL_GROUP), "read_committed")
        count = partition_counts(self._consumer, [topic]).get(topic, 0)
        self._ends = {
            number: _watermarks(self._consumer, topic, number)[1] for number in range(count)
        }
        self._consumer.assign(
            [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(count)]
        )

    @property
    def caught_up(self) -> bool:
        """All that the topic held when this was made has been returned."""
        return not any(self._ends.values())

    def poll(self, timeout_seconds: float) -> list[Record]:
        """New records; of one key in offset order."""
        records = []
        for message in self._consumer.consume(1000, timeout_seconds):
            if _passed(message) >= self._ends[message.partition()]:
                self._ends[message.partition()] = 0
            if message.error() is None:
                headers = tuple(message.headers() or ())
                stamp = message.timestamp()[1]
                records.append(
                    Record(message.offset(), stamp, message.key(), message.value(), headers)
                )
        return records

    def close(self) -> None:
        self._consumer.close()


def consumer(settings: Settings, group: str, isolation: str) -> Consumer:
    properties = {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": isolation,
        "fetch.wait.max.ms": 50,
        "check.crcs": not settings.embedded_broker,
        "allow.auto.create.topics": settings.embedded_broker,
        "log_level": 3,
    }
    return Consumer(settings.client(**properties))


def partition_counts(client: Any, topics: Iterable[str]) -> dict[str, int]:
    """Asked one by one, which makes the embedded broker create them."""
    counts = {}
    for topic in topics:
        row = _retried(lambda topic=topic: client.list_topics(topic, timeout=TIMEOUT_SECONDS))
        found = row.topics[topic]
        if found.error is not None and found.error.code() == FORBIDDEN:
            raise ConfigurationError(
                f"{topic}: this process may not see it; `driftline topics acls` lists its rights"
            )
        if found.error is None and found.partitions:
            counts[topic] = len(found.partitions)
    return counts


def same_counts(counts: Mapping[str, int], joined: Iterable[str]) -> None:
    """
    Raises:
        ConfigurationError: topics that are read together differ in their partition counts.
    """
    differing = {name: counts[name] for name in joined if name in counts}
    if len(set(differing.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in differing.items())
        raise ConfigurationError(f"topics must have the same number of partitions: {listed}")


def _until(reader: Consumer, end: int, position: int = 0) -> Iterator[tuple[bytes, bytes | None]]:
    moved = time.monotonic()
    while position < end:
        messages = reader.consume(10_000, READ_SECONDS)
        for message in messages:
            passed = _passed(message)
            if passed > position:
                position, moved = passed, time.monotonic()
            if message.error() is None and position <= end:
                yield message.key() or b"", message.value()
        if time.monotonic() - moved > STALL_SECONDS:
            raise CheckpointError(f"the checkpoint could not be read up to {end}, only {position}")


def _passed(message: Any) -> int:
    """The offset up to which a partition is read, by a message or its end-of-partition mark."""
    error = message.error()
    if error is None:
        return int(message.offset()) + 1
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
        return int(message.offset())
    if error.fatal() or not error.retriable():
        raise KafkaException(error)
    return 0


def _watermarks(client: Any, topic: str, partition: int) -> tuple[int, int]:
    place = TopicPartition(topic, partition)
    low, high = _retried(lambda: client.get_watermark_offsets(place, timeout=TIMEOUT_SECONDS))
    return low, high


def _retried(call: Any) -> Any:
    for attempt in range(ATTEMPTS):
        try:
            result = call()
        except KafkaException:
            if attempt == ATTEMPTS - 1:
                raise
        else:
            if result is not None:
                return result
        time.sleep(0.2 * (attempt + 1))
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001
