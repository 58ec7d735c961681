"""Faust's aiokafka driver, a fetched batch at a time.

Faust hands records on one by one, at the price of two asyncio tasks each. Here one Faust message is
all that was fetched meanwhile: one `Slice` of each partition. Offsets are committed by our own
transactions (`stream.transactions`), so Faust's bookkeeping of acknowledged offsets is switched
off. The overrides are pinned by tests/test_transport.py.

Three kinds of thread meet here. The consumer's own event loop fetches, seeks and ends epochs.
Faust's event loop hands slices on. Keepers (`stream.runtime`) say through `Intake` where to read
from, and when their queues have room.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple

import aiokafka
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.errors import (
    ConsumerStoppedError,
    CorruptRecordException,
    OffsetOutOfRangeError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from stream.assignor import CoPartitioned
from stream.core.processor import Record, Records
from stream.errors import RetentionOvertook
from stream.transactions import Membership

FETCH_WAIT_MS = 200  # how long a partition may stand still after its queue was full
FETCHES_PER_COMMIT = 4  # at most: a trickle comes in handfuls, not one by one
FETCH_BYTES = 1_048_576  # of one partition in one fetch; a larger record comes alone


class Slice(NamedTuple):
    """What one fetch brought from one partition.

    Attributes:
        start: the position before it.
        end: the position after it; beyond the last record where control markers follow. A slice
            without records says that only the position moved.
        epoch: counts assignments; a slice of an older one is void.
        ahead: records that the partition holds beyond `end`, as of the fetch (open transactions
            not counted).
    """

    topic: str
    partition: int
    records: Sequence[Record]
    start: int
    end: int
    epoch: int
    ahead: int


def joined(slices: Sequence[Slice], topics: Iterable[str]) -> list[Slice]:
    """Slices of one partition, those that follow one another as one; topic after topic."""
    runs: list[list[Slice]] = []
    for topic in topics:
        end = None
        for piece in slices:
            if piece.topic != topic:
                continue
            if piece.start == end:
                runs[-1].append(piece)
            else:
                runs.append([piece])
            end = piece.end
    return [_as_one(run) for run in runs]


def _as_one(run: Sequence[Slice]) -> Slice:
    parts = [Records.of(piece.records) for piece in run if piece.records]
    records = Records.joined(parts) if len(parts) > 1 else (*parts, run[-1].records)[0]
    return run[-1]._replace(records=records, start=run[0].start)


class Intake:
    """Which partitions may be fetched, from where, in which epoch, and how often.

    Epochs end and partitions open on the consumer's event loop only, so that no seek, drain or
    rebalance comes between another's steps.
    """

    def __init__(self, queue_batches: int, commit_interval_seconds: float) -> None:
        self.epoch = 0
        self.membership = Membership(-1, "")  # that the assignment of this epoch is for
        self.commits_every(commit_interval_seconds)
        self._limit = queue_batches
        self._held: dict[TP, int] = {}  # slices between fetch and processor, of open partitions
        self._lock = threading.Lock()
        self._thread: ConsumerThread | None = None

    def bind(self, thread: ConsumerThread) -> None:
        self._thread = thread

    def commits_every(self, seconds: float) -> None:
        """What is fetched more often would only lie there."""
        self.pause_seconds = seconds / FETCHES_PER_COMMIT

    def open(self, offsets: Mapping[tuple[str, int], int], epoch: int) -> None:
        """Fetch from these offsets on, unless the epoch is over. From any thread."""
        named = {TP(*place): offset for place, offset in offsets.items()}
        self._on_consumer_loop(self._open_now, named, epoch)

    def _open_now(self, offsets: dict[TP, int], epoch: int) -> None:
        if epoch != self.epoch or self._thread is None:
            return
        for tp, offset in offsets.items():
            self._thread.seek(tp, offset)
            self._held[tp] = 0
        self._thread.wake()

    def end_epoch(self) -> None:
        """Void all that is in flight: a rebalance begins. On the consumer's event loop."""
        with self._lock:
            self.epoch += 1
            self._held.clear()

    def close(self, tps: Iterable[tuple[str, int]]) -> None:
        """Stop fetching; until `open`, what comes in between is lost on purpose. Any thread."""
        with self._lock:
            for tp in tps:
                self._held.pop(TP(*tp), None)

    def wanted(self) -> list[TP]:
        return [tp for tp, held in list(self._held.items()) if held < self._limit]

    def hold(self, tp: TP) -> None:
        with self._lock:
            if tp in self._held:
                self._held[tp] += 1

    def release(self, piece: Slice) -> None:
        """A keeper is done with a slice. From any thread."""
        tp = TP(piece.topic, piece.partition)
        with self._lock:
            if piece.epoch != self.epoch or not self._held.get(tp):
                return
            self._held[tp] -= 1
            was_full = self._held[tp] == self._limit - 1
        if was_full and self._thread is not None:
            self._on_consumer_loop(self._thread.wake)

    def _on_consumer_loop(self, call: Callable[..., None], *arguments: object) -> None:
        if self._thread is not None and not self._thread.thread_loop.is_closed():
            self._thread.thread_loop.call_soon_threadsafe(call, *arguments)


class LeanRecords(aiokafka_fetcher.PartitionRecords):
    """Yields the records of a batch of the log as a list, as they were parsed: `columns` takes from
    them what is read, for half the price of aiokafka's own record for each. What is hidden stays as
    aiokafka has it."""

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[list[Any]]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            first = self.next_fetch_offset
            if not self._is_hidden(batch):
                records = list(batch)
                if records and records[0].offset < first:  # a compressed batch may begin before
                    records = [record for record in records if record.offset >= first]
                yield records
            self.next_fetch_offset = batch.next_offset

    def _is_hidden(self, batch: Any) -> bool:
        """A control batch, or one of an aborted transaction."""
        if batch.producer_id is None:
            return bool(batch.is_control_batch)
        self._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch:
            if self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
            return True
        return batch.is_transactional and batch.producer_id in self._aborted_producers


aiokafka_fetcher.PartitionRecords = LeanRecords

_offset, _timestamp, _key, _value, _headers = map(
    attrgetter, ("offset", "timestamp", "key", "value", "headers")
)


def columns(batches: Iterable[list[Any]]) -> Records:
    """What `LeanRecords` yields, as columns."""
    batches = [batch for batch in batches if batch]
    parsed = list(chain.from_iterable(batches))
    any_headers = any(map(_headers, parsed))
    return Records(
        list(chain.from_iterable(map(_offsets, batches))),
        list(map(_timestamp, parsed)),
        list(map(_key, parsed)),
        list(map(_value, parsed)),
        list(map(tuple, map(_headers, parsed))) if any_headers else ((),) * len(parsed),
    )


def _offsets(batch: list[Any]) -> Sequence[int]:
    """Of a batch's records, one or more; compaction leaves gaps."""
    first, last = batch[0].offset, batch[-1].offset
    return range(first, last + 1) if last - first == len(batch) - 1 else list(map(_offset, batch))


class Listener(driver.ConsumerRebalanceListener):
    """Ends the epoch in the same step in which the old assignment is given up, and says of which
    generation the new one is."""

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> Any:
        self._thread.app.intake.end_epoch()
        return super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        coordinator = self._thread._ensure_consumer()._coordinator  # noqa: SLF001
        membership = Membership(coordinator.generation, coordinator.member_id)
        self._thread.app.intake.membership = membership
        await super().on_partitions_assigned(assigned)


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """The aiokafka consumer in its own thread and event loop, read-committed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ends: dict[TP, int] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._drained = 0.0
        self._behind = False
        self._intake: Intake = self.app.intake
        self._intake.bind(self)

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        self._assignor = CoPartitioned()
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            # Keepers seek. What falls out of the log's range must halt, not jump.
            auto_offset_reset="none",
            isolation_level="read_committed",
            check_crcs=conf.broker_check_crcs,
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=round(conf.broker_request_timeout * 1000),
            session_timeout_ms=round(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=round(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=round(conf.broker_heartbeat_interval * 1000),
            max_poll_interval_ms=round(conf.broker_max_poll_interval * 1000),
            **self.app.security,
        )

    def seek(self, partition: TP, offset: int) -> None:
        super().seek(partition, offset)
        self._ends[partition] = offset
        # Faust drops what lies before the newest offset it has seen.
        self.consumer._read_offset.pop(partition, None)  # noqa: SLF001

    def wake(self) -> None:
        """Look again what may be fetched. On the consumer's event loop."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: object,
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> list[Slice]:
        if not self._behind:
            await asyncio.sleep(self._drained + self._intake.pause_seconds - time.monotonic())
        if not self.consumer.flow_active:
            return []
        fetcher = consumer._fetcher  # noqa: SLF001
        if consumer._closed or fetcher._closed:  # noqa: SLF001
            raise ConsumerStoppedError
        consumer._coordinator.check_errors()  # noqa: SLF001  Faust forgets to
        with consumer._subscription.fetch_context():  # noqa: SLF001
            # What is fetched earlier would grow old until now.
            fetcher._notify(fetcher._wait_consume_future)  # noqa: SLF001
            slices = self._drain(consumer)
            if not slices:
                self._waiter = fetcher._create_fetch_waiter()  # noqa: SLF001
                await asyncio.wait([self._waiter], timeout=timeout)
                self._waiter.cancel()
                slices = self._drain(consumer)
        self._drained = time.monotonic()
        self._behind = any(piece.ahead for piece in slices)
        if self._behind:
            fetcher._notify(fetcher._wait_consume_future)  # noqa: SLF001
        return slices

    def _drain(self, consumer: aiokafka.AIOKafkaConsumer) -> list[Slice]:
        """Take what was fetched for open partitions that have room."""
        fetcher = consumer._fetcher  # noqa: SLF001
        slices = []
        for tp in self._intake.wanted():
            result = fetcher._records.pop(tp, None)  # noqa: SLF001
            if result is None:
                continue
            if isinstance(result, aiokafka_fetcher.FetchError):
                result.check_raise()
            records = columns(result.getall())
            state = consumer._subscription.subscription.assignment.state_value(tp)  # noqa: SLF001
            start, end = self._ends[tp], state.position
            if records or end > start:
                self._ends[tp] = end
                self._intake.hold(tp)
                ahead = max(0, (state.lso or 0) - end)
                slices.append(
                    Slice(tp.topic, tp.partition, records, start, end, self._intake.epoch, ahead)
                )
        return slices


class BatchConsumer(driver.Consumer):
    """Yields one message for all that was fetched, and leaves offsets alone."""

    RebalanceListener = Listener

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        try:
            slices: list[Slice] = await self._getmany(None, timeout)
        except OffsetOutOfRangeError as error:
            places = ", ".join(
                f"{tp.topic}[{tp.partition}]@{at}" for tp, at in error.args[0].items()
            )
            self.app.fail(RetentionOvertook(f"the log no longer holds {places}"))
            return
        if not slices or not self.flow_active or self.should_stop:
            return  # if the epoch ends, what was fetched will be fetched again
        tp = TP(slices[0].topic, slices[0].partition)
        yield tp, self._to_message(tp, slices)

    def _to_message(self, tp: TP, slices: Sequence[Slice]) -> ConsumerMessage:
        none: dict[str, Any] = dict.fromkeys(
            ("timestamp", "timestamp_type", "headers", "key", "checksum")
        )
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=slices[0].end - 1,
            value=slices,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
            **none,
        )

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Nothing: a keeper seeks when its checkpoint is restored, not before."""
        return {}

    def _new_offset(self, tp: TP) -> int | None:
        """Nothing to commit, ever; forget what was acknowledged."""
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        return None

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets of batches have gaps by nature; Faust would remember each of them."""

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        raise AssertionError(f"Faust must not commit offsets, but wanted to: {offsets}")

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's livelock detector reads the commits that it no longer makes."""


class BatchTransport(driver.Transport):
    Consumer = BatchConsumer
