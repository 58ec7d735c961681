"""Who holds which partition, in which thread, and what happens when that changes.

Every owned partition has a keeper: a thread with a mailbox, which restores the partition, applies
slices and flushes. Rebalances come from Faust's event loop. Anything that a keeper can't handle
ends the process: continuing past an exception would lose what the exception interrupted.
"""

from __future__ import annotations

import asyncio
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future

import structlog

from stream.errors import Fenced, PartitionCountChanged
from stream.failpoints import failpoint
from stream.partitions import Partition, Superseded, World
from stream.topics import INPUTS
from stream.transport import Intake, Slice
from stream.watchdog import Phase

log = structlog.get_logger(__name__)

JITTER = 0.1  # of the commit interval, so that partitions do not commit in step


class Keeper(threading.Thread):
    """One partition, from assignment to release.

    Attributes:
        ready: restored; its slices are welcome.
        kept: it went through a rebalance with its state; only then a fence can be no fault.
        at: its phase (see `stream.watchdog`), since when, and what it waits for.
        restore_seconds: how long its restore took.
    """

    def __init__(self, number: int, runtime: Runtime, before: Keeper | None) -> None:
        super().__init__(name=f"partition-{number}", daemon=True)
        self.number = number
        self.partition: Partition | None = None
        self.epoch = runtime.intake.epoch
        self.ready = False
        self.kept = False
        self.at: tuple[Phase, float, object] = ("predecessor", time.monotonic(), None)
        self.restore_seconds = 0.0
        self._runtime = runtime
        self._before = before
        self._dropped = threading.Event()
        # Slices, or futures: pause, flush, and say so.
        self._mailbox: queue.SimpleQueue[Slice | Future[None] | None] = queue.SimpleQueue()
        self._paused = False
        self._pausing: Future[None] | None = None

    def run(self) -> None:
        try:
            if self._before is not None:
                self._before.join()  # two of one transactional id would fence each other
                self._before = None
            self._serve(self._restore())
        except Superseded:
            pass
        except Fenced as error:
            self._runtime.fenced(self, error)
        except BaseException as error:
            self._runtime.fail(error, self)
        finally:
            if self._pausing is not None and not self._pausing.done():
                self._pausing.set_result(None)
            if self.partition is not None:
                self.partition.abandon()

    def _restore(self) -> Partition:
        started = time.monotonic()
        partition = Partition(self._runtime.world, self.number)
        partition.restore(lambda: not self._dropped.is_set(), self._enter)
        self.partition = partition
        self.ready = True
        self._runtime.restored(self)
        seconds = self.restore_seconds = round(time.monotonic() - started, 3)
        log.info("restored", partition=self.number, at=partition.positions, seconds=seconds)
        return partition

    @property
    def phase_seconds(self) -> float:
        return time.monotonic() - self.at[1]

    @property
    def worked_by(self) -> Keeper:
        """Whose thread this partition waits for: our own, or a predecessor's."""
        before = self._before
        return self if before is None else before.worked_by

    def _enter(self, phase: Phase, detail: object = None) -> None:
        self.at = (phase, time.monotonic(), detail)

    def _serve(self, partition: Partition) -> None:
        due = time.monotonic()
        while not self._dropped.is_set():
            message = self._next(partition, due)
            if isinstance(message, Slice):
                self._apply(partition, message)
            elif message is not None:
                self._pause(partition, message)
            elif partition.backlog and not self._paused:
                self._enter("apply")
                partition.proceed()
            if not self._paused and self._is_due(partition, due):
                self._enter("flush")
                partition.flush()
                due = time.monotonic() + self._runtime.interval_seconds

    def _next(self, partition: Partition, due: float) -> Slice | Future[None] | None:
        wait = self._runtime.idle_seconds
        if partition.dirty:
            wait = max(0.0, due - time.monotonic())
        if partition.backlog:
            wait = 0.0
        self._enter("paused" if self._paused else "wait")
        try:
            return self._mailbox.get(timeout=None if self._paused else wait)
        except queue.Empty:
            return None

    def _is_due(self, partition: Partition, due: float) -> bool:
        """Dirty: when the commit interval is over. Idle: every summary interval."""
        now = time.monotonic()
        return now >= (due if partition.dirty else due + self._runtime.idle_seconds)

    def _apply(self, partition: Partition, piece: Slice) -> None:
        if piece.epoch == self.epoch and not self._paused:
            self._enter("apply")
            partition.apply(piece)
            self._runtime.intake.release(piece)

    def _pause(self, partition: Partition, done: Future[None]) -> None:
        """Flush and stand still until `resume` or `drop`."""
        self._enter("revoke")
        failpoint("revoke")
        self._paused = True
        self._pausing = done
        partition.flush()
        done.set_result(None)

    # From Faust's event loop:

    def offer(self, piece: Slice) -> None:
        self._mailbox.put(piece)

    def pause(self) -> Future[None]:
        self.epoch = -1  # what still lies in the mailbox is void
        done: Future[None] = Future()
        self._mailbox.put(done)
        return done

    def resume(self, epoch: int) -> None:
        self.kept = True
        self.epoch = epoch
        self._paused = False
        self._mailbox.put(None)

    def drop(self) -> None:
        self._dropped.set()
        self._mailbox.put(None)


class Runtime:
    """The keepers of one process.

    Attributes:
        counts: assignments, fences and drops, for metrics.
    """

    def __init__(
        self, world: World, intake: Intake, on_failure: Callable[[BaseException], None]
    ) -> None:
        self.world = world
        self.intake = intake
        self.counts: Counter[str] = Counter()
        self.closing = False  # whatever is assigned from now on is not taken
        self.keepers: dict[int, Keeper] = {}
        self._retiring: dict[int, Keeper] = {}
        self._on_failure = on_failure
        self._lock = threading.Lock()

    @property
    def idle_seconds(self) -> float:
        return self.world.settings.summary_interval_ms / 1000

    @property
    def interval_seconds(self) -> float:
        settings, stage = self.world.settings, self.world.stage
        interval = settings.commit_interval_seconds(stage, len(self.keepers))
        return interval * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311

    def assign(self, numbers: set[int]) -> None:
        """These partitions are ours now, all others are not. Returns at once; keepers restore."""
        if self.closing:
            return
        known = min(self.world.counts[entity] for entity in INPUTS[self.world.stage])
        if max(numbers, default=0) >= known:
            self.fail(PartitionCountChanged(f"partition {max(numbers)} is new: restart to check"))
            return
        with self._lock:
            self.counts["assignments"] += 1
            for number in set(self.keepers) - numbers:
                self._retire(number)
            for number in sorted(numbers):
                keeper = self.keepers.get(number)
                if keeper is None:
                    self._hire(number)
                else:
                    keeper.resume(self.intake.epoch)
                    self._open(keeper)
        log.info("assigned", partitions=sorted(numbers))

    def _hire(self, number: int) -> None:
        keeper = Keeper(number, self, self._retiring.pop(number, None))
        self.keepers[number] = keeper
        keeper.start()

    def _retire(self, number: int) -> None:
        keeper = self.keepers.pop(number)
        keeper.drop()
        self._retiring[number] = keeper

    def _open(self, keeper: Keeper) -> None:
        if keeper.partition is None:
            return
        inputs = self.world.inputs(keeper.number)
        positions = keeper.partition.positions
        self.intake.open(
            {place: positions[entity] for entity, place in inputs.items()}, keeper.epoch
        )

    async def revoke(self, timeout_seconds: float) -> bool:
        """Flush all partitions and let those go that can't in time; True if all could.

        What is kept stands still with its state: it goes on if the next assignment has it.
        """
        started = time.monotonic()
        with self._lock:
            waiting = {n: k.pause() for n, k in self.keepers.items() if k.ready}
            for number in [n for n, k in self.keepers.items() if not k.ready]:
                self._retire(number)
        flushed = [asyncio.wrap_future(done) for done in waiting.values()]
        if flushed:
            await asyncio.wait(flushed, timeout=timeout_seconds)
        with self._lock:
            late = [n for n, done in waiting.items() if not done.done() and n in self.keepers]
            for number in late:
                self._retire(number)
                self.counts["late_revocations"] += 1
        seconds = round(time.monotonic() - started, 3)
        log.info("revoked", flushed=len(waiting) - len(late), late=late, seconds=seconds)
        return not late

    def drop_all(self) -> Iterable[Keeper]:
        """Let everything go; the keepers end by themselves."""
        with self._lock:
            for number in list(self.keepers):
                self._retire(number)
            return list(self._retiring.values())

    def offer(self, piece: Slice) -> None:
        """Hand a slice to its keeper; void ones are dropped, they will be fetched again."""
        keeper = self.keepers.get(piece.partition)
        if keeper is not None and keeper.epoch == piece.epoch:
            keeper.offer(piece)

    # From keepers:

    def restored(self, keeper: Keeper) -> None:
        with self._lock:
            if self.keepers.get(keeper.number) is keeper:
                self._open(keeper)

    def fenced(self, keeper: Keeper, error: Fenced) -> None:
        """Not owned any more: as it should be. Kept through a rebalance: someone had it meanwhile,
        so restore. Else two processes believe to own it: end this one."""
        with self._lock:
            self.counts["fences"] += 1
            owned = self.keepers.get(keeper.number) is keeper
            ours = owned and keeper.epoch == self.intake.epoch
            if owned:
                self._retire(keeper.number)
            if ours and keeper.kept:
                self.intake.close(self.world.inputs(keeper.number).values())
                self._hire(keeper.number)
        log.warning("fenced", partition=keeper.number, owned=ours, kept=keeper.kept)
        if ours and not keeper.kept:
            self.fail(error, keeper)

    def fail(self, error: BaseException, keeper: Keeper | None = None) -> None:
        where = {}
        if keeper is not None:
            applied = keeper.partition.uncommitted if keeper.partition else "restoring"
            where = {"partition": keeper.number, "uncommitted": applied}
        log.error("failed", error=str(error), kind=type(error).__name__, exc_info=error, **where)
        self._on_failure(error)
