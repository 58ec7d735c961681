"""Topics and records of the tests: create, produce, read back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Set
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from consumers import topics_admin
from stream.settings import Settings
from tests.patience import PATIENCE_SECONDS


def quiet_client(bootstrap: str, **more: object) -> dict[str, Any]:
    """Properties of a client that does not log about a broker which is down."""
    return {"bootstrap.servers": bootstrap, "log_level": 0, **more}


def create(
    bootstrap: str, topics: Mapping[str, int], config: Mapping[str, str] | None = None
) -> None:
    """Create topics, name -> partition count, and wait until every client can see them."""
    admin = AdminClient(quiet_client(bootstrap))
    new = [NewTopic(name, count, 1, config=dict(config or {})) for name, count in topics.items()]
    for future in admin.create_topics(new).values():
        future.result(PATIENCE_SECONDS)
    _wait_until_known(admin, topics.keys())


def make_topics(settings: Settings) -> None:
    """Every topic of the table in `stream/topics.py`, made as `driftline topics apply` does."""
    made = {row.topic for row in topics_admin.apply(settings)}
    _wait_until_known(AdminClient(quiet_client(settings.bootstrap_servers)), made)


def _wait_until_known(admin: AdminClient, names: Set[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not names <= admin.list_topics(timeout=10).topics.keys():
        assert time.monotonic() < deadline, "new topics did not show up"
        time.sleep(0.05)


def delete_topics(bootstrap: str, prefix: str) -> None:
    """Some tests leave a broker that has just woken: it is asked again, by a new client."""
    for attempt in range(3):
        try:
            return _delete_topics(AdminClient(quiet_client(bootstrap)), prefix)
        except KafkaException:
            if attempt == 2:
                raise
    return None


def _delete_topics(admin: AdminClient, prefix: str) -> None:
    names = [name for name in admin.list_topics(timeout=10).topics if name.startswith(f"{prefix}.")]
    if names:
        for future in admin.delete_topics(names, request_timeout=30).values():
            future.result(60)


class Sent(NamedTuple):
    """One record to produce; partition None: by key, murmur2, as a Java producer would."""

    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = 0


def produce(
    bootstrap: str, topic: str, records: Iterable[Sent | tuple[bytes | None, bytes | None]]
) -> int:
    """Produce, wait until all are acknowledged, return their number."""
    config = quiet_client(
        bootstrap, partitioner="murmur2_random", **{"linger.ms": 5, "message.max.bytes": 16_000_000}
    )
    producer = Producer(config)
    failed: list[KafkaError] = []
    count = 0
    for record in records:
        sent = Sent(*record)
        where = {} if sent.partition is None else {"partition": sent.partition}
        while True:
            try:
                producer.produce(
                    topic,
                    sent.value,
                    sent.key,
                    headers=list(sent.headers),
                    timestamp=sent.timestamp_ms,
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                    **where,
                )
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        producer.poll(0)
    assert producer.flush(PATIENCE_SECONDS) == 0, "the broker did not acknowledge everything"
    assert not failed, f"{len(failed)} records were refused, first: {failed[0]}"
    return count


class Seen(NamedTuple):
    """One record as a consumer read it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


def read_all(bootstrap: str, topic: str, *, isolation: str = "read_committed") -> list[Seen]:
    """All that the topic holds now, by partition and offset."""
    config = {
        "group.id": "tests.read-all",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": isolation,
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 20,
    }
    consumer = Consumer(quiet_client(bootstrap, **config))
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        return sorted(_until_ends(consumer, len(partitions)))
    finally:
        consumer.close()


def _until_ends(consumer: Consumer, partitions: int) -> Iterable[Seen]:
    ended: set[int] = set()
    deadline = time.monotonic() + 120
    while len(ended) < partitions:
        assert time.monotonic() < deadline, "the topic's end was not reached in two minutes"
        for message in consumer.consume(5000, 0.2):
            if message.error() is None:
                ended.discard(message.partition())
                yield _seen(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            else:
                raise KafkaException(message.error())


def _seen(message: Any) -> Seen:
    return Seen(
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        tuple(message.headers() or ()),
        message.timestamp()[1],
    )
