"""The batch transport, and the methods of Faust and aiokafka that it relies on."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.assignor import CoPartitioned, share
from stream.core.processor import Record, Records
from stream.transport import (
    BatchConsumer,
    ConsumerThread,
    Intake,
    LeanRecords,
    Slice,
    columns,
    joined,
)

A, B = TP("requests", 0), TP("requests", 1)

# What we replace or call, by the digest of its source in the pinned versions. If one differs, read
# what changed, decide whether the override still means the same, and only then put the new digest.
PINNED = {
    "Consumer.getmany": (Consumer.getmany, "4b168d84882a"),
    "Consumer._new_offset": (Consumer._new_offset, "1d2c7ea89a7a"),
    "Consumer._add_gap": (Consumer._add_gap, "4df2573ded7c"),
    "Consumer.perform_seek": (Consumer.perform_seek, "0e8c130ff4b0"),
    "Consumer._drain_messages": (Consumer._drain_messages, "44a2500309e8"),
    "Thread._create_worker_consumer": (
        driver.AIOKafkaConsumerThread._create_worker_consumer,
        "c2701bfc3e6f",
    ),
    "Thread._fetch_records": (driver.AIOKafkaConsumerThread._fetch_records, "39a2c6c79fc1"),
    "Thread._commit": (driver.AIOKafkaConsumerThread._commit, "932852ce7a23"),
    "Thread.seek_to_committed": (driver.AIOKafkaConsumerThread.seek_to_committed, "775ab0adc4b0"),
    "Listener.on_partitions_revoked": (
        driver.ConsumerRebalanceListener.on_partitions_revoked,
        "348c3aec879f",
    ),
    "Fetcher.fetched_records": (fetcher.Fetcher.fetched_records, "be4348896b9b"),
    "Fetcher._proc_fetch_request": (fetcher.Fetcher._proc_fetch_request, "59bf948fff47"),
    "PartitionRecords._unpack_records": (
        LeanRecords.__base__._unpack_records,
        "b803e6d46480",
    ),
    "FetchResult.getall": (fetcher.FetchResult.getall, "3e717e30de50"),
}


@pytest.mark.parametrize("name", PINNED)
def test_what_is_overridden_means_what_it_meant(name: str) -> None:
    """A new version of Faust or aiokafka can't change these unnoticed."""
    function, expected = PINNED[name]
    source = inspect.getsource(function)

    assert hashlib.sha256(source.encode()).hexdigest()[:12] == expected


class Log:
    """Batches as aiokafka parses them."""

    def __init__(self, *batches: Any) -> None:
        self._batches = list(batches)

    def has_next(self) -> bool:
        return bool(self._batches)

    def next_batch(self) -> Any:
        return self._batches.pop(0)


class LogBatch(list[Any]):
    """Records at successive offsets, with what the header of a batch says."""

    def __init__(self, base: int, count: int, **flags: Any) -> None:
        super().__init__(
            SimpleNamespace(offset=base + i, timestamp=9, key=b"k", value=b"v", headers=[])
            for i in range(count)
        )
        self.base_offset, self.next_offset = base, base + count
        self.producer_id = flags.get("producer_id")
        self.is_control_batch = flags.get("control", False)
        self.is_transactional = self.producer_id is not None
        self.aborts = flags.get("aborts", False)


def unpacked(*batches: LogBatch, first: int = 0, aborted: Any = None) -> tuple[list[int], int]:
    """The offsets that a read-committed consumer sees, and where it goes on."""
    assert fetcher.PartitionRecords is LeanRecords  # aiokafka looks it up by its module's name
    records = LeanRecords(A, Log(*batches), aborted, first, None, None, False, "read_committed")
    records._contains_abort_marker = lambda batch: batch.aborts
    seen = list(columns(records))
    assert [record[1:] for record in seen] == [(9, b"k", b"v", ())] * len(seen)
    return [record.offset for record in seen], records.next_fetch_offset


def test_records_of_a_batch_come_from_the_position_on() -> None:
    """A compressed batch holds records before it, which were read already."""
    assert unpacked(LogBatch(10, 5), LogBatch(15, 2), first=12) == ([12, 13, 14, 15, 16], 17)


def test_control_markers_are_passed_over() -> None:
    marker = LogBatch(12, 1, producer_id=1, control=True)

    assert unpacked(LogBatch(10, 2, producer_id=1), marker, first=10) == ([10, 11], 13)


def test_aborted_transactions_are_hidden() -> None:
    """Up to their marker; what the same producer wrote later is seen."""
    batches = [
        LogBatch(0, 2, producer_id=1),
        LogBatch(2, 2, producer_id=2),
        LogBatch(4, 1, producer_id=1, control=True, aborts=True),
        LogBatch(5, 2, producer_id=1),
    ]

    assert unpacked(*batches, aborted=[(1, 0)]) == ([2, 3, 5, 6], 7)


def test_faust_never_has_an_offset_to_commit() -> None:
    """Acknowledged offsets do not pile up, and none is ever committed."""
    consumer: Any = SimpleNamespace(_acked={A: [1, 2, 3]}, _acked_index={A: {1, 2, 3}})

    assert BatchConsumer._new_offset(consumer, A) is None
    assert consumer._acked == {A: []}
    assert consumer._acked_index == {A: set()}


class Loop:
    """Runs at once what it is asked to run soon."""

    def is_closed(self) -> bool:
        return False

    def call_soon_threadsafe(self, call: Any, *arguments: object) -> None:
        call(*arguments)


class Thread:
    """What the intake needs of the consumer's thread."""

    def __init__(self) -> None:
        self.thread_loop = Loop()
        self.sought: list[tuple[TP, int]] = []
        self.woken = 0

    def seek(self, tp: TP, offset: int) -> None:
        self.sought.append((tp, offset))

    def wake(self) -> None:
        self.woken += 1


def intake(limit: int = 2) -> tuple[Intake, Thread]:
    made, thread = Intake(limit, 0.1), Thread()
    made.bind(thread)  # type: ignore[arg-type]
    return made, thread


def piece(tp: TP, epoch: int) -> Slice:
    return Slice(tp.topic, tp.partition, Records.of([]), 0, 1, epoch, 0)


def test_a_partition_is_fetched_only_after_it_was_sought() -> None:
    made, thread = intake()

    assert made.wanted() == []
    made.open({("requests", 0): 7}, made.epoch)
    assert (thread.sought, made.wanted()) == ([(A, 7)], [A])


def test_an_order_of_an_epoch_that_is_over_is_void() -> None:
    """A restore that ends after its partition went must not open it."""
    made, thread = intake()
    before = made.epoch
    made.end_epoch()
    made.open({("requests", 0): 7}, before)

    assert (thread.sought, made.wanted()) == ([], [])


def test_a_full_queue_stops_its_partition_only() -> None:
    """And room in it wakes the fetch."""
    made, thread = intake(limit=2)
    made.open({("requests", 0): 0, ("requests", 1): 0}, made.epoch)
    made.hold(A)
    made.hold(A)
    woken = thread.woken

    assert made.wanted() == [B]
    made.release(piece(A, made.epoch))
    assert (made.wanted(), thread.woken) == ([A, B], woken + 1)


def test_slices_of_another_epoch_free_no_room() -> None:
    """What is still in a mailbox from before a rebalance does not count against the new queue."""
    made, _ = intake(limit=1)
    made.open({("requests", 0): 0}, made.epoch)
    old = piece(A, made.epoch)
    made.end_epoch()
    made.open({("requests", 0): 0}, made.epoch)
    made.hold(A)
    made.release(old)

    assert made.wanted() == []


def run(topic: str, start: int, count: int, end: int) -> Slice:
    records = [Record(start + i, 0, b"k", b"v") for i in range(count)]
    return Slice(topic, 0, records, start, end, 1, end)


def test_slices_that_follow_one_another_become_one() -> None:
    """Topic after topic, and never over a gap: that has to be noticed."""
    slices = [
        run("feedback", 0, 2, 2),
        run("predictions", 0, 3, 4),
        run("feedback", 2, 0, 3),
        run("predictions", 4, 1, 5),
        run("predictions", 7, 1, 8),
        run("feedback", 3, 1, 4),
    ]
    made = joined(slices, ("predictions", "feedback"))

    assert [(one.topic, one.start, one.end, one.ahead) for one in made] == [
        ("predictions", 0, 5, 5),
        ("predictions", 7, 8, 8),
        ("feedback", 0, 4, 4),
    ]
    offsets = [[record.offset for record in one.records] for one in made]
    assert offsets == [[0, 1, 2, 4], [7], [0, 1, 3]]


@pytest.mark.parametrize("behind", [False, True])
def test_the_next_records_are_asked_for_when_they_can_be_taken(behind: bool) -> None:
    """Those that are fetched before would lie there for as long as nobody looks; a reader that is
    behind asks at once."""
    asked: list[float] = []
    future: Any = object()
    fetcher = SimpleNamespace(
        _closed=False, _wait_consume_future=future, _notify=lambda _: asked.append(time.monotonic())
    )
    consumer: Any = SimpleNamespace(
        _fetcher=fetcher,
        _closed=False,
        _coordinator=SimpleNamespace(check_errors=lambda: None),
        _subscription=SimpleNamespace(fetch_context=nullcontext),
    )
    thread: Any = SimpleNamespace(
        _behind=False,
        _drained=time.monotonic(),
        _intake=SimpleNamespace(pause_seconds=0.05),
        consumer=SimpleNamespace(flow_active=True),
        _drain=lambda _: [piece(A, 1)._replace(ahead=int(behind))],
    )
    began = thread._drained
    asyncio.run(ConsumerThread._fetch_records(thread, consumer, None))

    assert asked[0] - began >= 0.05
    assert len(asked) == 1 + behind


def test_faust_gets_one_message_for_all_partitions_of_a_fetch() -> None:
    """Each costs it several tasks of its loop."""
    slices = [piece(A, 1), piece(B, 1)]

    async def fetched(*_: object) -> list[Slice]:
        return slices

    consumer: Any = SimpleNamespace(
        flow_active=True,
        should_stop=False,
        app=SimpleNamespace(consumer_generation_id=1),
        _getmany=fetched,
    )
    consumer._to_message = BatchConsumer._to_message.__get__(consumer)

    async def messages() -> list[Any]:
        return [message async for message in BatchConsumer.getmany(consumer, 1.0)]

    ((tp, message),) = asyncio.run(messages())
    assert (tp, message.value) == (A, slices)


@pytest.mark.parametrize("members", range(1, 8))
@pytest.mark.parametrize("count", [1, 4, 7])
def test_shares_are_even_and_whole(members: int, count: int) -> None:
    """Every partition has one owner, and no member has two more than another."""
    shares = share(count, {f"m{number}": [] for number in range(members)})

    assert sorted(sum(shares.values(), [])) == list(range(count))  # noqa: RUF017
    assert max(map(len, shares.values())) - min(map(len, shares.values())) <= 1


def test_a_member_that_joins_or_leaves_moves_as_little_as_can_be() -> None:
    two = share(6, {"a": [], "b": []})
    three = share(6, {**two, "c": []})

    assert sum(len(set(two[name]) & set(three[name])) for name in two) == 4
    assert share(6, {name: three[name] for name in ("a", "b")}) == two


def test_members_get_the_same_numbers_of_every_topic() -> None:
    """Prediction and feedback of one id meet in one process, with three members too."""
    cluster = SimpleNamespace(partitions_for_topic=lambda topic: {0, 1, 2, 3})
    assignor = CoPartitioned()
    metadata = assignor.metadata(["predictions", "feedback"])
    made = assignor.assign(cluster, dict.fromkeys("abc", metadata))

    for assignment in made.values():
        numbers = [sorted(numbers) for _, numbers in assignment.assignment]
        assert len(numbers) == 2
        assert numbers[0] == numbers[1]
