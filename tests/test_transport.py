"""The batch transport, and the methods of Faust and aiokafka that it relies on."""

from __future__ import annotations

import hashlib
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.assignor import CoPartitioned, share
from stream.core.processor import Record
from stream.transport import BatchConsumer, Intake, LeanRecords, Slice

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
    "PartitionRecords._consumer_record": (
        fetcher.PartitionRecords.__mro__[1]._consumer_record,
        "e668541600b0",
    ),
    "FetchResult.getall": (fetcher.FetchResult.getall, "3e717e30de50"),
}


@pytest.mark.parametrize("name", PINNED)
def test_what_is_overridden_means_what_it_meant(name: str) -> None:
    """A new version of Faust or aiokafka can't change these unnoticed."""
    function, expected = PINNED[name]
    source = inspect.getsource(function)

    assert hashlib.sha256(source.encode()).hexdigest()[:12] == expected


def test_aiokafka_makes_our_records() -> None:
    """The fetcher looks the class up by its module's name, so ours is the one it uses."""
    raw = SimpleNamespace(offset=5, timestamp=9, key=b"k", value=b"v", headers=[("h", b"1")])

    assert fetcher.PartitionRecords is LeanRecords
    made = LeanRecords._consumer_record(object(), A, raw)  # type: ignore[arg-type]
    assert made == Record(5, 9, b"k", b"v", (("h", b"1"),))


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
    made, thread = Intake(limit), Thread()
    made.bind(thread)  # type: ignore[arg-type]
    return made, thread


def piece(tp: TP, epoch: int) -> Slice:
    return Slice(tp.topic, tp.partition, [], 0, 1, epoch, 0)


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
