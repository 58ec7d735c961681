"""Whether a stage stands still though there is work: pure judgement on samples of its keepers.

A keeper is stuck in a phase that takes too long, or starved when its inputs hold more than it has
applied and it gets none of it. What is nobody's fault here is left alone: a broker that is away, an
input held up by another's open transaction (the last stable offset does not move, so there is no
lag), a model that computes for long, and waiting for what only a person can bring.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Phase = Literal[
    "predecessor",  # the same partition's last keeper has not ended yet
    "init",  # fencing the owner before
    "checkpoint",  # reading its state
    "lifecycle",  # what is live is not known yet, or older than the state
    "state",  # taking the state over
    "wait",  # for records
    "apply",
    "flush",
    "revoke",  # flushing for a rebalance
    "paused",  # until the group has decided
]
#: What each phase is called in sentences.
WORDS: Final[dict[Phase, str]] = {
    "predecessor": "waiting for its predecessor to end",
    "init": "fencing the owner before",
    "checkpoint": "reading its checkpoint",
    "lifecycle": "waiting for lifecycle",
    "state": "restoring its state",
    "wait": "waiting for records",
    "apply": "applying records",
    "flush": "committing",
    "revoke": "committing for a rebalance",
    "paused": "waiting for the group",
}
RESTORING: Final[frozenset[Phase]] = frozenset(
    {"predecessor", "init", "checkpoint", "lifecycle", "state"}
)
BY_BROKER: Final[frozenset[Phase]] = frozenset(
    {"predecessor", "init", "checkpoint", "flush", "revoke"}
)
PATIENT: Final[frozenset[Phase]] = frozenset({"lifecycle", "wait", "paused"})

LOOKS: Final = 10  # in the time after which a stall is told
MARGIN: Final = 0.8  # of that time: what is left is for the look that notices
LOOP_MARGIN: Final = 0.6  # a loop that stands starves the keepers: it is told as the cause
COMPUTING: Final = 0.005  # of one core: less is no work, a thread that only wakes up
COMPUTING_PATIENCE: Final = 10  # times longer may a keeper take that computes


class Seen(NamedTuple):
    """One keeper at one moment.

    Attributes:
        since: when its phase began, on the clock of the looks.
        cpu_seconds: what its thread has used so far; None where that is not known.
        positions: next offsets, by input.
        stable: ends that a reader may reach, by input; None where the broker did not say.
    """

    partition: int
    phase: Phase
    since: float
    cpu_seconds: float | None
    positions: Mapping[str, int]
    stable: Mapping[str, int] | None

    @property
    def lag(self) -> int:
        """Offsets it could have applied by now, markers of transactions included."""
        if self.stable is None:
            return 0
        ends = self.stable.items()
        return sum(max(0, end - self.positions.get(entity, end)) for entity, end in ends)


class Stall(NamedTuple):
    """What stands still, since when, and how much waits for it."""

    partition: int | None
    phase: str
    seconds: float
    lag: int

    def __str__(self) -> str:
        where = "the process" if self.partition is None else f"partition {self.partition}"
        behind = f", {self.lag} offsets behind" if self.lag else ""
        return f"{where} has stood still for {self.seconds:.0f} s {self.phase}{behind}"


@dataclass
class _Track:
    """What the looks at one keeper remember.

    Attributes:
        moved: when it last got on, or had nothing to do.
        worked: when its thread was last seen to compute.
    """

    looked: float
    cpu_seconds: float | None
    positions: Mapping[str, int]
    moved: float
    worked: float

    def look(self, now: float, one: Seen) -> None:
        before, idle_seconds = self.cpu_seconds, COMPUTING * (now - self.looked)
        if before is not None and (one.cpu_seconds or 0.0) - before > idle_seconds:
            self.worked = now
        self.looked, self.cpu_seconds = now, one.cpu_seconds
        if one.lag == 0 or self.positions != one.positions:
            self.positions, self.moved = dict(one.positions), now


class Watchdog:
    """Judges looks, made at least `LOOKS` times in `stall_seconds`.

    Args:
        stall_seconds: by when a stall is told.
        rebalance_seconds: how long the group may take to decide who owns what.
    """

    def __init__(self, stall_seconds: float, rebalance_seconds: float) -> None:
        self._limit = stall_seconds * MARGIN
        self._loop_limit = stall_seconds * LOOP_MARGIN
        self._rebalance_seconds = rebalance_seconds
        self._asleep = stall_seconds / 2
        self._tracks: dict[int, _Track] = {}
        self._last: float | None = None
        self._awake_from = 0.0
        self._broker_from = 0.0

    def look(
        self,
        now: float,
        keepers: Iterable[Seen],
        *,
        broker: bool,
        loop_beat: float | None = None,
        joining_since: float | None = None,
    ) -> Stall | None:
        """The first that stands still, if any.

        Args:
            now: a monotonic clock, in seconds.
            keepers: all of them.
            broker: it answered this look.
            loop_beat: when the event loop last turned; None: it need not.
            joining_since: when we asked to join the group; None: we have.
        """
        if self._last is None or now - self._last > self._asleep:
            self._awake_from = now  # the process was stopped: nobody can have moved meanwhile
        self._last = now
        if not broker:
            self._broker_from = now
        seen = list(keepers)
        self._tracks = {one.partition: self._tracked(now, one) for one in seen}
        reading = any(one.phase == "checkpoint" and self._works(now, one) for one in seen)
        judged = (self._judged(now, one, reading) for one in seen)
        stalls = [*self._process(now, loop_beat, joining_since), *judged]
        return next((stall for stall in stalls if stall is not None), None)

    def _process(
        self, now: float, loop_beat: float | None, joining_since: float | None
    ) -> Iterator[Stall]:
        if loop_beat is not None:
            seconds = now - max(loop_beat, self._awake_from)
            if seconds >= self._loop_limit:
                yield Stall(None, "without a turn of its loop", seconds, 0)
        if joining_since is not None:
            seconds = now - max(joining_since, self._awake_from, self._broker_from)
            if seconds >= self._limit + self._rebalance_seconds:
                yield Stall(None, "joining the group", seconds, 0)

    def _tracked(self, now: float, one: Seen) -> _Track:
        track = self._tracks.get(one.partition)
        if track is None:
            return _Track(now, one.cpu_seconds, dict(one.positions), now, 0.0)
        track.look(now, one)
        return track

    def _judged(self, now: float, one: Seen, reading: bool) -> Stall | None:
        limit = self._limit
        if one.phase == "lifecycle" or (one.phase == "checkpoint" and reading):
            return None  # checkpoints are read in turn
        if one.phase == "paused":
            limit += self._rebalance_seconds
        seconds = self._still(now, one)
        too_long = one.phase not in PATIENT and seconds >= limit * COMPUTING_PATIENCE
        if seconds < limit or (self._works(now, one) and not too_long):
            return None
        return Stall(one.partition, WORDS[one.phase], seconds, one.lag)

    def _still(self, now: float, one: Seen) -> float:
        """How long this keeper has got nowhere for a reason that lies here."""
        since = self._tracks[one.partition].moved if one.phase in PATIENT else one.since
        since = max(since, self._awake_from)
        if one.phase in BY_BROKER or one.phase in PATIENT:
            since = max(since, self._broker_from)
        return now - since

    def _works(self, now: float, one: Seen) -> bool:
        """Its thread computes, as far as its limit goes back; a waiting one's does not count."""
        worked = self._tracks[one.partition].worked
        return one.phase not in PATIENT and now - worked < self._limit and worked > one.since
