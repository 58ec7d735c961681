"""One partition against a log and a producer that remember what was asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from stream import checkpoints
from stream.core.processor import Batch, Fleet, Output, Parts, Record
from stream.errors import CheckpointError, Halt, PartitionCountChanged
from stream.partitions import Partition, Probe, Superseded, World
from stream.settings import Settings
from stream.supervising import environment
from stream.topics import BY_ENTITY, Stage
from stream.transactions import Delta
from stream.transport import Slice

REQUESTS = "driftline.requests.v1"
CHECKPOINTS = "driftline.checkpoints.score.v1"


class Counting:
    """Counts records in part "n"; says in `told` what it was told of time."""

    def __init__(self) -> None:
        self.n = 0
        self.told: list[tuple[int, bool]] = []
        self.ahead: list[int] = []
        self.generations: Mapping[str, int] = {"churn": 3}
        self.speaks = False
        self._written = 0

    def restore(self, parts: Mapping[str, bytes]) -> None:
        self.n = self._written = int(parts["n"])

    def apply(self, batch: Batch, _: Fleet) -> list[Output]:
        self.n += len(batch.records)
        self.ahead.append(batch.ahead)
        return [Output("predictions", record.key, record.value, 0) for record in batch.records]

    def advance(self, clock_ms: int, caught_up: bool, _: Fleet) -> list[Output]:
        self.told.append((clock_ms, caught_up))
        return [Output("alerts", b"k", b"v")] if self.speaks else []

    def changes(self, *, complete: bool) -> Parts:
        if self.n == self._written and not complete:
            return {}
        self._written = self.n
        return {"n": b"%d" % self.n}

    @property
    def counters(self) -> Mapping[str, int]:
        return {"records_seen": self.n, "refused:bad-json": 2}


class Log:
    """A broker as a partition sees it: reader, writer and fencer in one."""

    id = "driftline.score.worker-us"

    def __init__(self) -> None:
        self.alive = {self.id}
        self.checkpoint: dict[bytes, bytes] = {}
        self.group: dict[tuple[str, int], int] = {}
        self.end = 0
        self.begin = 0
        self.commits: list[list[Output]] = []
        self.calls: list[str] = []
        self.is_away = False

    def bounds(self, topic: str, _: int) -> tuple[int, int]:
        self.calls.append(f"bounds {topic}")
        return (0, len(self.checkpoint)) if topic == CHECKPOINTS else (self.begin, self.end)

    def ends(self, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        if self.is_away:
            raise TimeoutError
        ends = dict.fromkeys(places, self.end)
        self.calls.append(f"ends {len(ends)}")
        return ends

    def committed(self, _: object) -> dict[tuple[str, int], int]:
        self.calls.append("committed")
        return dict(self.group)

    def latest(self, *_: object) -> dict[bytes, bytes]:
        self.calls.append("latest")
        return dict(self.checkpoint)

    def newest(self, _: str, __: int, key: bytes) -> bytes | None:
        return self.checkpoint.get(key)

    def members(self) -> set[str]:
        return self.alive

    def fence(self, transactional_id: str) -> None:
        self.calls.append(f"fence {transactional_id}")

    bury = fence

    def init(self) -> None:
        self.calls.append("init")

    def commit(self, deltas: Sequence[Delta], _: Mapping[str, str], __: object) -> None:
        for delta in deltas:
            self.commits.append(list(delta.outputs))
            self.group |= delta.offsets
            for key, value in delta.checkpoint[2].items():
                if value is None:
                    self.checkpoint.pop(key.encode(), None)
                else:
                    self.checkpoint[key.encode()] = value


class Fleets:
    def __init__(self, *answers: bool) -> None:
        self.fleet: Fleet = {}
        self.generations: Mapping[str, int] = {}
        self.answers = list(answers) or [True]

    def reached(self, _: Mapping[str, int]) -> bool:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def partition(
    log: Log,
    *,
    fleets: Fleets | None = None,
    count: int = 4,
    clock: Callable[[], float] = lambda: 1.0,
    stage: Stage = "score",
    **settings: Any,
) -> Partition:
    world = World(
        stage=stage,
        settings=Settings(**settings),
        factory=lambda _: Counting(),
        counts=dict.fromkeys(BY_ENTITY, count),
        reader=log,
        writer=log,
        fencer=log,
        fleets=fleets or Fleets(),
        clock=clock,
    )
    return Partition(world, 0)


def restored(log: Log, **more: Any) -> Partition:
    made = partition(log, **more)
    made.restore(lambda: True)
    return made


def flush(one: Partition) -> bool:
    """Commit what a partition has to say, if anything."""
    delta = one.take()
    if delta is None:
        return False
    with delta.span:
        one.world.writer.commit([delta], one.world.topics, b"")
    one.settle(delta, 0.1)
    return True


def piece(start: int, count: int, end: int | None = None) -> Slice:
    records = [Record(start + i, 0, b"k", b"v") for i in range(count)]
    return Slice(REQUESTS, 0, records, start, start + count if end is None else end, 1, 5)


def counting(one: Partition) -> Counting:
    assert isinstance(one.processor, Counting)
    return one.processor


def test_a_processor_is_told_how_much_lies_behind_its_batch() -> None:
    one = restored(Log())

    one.apply(piece(0, 3))

    assert counting(one).ahead == [5]


def test_state_and_position_survive_a_change_of_owner() -> None:
    """What is restored is what was committed; what was only applied is read again."""
    log = Log()
    log.end = 10
    first = restored(log)
    first.apply(piece(0, 4))
    assert flush(first)
    first.apply(piece(4, 2))
    second = restored(log)

    assert counting(second).n == 4
    assert second.positions == {"requests": 4}


FORMER = "fence driftline.score.0"


def written_by(writer: str) -> Log:
    """A log whose checkpoint was written by this process."""
    log = Log()
    log.end = 1
    one = restored(log)
    one.apply(piece(0, 1))
    one.world.writer.id = writer  # type: ignore[misc]
    flush(one)
    log.calls.clear()
    log.id = Log.id
    return log


def test_offsets_are_read_when_the_owner_before_is_fenced_and_the_checkpoint_after_them() -> None:
    """The other way round a transaction that is decided in between would show in one of them."""
    log = Log()
    restored(log)

    assert log.calls[:4] == [FORMER, "committed", f"bounds {CHECKPOINTS}", "latest"]


def test_what_a_dead_owner_left_open_is_ended() -> None:
    """Nobody waits for the broker to give its transaction up."""
    log = written_by("driftline.score.worker-dead")
    restored(log)

    assert log.calls[:3] == [FORMER, "fence driftline.score.worker-dead", "committed"]


@pytest.mark.parametrize("writer", [Log.id, "driftline.score.worker-alive", ""])
def test_nobody_who_lives_is_fenced(writer: str) -> None:
    """A member of the group, which moved the partition to us, or we ourselves; and where a former
    release wrote, the id by partition is all there is to fence."""
    log = written_by(writer)
    log.alive.add("driftline.score.worker-alive")
    restored(log)

    assert [call for call in log.calls if call.startswith("fence")] == [FORMER]


def test_what_is_applied_beside_a_commit_is_for_the_next() -> None:
    """A delta is whole in itself: its outputs, offsets and state are those of the moment."""
    log = Log()
    log.end = 5
    one = restored(log)
    one.apply(piece(0, 2))
    first = one.take()
    assert first is not None
    assert not one.dirty
    one.apply(piece(2, 3))
    assert one.dirty
    one.world.writer.commit([first], one.world.topics, b"")

    assert counting(restored(log)).n == 2
    one.settle(first, 0.1)
    assert one.uncommitted == f"{REQUESTS}[0] 2..5"
    assert flush(one)
    assert [len(outputs) for outputs in log.commits] == [2, 3]
    assert counting(restored(log)).n == 5


def test_nothing_to_write_is_no_transaction() -> None:
    """Time is told all the same; a position that moved over markers alone waits for the next."""
    log = Log()
    one = restored(log)
    one.apply(piece(0, 0, end=3))

    assert not flush(one)
    assert log.commits == []
    assert len(counting(one).told) == 1


def test_what_time_brings_is_committed_too() -> None:
    log = Log()
    one = restored(log)
    counting(one).speaks = True

    assert flush(one)
    assert [output.entity for output in log.commits[0]] == ["alerts"]


def test_markers_count_into_the_next_offsets() -> None:
    """So that lag goes to zero for every tool that reads the group's offsets."""
    log = Log()
    log.end = 7
    one = restored(log)
    one.apply(piece(0, 2, end=3))
    flush(one)

    assert log.group == {(REQUESTS, 0): 3}
    assert restored(log).positions == {"requests": 3}


def test_a_gap_in_what_is_fetched_halts() -> None:
    """Records between the positions would be lost without a word."""
    one = restored(Log())

    with pytest.raises(Halt, match="fetched from 5 on, but applied up to 0"):
        one.apply(piece(5, 1))


def test_caught_up_is_claimed_only_when_all_that_lay_there_is_applied() -> None:
    """And for the clock that was read before the look: what comes later does not count."""
    log = Log()
    log.end = 4
    one = restored(log, clock=lambda: 2.0, stage="monitor", summary_interval_ms=600_000)
    predictions, feedback = (piece(0, 4)._replace(topic=topic) for topic in one.topics)
    one.apply(predictions)
    flush(one)
    one.apply(feedback)
    log.end = 100
    flush(one)

    assert counting(one).told == [(2000, False), (2000, True)]


def test_ends_are_looked_up_once_for_all_partitions_of_a_process() -> None:
    log, a, b = Log(), ("t", 0), ("t", 1)
    log.end = 4
    probe = Probe(log, lambda: 2.0, 1000)

    assert [probe.read({place: at}) for place, at in ((a, 4), (b, 3), (a, 4), (b, 4))] == [
        (2000, True),
        (2000, False),
        (2000, True),
        (2000, True),
    ]
    assert log.calls == ["ends 1", "ends 2"]


def test_a_clock_whose_ends_nobody_told_is_not_claimed_to_be_reached() -> None:
    clock = iter([2.0, 3.0, 4.0])
    log, a = Log(), ("t", 0)
    probe = Probe(log, lambda: next(clock), 0.0)
    assert probe.read({a: 0}) == (2000, True)
    log.end, log.is_away = 1, True
    with pytest.raises(TimeoutError):
        probe.read({a: 0})
    log.is_away = False

    assert probe.read({a: 0}) == (4000, False)


def test_a_stage_that_is_not_told_of_ends_does_not_ask_for_them() -> None:
    """It would be on the way of every prediction."""
    log = Log()
    one = restored(log)
    log.calls.clear()
    flush(one)

    assert counting(one).told == [(1000, False)]
    assert log.calls == []


def test_the_embedded_broker_gets_whole_checkpoints() -> None:
    """It forgets old records; and its group offsets, which it does not keep, are not asked."""
    log = Log()
    log.end = 4
    one = restored(log, embedded_broker=True)
    one.apply(piece(0, 1))
    flush(one)
    log.checkpoint.clear()
    log.group.clear()
    one.apply(piece(1, 1))
    flush(one)

    assert counting(restored(log, embedded_broker=True)).n == 2
    assert not flush(one), "a whole checkpoint that says nothing new is not written"


def test_group_offsets_without_a_checkpoint_halt() -> None:
    log = Log()
    log.group[REQUESTS, 0] = 3

    with pytest.raises(CheckpointError):
        restored(log)


def test_another_partition_count_halts() -> None:
    log = Log()
    log.end = 1
    one = restored(log)
    one.apply(piece(0, 1))
    flush(one)

    with pytest.raises(PartitionCountChanged):
        restored(log, count=8)


def test_a_restore_waits_for_lifecycle_and_gives_up_with_the_partition() -> None:
    log = Log()
    log.end = 1
    one = restored(log)
    one.apply(piece(0, 1))
    flush(one)

    assert counting(restored(log, fleets=Fleets(False, False, True))).n == 1
    asked = iter([True, True, True, False])
    with pytest.raises(Superseded):
        partition(log, fleets=Fleets(False)).restore(lambda: next(asked))


def test_a_partition_that_went_is_not_fenced() -> None:
    """A late fence would end a worker of the former release that has it now."""
    log = Log()

    with pytest.raises(Superseded):
        partition(log).restore(lambda: False)
    assert log.calls == []


def test_what_the_next_owner_commits_during_a_restore_is_no_fault_of_the_checkpoint() -> None:
    """Offsets that run ahead of the checkpoint halt an owner, but not one that was superseded."""
    log = Log()
    log.group = {("driftline.requests.v1", 0): 525}
    log.end = 525
    owned = iter([True, True, False])

    with pytest.raises(Superseded):
        partition(log).restore(lambda: next(owned))
    with pytest.raises(CheckpointError):
        partition(log).restore(lambda: True)


def test_parts_that_are_gone_are_removed() -> None:
    """A tombstone goes out, and the manifest forgets the part."""
    log = Log()
    log.end = 1
    one = restored(log)
    one.apply(piece(0, 1))
    flush(one)
    counting(one).changes = lambda *, complete: {"n": None}  # type: ignore[method-assign]
    flush(one)

    assert list(log.checkpoint) == [checkpoints.MANIFEST_KEY.encode()]


def test_children_see_the_settings_of_their_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that came by flag, and each with a metrics port of its own."""
    given = Settings(
        topic_prefix="acme", kafka={"linger.ms": "9"}, metrics_port=9000, embedded_broker=True
    )
    for name, value in environment(given, 2).items():
        monkeypatch.setenv(name, value)

    assert Settings() == given.model_copy(update={"metrics_port": 9002})
