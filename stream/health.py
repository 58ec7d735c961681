"""How a stage is: looked at from a thread of its own, which ends the process when it stands still.

The thread shares nothing with what it watches: a client of its own asks the broker, and it ends the
process by itself, for the event loop may be what is stuck. Should even the interpreter be stuck,
`faulthandler`'s timer ends the process.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from stream.ends import BrokerAway, End, Ends, Place
from stream.errors import PartitionCountChanged, TopicRecreated
from stream.inputs import Input, Measures
from stream.settings import Settings
from stream.topics import Stage
from stream.watchdog import LOOKS, RESTORING, WORDS, Seen, Watchdog

if TYPE_CHECKING:
    from stream.runtime import Keeper, Runtime

log = structlog.get_logger(__name__)

FAILED = 1
SLOWEST_LOOK_SECONDS = 3.0
SAY_SECONDS = 30.0  # between two lines about what a person must bring
TICKS = os.sysconf("SC_CLK_TCK")


class Health(threading.Thread):
    """Looks every few seconds.

    Args:
        fail: told what must end the process in good order.

    Attributes:
        doing: why the process as a whole is not ready; empty when it serves.
        beat: when the event loop last turned; None while it need not.
        inputs: by partition and entity.
    """

    def __init__(
        self, stage: Stage, settings: Settings, fail: Callable[[BaseException], None]
    ) -> None:
        super().__init__(name="health", daemon=True)
        self.doing = "starting: looking for the broker"
        self.beat: float | None = None
        self.inputs: dict[tuple[int, str], Input] = {}
        self.runtime: Runtime | None = None
        self.stage = stage
        self._settings = settings
        self._fail = fail
        self._pause = min(SLOWEST_LOOK_SECONDS, settings.stall_seconds / LOOKS)
        self._ends = Ends(settings, self._pause)
        self._dog = Watchdog(settings.stall_seconds, settings.session_timeout_seconds * 3)
        self._away: tuple[float, str] | None = None
        self._measures = Measures()
        self._looked = self._joining_since = time.monotonic()
        self._said = self._looked
        self._stopped = threading.Event()

    # From anywhere:

    def watch(self, runtime: Runtime) -> None:
        """Everything is built; from now on there is something to look at."""
        self.runtime = runtime
        self.doing = "starting: joining the group"
        self._joining_since = time.monotonic()

    def live(self) -> list[str]:
        seconds = time.monotonic() - self._looked
        if seconds < self._settings.stall_seconds * 2:
            return []
        return [f"nobody has looked after this process for {seconds:.0f} s"]

    def ready(self) -> list[str]:
        """Why not, in sentences."""
        reasons = [self.doing] if self.doing else []
        away = self._away
        if away is not None:
            reasons.append(f"broker away for {time.monotonic() - away[0]:.0f} s: {away[1]}")
        if self.runtime is not None:
            keepers = sorted(self.runtime.keepers.copy().items())
            reasons += [said for _, keeper in keepers for said in self._unready(keeper)]
        return reasons

    @property
    def away_seconds(self) -> float:
        away = self._away
        return 0.0 if away is None else time.monotonic() - away[0]

    def judge_no_more(self, seconds: float) -> None:
        """What follows takes its own time, and after so many seconds the process ends."""
        self._stopped.set()
        faulthandler.dump_traceback_later(seconds, exit=True)

    # In this thread:

    def run(self) -> None:
        while not self._stopped.wait(self._pause):
            patience = max(30.0, 2 * self._settings.stall_seconds)
            faulthandler.dump_traceback_later(patience, exit=True)
            try:
                self._look()
            except Exception as error:
                self._fail(error)
                return
            self._looked = time.monotonic()

    def _look(self) -> None:
        runtime = self.runtime
        ends = self._ask(runtime)
        if runtime is None or self._stopped.is_set():
            return
        keepers = list(runtime.keepers.copy().values())
        seen = [self._seen(keeper, ends) for keeper in keepers]
        self.inputs = self._measures.of(keepers, ends or {})
        joined = bool(runtime.counts["assignments"])
        if joined and self.doing.startswith("starting"):
            self.doing = ""
        self._say(keepers)
        stall = self._dog.look(
            time.monotonic(),
            seen,
            broker=ends is not None,
            loop_beat=self.beat,
            joining_since=None if joined else self._joining_since,
        )
        if stall is not None:
            log.error("stalled", partition=stall.partition, phase=stall.phase, what=str(stall))
            die("the stage stands still though there is work; it goes on from its checkpoint")

    def _ask(self, runtime: Runtime | None) -> Mapping[Place, End] | None:
        """The ends of our inputs; None if nobody answered."""
        try:
            if runtime is None:
                self._ends.probe()
                found: Mapping[Place, End] = {}
            else:
                self._check(runtime)
                world = runtime.world
                found = self._ends.look(
                    place
                    for number in list(runtime.keepers.copy())
                    for place in world.inputs(number).values()
                )
        except BrokerAway as away:
            since = time.monotonic() if self._away is None else self._away[0]
            self._away = (since, str(away))
            return None
        self._away = None
        return found

    def _check(self, runtime: Runtime) -> None:
        """The topics are those that this process began with."""
        world = runtime.world
        entities = {world.topics[entity]: entity for entity in world.ids}
        if not entities:
            return
        for topic, (id_, partitions) in self._ends.identities(entities).items():
            entity = entities[topic]
            if id_ != world.ids[entity]:
                self._fail(TopicRecreated(f"{topic} was deleted and made anew"))
            elif partitions != world.counts[entity]:
                self._fail(
                    PartitionCountChanged(f"{topic} has {partitions} partitions now; see the start")
                )

    def _seen(self, keeper: Keeper, ends: Mapping[Place, End] | None) -> Seen:
        phase, since, _ = keeper.at
        partition = keeper.partition
        stable = None
        if partition is not None and ends is not None:
            inputs = partition.world.inputs(keeper.number)
            stable = {e: ends[place].stable for e, place in inputs.items() if place in ends}
        positions = {} if partition is None else dict(partition.positions)
        return Seen(keeper.number, phase, since, _cpu_seconds(keeper.worked_by), positions, stable)

    def _unready(self, keeper: Keeper) -> Iterator[str]:
        phase, since, detail = keeper.at
        if phase not in RESTORING and phase != "paused":
            return
        seconds = time.monotonic() - since
        more = f": {missing}" if (missing := self._missing(detail)) else ""
        yield f"partition {keeper.number}: {WORDS[phase]} for {seconds:.0f} s{more}"

    def _missing(self, generations: object) -> str:
        """Which models lifecycle must still tell of."""
        if self.runtime is None or not isinstance(generations, Mapping):
            return ""
        held = self.runtime.world.fleets.generations
        return ", ".join(
            f"{model} at generation {wanted}, told is {held.get(model, 'none')}"
            for model, wanted in generations.items()
            if held.get(model, 0) < wanted
        )

    def _say(self, keepers: list[Keeper]) -> None:
        """What waits for a person is said aloud from time to time."""
        now = time.monotonic()
        waiting = [
            (keeper.number, missing)
            for keeper in keepers
            if keeper.at[0] == "lifecycle" and now - keeper.at[1] > SAY_SECONDS / 3
            if (missing := self._missing(keeper.at[2]))
        ]
        if waiting and now - self._said > SAY_SECONDS:
            self._said = now
            log.warning(
                "waits for lifecycle",
                partitions=[number for number, _ in waiting],
                missing=waiting[0][1],
                help="`driftline models republish MODEL --after GENERATION`, if it is lost",
            )


def die(why: str, code: int = FAILED) -> None:
    """End at once, saying where every thread stands."""
    log.error("ends", error=why)
    sys.stderr.flush()
    with suppress(Exception):
        faulthandler.dump_traceback(all_threads=True)
    os._exit(code)


def _cpu_seconds(thread: threading.Thread) -> float | None:
    """What a thread has computed so far; None where the system does not say."""
    try:
        stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
