"""Keepers and their committer on a broker that remembers, with real threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream.core.processor import Batch, Fleet, Output, Processor, Record
from stream.errors import Expelled, Fenced
from stream.partitions import World
from stream.runtime import GATHER_SECONDS, REST_SECONDS, Keeper, Runtime
from stream.settings import Settings
from stream.topics import BY_ENTITY
from stream.transactions import Delta, Membership, group_metadata
from stream.transport import Intake, Slice
from tests.patience import PATIENCE_SECONDS
from tests.test_partitions import REQUESTS, Counting, Fleets, Log

GROUP = "driftline.score"
US = Membership(7, "us")
SETTINGS = Settings(commit_interval_ms=10, commit_interval_per_partition_ms=0, queue_batches=2)


class Broker(Log):
    """
    Attributes:
        transactions: what each held: partitions, and the metadata that it was sent with.
        open: cleared while commits are to hang.
        fails: what the next commits end with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.end = 10**6
        self.transactions: list[tuple[list[int], object]] = []
        self.open = threading.Event()
        self.open.set()
        self.fails: list[Exception] = []

    def latest(self, *_: object) -> dict[bytes, bytes]:
        return {}

    def committed(self, _: object) -> dict[tuple[str, int], int]:
        return {}

    def commit(self, deltas: Sequence[Delta], _: Mapping[str, str], metadata: object) -> None:
        self.open.wait(PATIENCE_SECONDS)
        if self.fails:
            raise self.fails.pop(0)
        self.transactions.append(([delta.checkpoint[1] for delta in deltas], metadata))
        self.commits += [list(delta.outputs) for delta in deltas]

    def written(self) -> int:
        return sum(map(len, self.commits))


class Slow(Counting):
    """Takes as long as the test wants for a record that says so, or computes for a while."""

    hold = threading.Event()

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        if any(record.value == b"slow" for record in batch.records):
            self.hold.wait(PATIENCE_SECONDS)
        until = time.thread_time() + 2 * GATHER_SECONDS
        while batch.records[-1].value == b"long" and time.thread_time() < until:
            pass
        return super().apply(batch, fleet)


class Stage:
    """A runtime of four partitions, without Faust."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.failures: list[BaseException] = []
        self.sent = dict.fromkeys(range(4), 0)
        world = World(
            stage="score",
            settings=SETTINGS,
            factory=lambda _: _processor(),
            counts=dict.fromkeys(BY_ENTITY, 4),
            reader=broker,
            writer=broker,
            fencer=broker,
            fleets=Fleets(),
            clock=lambda: 1.0,
        )
        self.runtime = Runtime(world, Intake(2, 0.01), self.failures.append)
        self.runtime.start()

    def assign(self, membership: Membership, *numbers: int) -> None:
        self.runtime.intake.end_epoch()
        self.runtime.intake.membership = membership
        self.runtime.assign(set(numbers))
        until(lambda: all(keeper.ready for keeper in self.runtime.keepers.values()))

    def revoke(self, seconds: float = PATIENCE_SECONDS) -> bool:
        self.runtime.intake.end_epoch()
        return asyncio.run(self.runtime.revoke(seconds))

    def send(self, number: int, value: bytes = b"v") -> None:
        start = self.sent[number]
        self.sent[number] += 1
        record = Record(start, 0, b"k", value)
        epoch = self.runtime.intake.epoch
        self.runtime.offer([Slice(REQUESTS, number, [record], start, start + 1, epoch, 0)])

    def apply(self, number: int) -> None:
        """Send one and see it applied."""
        self.send(number)
        partition = self.keeper(number).partition
        until(lambda: partition and partition.positions == {"requests": self.sent[number]})

    def keeper(self, number: int) -> Keeper:
        return self.runtime.keepers[number]

    def end(self) -> None:
        Slow.hold.set()
        self.broker.open.set()
        Slow.hold.set()
        for keeper in self.runtime.drop_all():
            keeper.join(10)


def _processor() -> Processor:
    return Slow()


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def stage(gathering: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Applies what comes at once."""
    monkeypatch.setattr("stream.runtime.GATHER_SECONDS", 0.0)
    return gathering


@pytest.fixture
def gathering() -> Iterator[Stage]:
    Slow.hold.clear()
    made = Stage(Broker())
    yield made
    made.end()


def test_all_partitions_commit_in_one_transaction_as_the_member_that_they_have(
    stage: Stage,
) -> None:
    stage.assign(US, 0, 1, 2)
    stage.broker.open.clear()
    stage.send(0)
    until(lambda: stage.runtime.committer.since)
    stage.apply(1)
    stage.apply(2)
    stage.broker.open.set()
    until(lambda: stage.broker.written() == 3)

    assert [sorted(numbers) for numbers, _ in stage.broker.transactions] == [[0], [1, 2]]
    assert {metadata for _, metadata in stage.broker.transactions} == {group_metadata(GROUP, US)}


def test_nobody_waits_for_a_slow_partition(stage: Stage) -> None:
    """Its delta goes into a later transaction, whole."""
    stage.assign(US, 0, 1)
    stage.send(0, b"slow")
    stage.send(1)
    until(lambda: stage.broker.transactions)
    stage.send(1)
    until(lambda: stage.broker.written() == 2)
    assert {number for numbers, _ in stage.broker.transactions for number in numbers} == {1}
    Slow.hold.set()
    until(lambda: stage.broker.written() == 3)


def test_a_partition_goes_on_beside_a_commit_but_not_far(stage: Stage) -> None:
    """`queue_batches` slices ahead; then it stands, and says that it is committing."""
    stage.assign(US, 0)
    partition = stage.keeper(0).partition
    assert partition is not None
    stage.broker.open.clear()
    stage.send(0)
    until(lambda: stage.runtime.committer.since)
    for _ in range(5):
        stage.send(0)
    until(lambda: partition.positions == {"requests": 1 + SETTINGS.queue_batches})
    until(lambda: stage.keeper(0).at[0] == "flush")
    assert partition.positions == {"requests": 1 + SETTINGS.queue_batches}
    stage.broker.open.set()
    until(lambda: stage.broker.written() == 6)


def test_a_trickle_gathers_until_a_commit_asks_for_it(
    gathering: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the mailbox is full. Each batch has a cost of its own, so they are applied as one."""
    monkeypatch.setattr("stream.runtime.REST_SECONDS", 3_600.0)
    stage = gathering
    stage.assign(US, 0)
    partition: Any = stage.keeper(0).partition
    stage.apply(0)
    until(lambda: stage.broker.written() == 1)
    stage.broker.open.clear()
    stage.send(0)
    until(lambda: stage.runtime.committer.since)
    batches = len(partition.processor.ahead)
    stage.send(0)
    time.sleep(0.1)
    assert partition.positions == {"requests": 2}
    stage.send(0)
    until(lambda: partition.positions == {"requests": 4})
    assert len(partition.processor.ahead) == batches + 1
    stage.send(0)
    stage.broker.open.set()
    until(lambda: stage.broker.written() == 5)


def test_a_commit_asks_who_has_nothing_but_mail(
    gathering: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what gathers would wait until the passing of time is told."""
    monkeypatch.setattr(Runtime, "idle_seconds", 3_600.0)
    gathering.assign(US, 0)
    gathering.send(0)
    until(lambda: gathering.broker.written() == 1)
    gathering.send(0)
    until(lambda: gathering.broker.written() == 2)


def test_mail_that_came_while_an_answer_was_late_is_asked_for(
    gathering: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else may come that would tell of it."""
    monkeypatch.setattr(Runtime, "idle_seconds", 3_600.0)
    monkeypatch.setattr("stream.runtime.REST_SECONDS", 3_600.0)
    gathering.assign(US, 0)
    gathering.apply(0)
    until(lambda: gathering.broker.written() == 1)
    gathering.send(0, b"slow")
    until(lambda: gathering.keeper(0).at[0] == "apply")
    time.sleep(5 * gathering.runtime.interval_seconds)  # nobody waits for the answer any more
    gathering.send(0)
    time.sleep(5 * gathering.runtime.interval_seconds)
    Slow.hold.set()
    until(lambda: gathering.broker.written() == 3)


def test_mail_rests_a_while_at_most_whoever_does_not_ask(
    gathering: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the log has moved by nothing but markers, too: to rest is not to stand still."""
    monkeypatch.setattr(Runtime, "idle_seconds", 3_600.0)
    gathering.assign(US, 0)
    partition = gathering.keeper(0).partition
    epoch = gathering.runtime.intake.epoch
    begun = time.monotonic()
    gathering.runtime.offer([Slice(REQUESTS, 0, [], 0, 3, epoch, 0)])
    until(lambda: partition and partition.positions == {"requests": 3})
    assert time.monotonic() - begun > 0.9 * REST_SECONDS


def test_what_takes_long_does_not_gather(gathering: Stage) -> None:
    """Others would wait for it in the next commit."""
    stage = gathering
    stage.assign(US, 0)
    partition = stage.keeper(0).partition
    stage.send(0, b"long")
    until(lambda: stage.broker.written() == 1)
    stage.broker.open.clear()
    stage.send(0, b"long")
    until(lambda: stage.runtime.committer.since)
    stage.send(0, b"long")
    until(lambda: partition and partition.positions == {"requests": 3})


@pytest.mark.parametrize(
    ("then", "kept"),
    [
        (Membership(8, "us"), True),
        (Membership(9, "us"), False),  # somebody may have owned it in generation 8
        (Membership(8, "us-again"), False),
        (Membership(7, "us"), False),
    ],
)
def test_state_is_kept_if_nobody_can_have_owned_it_meanwhile(
    stage: Stage, then: Membership, kept: bool
) -> None:
    """Offsets would not tell: another owner's outputs may have come from the passing of time."""
    stage.assign(US, 0, 1)
    before = stage.keeper(0)
    stage.apply(0)
    assert stage.revoke()
    assert stage.broker.written() == 1
    stage.assign(then, 0)

    assert (stage.keeper(0) is before) == kept
    assert set(stage.runtime.keepers) == {0}


def test_a_rebalance_commits_all_as_the_member_of_before(stage: Stage) -> None:
    """In one last transaction, what was applied beside another one too."""
    stage.assign(US, 0, 1)
    stage.broker.open.clear()
    stage.send(0)
    until(lambda: stage.runtime.committer.since)
    stage.apply(0)
    stage.apply(1)
    threading.Timer(0.2, stage.broker.open.set).start()

    assert stage.revoke()
    assert stage.broker.written() == 3
    assert {metadata for _, metadata in stage.broker.transactions} == {group_metadata(GROUP, US)}
    assert not stage.failures


def test_what_a_rebalance_cannot_commit_in_time_is_let_go(stage: Stage) -> None:
    """The slow partition by itself; all that hang in a transaction together."""
    stage.assign(US, 0, 1, 2)
    stage.send(0, b"slow")
    stage.send(1)
    until(lambda: stage.broker.written() == 1)
    assert not stage.revoke(5)
    assert set(stage.runtime.keepers) == {1, 2}
    stage.assign(Membership(8, "us"), 1, 2)
    stage.broker.open.clear()
    stage.apply(1)
    stage.apply(2)
    assert not stage.revoke(0.4)
    assert not stage.runtime.keepers
    assert stage.runtime.counts["late_revocations"] == 3


def test_who_was_expelled_drops_all_and_gets_it_anew(stage: Stage) -> None:
    """A zombie that wakes: its transaction is refused, its process goes on."""
    stage.assign(US, 0, 1)
    before = stage.keeper(1)
    stage.broker.fails.append(Expelled("generation 7 is over"))
    stage.send(0)
    until(lambda: not stage.runtime.keepers)
    assert stage.runtime.counts["fences"] == 2
    stage.assign(Membership(9, "us-again"), 1)
    stage.send(1)
    until(lambda: stage.broker.transactions)

    assert stage.keeper(1) is not before
    assert not stage.failures


def overtake(stage: Stage) -> None:
    """Have a transaction under way that will be refused, and its partition assigned anew."""
    stage.assign(US, 0)
    stage.broker.open.clear()
    stage.broker.fails.append(Expelled("generation 7 is over"))
    stage.send(0)
    until(lambda: stage.runtime.committer.since)
    assert not stage.revoke(0.1)
    stage.assign(Membership(8, "us"), 0)


def test_a_refusal_that_comes_late_harms_no_partition_of_a_newer_generation(stage: Stage) -> None:
    """The transaction of before was still under way when the group had decided."""
    overtake(stage)
    stage.broker.open.set()
    until(lambda: stage.runtime.committer.since is None)

    assert set(stage.runtime.keepers) == {0}
    assert not stage.failures


def test_a_transaction_that_hangs_is_told_though_those_it_is_for_have_gone(stage: Stage) -> None:
    """By who has applied something since, though nothing more comes and nobody lags behind."""
    overtake(stage)
    since = stage.runtime.committer.since
    until(lambda: stage.keeper(0).at[0] == "wait")
    stage.sent[0] = 0  # what was not committed is fetched again
    stage.apply(0)

    until(lambda: stage.keeper(0).at[:2] == ("flush", since))
    stage.broker.open.set()


@pytest.mark.parametrize(
    "error", [Fenced("ended"), KafkaException(KafkaError(KafkaError._TIMED_OUT))]
)
def test_a_commit_that_fails_ends_the_process(stage: Stage, error: Exception) -> None:
    """Whether it was fenced or the broker is away: what was applied since is void."""
    stage.assign(US, 0)
    stage.broker.fails.append(error)
    stage.send(0)
    until(lambda: stage.failures)

    assert stage.failures == [error]


def test_time_is_told_to_a_partition_without_records(stage: Stage) -> None:
    stage.assign(US, 3)
    partition: Any = stage.keeper(3).partition
    until(lambda: partition.processor.told)
