"""Who holds which partition, in which thread, and what happens when that changes.

Every owned partition has a keeper: a thread with a mailbox, which restores the partition, applies
slices and says what there is to commit; `stream.committing` does that. Rebalances come from Faust's
event loop. Anything that a keeper can't handle ends the process: continuing past an exception would
lose what the exception interrupted.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress

import structlog

from stream.committing import Committer, Share
from stream.errors import Expelled, Fenced, PartitionCountChanged
from stream.failpoints import failpoint
from stream.partitions import Partition, Superseded, World
from stream.topics import INPUTS
from stream.transactions import Delta, Membership
from stream.transport import Intake, Slice, joined
from stream.watchdog import Phase

log = structlog.get_logger(__name__)

At = tuple[Phase, float, object]
JITTER = 0.1  # of the commit interval, so that workers do not commit in step
GATHER_SECONDS = 0.005  # what takes longer to apply does not wait for the next commit
REST_SECONDS = 1.0  # a mailbox rests about so long at most, whoever asks or does not


class Keeper(threading.Thread):
    """One partition, from assignment to release.

    Attributes:
        ready: restored; its slices are welcome.
        asked: it is to say what it has for the next transaction.
        delta: what it said, until that is committed.
        silent_until: when it is asked next though no records came, for what time brings.
        restore_seconds: how long its restore took.
    """

    def __init__(self, number: int, runtime: Runtime, before: Keeper | None) -> None:
        super().__init__(name=f"partition-{number}", daemon=True)
        self.number = number
        self.partition: Partition | None = None
        self.epoch = runtime.intake.epoch
        self.ready = False
        self.asked = False
        self.delta: Delta | None = None
        self.silent_until = time.monotonic() + runtime.idle_seconds
        self.restore_seconds = 0.0
        self._at: At = ("predecessor", time.monotonic(), None)
        self._runtime = runtime
        self._before = before
        self._dropped = threading.Event()
        self._bell = threading.Event()
        self._mail: deque[Slice] = deque()
        self._resting_since = 0.0  # what lies in the mailbox
        self._record_seconds = GATHER_SECONDS  # CPU of one, as of the last that were applied
        self._leaving: Future[bool] | None = None  # answered when all is committed, or can't be
        self._last = False  # it has said what it had, and stands still
        self._beside: float | None = None  # a transaction, and slices applied meanwhile
        self._ahead = 0

    def run(self) -> None:
        try:
            if self._before is not None:
                self._before.join()  # at most one thread works on a partition
                self._before = None
            self._serve(self._restore())
        except Superseded:
            pass
        except BaseException as error:
            self._runtime.fail(error, [self])
        finally:
            self._let_go(committed=False)

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
    def at(self) -> At:
        """Its phase (see `stream.watchdog`), since when, and what it waits for."""
        phase, _, _ = at = self._at
        since = self._runtime.committer.since
        if since is None or phase not in ("wait", "paused") or not self._has_work:
            return at
        return ("flush" if phase == "wait" else "revoke", since, None)

    @property
    def _has_work(self) -> bool:
        """Something of it is in a transaction, or waits for the next one. What it has applied is
        work, too: else a transaction that hangs is nobody's once its keepers have been retired."""
        is_dirty = self.partition is not None and self.partition.dirty
        return bool(self.delta or self._mail or is_dirty)

    @property
    def phase_seconds(self) -> float:
        return time.monotonic() - self.at[1]

    @property
    def worked_by(self) -> Keeper:
        """Whose thread this partition waits for: our own, or a predecessor's."""
        before = self._before
        return self if before is None else before.worked_by

    def _enter(self, phase: Phase, detail: object = None) -> None:
        self._at = (phase, time.monotonic(), detail)

    def _serve(self, partition: Partition) -> None:
        while not self._dropped.is_set():
            self._bell.clear()
            if self.owes and self.delta is None:
                self._answer(partition)
            elif self._has_enough and self._may_apply:
                self._apply(partition)
            elif partition.backlog and self._may_apply:
                self._proceed(partition)
            else:
                self._enter("paused" if self._last else "wait")
                self._bell.wait(REST_SECONDS if self._mail and not self._last else None)

    @property
    def _may_apply(self) -> bool:
        """Not too much was applied beside the transaction that is under way."""
        since = self._runtime.committer.since
        if since != self._beside:
            self._beside, self._ahead = since, 0
        far = since is not None and self._ahead >= self._runtime.world.settings.queue_batches
        return not far and not self.leaving

    @property
    def _has_enough(self) -> bool:
        """What lies in the mailbox need not gather until a commit asks for it: it would take long,
        there is no room for more, or it has rested. A few records at a time cost several times as
        much."""
        mail = list(self._mail)
        if not mail:
            return False
        most = max(Counter(piece.topic for piece in mail).values())
        records = sum(len(piece.records) for piece in mail)
        full = most >= self._runtime.world.settings.queue_batches
        rested = time.monotonic() - self._resting_since >= REST_SECONDS
        return full or rested or records * self._record_seconds >= GATHER_SECONDS

    def _handful(self) -> list[Slice]:
        """From the mailbox: at least a slice, and with it what else takes hardly any time."""
        taken: list[Slice] = []
        seconds = 0.0
        while self._mail and (not taken or seconds < GATHER_SECONDS):
            taken.append(self._mail.popleft())
            seconds += len(taken[-1].records) * self._record_seconds
        return [piece for piece in taken if piece.epoch == self.epoch]

    def _apply(self, partition: Partition) -> None:
        slices = self._handful()
        if not slices:
            return
        self._enter("apply")
        since, records = time.thread_time(), 0
        # Predictions come before their labels: to meet one that waits is the label's short way.
        for piece in joined(slices, partition.topics):
            partition.apply(piece)
            records += len(piece.records)
        if records:
            self._record_seconds = (time.thread_time() - since) / records
        for piece in slices:
            self._runtime.intake.release(piece)
        self._applied(len(slices))

    def _proceed(self, partition: Partition) -> None:
        self._enter("apply")
        partition.proceed()
        self._applied(1)

    def _applied(self, slices: int) -> None:
        self._ahead += slices
        self._runtime.committer.stir()

    def _answer(self, partition: Partition) -> None:
        leaving = self.leaving
        if self._may_apply:
            self._apply(partition)
        self._enter("revoke" if leaving else "flush")
        if leaving:
            failpoint("revoke")
        delta = partition.take()
        self.silent_until = time.monotonic() + self._runtime.idle_seconds
        with self._runtime.committer.bell:  # which sees all of it or nothing
            self._last, self.asked, self.delta = leaving, False, delta
        if leaving and delta is None:
            self._let_go(committed=True)
        self._runtime.committer.stir()

    def _let_go(self, *, committed: bool) -> None:
        if self._leaving is not None:
            with suppress(InvalidStateError):  # once is enough
                self._leaving.set_result(committed)

    # From the committer:

    @property
    def able(self) -> bool:
        """It may be asked: it is at work, and all that it said is committed."""
        return self.ready and not (self.asked or self.leaving or self.delta)

    def ask(self) -> bool:
        """For what there is to commit, if there may be anything; whether it was asked."""
        partition = self.partition
        if not self.able or partition is None:
            return False
        if not (partition.dirty or self.has_records) and time.monotonic() < self.silent_until:
            return False
        self.asked = True
        self.ring()
        return True

    @property
    def has_records(self) -> bool:
        """Something in the mailbox waits for a commit."""
        return any(piece.records for piece in list(self._mail))

    @property
    def leaving(self) -> bool:
        """It is to let go, or stands still since."""
        return self._leaving is not None

    @property
    def owes(self) -> bool:
        return self.asked or (self.leaving and not self._last)

    def settle(self, delta: Delta, seconds: float) -> None:
        """It was committed, in a transaction that took so long."""
        if self.partition is not None:
            self.partition.settle(delta, seconds)
        self.delta = None
        if self._last:
            self._let_go(committed=True)

    def ring(self) -> None:
        """Look again what there is to do."""
        self._bell.set()

    # From Faust's event loop:

    def offer(self, piece: Slice) -> None:
        if not self._mail:
            self._resting_since = time.monotonic()
        self._mail.append(piece)
        if self._has_enough:
            self.ring()

    def leave(self) -> Future[bool]:
        """Say what there is to commit, and stand still until `resume` or `drop`.

        Returns whether it was committed, as soon as that is known.
        """
        self.epoch = -1  # what still lies in the mailbox is void
        leaving: Future[bool] = Future()
        self._leaving = leaving
        self.ring()
        return leaving

    @property
    def flushed(self) -> bool:
        """It stands still, and all that it holds is committed."""
        leaving = self._leaving
        return leaving is not None and leaving.done() and leaving.result()

    def resume(self, epoch: int) -> None:
        self._mail.clear()
        self.epoch = epoch
        self._leaving, self._last = None, False
        self.ring()

    def drop(self) -> None:
        self._dropped.set()
        self.ring()


class Runtime:
    """The keepers of one process, and their committer.

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
        self.committer = Committer(self)
        self._membership = intake.membership
        self._retiring: dict[int, Keeper] = {}
        self._on_failure = on_failure
        self._lock = threading.Lock()

    def start(self) -> None:
        self.committer.start()

    @property
    def idle_seconds(self) -> float:
        return self.world.settings.summary_interval_ms / 1000

    @property
    def interval_seconds(self) -> float:
        settings, stage = self.world.settings, self.world.stage
        interval = settings.commit_interval_seconds(stage, len(self.keepers))
        return interval * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311

    def assign(self, numbers: set[int]) -> None:
        """These partitions are ours now, all others are not. Returns at once; keepers restore.

        A keeper goes on with its state only if nobody can have owned its partition meanwhile.
        Offsets would not tell: the passing of time brings outputs, too.
        """
        if self.closing:
            return
        known = min(self.world.counts[entity] for entity in INPUTS[self.world.stage])
        if max(numbers, default=0) >= known:
            self.fail(PartitionCountChanged(f"partition {max(numbers)} is new: restart to check"))
            return
        with self._lock:
            self.counts["assignments"] += 1
            before, self._membership = self._membership, self.intake.membership
            unbroken = self._membership.follows(before)
            for number, keeper in list(self.keepers.items()):
                if number not in numbers or not (unbroken and keeper.flushed):
                    self._retire(number)
            for number in sorted(numbers):
                held = self.keepers.get(number)
                if held is None:
                    self._hire(number)
                else:
                    held.resume(self.intake.epoch)
                    self._open(held)
            settings, stage = self.world.settings, self.world.stage
            self.intake.commits_every(settings.commit_interval_seconds(stage, len(numbers)))
        self.committer.stir()
        log.info("assigned", partitions=sorted(numbers), generation=self._membership.generation)

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
        """Commit what all partitions hold and let those go that can't in time; True if all could.

        What is kept stands still with its state: it goes on if the next assignment has it.
        """
        started = time.monotonic()
        with self._lock:
            waiting = {n: k.leave() for n, k in self.keepers.items() if k.ready}
            for number in [n for n, k in self.keepers.items() if not k.ready]:
                self._retire(number)
        if waiting:
            self.committer.hurry(timeout_seconds / 2)  # the transaction has the other half
            asked = [asyncio.wrap_future(done) for done in waiting.values()]
            await asyncio.wait(asked, timeout=timeout_seconds)
        flushed = [n for n, done in waiting.items() if done.done() and done.result()]
        with self._lock:
            late = [n for n in waiting if n not in flushed and n in self.keepers]
            for number in late:
                self._retire(number)
                self.counts["late_revocations"] += 1
        seconds = round(time.monotonic() - started, 3)
        log.info("revoked", flushed=len(flushed), late=late, seconds=seconds)
        return len(flushed) == len(waiting)

    def drop_all(self) -> Iterable[Keeper]:
        """Let everything go; the keepers end by themselves."""
        with self._lock:
            for number in list(self.keepers):
                self._retire(number)
            return list(self._retiring.values())

    def offer(self, slices: Iterable[Slice]) -> None:
        """Hand slices to their keepers; void ones are dropped, they will be fetched again."""
        for piece in slices:
            keeper = self.keepers.get(piece.partition)
            if keeper is not None and keeper.epoch == piece.epoch:
                keeper.offer(piece)
        self.committer.stir()

    # From keepers:

    def restored(self, keeper: Keeper) -> None:
        with self._lock:
            if self.keepers.get(keeper.number) is keeper:
                self._open(keeper)
        self.committer.stir()

    def fail(self, error: BaseException, keepers: Iterable[Keeper] = ()) -> None:
        """This process must end, and its state with it."""
        held = {k.number: k.partition.uncommitted if k.partition else "restoring" for k in keepers}
        where = {"partitions": list(held), "uncommitted": "; ".join(held.values())} if held else {}
        if isinstance(error, Fenced):
            self.counts["fences"] += len(held)
            log.warning("fenced", partitions=list(held), error=str(error))
        log.error("failed", error=str(error), kind=type(error).__name__, exc_info=error, **where)
        self._on_failure(error)

    # From the committer:

    def held(self) -> list[Keeper]:
        return list(self.keepers.copy().values())

    def shares(self) -> tuple[Membership, list[Share]]:
        """What there is to commit, and as which member: what keepers hold came about under it."""
        with self._lock:
            said = [(keeper, keeper.delta) for keeper in self.keepers.values()]
            return self._membership, [Share(k, delta) for k, delta in said if delta is not None]

    def expelled(self, membership: Membership, error: Expelled) -> None:
        """The group has decided anew without us, so what we hold is of no more use. If we have not
        heard of it yet, we will, and are given partitions anew."""
        with self._lock:
            owned = sorted(self.keepers) if membership == self._membership else []
            self.counts["fences"] += len(owned)
            for number in owned:
                self._retire(number)
                self.intake.close(self.world.inputs(number).values())
        log.warning("fenced", partitions=owned, error=str(error))
