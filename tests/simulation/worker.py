"""One process of a stage: its keepers, its copy of what is live, and how it dies.

As `stream.runtime` does it, without threads that run by themselves; what is live comes through the
real `Lifecycle`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from stream.core.processor import Record
from stream.events import LifecycleChanged
from stream.lifecycle import Lifecycle
from stream.loading import BadVersion, Live
from stream.partitions import World
from tests.simulation.keeper import Keeper

if TYPE_CHECKING:
    from tests.simulation.world import Simulation


class Worker:
    """A process.

    Attributes:
        epoch: counts assignments.
        stopped: it was sent SIGSTOP: it does nothing, and hears nothing.
        bad: versions whose artefacts it can't load at the moment.
        keepers, retiring: as in `stream.runtime.Runtime`.
    """

    def __init__(self, sim: Simulation, world: World, name: str, skew_ms: int) -> None:
        self.sim = sim
        self.name = name
        self.epoch = 0
        self.stopped = False
        self.alive = True
        self.bad: set[int] = set()
        self.keepers: dict[int, Keeper] = {}
        self.retiring: list[Keeper] = []
        self.lifecycle = Lifecycle(None, self._load, lambda _: None, lambda _: None)  # type: ignore[arg-type]
        self._lifecycle_position = 0
        self._lifecycle_end = sim.log.partitions[sim.lifecycle_place].stable_end
        self._early: list[Record] = []
        self.group = world.settings.names.group(world.stage)
        self.world = replace(
            world, fleets=self.lifecycle, clock=lambda: (sim.now_ms + skew_ms) / 1000, topics={}
        )

    def __repr__(self) -> str:
        return self.name

    @property
    def able(self) -> bool:
        return self.alive and not self.stopped

    def follow(self, most: int) -> int:
        """Read some of lifecycle; the first fleet is taken as a whole."""
        place = self.sim.lifecycle_place
        records, position = self.sim.log.fetch(place, self._lifecycle_position, most)
        self._lifecycle_position = position
        if not self.lifecycle._ready.is_set():
            self._early += records
            if position < self._lifecycle_end:
                return len(records)
            records, self._early = self._early, []
        if records or not self.lifecycle._ready.is_set():
            self.lifecycle.take(records)
            self.lifecycle._ready.set()
        return len(records)

    def heal(self) -> None:
        """Artefacts can be loaded again, and are tried again."""
        self.bad = set()
        self.lifecycle._adopt(list(self.lifecycle._failed.values()))

    def _load(self, state: LifecycleChanged, _: Live | None) -> Live:
        for card in state.versions:
            if card.version in self.bad:
                raise BadVersion(card, OSError("simulated"))
        return self.sim.live(state)

    def hire(self, number: int) -> Keeper:
        before = next((k for k in self.retiring if k.number == number and k.operation), None)
        keeper = self.keepers[number] = Keeper(self, number, before)
        return keeper

    def retire(self, keeper: Keeper) -> None:
        keeper.drop()
        if self.keepers.get(keeper.number) is keeper:
            del self.keepers[keeper.number]
        if keeper.operation is None:
            keeper.forget()
        else:
            self.retiring.append(keeper)

    def fenced(self, keeper: Keeper) -> bool:
        """As `stream.runtime.Runtime.fenced`; whether the process must end."""
        owned = self.keepers.get(keeper.number) is keeper
        ours = owned and keeper.epoch == self.epoch
        if owned:
            self.retire(keeper)
        if ours and keeper.kept:
            self.hire(keeper.number)
        return ours and not keeper.kept

    def kill(self) -> None:
        """SIGKILL: threads, memory and connections are gone; the log is as it is."""
        self.alive = False
        for keeper in [*self.keepers.values(), *self.retiring]:
            if keeper.operation is not None:
                keeper.operation.kill()
                keeper.operation = None
            keeper.forget()
        self.keepers.clear()
        self.retiring.clear()
