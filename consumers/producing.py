"""Writing to Kafka from outside the stages: acknowledged by all replicas, never lost in silence."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaException, Message, Producer

from consumers.loop import BrokerError, log
from stream.core.processor import Headers, Record
from stream.producers import flush
from stream.settings import Settings

# What librdkafka calls the two; records without a key go anywhere.
PARTITIONERS = {"murmur2": "murmur2_random", "crc32": "consistent_random"}
ROOM_SECONDS = 30.0
ANY = -1  # partition


class Publisher:
    """A producer whose `flush` raises if anything was not written."""

    def __init__(self, settings: Settings, **properties: object) -> None:
        self._names = settings.names
        self._where = settings.bootstrap_servers
        self._failed: list[str] = []
        self.producer: Any = Producer(
            settings.client(
                **{
                    "acks": "all",
                    "enable.idempotence": True,
                    "partitioner": PARTITIONERS[settings.partitioner],
                    "compression.type": "lz4",
                    "linger.ms": 5,
                    "message.timeout.ms": 30_000,
                    "message.max.bytes": settings.max_record_bytes,
                    **properties,
                }
            ),
            logger=log,
        )

    def send(
        self,
        entity: str,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Headers = (),
        timestamp_ms: int = 0,
    ) -> None:
        """Queue one record; waits while the queue is full. `timestamp_ms` 0: now.

        Raises:
            BrokerError: one before it was not written.
            KafkaException: this producer can do no more; a new process can.
        """
        record = Record(0, timestamp_ms, key, value, headers)
        self.send_to(self._names.topic(entity), ANY, record)

    def send_to(self, topic: str, partition: int, record: Record) -> None:
        """As `send`, by the topic's full name; `partition` `ANY`: where the key belongs."""
        while True:
            try:
                self.producer.produce(
                    topic,
                    record.value,
                    record.key,
                    partition,
                    headers=list(record.headers) or None,
                    timestamp=record.timestamp_ms,
                    on_delivery=self._delivered,
                )
            except BufferError:
                self.producer.poll(0.1)
                self._raise_failed()
            except KafkaException:
                self.producer.poll(0)  # raises why, if that was not heard yet
                raise
            else:
                self.producer.poll(0)
                return

    @property
    def why_not(self) -> str:
        """The first report of what was not written and not raised yet; "" if there is none."""
        return self._failed[0] if self._failed else ""

    def flush(self) -> None:
        """Wait until everything queued is written.

        Raises:
            BrokerError: something was not.
            KafkaException: this producer can do no more; a new process can.
        """
        left = flush(self.producer, ROOM_SECONDS)
        self._raise_failed()
        if left:
            raise BrokerError(
                f"{left} records were not written to {self._where} in {ROOM_SECONDS:.0f} s"
            )

    def _delivered(self, error: object, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error}")

    def _raise_failed(self) -> None:
        if self._failed:
            failed, self._failed = self._failed, []
            raise BrokerError(
                f"{len(failed)} records were not written to {self._where}, the first: {failed[0]}. "
                "Events have ids, so it is safe to publish all of them again"
            )


def reason_of(error: KafkaException) -> str:
    return str(error.args[0].str()) if error.args else str(error)
