"""One process of a stage: its keepers, its transactions, its copy of what is live, how it dies.

As `stream.runtime` does it, without threads that run by themselves; what is live comes through the
real `Lifecycle`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stream import transactions
from stream.core.processor import Record
from stream.events import LifecycleChanged
from stream.lifecycle import Lifecycle
from stream.loading import BadVersion, Live
from stream.partitions import World
from stream.transactions import Delta, Membership
from tests.simulation.kafka import Fencer, Producer
from tests.simulation.keeper import Keeper
from tests.simulation.log import source
from tests.simulation.operations import Operation

if TYPE_CHECKING:
    from tests.simulation.world import Simulation


class Worker:
    """A process.

    Attributes:
        epoch: counts assignments.
        membership: in the group, as of the newest of them.
        operation: the transaction that it is in the middle of.
        stopped: it was sent SIGSTOP: it does nothing, and hears nothing.
        bad: versions whose artefacts it can't load at the moment.
        keepers, retiring: as in `stream.runtime.Runtime`.
    """

    def __init__(self, sim: Simulation, world: World, name: str, skew_ms: int) -> None:
        self.sim = sim
        self.name = name
        self.epoch = 0
        self.membership = Membership(0, f"{name}#0")
        self.operation: Operation | None = None
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
        self._shares: list[tuple[Keeper, Delta]] = []
        self._producer, writer = self._connected(world)
        self.world = replace(
            world,
            writer=writer,
            fencer=Fencer(sim.log),
            fleets=self.lifecycle,
            clock=lambda: (sim.now_ms + skew_ms) / 1000,
            topics={},
        )

    def __repr__(self) -> str:
        return self.name

    def _connected(self, world: World) -> tuple[Producer, transactions.Transactor]:
        sim, names = self.sim, world.settings.names
        own = names.worker_id(world.stage, self.name)
        producer = Producer(sim.log, own, sim.counts_by_topic, sim.trouble, self._committed)
        sim.log.init(own)
        producer._epoch = sim.log.epochs[own]
        vars(transactions)["Producer"] = lambda _: producer
        return producer, transactions.Transactor(world.settings, own)

    @property
    def worker(self) -> Worker:
        return self

    @property
    def busy(self) -> list[Keeper | Worker]:
        """What is in the middle of something."""
        actors: list[Keeper | Worker] = [self, *self.keepers.values(), *self.retiring]
        return [actor for actor in actors if actor.operation is not None]

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

    @property
    def has_said(self) -> bool:
        """There is something to commit."""
        return any(keeper.delta for keeper in self.keepers.values())

    def commit(self) -> None:
        """All that keepers have said, in one transaction, as the member that this process is."""
        shares = [(keeper, keeper.delta) for keeper in self.keepers.values()]
        self._shares = [(keeper, delta) for keeper, delta in shares if delta is not None]
        deltas = [delta._replace(outputs=self._marked(k, delta)) for k, delta in self._shares]
        of_group: object = (self.group, self.membership)
        self.world.writer.commit(deltas, self.world.topics, of_group)
        for keeper, delta in self._shares:
            keeper.settle(delta)

    def _marked(self, keeper: Keeper, delta: Delta) -> Any:
        """The outputs; while they are produced, the log notes whose they are."""
        self._producer.source = source(self.world.stage, keeper.number)
        yield from delta.outputs

    def _committed(self) -> None:
        """What keepers had said is part of the log now."""
        for keeper, _ in self._shares:
            self.sim.committed(keeper, keeper.said)

    def expelled(self) -> None:
        """As `stream.runtime.Runtime.expelled`: its last transaction was refused."""
        for keeper, _ in self._shares:
            if self.keepers.get(keeper.number) is keeper:
                for held in list(self.keepers.values()):
                    self.retire(held)
                return

    def kill(self) -> None:
        """SIGKILL: threads, memory and connections are gone; the log is as it is."""
        self.alive = False
        for actor in self.busy:
            if actor.operation is not None:
                actor.operation.kill()
                actor.operation = None
        for keeper in [*self.keepers.values(), *self.retiring]:
            keeper.forget()
        self.keepers.clear()
        self.retiring.clear()
