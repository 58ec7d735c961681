"""One librdkafka transactional producer per owned partition.

A transaction holds outputs, checkpoint and offsets; it is begun, filled and committed back to
back, so that none stays open and holds readers up. `transactional.id` is of the partition, so
`init` fences whoever held the partition before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from stream.core.processor import Headers, Output
from stream.errors import Fenced
from stream.failpoints import failpoint
from stream.settings import Settings
from stream.turns import turn

FENCED = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        # One that librdkafka learnt of in the background shows as fatal, without its reason.
        KafkaError._FATAL,  # noqa: SLF001
    }
)
CALL_SECONDS = 5.0  # one attempt; repeated while the error says that it may be


def is_fence(error: KafkaException) -> bool:
    """Whether another producer holds the transactional id now."""
    return error.args[0].code() in FENCED


class Transactor:
    """The only writer of one partition's effects, as long as it is not fenced.

    Raises (every method):
        Fenced: another holds the transactional id now.
        KafkaException: the broker failed for good; nothing of the transaction is visible, and
            neither this object nor the state whose outputs it carried may be used any more.
    """

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        self._id = transactional_id
        self._deadline_seconds = settings.transaction_timeout_ms / 1000
        random_or_key = (
            "murmur2_random" if settings.partitioner == "murmur2" else "consistent_random"
        )
        properties = {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": settings.transaction_timeout_ms,
            "partitioner": random_or_key,
            "linger.ms": 5,
            # Reports of success would cost time for each message and say nothing: the commit does.
            "delivery.report.only.error": True,
            "queue.buffering.max.messages": 1_000_000,
            "message.max.bytes": settings.max_record_bytes,
            "log_level": 3,
        }
        self._producer = Producer({**properties, **settings.client()})

    def init(self) -> None:
        """Fence the holder before, if any; its open transaction is aborted or completed."""
        self._retried(self._producer.init_transactions)

    def commit(
        self,
        outputs: Iterable[Output],
        topics: Mapping[str, str],
        checkpoint: tuple[str, int, Mapping[str, bytes | None]],
        offsets: Mapping[tuple[str, int], int],
        group_metadata: object,
    ) -> None:
        """Write all of this, or nothing.

        Args:
            outputs: in the order in which they are to lie in each partition.
            topics: full name by entity.
            checkpoint: topic, partition, and records by key, in order.
            offsets: next offsets by (topic, partition).
        """
        failpoint("begin")
        try:
            self._producer.begin_transaction()
            with turn():
                self._produce(outputs, topics)
            failpoint("produce")
            topic, partition, records = checkpoint
            for key, value in records.items():
                self._put(topic, value, key.encode(), partition, {})
        except KafkaException as error:
            raise self._named(error) from error
        failpoint("send_offsets")
        positions = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        self._retried(
            lambda seconds: self._producer.send_offsets_to_transaction(
                positions, group_metadata, seconds
            )
        )
        failpoint("before_commit")
        self._retried(self._producer.commit_transaction)
        failpoint("after_commit")

    def _produce(self, outputs: Iterable[Output], topics: Mapping[str, str]) -> None:
        produce = self._producer.produce
        for one in outputs:
            topic, key, value = topics[one.entity], one.key, one.value
            headers, timestamp_ms = one.headers, one.timestamp_ms
            where = -1 if one.partition is None else one.partition
            try:
                if timestamp_ms is not None:
                    produce(topic, value, key, where, **_more(headers, timestamp_ms))
                elif headers:
                    produce(topic, value, key, where, headers=list(headers))
                else:
                    produce(topic, value, key, where)
            except BufferError:
                self._put(topic, value, key, where, _more(headers, timestamp_ms))

    def _put(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        more: dict[str, Any],
    ) -> None:
        """Produce, waiting while librdkafka's queue is full."""
        deadline = time.monotonic() + self._deadline_seconds
        while True:
            try:
                self._producer.produce(topic, value, key, partition, **more)
            except BufferError:
                if time.monotonic() > deadline:
                    raise
                self._producer.poll(0.05)
            else:
                return

    def _retried(self, call: Callable[[float], object]) -> None:
        deadline = time.monotonic() + self._deadline_seconds
        while True:
            try:
                call(CALL_SECONDS)
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise self._named(error) from error
            else:
                return

    def _named(self, error: KafkaException) -> Exception:
        if error.args[0].code() == KafkaError._STATE:  # noqa: SLF001
            error = self._cause(error)
        return Fenced(f"{self._id} is held by another process now") if is_fence(error) else error

    def _cause(self, error: KafkaException) -> KafkaException:
        """What failed the transaction, where that overtook a call, which then says nothing but that
        the state is wrong. The next call is told."""
        try:
            self._producer.begin_transaction()
        except KafkaException as cause:
            return cause
        return error

    def abandon(self) -> None:
        """Give up what is not sent. The transaction, if any, is the next holder's to abort."""
        self._producer.purge()


def _more(headers: Headers, timestamp_ms: int | None) -> dict[str, Any]:
    more: dict[str, Any] = {"headers": list(headers)} if headers else {}
    return more if timestamp_ms is None else {**more, "timestamp": timestamp_ms}


class Announcer:
    """Sends what belongs to no partition's state, at least once, under ids that tell doubles."""

    def __init__(self, settings: Settings) -> None:
        properties = {"enable.idempotence": True, "partitioner": "murmur2_random", "log_level": 3}
        self._producer = Producer({**properties, **settings.client()})

    def send(self, topic: str, key: bytes, value: bytes) -> None:
        """
        Raises:
            KafkaException: it was not acknowledged in time.
        """
        failed: list[KafkaError] = []
        self._producer.produce(
            topic, value, key, on_delivery=lambda error, _: failed.append(error) if error else None
        )
        if self._producer.flush(CALL_SECONDS * 2) or failed:
            raise KafkaException(failed[0] if failed else KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001
