"""The end of a run: everything heals, and what lies in the log is worked off."""

from __future__ import annotations

from typing import Final

from stream.topics import STAGES, Stage
from tests.simulation.keeper import Keeper
from tests.simulation.world import Simulation, Violation

EXPIRED_MS: Final = 15_000  # beyond every horizon of the models
ROUNDS: Final = 30  # after which something is stuck


class Drain:
    """Everything heals, and all that lies in the log is worked off."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim

    def heal(self) -> None:
        """No fault from here on; whoever was stopped or paused goes on."""
        sim = self.sim
        sim.faults = set()
        sim.say("everything heals")
        for worker in sim.workers:
            worker.stopped = False
            if worker.alive:
                worker.heal()
        sim.producers.end_all()
        sim.trainer.forget()
        sim.log.lagging = False
        for transaction in sim.log.unmarked:
            sim.log.mark(transaction)
        sim.log.abort_open(sim.now_ms)  # of the dead; whoever lives is fenced, and starts again
        self._finish()
        for stage in STAGES:
            sim.rebalance(stage)

    def until_still(self) -> None:
        """Round after round, until every input is read to its end."""
        for _ in range(ROUNDS):
            self.round(900)
            if self._still():
                return
        raise Violation(f"not still after {ROUNDS} rounds")

    def round(self, passes_ms: int) -> None:
        sim = self.sim
        sim.pass_time(passes_ms)
        sim.trainer.work(sim.rng, faults=False)
        sim.trainer.publish(sim.rng, faults=False)
        self._finish()
        for stage in STAGES:
            while sim.tend(stage):
                self._finish()
            self._ready(stage)
            for worker in sim.groups[stage]:
                for keeper in list(worker.keepers.values()):
                    self._empty(keeper)

    def _ready(self, stage: str) -> None:
        for worker in self.sim.workers:
            if worker.world.stage == stage:
                for keeper in list(worker.keepers.values()):
                    if not keeper.ready and keeper.operation is None:
                        self.sim.restore(keeper)
        self._finish()

    def _empty(self, keeper: Keeper) -> None:
        if not keeper.ready or not keeper.worker.alive:
            return
        for entity in keeper.inputs:
            while keeper.worker.alive and (keeper.has_mail or keeper.fetch(entity, 1_000)):
                self.sim.perform(keeper, "apply", keeper.apply)
        if keeper.worker.alive:
            self.sim.perform(keeper, "take", keeper.take)
            self.sim.commit(keeper.worker)

    def _finish(self) -> None:
        """Paused operations go on, and whoever waits for lifecycle reads it."""
        sim = self.sim
        for _ in range(ROUNDS):
            for worker in sim.workers:
                if worker.alive:
                    worker.follow(1_000)
            paused = [actor for worker in sim.workers for actor in worker.busy]
            if not paused:
                return
            for actor in paused:
                if actor.operation is not None:
                    sim.resume(actor)
        raise Violation(f"still waiting: {paused}")

    def _still(self) -> bool:
        """Score and monitor own all their partitions, have read their inputs to the ends,
        committed, and reported on all."""
        return all(self._is_done(stage) for stage in ("score", "monitor"))

    def _is_done(self, stage: Stage) -> bool:
        keepers = [k for one in self.sim.groups[stage] for k in one.keepers.values() if one.alive]
        owned = {keeper.number for keeper in keepers}
        return owned == set(self.sim.partitions(stage)) and all(one.is_done for one in keepers)
