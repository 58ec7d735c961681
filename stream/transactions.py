"""One librdkafka transactional producer per worker process, and one transaction at a time.

A transaction holds outputs, checkpoints and offsets of all partitions that have something to say;
it is begun, filled and committed back to back, so that none stays open and holds readers up. Its
offsets go with the generation of the consumer group in which they came about (KIP-447): what the
group has given to others since is refused there, whoever wakes up late with it.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from stream.core.processor import Headers, Output
from stream.errors import Expelled, Fenced
from stream.failpoints import failpoint
from stream.producers import flush
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
#: The group has decided anew since the offsets came about.
EXPELLED = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.FENCED_INSTANCE_ID,
    }
)
CALL_SECONDS = 5.0  # one attempt; repeated while the error says that it may be


def is_fence(error: KafkaException) -> bool:
    """Whether another producer holds the transactional id now."""
    return error.args[0].code() in FENCED


class Membership(NamedTuple):
    """This process in its consumer group, from one assignment to the next."""

    generation: int
    member: str

    def follows(self, before: Membership) -> bool:
        """No generation lies between the two, so nobody can have owned in between what is ours."""
        return self.member == before.member and self.generation == before.generation + 1


def group_metadata(group: str, membership: Membership) -> bytes:
    """A membership as `send_offsets_to_transaction` takes it from a consumer of librdkafka's own:
    what `rd_kafka_consumer_group_metadata_write` makes of a member without an instance id."""
    generation = struct.pack("=i", membership.generation)
    named = b"".join(name.encode() + b"\0" for name in (group, membership.member))
    return b"CGMDv2:" + generation + named + b"\1"


class Delta(NamedTuple):
    """What one partition adds to a transaction: all that came about since its last one.

    Attributes:
        outputs: in the order in which they are to lie in each partition.
        checkpoint: topic, partition, and records by key, in order.
        offsets: next offsets by (topic, partition).
        span: entered while the transaction is under way.
    """

    outputs: Sequence[Output]
    checkpoint: tuple[str, int, Mapping[str, bytes | None]]
    offsets: Mapping[tuple[str, int], int]
    span: AbstractContextManager[object] = nullcontext()


class Transactor:
    """The only writer of this process's effects, as long as it is not fenced.

    Raises (every method):
        Fenced: another holds the transactional id now, or the broker gave the transaction up.
        KafkaException: the broker failed for good; nothing of the transaction is visible, and
            neither this object nor the state whose outputs it carried may be used any more.
    """

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        self.id = transactional_id
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
        self, deltas: Sequence[Delta], topics: Mapping[str, str], group_metadata: object
    ) -> None:
        """Write all of this, or nothing.

        Args:
            topics: full name by entity.
            group_metadata: of the generation in which the deltas came about.

        Raises:
            Expelled: that generation is over. The transaction is aborted; others may follow.
        """
        failpoint("begin")
        try:
            self._producer.begin_transaction()
            for delta in deltas:
                with turn():
                    self._produce(delta.outputs, topics)
            failpoint("produce")
            for topic, partition, records in (delta.checkpoint for delta in deltas):
                for key, value in records.items():
                    self._put(topic, value, key.encode(), partition, {})
        except KafkaException as error:
            raise self._named(error) from error
        self._send_offsets(deltas, group_metadata)
        failpoint("before_commit")
        self._retried(self._producer.commit_transaction)
        failpoint("after_commit")

    def _send_offsets(self, deltas: Iterable[Delta], group_metadata: object) -> None:
        failpoint("send_offsets")
        positions = [
            TopicPartition(*place, offset)
            for delta in deltas
            for place, offset in delta.offsets.items()
        ]
        try:
            self._retried(
                lambda seconds: self._producer.send_offsets_to_transaction(
                    positions, group_metadata, seconds
                )
            )
        except Expelled:
            self._retried(self._producer.abort_transaction)
            raise

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
        if error.args[0].code() in EXPELLED:
            return Expelled(f"{self.id}: the group has decided anew: {error.args[0].str()}")
        return Fenced(f"{self.id} is held by another process now") if is_fence(error) else error

    def _cause(self, error: KafkaException) -> KafkaException:
        """What failed the transaction, where that overtook a call, which then says nothing but that
        the state is wrong. The next call is told."""
        try:
            self._producer.begin_transaction()
        except KafkaException as cause:
            return cause
        return error


class Fencer:
    """Ends what others may still have open. From any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ended: set[str] = set()
        self._lock = threading.Lock()

    def fence(self, transactional_id: str) -> None:
        """Whoever holds this id commits nothing more; its open transaction is ended.

        Raises:
            KafkaException: the broker failed for good.
        """
        with suppress(Fenced):  # someone else does the same
            Transactor(self._settings, transactional_id).init()

    def bury(self, transactional_id: str) -> None:
        """The same for an id that is never held again: once is enough."""
        with self._lock:
            if transactional_id not in self._ended:
                self.fence(transactional_id)
                self._ended.add(transactional_id)


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
        if flush(self._producer, CALL_SECONDS * 2) or failed:
            raise KafkaException(failed[0] if failed else KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001
