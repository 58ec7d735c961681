"""What happens when: every choice comes from the seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from models.transitions import Action
from stream.topics import STAGES
from tests.simulation.keeper import Keeper
from tests.simulation.worker import Worker
from tests.simulation.world import Simulation

STEPS: Final = 300
PRODUCED: Final = 2 / 5  # of the steps, in which producers send
MOVES_MS: Final = (0, 0, 0, 5, 20, 60, 150)


Act = tuple[Callable[[], str], float]  # an action and its weight


class Schedule:
    """The actions of a run, each with its weight.

    Producers fall silent before half of a run is over. What they send late is worked off in the
    drain, where nothing goes wrong any more; what they send early is judged among faults.
    """

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        rare: dict[str, Act] = {
            "stop": (self._stop, 1.5),
            "lag": (self._lag, 1.0),
            "bad artefact": (self._spoil, 1.0),
            "hold up": (self._expire_offsets, 0.5),
            "crash": (self._kill, 1.0),
        }
        actions: list[Act] = [
            (self._produce, 44),
            (self._work, 80),
            (self._flush, 34),
            (self._resume, 16),
            (self._follow, 14),
            (self._registry, 8),
            (self._tend, 22),
            (self._rebalance, 3),
            (self._person, 3),
            (self._end_upstream, 3),
            (self._mark, 4),
            (self._time_out, 1),
            (self._long_pause, 1),
            *(rare[fault] for fault in sorted(sim.faults & rare.keys())),
        ]
        self._actions = [action for action, _ in actions]
        self._weights: list[float] = []
        for _, weight in actions:  # no two seeds are of the same temper
            before = self._weights[-1] if self._weights else 0.0
            self._weights.append(before + weight * sim.rng.choice((0.4, 1, 1, 2.5)))

    def run(self, steps: int = STEPS) -> None:
        rng, sim = self.sim.rng, self.sim
        silent = [weight - self._weights[0] for weight in self._weights]  # no `_produce`, the first
        for sim.step in range(1, steps + 1):
            sim.pass_time(rng.choice(MOVES_MS))
            weights = self._weights if sim.step <= PRODUCED * steps else silent
            (action,) = rng.choices(self._actions, cum_weights=weights)
            told = action()
            if told:
                sim.say(f"{action.__name__.strip('_')}: {told}")

    # What the world does:

    def _produce(self) -> str:
        return self.sim.producers.some()

    def _end_upstream(self) -> str:
        return self.sim.producers.end_one()

    def _registry(self) -> str:
        rng, trainer = self.sim.rng, self.sim.trainer
        told = trainer.work(rng, faults=True)
        self.sim.seen.update(f"command: {kind}" for kind in (line.split()[0] for line in told))
        return ", ".join(told + trainer.publish(rng, faults=True))

    def _person(self) -> str:
        sim, rng = self.sim, self.sim.rng
        if "later" not in sim.registry.models:
            sim.go_live("later")
            return "later goes live"
        name = rng.choice(list(sim.registry.models))
        action: Action = rng.choice(("pin", "unpin", "promote", "rollback", "challenge", "settle"))
        version = rng.choice((None, 1, 2)) if action != "challenge" else 1
        return f"{action} {name} {version}: {sim.registry.ask(action, name, version)}"

    def _long_pause(self) -> str:
        self.sim.pass_time(self.sim.rng.choice((500, 1_500, 3_000)))
        return "time passes"

    # What processes do:

    def _keepers(self) -> list[Keeper]:
        return [
            keeper
            for worker in self.sim.workers
            if worker.able
            for keeper in worker.keepers.values()
            if keeper.operation is None
        ]

    def _work(self) -> str:
        """Restore, or fetch and apply."""
        sim, rng = self.sim, self.sim.rng
        keepers = self._keepers()
        if not keepers:
            return ""
        new = [keeper for keeper in keepers if not keeper.ready]
        if new:
            sim.restore(rng.choice(new))
            return ""
        busy = [keeper for keeper in keepers if keeper.has_mail or keeper.unread]
        if not busy:
            return ""
        keeper = rng.choice(busy)
        for entity in keeper.inputs:
            if keeper.has_room and rng.random() < 0.9:
                keeper.fetch(entity, rng.choice((1, 3, 8, 50)))
        if keeper.has_mail and rng.random() < 0.9:
            sim.perform(keeper, "apply", keeper.apply)
        if keeper.has_mail and keeper.operation is None and keeper.worker.alive:
            sim.perform(keeper, "apply", keeper.apply)
        return ""

    def _flush(self) -> str:
        """Some keepers of a process say what they have, and it commits."""
        sim, rng = self.sim, self.sim.rng
        workers = [worker for worker in sim.workers if worker.able and worker.operation is None]
        if not workers:
            return ""
        worker = rng.choice(workers)
        for keeper in list(worker.keepers.values()):
            if worker.alive and keeper.ready and keeper.operation is None and rng.random() < 0.8:
                sim.perform(keeper, "take", keeper.take)
        sim.commit(worker)
        return ""

    def _resume(self) -> str:
        rng, paused = self.sim.rng, self._paused()
        if paused:
            actor = rng.choice(paused)
            if rng.random() < 0.7:
                actor.worker.follow(100)
            self.sim.resume(actor)
        return ""

    def _paused(self) -> list[Keeper | Worker]:
        return [actor for worker in self.sim.workers if worker.able for actor in worker.busy]

    def _follow(self) -> str:
        able = [worker for worker in self.sim.workers if worker.able]
        new = [worker for worker in able if not worker.lifecycle._ready.is_set()]
        if not able:
            return ""
        worker = self.sim.rng.choice(new or able)
        count = worker.follow(self.sim.rng.choice((1, 3, 100)))
        return f"{worker} reads {count}" if count else ""

    def _tend(self) -> str:
        """Supervisors start the dead, and groups give out what nobody has."""
        self.sim.tend(self.sim.rng.choice(STAGES))
        return ""

    def _rebalance(self) -> str:
        self.sim.rebalance(self.sim.rng.choice(STAGES))
        return ""

    # Faults:

    def _kill(self) -> str:
        worker = self.sim.rng.choice(self.sim.workers)
        worker.kill()
        self.sim.seen["killed"] += 1
        return str(worker)

    def _stop(self) -> str:
        """SIGSTOP, or SIGCONT for one that is stopped."""
        sim = self.sim
        stopped = [worker for worker in sim.workers if worker.alive and worker.stopped]
        if stopped and sim.rng.random() < 0.8:
            worker = sim.rng.choice(stopped)
            worker.stopped = False
            return f"{worker} goes on"
        worker = sim.rng.choice(sim.workers)
        worker.stopped = True
        sim.seen["stopped"] += 1
        return str(worker)

    def _lag(self) -> str:
        self.sim.log.lagging = not self.sim.log.lagging
        return f"markers {'lag' if self.sim.log.lagging else 'are written at once'}"

    def _mark(self) -> str:
        unmarked = self.sim.log.unmarked
        if not unmarked:
            return ""
        transaction = self.sim.rng.choice(unmarked)
        self.sim.log.mark(transaction, [self.sim.rng.choice(transaction.unmarked)])
        return transaction.owner

    def _spoil(self) -> str:
        worker = self.sim.rng.choice(self.sim.workers)
        if worker.bad:
            worker.heal()
            return f"{worker} can load again"
        worker.bad = {1, 2, 3, 4} if self.sim.rng.random() < 0.5 else {2}
        return f"{worker} can't load {worker.bad}"

    def _expire_offsets(self) -> str:
        stage = self.sim.rng.choice(STAGES)
        self.sim.log.offsets.pop(f"driftline.{stage}", None)
        self.sim.seen["offsets expired"] += 1
        return f"offsets of {stage} expire"

    def _time_out(self) -> str:
        found = self.sim.log.abort_open(self.sim.now_ms - 1_000)
        self.sim.seen["timed out"] += len(found)
        return ", ".join(transaction.owner for transaction in found)
