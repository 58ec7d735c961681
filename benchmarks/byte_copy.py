"""The practical limit: librdkafka moves the same bytes exactly once and does no work at all.

Run as a process of its own: `python -m benchmarks.byte_copy SOURCE TARGET GROUP`. It has the
worker's broker, compression, commit interval and producer properties, from the same settings;
unlike the worker it needs only one transaction for all partitions.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from stream.settings import Settings

BATCH = 10_000


def copy(settings: Settings, source: str, target: str, group: str) -> None:
    """Copy until SIGTERM."""
    consumer, producer = _consumer(settings, group), _producer(settings, group)
    producer.init_transactions(30)
    consumer.subscribe([source])
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    interval = settings.commit_interval_seconds("score", settings.partitions)
    while not stopping:
        _transaction(consumer, producer, target, time.monotonic() + interval)
    consumer.close()


def _transaction(consumer: Any, producer: Any, target: str, until: float) -> None:
    ends: dict[tuple[str, int], int] = {}
    while (left := until - time.monotonic()) > 0:
        messages = consumer.consume(BATCH, min(left, 0.02))
        if messages and not ends:
            producer.begin_transaction()
        for message in messages:
            assert message.error() is None, message.error()
            partition = message.partition()
            while True:
                try:
                    producer.produce(target, message.value(), message.key(), partition)
                    break
                except BufferError:
                    producer.poll(0.05)
        for message in messages:
            ends[message.topic(), message.partition()] = message.offset() + 1
    if ends:
        offsets = [TopicPartition(*place, end) for place, end in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)


def _consumer(settings: Settings, group: str) -> Any:
    more = {
        "group.id": group,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    return Consumer(settings.client(**more))


def _producer(settings: Settings, group: str) -> Any:
    more = {
        "transactional.id": f"{group}.copy",
        "transaction.timeout.ms": settings.transaction_timeout_ms,
        "linger.ms": 5,
        "delivery.report.only.error": True,
        "queue.buffering.max.messages": 1_000_000,
    }
    return Producer({**more, **settings.client()})


if __name__ == "__main__":
    copy(Settings(), *sys.argv[1:])
