"""The only module of `consumers/` that polls Kafka.

What it hands out is committed. Its reader belongs to no group, so nobody's lag moves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from consumers.places import Delivered, Place, Span
from stream.core.processor import Record
from stream.errors import ConfigurationError, DriftlineError
from stream.settings import Settings
from stream.topics import READER_GROUP

log = logging.getLogger("driftline.kafka")
log.addHandler(logging.NullHandler())  # a command says itself what went wrong; services log it
BATCH = 1000
# librdkafka's own codes are public, though spelled with an underscore.
END = KafkaError._PARTITION_EOF  # noqa: SLF001
NO_TOPIC = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)  # noqa: SLF001
AWAY = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)  # noqa: SLF001


class BrokerError(DriftlineError):
    """The broker did not answer, or said no; the message says which and what to do."""


class RangeReader:
    """Reads spans of any topic, and what comes after; a context manager."""

    def __init__(self, settings: Settings, *, idle_seconds: float = 30) -> None:
        self._names = settings.names
        self._where = settings.bootstrap_servers
        self._idle_seconds = idle_seconds
        self._consumer = open_consumer(
            settings,
            **{
                "group.id": settings.names.group(READER_GROUP),
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "allow.auto.create.topics": settings.embedded_broker,
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def partitions(self, entity: str) -> list[int]:
        """Raises:
        ConfigurationError: the topic does not exist.
        BrokerError: nobody answers.
        """
        topic = self._names.topic(entity)
        try:
            return partitions_of(self._consumer, topic)
        except KafkaException as error:
            raise self._unreachable(error) from error

    def bounds(self, entity: str) -> list[Span]:
        """What each partition holds now, up to the first undecided transaction."""
        topic = self._names.topic(entity)
        try:
            return [
                Span(p, *self._consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10))
                for p in self.partitions(entity)
            ]
        except KafkaException as error:
            raise self._unreachable(error) from error

    def since(self, entity: str, time_ms: int) -> list[Span]:
        """The part of each partition whose records are stamped at or after a time."""
        topic = self._names.topic(entity)
        spans = self.bounds(entity)
        asked = [TopicPartition(topic, span.partition, time_ms) for span in spans]
        found = {p.partition: p.offset for p in self._consumer.offsets_for_times(asked, timeout=10)}
        return [
            span._replace(start=span.end if found[span.partition] < 0 else found[span.partition])
            for span in spans
        ]

    def read(self, entity: str, spans: Sequence[Span]) -> Iterator[Delivered]:
        """Every record of the spans, in offset order within a partition.

        Raises:
            BrokerError: nothing came for `idle_seconds`.
        """
        topic = self._names.topic(entity)
        ends = {span.partition: span.end for span in spans if span.length}
        self._assign(topic, {span.partition: span.start for span in spans if span.length})
        heard = time.monotonic()
        while ends:
            for message in some(self._consumer, 0.5):
                heard = time.monotonic()
                end = ends.get(message.partition())
                if end is None:
                    continue
                if is_record(message, topic) and message.offset() < end:
                    yield delivered(message)
                if reached(message, end):
                    del ends[message.partition()]
            if time.monotonic() - heard > self._idle_seconds:
                raise BrokerError(
                    f"{topic}: nothing came for {self._idle_seconds:.0f} s from {self._where}; "
                    "is the broker well? `driftline doctor` tells"
                )
        self._consumer.unassign()

    def follow(
        self, entities: Sequence[str], stop: Callable[[], bool]
    ) -> Iterator[tuple[str, Record]]:
        """Every record of these topics, whole and as they grow; `stop()` is asked often.

        Yields:
            (entity, record), as they come.
        """
        beginning = {
            entity: [Span(p, OFFSET_BEGINNING, OFFSET_END) for p in self.partitions(entity)]
            for entity in entities
        }
        for entity, came in self.follow_from(beginning, stop):
            yield entity, came.record

    def follow_from(
        self, starts: Mapping[str, Sequence[Span]], stop: Callable[[], bool]
    ) -> Iterator[tuple[str, Delivered]]:
        """The same from the start of each span on, with each record's place."""
        self._consumer.assign(
            [
                TopicPartition(self._names.topic(entity), span.partition, span.start)
                for entity, spans in starts.items()
                for span in spans
            ]
        )
        entities = {self._names.topic(entity): entity for entity in starts}
        while not stop():
            for message in some(self._consumer, 0.25):
                if is_record(message, message.topic()):
                    yield entities[message.topic()], delivered(message)
        self._consumer.unassign()

    def _assign(self, topic: str, starts: dict[int, int]) -> None:
        self._consumer.assign([TopicPartition(topic, p, start) for p, start in starts.items()])

    def _unreachable(self, error: KafkaException) -> BrokerError:
        return BrokerError(
            f"no answer from Kafka at {self._where} ({error.args[0].str()}); "
            "start it, or name another with --bootstrap or KAFKA_BOOTSTRAP_SERVERS"
        )


def open_consumer(settings: Settings, **properties: Any) -> Any:
    return Consumer(
        settings.client(
            **{
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                **properties,
            }
        ),
        logger=log,
    )


def partitions_of(consumer: Any, topic: str) -> list[int]:
    """
    Raises:
        ConfigurationError: the topic does not exist.
        BrokerError: whoever asks may not know.
        KafkaException: nobody answers.
    """
    found = consumer.list_topics(topic, timeout=10).topics[topic]
    if found.error is not None and not found.partitions:
        if found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise BrokerError(f"{topic}: {found.error.str()}")
        raise no_topic(topic)
    return sorted(found.partitions)


def some(consumer: Any, timeout_seconds: float, most: int = BATCH) -> list[Message]:
    """Wait for one message, then take what lies ready, in all at most `most` and one."""
    first = consumer.poll(timeout_seconds)
    return [] if first is None else [first, *consumer.consume(most, timeout=0)]


def is_record(message: Message, topic: str) -> bool:
    error = message.error()
    if error is None:
        return True
    if error.code() == END:
        return False
    if error.code() in NO_TOPIC:
        raise no_topic(topic)
    if error.retriable() or error.code() in AWAY:
        log.warning("%s: %s; trying again", topic, error.str())
        return False
    raise BrokerError(f"{topic}: {error.str()}")


def reached(message: Message, end: int) -> bool:
    if message.error() is None:
        return bool(message.offset() >= end - 1)
    at_end = message.error().code() == END
    return at_end and bool(message.offset() >= end)


def delivered(message: Message) -> Delivered:
    kind, timestamp_ms = message.timestamp()
    record = Record(
        message.offset(),
        0 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
    )
    return Delivered(Place(message.partition(), message.offset()), record)


def no_topic(topic: str) -> ConfigurationError:
    return ConfigurationError(f"there is no topic {topic}; `driftline topics apply` makes it")
