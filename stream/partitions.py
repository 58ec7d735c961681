"""One owned partition of a stage: restore, apply, and what it adds to the next transaction.

Synchronous; one thread at a time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from stream import checkpoints, tracing
from stream.checkpoints import Manifest
from stream.clock import steady
from stream.core.processor import Batch, Context, Deferring, Fleet, Output, Parts, Processor
from stream.errors import Halt, RetentionOvertook
from stream.failpoints import failpoint
from stream.settings import Settings
from stream.spans import Flushes
from stream.topics import INPUTS, Stage
from stream.transactions import Delta
from stream.transport import Slice
from stream.turns import turn
from stream.watchdog import Phase

log = structlog.get_logger(__name__)

Place = tuple[str, int]  # topic, partition
Enter = Callable[..., None]  # (phase, what it waits for)
FORGOTTEN = 10  # looks after which nobody asks for a place any more
PROBES_PER_INTERVAL = 2  # look-ups of the inputs' ends, in one summary interval
TOLD: Final = frozenset[Stage]({"monitor"})  # whether they have caught up; the others do not use it


class Superseded(Exception):
    """The partition was given to someone else meanwhile; nothing was lost."""


def _unheard(_: Phase, __: object = None) -> None:
    """Nobody wants to know what a restore is at."""


class Reader(Protocol):
    """What `stream.reading.LogReader` offers, as far as partitions need it."""

    def bounds(self, topic: str, partition: int) -> tuple[int, int]: ...
    def ends(self, places: Iterable[Place]) -> dict[Place, int]: ...
    def committed(self, places: list[tuple[str, int]]) -> dict[tuple[str, int], int]: ...
    def latest(self, topic: str, partition: int, end: int) -> dict[bytes, bytes]: ...
    def newest(self, topic: str, partition: int, key: bytes) -> bytes | None: ...
    def members(self) -> set[str]: ...


class Fencer(Protocol):
    """What `stream.transactions.Fencer` offers."""

    def fence(self, transactional_id: str) -> None: ...
    def bury(self, transactional_id: str) -> None: ...


class Writer(Protocol):
    """What `stream.transactions.Transactor` offers."""

    @property
    def id(self) -> str: ...
    def init(self) -> None: ...
    def commit(
        self, deltas: Sequence[Delta], topics: Mapping[str, str], group_metadata: object
    ) -> None: ...


class Fleets(Protocol):
    """What `stream.lifecycle.Lifecycle` offers."""

    @property
    def fleet(self) -> Fleet: ...
    @property
    def generations(self) -> Mapping[str, int]: ...
    def reached(self, generations: Mapping[str, int]) -> bool: ...


class Probe:
    """The wall clock, and whether all that lay in the inputs when it was read has been applied.

    The ends of the inputs are looked up after the clock is read; when the applied positions have
    passed them, the claim holds for that clock, however much has come since. The ends include open
    transactions: what lies in one was stamped before the clock was read, and may yet be committed.

    One look is for all partitions of the process, whoever asks first. From any thread.
    """

    def __init__(self, reader: Reader, clock: Callable[[], float], seconds: float) -> None:
        self._reader = reader
        self._clock = clock
        self._seconds = seconds  # from one look to the next
        self._due = 0.0
        self._asked: dict[Place, float] = {}  # when, last
        self._ends: dict[Place, int] = {}
        self._clock_ms = 0
        self._lock = threading.Lock()

    def read(self, positions: Mapping[Place, int]) -> tuple[int, bool]:
        """The newest clock that was probed, and whether these positions have reached its ends;
        nothing is claimed of none."""
        with self._lock:
            now = time.monotonic()
            self._asked.update(dict.fromkeys(positions, now))
            if now >= self._due or not positions.keys() <= self._ends.keys():
                self._look(now)
            reached = all(at >= self._ends[place] for place, at in positions.items())
            return self._clock_ms, reached and bool(positions)

    def _look(self, now: float) -> None:
        clock_ms = max(self._clock_ms, int(self._clock() * 1000))
        since = now - FORGOTTEN * self._seconds
        self._asked = {place: at for place, at in self._asked.items() if at >= since}
        ends = self._reader.ends(self._asked) if self._asked else {}
        # Only now: were there no answer, the ends of before would say nothing about this clock.
        self._due, self._clock_ms, self._ends = now + self._seconds, clock_ms, ends


@dataclass(frozen=True)
class World:
    """What all partitions of one stage in one process share."""

    stage: Stage
    settings: Settings
    factory: Callable[[Context], Processor]
    counts: Mapping[str, int]  # partition counts by entity
    reader: Reader
    writer: Writer
    fencer: Fencer
    fleets: Fleets
    clock: Callable[[], float] = field(default_factory=steady)
    ids: Mapping[str, str] = field(default_factory=dict)  # of the input topics, by entity
    topics: dict[str, str] = field(default_factory=dict)  # full name by entity
    probe: Probe = field(init=False)

    def __post_init__(self) -> None:
        names = self.settings.names
        self.topics.update({entity: names.topic(entity) for entity in self.counts})
        seconds = self.settings.summary_interval_ms / 1000 / PROBES_PER_INTERVAL
        object.__setattr__(self, "probe", Probe(self.reader, self.clock, seconds))

    def inputs(self, partition: int) -> dict[str, Place]:
        """Place by input entity."""
        return {entity: (self.topics[entity], partition) for entity in INPUTS[self.stage]}


class Partition:
    """State and effects of one partition.

    Attributes:
        positions: what has been applied, by input entity: the next offsets.
        ahead: records known to lie beyond, by input entity.
        counts: records, commits and such, for metrics.
    """

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.positions: dict[str, int] = {}
        self.ahead: dict[str, int] = {}
        self.counts: Counter[str] = Counter()
        self._entities = {place[0]: entity for entity, place in world.inputs(number).items()}
        self._committed: dict[str, int] = {}
        self._generations: dict[str, int] = {}  # that any owner's state has seen
        self._digests: dict[str, str] = {}
        self._outputs: list[Output] = []
        self._flushes = Flushes(world.stage, number) if tracing.recording() else None
        names = world.settings.names
        self._checkpoint_topic = names.checkpoints(world.stage)
        self.processor: Processor = world.factory(
            Context(number, world.counts, world.settings.core, time.monotonic)
        )
        self._deferring = self.processor if isinstance(self.processor, Deferring) else None

    def restore(self, current: Callable[[], bool], enter: Enter = _unheard) -> None:
        """End what the owner before left open, and take over its state.

        What it sent offsets of before the group gave us the partition may still be committed, and
        nothing else. So the offsets are read when no open transaction holds any, and only then the
        checkpoint, up to the end that it has by then: the two belong together.

        Args:
            current: whether the partition is still assigned to this process.
            enter: told each phase as it begins, and what it waits for.

        Raises:
            Superseded: it is not.
            Halt: the checkpoint and the log do not fit together.
        """
        failpoint("assign")
        _demand(current)
        enter("init")
        failpoint("init")
        self._fence()
        _demand(current)
        enter("checkpoint")
        failpoint("restore")
        reader, places = self.world.reader, self.world.inputs(self.number)
        # The embedded broker does not keep offsets that were sent in transactions.
        embedded = self.world.settings.embedded_broker
        committed = {} if embedded else reader.committed(list(places.values()))
        _, end = reader.bounds(self._checkpoint_topic, self.number)
        latest = reader.latest(self._checkpoint_topic, self.number, end)
        checkpoint = checkpoints.parse(latest, self.world.stage, self.number)
        try:
            self._resume(checkpoint.manifest if checkpoint else None, committed)
        except Halt:
            _demand(current)  # what the next owner commits meanwhile is no fault
            raise
        generations = checkpoint.manifest.generations if checkpoint else {}
        enter("lifecycle", generations)
        self._await_fleet(generations, current)
        enter("state")
        if checkpoint:
            self.processor.restore(checkpoint.parts)
            self._digests = dict(checkpoint.manifest.parts)
            self._generations = dict(generations)
        self._committed = dict(self.positions)
        _demand(current)

    def _fence(self) -> None:
        """Nobody waits for a transaction whose owner is gone. A member of the group ends its own.

        Workers of release 0.1 may still own the partition or, stopped, believe so. They commit
        without a generation, so only their transactional id keeps them out: it is always fenced.
        """
        world = self.world
        if world.settings.embedded_broker:  # fences nobody
            return
        world.fencer.fence(world.settings.names.former_id(world.stage, self.number))
        key = checkpoints.MANIFEST_KEY.encode()
        manifest = world.reader.newest(self._checkpoint_topic, self.number, key)
        writer = checkpoints.writer(manifest)
        if writer not in ("", world.writer.id) and writer not in world.reader.members():
            world.fencer.bury(writer)

    def _resume(self, manifest: Manifest | None, committed: Mapping[tuple[str, int], int]) -> None:
        reader = self.world.reader
        places = self.world.inputs(self.number)
        if manifest:
            checkpoints.check_counts(manifest, self.world.counts)
            checkpoints.check_topics(manifest, self.world.ids)
        for entity, place in places.items():
            resume = manifest.next.get(entity) if manifest else None
            bounds = reader.bounds(*place)
            try:
                self.positions[entity] = checkpoints.check_offsets(
                    f"{place[0]}[{place[1]}]", resume, committed.get(place), bounds
                )
            except RetentionOvertook as lost:
                self._skip(entity, bounds[0] - (resume or 0), lost)
                self.positions[entity] = bounds[0]

    def _skip(self, entity: str, count: int, lost: RetentionOvertook) -> None:
        """Go on without what retention took, if we were told to: never in silence."""
        if self.world.settings.lost_records != "skip":
            raise lost
        self.counts[f"lost:{entity}"] += count
        log.error("lost to retention", partition=self.number, entity=entity, offsets=count)

    def _await_fleet(self, generations: Mapping[str, int], current: Callable[[], bool]) -> None:
        """State that has seen a generation must not meet an older one, and no state an empty fleet:
        what this process has not read of lifecycle yet is not unknown."""
        while not self.world.fleets.reached(generations):
            _demand(current)
            time.sleep(0.02)

    def apply(self, piece: Slice) -> None:
        """Take a slice in.

        Raises:
            Halt: it does not begin where the last one ended.
        """
        entity = self._entities[piece.topic]
        if piece.start != self.positions[entity]:
            raise Halt(
                f"{piece.topic}[{self.number}]: fetched from {piece.start} on, "
                f"but applied up to {self.positions[entity]}"
            )
        if piece.records:
            failpoint("apply")
            if self._flushes is not None:
                self._flushes.applies(piece.records)
            batch = Batch(entity, self.number, piece.records, piece.ahead)
            with turn(yields=self.backlog > 0):
                self._outputs += self.processor.apply(batch, self.world.fleets.fleet)
            self.counts["records"] += len(piece.records)
        self.positions[entity] = piece.end
        self.ahead[entity] = piece.ahead

    @property
    def topics(self) -> Iterable[str]:
        """The inputs, as stages name them."""
        return self._entities

    @property
    def backlog(self) -> int:
        """Records that were applied and wait in the processor's state for their turn."""
        return 0 if self._deferring is None else self._deferring.backlog

    def proceed(self) -> None:
        """Work off a piece of the backlog."""
        if self._deferring is not None:
            failpoint("apply")
            with turn(yields=True):
                self._outputs += self._deferring.proceed(self.world.fleets.fleet)

    @property
    def dirty(self) -> bool:
        """Records were applied since the last `take`."""
        return bool(self._outputs) or self.counts["records"] != self.counts["records_taken"]

    def take(self) -> Delta | None:
        """All that was applied, and what the passing of time brings, to be committed; None if there
        is nothing. Goes on from there: if it can't be committed, this object is of no more use."""
        clock_ms, caught_up = self.world.probe.read(self._probed)
        embedded = self.world.settings.embedded_broker
        with turn():
            self._outputs += self.processor.advance(clock_ms, caught_up, self.world.fleets.fleet)
            # The embedded broker forgets old records, so there every checkpoint is whole.
            parts = self.processor.changes(complete=embedded)
            changed = self._note(parts)
        if not (self.dirty or changed):
            return None
        return self._delta(parts)

    @property
    def _probed(self) -> dict[Place, int]:
        """Where the inputs are whose ends matter."""
        world = self.world
        if world.stage not in TOLD:
            return {}
        return {
            place: self.positions[entity] for entity, place in world.inputs(self.number).items()
        }

    def _span(self) -> AbstractContextManager[object]:
        """The span of this flush, if spans are recorded and there is more in it than time."""
        if self._flushes is None or not self.dirty:
            return nullcontext()
        return self._flushes.taken(len(self._outputs))

    def _note(self, parts: Parts) -> bool:
        """Take in the digests of the parts; whether any is new."""
        before = dict(self._digests)
        for name, part in parts.items():
            if part is None:
                self._digests.pop(name, None)
            else:
                self._digests[name] = checkpoints.digest(part)
        return before != self._digests

    def _delta(self, parts: Parts) -> Delta:
        world, span = self.world, self._span()
        outputs, self._outputs = self._outputs, []
        self.counts["records_taken"] = self.counts["records"]
        self._generations |= self.processor.generations
        manifest = Manifest(
            stage=world.stage,
            partition=self.number,
            next=self.positions,
            partitions={entity: world.counts[entity] for entity in checkpoints.PINNED[world.stage]},
            topics=dict(world.ids),
            generations=self._generations,
            parts=self._digests,
            writer=world.writer.id,
        )
        return Delta(
            outputs,
            (self._checkpoint_topic, self.number, checkpoints.records(manifest, parts)),
            {place: self.positions[entity] for entity, place in world.inputs(self.number).items()},
            span,
        )

    def settle(self, delta: Delta, seconds: float) -> None:
        """It was committed, in a transaction that took so long."""
        self.counts["outputs"] += len(delta.outputs)
        self.counts["commits"] += 1
        self.counts["commit_us"] += int(seconds * 1e6)
        self._committed = {
            entity: delta.offsets[place] for entity, place in self.world.inputs(self.number).items()
        }

    @property
    def uncommitted(self) -> str:
        """The offset ranges applied since the last commit, for a log line."""
        return ", ".join(
            f"{self.world.topics[entity]}[{self.number}] {start}..{self.positions[entity]}"
            for entity, start in self._committed.items()
        )


def _demand(current: Callable[[], bool]) -> None:
    if not current():
        raise Superseded
