"""A keeper works off what its partition put off while nothing else is to be done."""

from __future__ import annotations

import time
from collections.abc import Callable

from stream.core.processor import Batch, Context, Fleet, Output, Processor
from stream.partitions import World
from stream.runtime import Runtime
from stream.settings import Settings
from stream.topics import BY_ENTITY
from stream.transport import Intake
from tests.test_partitions import Counting, Fleets, Log, piece


class PutsOff(Counting):
    """Answers at once for nobody, later for one record at a time."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.backlog = 0
        self._seconds = seconds

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        self.backlog += len(super().apply(batch, fleet))
        return []

    def proceed(self, _: Fleet) -> list[Output]:
        time.sleep(self._seconds)
        self.backlog -= 1
        return [Output("predictions", b"k", b"v", 0)]


def runtime(log: Log, made: Callable[[Context], Processor]) -> Runtime:
    world = World(
        stage="score",
        settings=Settings(commit_interval_ms=20, summary_interval_ms=600_000),
        factory=made,
        counts=dict.fromkeys(BY_ENTITY, 4),
        reader=log,
        writer=log,
        fencer=log,
        fleets=Fleets(),
    )
    failures: list[BaseException] = []
    made_of = Runtime(world, Intake(4, 0.02), failures.append)
    made_of.start()
    return made_of


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert holds()


def test_what_was_put_off_is_done_and_committed_though_nothing_more_comes() -> None:
    log, stage = Log(), PutsOff()
    one = runtime(log, lambda _: stage)
    one.assign({0})
    until(lambda: one.keepers[0].ready)

    one.offer([piece(0, 50)._replace(epoch=one.intake.epoch)])
    until(lambda: sum(map(len, log.commits)) == 50)

    assert stage.backlog == 0
    for keeper in one.drop_all():
        keeper.join(20)


def test_a_keeper_that_is_paused_leaves_its_backlog_alone() -> None:
    """Between two assignments somebody else may have the partition."""
    log, stage = Log(), PutsOff(seconds=0.01)
    one = runtime(log, lambda _: stage)
    one.assign({0})
    keeper = one.keepers[0]
    until(lambda: keeper.ready)
    keeper.offer(piece(0, 10_000)._replace(epoch=one.intake.epoch))
    until(lambda: stage.backlog > 0)
    keeper.leave()
    one.committer.hurry(5)
    until(lambda: keeper.flushed)
    held = stage.backlog
    time.sleep(0.2)

    assert stage.backlog == held > 0
    for other in one.drop_all():
        other.join(20)
