"""One partition in one process, as `stream.runtime.Keeper` has it, without a thread of its own.

The real `Partition` does the work, and the real `Transactor` in `tests.simulation.worker`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream.core.evaluate import EvaluateProcessor
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Context, Fleet, Output, Processor
from stream.core.scoring import ScoreProcessor
from stream.errors import Expelled, Fenced, Halt
from stream.partitions import Partition, Superseded
from stream.topics import INPUTS
from stream.transactions import Delta
from stream.transport import Slice
from tests.simulation.kafka import Reader
from tests.simulation.operations import Crash, Operation, failpoint

if TYPE_CHECKING:
    from tests.simulation.worker import Worker

PROCESSORS: dict[str, Callable[[Context], Processor]] = {
    "score": ScoreProcessor,
    "monitor": MonitorProcessor,
    "evaluate": EvaluateProcessor,
}
QUEUE = 3  # slices held for one input

#: What was applied and committed: entity, first offset, end, clock, caught up, fleet.
Applied = tuple[str, int, int, int, bool, Fleet]


class Recorder:
    """A processor that notes what it is told, so that it can be told again."""

    def __init__(self, real: Processor) -> None:
        self.real = real
        self.applied: list[Applied] = []
        self.restore, self.changes = real.restore, real.changes

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        first, end = batch.records[0].offset, batch.records[-1].offset + 1
        self.applied.append((batch.entity, first, end, 0, False, fleet))
        return self.real.apply(batch, fleet)

    def advance(self, clock_ms: int, caught_up: bool, fleet: Fleet) -> list[Output]:
        self.applied.append(("", 0, 0, clock_ms, caught_up, fleet))
        return self.real.advance(clock_ms, caught_up, fleet)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Keeper:
    """One partition in one process, from assignment to release.

    Attributes:
        operation: what it is in the middle of.
        ready, dropped, delta: as in `stream.runtime.Keeper`.
        paused: it has said what it had, and stands still.
        said: what processors were told of which the delta is.
    """

    def __init__(self, worker: Worker, number: int, before: Keeper | None) -> None:
        self.number = number
        self.worker = worker
        self.operation: Operation | None = None
        self.partition: Partition | None = None
        self.ready = self.dropped = self.paused = False
        self.delta: Delta | None = None
        self.said: list[Applied] = []
        self.epoch = worker.epoch
        sim = worker.sim
        self.reader = Reader(sim.log, worker.group, number, sim.rng)
        self.recorder: Recorder | None = None
        self._before = before
        self._mailbox: list[Slice] = []
        self._fetched: dict[str, int] = {}  # by entity
        self._world = replace(worker.world, reader=self.reader, factory=self._factory, topics={})

    def __repr__(self) -> str:
        return f"{self.worker}[{self.number}]"

    @property
    def waits(self) -> bool:
        """The keeper of the same partition before it has not ended yet."""
        return self._before is not None and self._before.operation is not None

    def begin(self) -> Callable[[], object] | None:
        """What to do first; None if it must wait."""
        return None if self.waits else self._restore

    def _restore(self) -> None:
        partition = Partition(self._world, self.number)
        partition.restore(lambda: not self.dropped)
        assert not self.reader.lied, f"{self} went on although: {self.reader.lie}"
        self.partition = partition
        self.ready = True
        self.reader.lie = ""
        self.open()

    def open(self) -> None:
        """Fetch from what is applied on; what was fetched before is void."""
        if self.partition is not None:
            self._fetched = dict(self.partition.positions)
            self._mailbox.clear()
        self.epoch = self.worker.epoch
        self.paused = False

    def fetch(self, entity: str, most: int) -> int:
        """Take records of an input into the mailbox; how many."""
        assert self.partition is not None
        place = self._world.topics[entity], self.number
        start = self._fetched[entity]
        records, end = self.worker.sim.log.fetch(place, start, most)
        if end == start:
            return 0
        self._fetched[entity] = end
        ahead = self.worker.sim.log.partitions[place].stable_end - end
        self._mailbox.append(Slice(*place, records, start, end, self.epoch, ahead))
        return len(records)

    @property
    def inputs(self) -> tuple[str, ...]:
        return INPUTS[self._world.stage]

    @property
    def unread(self) -> bool:
        partitions, topics = self.worker.sim.log.partitions, self._world.topics
        return any(
            partitions[topics[entity], self.number].stable_end > position
            for entity, position in self._fetched.items()
        )

    @property
    def has_mail(self) -> bool:
        return bool(self._mailbox)

    @property
    def has_room(self) -> bool:
        return len(self._mailbox) < QUEUE

    @property
    def is_done(self) -> bool:
        """All that lies in the inputs is applied, committed and, in monitor, reported."""
        partition = self.partition
        if partition is None or partition.dirty or self.delta or self.recorder is None:
            return False
        journal = getattr(getattr(self.recorder.real, "_state", None), "journal", None)
        return not (journal and journal.runs) and all(
            self.worker.sim.log.fetch((self._world.topics[entity], self.number), position, 1)[1]
            == position
            for entity, position in partition.positions.items()
        )

    def apply(self) -> None:
        assert self.partition is not None
        piece = self._mailbox.pop(0)
        if piece.epoch == self.epoch and not self.paused:
            self.partition.apply(piece)

    def take(self) -> None:
        """Say what there is to commit, if all that was said before is committed."""
        assert self.partition is not None
        assert self.recorder is not None
        if self.delta is None and not self.paused:
            self.delta = self.partition.take()
            self.said, self.recorder.applied = self.recorder.applied, []

    def settle(self, delta: Delta) -> None:
        if self.partition is not None:  # it may have been retired meanwhile
            self.partition.settle(delta, 0.0)
        self.delta = None

    @property
    def flushed(self) -> bool:
        return self.paused and self.delta is None and self.operation is None

    def void(self) -> None:
        """A rebalance begins: what still lies in the mailbox is of no use."""
        self.epoch = -1
        self._mailbox.clear()

    def leave(self) -> None:
        """Say what there is, and stand still."""
        failpoint("revoke")
        self.take()
        self.paused = True

    def drop(self) -> None:
        self.dropped = True

    def forget(self) -> None:
        """Its state is of no more use, and goes at once: it holds itself in circles."""
        self.partition = self.recorder = None
        self._world = self.worker.world

    def _factory(self, context: Context) -> Processor:
        self.recorder = Recorder(PROCESSORS[self._world.stage](context))
        return self.recorder


def outcome(error: BaseException | None) -> str:
    """What an operation's end means for its process."""
    match error:
        case None:
            return ""
        case Superseded():
            return "superseded"
        case Expelled():
            return "expelled"
        case Fenced():
            return "fenced"
        case Crash() | Halt():
            return "fail"
    return "fail" if type(error).__name__ == "KafkaException" else "bug"
