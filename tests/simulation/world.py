"""One run: a cluster, the processes of all stages, the trainer and the producers, from one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from stream.errors import Halt
from stream.events import LifecycleChanged
from stream.loading import Live
from stream.partitions import World
from stream.settings import Settings
from stream.topics import BY_ENTITY, STAGES, Stage
from stream.transactions import Membership
from tests.simulation import laws, models
from tests.simulation.kafka import LIES, Trouble
from tests.simulation.keeper import Applied, Keeper, outcome
from tests.simulation.log import Log, Place
from tests.simulation.operations import Action, Operation
from tests.simulation.registry import Registry, Trainer
from tests.simulation.worker import Worker
from tests.simulation.workload import Producers

T0: Final = 1_000_000_000
SETTINGS: Final = Settings(
    summary_interval_ms=500,
    unknown_model_wait_seconds=0.5,
    max_late_seconds=30,
    max_ahead_seconds=2,
    slow_model_ms=0,  # nothing may depend on how fast this machine is; see tests/test_shares.py
)
FAULTS: Final = ("crash", "pause", "stop", "trouble", "lie", "lag", "bad artefact", "hold up")


CRASHES: Final = 0.05  # of operations, where that fault is enabled
PAUSES: Final = 0.08
TROUBLES: Final = 0.01  # of calls of a producer
_COMMIT: Final = ("begin", "produce", "send_offsets", "before_commit", "after_commit")
#: Failpoints by operation; `latest`, `committed` and `bounds` are the look-ups of a restore.
PLACES: Final = {
    "restore": ("assign", "init", "restore", "latest", "committed", "bounds"),
    "apply": ("apply",),
    "take": ("bounds",),
    "revoke": ("revoke",),
    "commit": _COMMIT,
}


class Violation(AssertionError):
    """A promise that was not kept."""


def demand(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


class Simulation:
    """The world of one seed; `tests.simulation.schedule` makes things happen in it.

    Attributes:
        faults: kinds that may happen in this run; none when it drains.
        often: factor on how often operations are cut short.
        applied: by stage and partition, what was committed of what processors were told.
        counts, counts_by_topic: partitions by entity, and by the topic's full name.
        seen: how often what happened, over the run.
        trace: what happened, if it is to be told.
    """

    def __init__(self, seed: int, *, trace: bool = False, harsh: bool = False) -> None:
        self.seed = seed
        self.rng = rng = random.Random(seed)
        self.now_ms = laws.now_ms = T0
        self.step = 0
        self.trace: list[str] | None = [] if trace else None
        self.seen: Counter[str] = Counter()
        self.faults = {fault for fault in FAULTS if rng.random() < 0.6 or harsh}
        self.often = 2.0 if harsh else 1.0
        joined = rng.choice((1, 1, 2, 2, 3))
        self.counts = _counts(rng, joined)
        names = SETTINGS.names
        self.topics = {entity: names.topic(entity) for entity in BY_ENTITY}
        self.counts_by_topic = {self.topics[entity]: n for entity, n in self.counts.items()}
        self.log = Log(lambda: self.now_ms)
        self.lifecycle_place: Place = (self.topics["lifecycle"], 0)
        self.registry = Registry(lambda: self.now_ms)
        commands = [(self.topics["commands"], p) for p in range(self.counts["commands"])]
        self.trainer = Trainer(self.log, self.registry, commands, self.lifecycle_place)
        self.producers = Producers(
            self.log,
            rng,
            self.topics,
            self.counts,
            lambda: list(self.registry.models),
            lambda: self.now_ms,
        )
        self.applied: dict[tuple[Stage, int], list[Applied]] = {}
        self._live: dict[tuple[str, int], Live] = {}
        self._started = 0
        self.go_live("churn")
        self.groups: dict[Stage, list[Worker]] = {
            stage: [self._start(stage) for _ in range(rng.choice((1, 2, 2, 3)))] for stage in STAGES
        }
        for stage in STAGES:
            self.rebalance(stage)

    def pass_time(self, ms: int) -> None:
        self.now_ms += ms
        laws.now_ms = self.now_ms

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.step:4} {self.now_ms - T0:6} ms  {text}")

    def partitions(self, stage: Stage) -> range:
        return range(self.counts[f"checkpoints.{stage}"])

    def go_live(self, name: str) -> None:
        """A person registers a model and versions of it, and makes one live, another challenge."""
        registry, rng = self.registry, self.rng
        registry.add(name)
        self.trainer.publish(rng, faults=False)
        registry.ask("promote", name, registry.register(name))
        self.trainer.publish(rng, faults=False)
        registry.ask(rng.choice(("challenge", "promote")), name, registry.register(name))
        self.trainer.publish(rng, faults=rng.random() < 0.5)

    def live(self, state: LifecycleChanged) -> Live:
        """What any worker holds of a state: the same object for all."""
        place = state.model, state.generation
        if place not in self._live:
            self._live[place] = models.live(state)
        return self._live[place]

    @property
    def workers(self) -> list[Worker]:
        return [worker for group in self.groups.values() for worker in group]

    # Processes and groups:

    def _start(self, stage: Stage) -> Worker:
        self._started += 1
        world = World(
            stage=stage,
            settings=SETTINGS,
            factory=None,  # type: ignore[arg-type]
            counts=self.counts,
            reader=None,  # type: ignore[arg-type]
            writer=None,  # type: ignore[arg-type]
            fencer=None,  # type: ignore[arg-type]
            fleets=None,  # type: ignore[arg-type]
        )
        skew_ms = self.rng.choice((0, 0, 300, -700))
        worker = Worker(self, world, f"{stage}-{self._started}", skew_ms)
        if self.rng.random() < 0.7:
            worker.follow(100)
        return worker

    def tend(self, stage: Stage) -> bool:
        """Start dead processes again and give them partitions; whether there was need."""
        group = self.groups[stage]
        dead = [worker for worker in group if not worker.alive]
        self.groups[stage] = [worker if worker.alive else self._start(stage) for worker in group]
        owned = [number for worker in group if worker.able for number in worker.keepers]
        if not dead and sorted(owned) == list(self.partitions(stage)):
            return False
        self.rebalance(stage)
        return True

    def rebalance(self, stage: Stage) -> None:
        """Everyone who can hear gives up all partitions, then takes what it is given."""
        for worker in self.groups[stage]:
            if worker.able:
                self._revoke(worker)
        able = [worker for worker in self.groups[stage] if worker.able]
        if not able:
            return
        given: dict[str, set[int]] = {worker.name: set() for worker in able}
        for number in self.partitions(stage):
            given[self.rng.choice(able).name].add(number)
        self.say(f"rebalance: { ({name: sorted(numbers) for name, numbers in given.items()}) }")
        for worker, membership in self._decided(able):
            self._assign(worker, given[worker.name], membership)

    def _decided(self, able: list[Worker]) -> list[tuple[Worker, Membership]]:
        """What everyone is in the group's next generation; who missed one comes as another."""
        group, last = able[0].group, self.log.generations[able[0].group]
        names = []
        for worker in able:
            name, _, times = worker.membership.member.partition("#")
            missed = worker.membership.generation != last
            names.append(f"{name}#{int(times) + missed}")
        clients = [worker.world.writer.id for worker in able]
        generation = self.log.rebalanced(group, dict(zip(names, clients, strict=True)))
        return [(w, Membership(generation, name)) for w, name in zip(able, names, strict=True)]

    def _revoke(self, worker: Worker) -> None:
        """What keepers hold is committed, and who could not say it lets go."""
        worker.epoch += 1
        for keeper in worker.keepers.values():
            keeper.void()
        self.commit(worker)  # what was said before
        for keeper in list(worker.keepers.values()):
            if worker.alive and keeper.ready and keeper.operation is None:
                self.perform(keeper, "revoke", keeper.leave)
        self.commit(worker)
        for keeper in list(worker.keepers.values()):
            if not keeper.flushed:
                worker.retire(keeper)

    def _assign(self, worker: Worker, numbers: set[int], membership: Membership) -> None:
        unbroken = membership.follows(worker.membership)
        worker.membership = membership
        for keeper in list(worker.keepers.values()):
            if keeper.number in numbers and unbroken and keeper.flushed:
                keeper.open()
            else:
                worker.retire(keeper)
        for number in sorted(numbers - worker.keepers.keys()):
            worker.hire(number)

    def commit(self, worker: Worker) -> None:
        if worker.alive and worker.operation is None and worker.has_said:
            self.perform(worker, "commit", worker.commit)

    # What keepers do:

    def restore(self, keeper: Keeper) -> None:
        work = keeper.begin()
        if work is None:
            return
        if "lie" in self.faults and self.rng.random() < 0.08:
            keeper.reader.lie = self.rng.choice(LIES)
        self.perform(keeper, "restore", work)

    def perform(self, actor: Keeper | Worker, name: str, work: Callable[[], object]) -> None:
        """Do something, perhaps with a fault at one of the failpoints on the way."""
        place, action = self._plan(PLACES[name])
        operation = Operation(work, place, action)
        actor.operation = operation
        operation.go()
        self._after(actor, name)

    def resume(self, actor: Keeper | Worker) -> None:
        assert actor.operation is not None
        actor.operation.go()
        self._after(actor, "goes on")

    def _plan(self, places: tuple[str, ...]) -> tuple[str, Action]:
        draw = self.rng.random() / self.often
        if "crash" in self.faults and draw < CRASHES:
            return self.rng.choice(places), "crash"
        if "pause" in self.faults and CRASHES <= draw < CRASHES + PAUSES:
            return self.rng.choice(places), "pause"
        return "", "crash"

    def _after(self, actor: Keeper | Worker, name: str) -> None:
        """An operation ended or paused."""
        operation, worker = actor.operation, actor.worker
        assert operation is not None
        error = operation.error
        what = outcome(error)
        if operation.stopped_at:
            self.seen[f"{operation.action} at {operation.stopped_at}"] += 1
        if self.trace is not None:
            where = f" at {operation.stopped_at}" if operation.stopped_at else ""
            state = f"{what or 'done'}{where}" if operation.done else f"paused{where or ' waiting'}"
            self.say(f"{actor} {name}: {state} {error or ''}")
        operation.stopped_at = ""
        if not operation.done:
            return
        actor.operation = operation.error = None
        worker.retiring = [other for other in worker.retiring if other.operation is not None]
        if what == "bug" and error is not None:
            raise error
        if isinstance(actor, Keeper) and isinstance(error, Halt):
            self._judge(actor, error)
        self.seen[what] += bool(what)
        if what == "expelled":
            worker.expelled()
        elif what in ("fail", "fenced"):
            worker.kill()
        if isinstance(actor, Keeper) and worker.keepers.get(actor.number) is not actor:
            actor.forget()

    def _judge(self, keeper: Keeper, error: Halt) -> None:
        """A halt must have a reason: a lie, or that the partition has another owner by now."""
        self.seen["lies found"] += keeper.reader.lied
        owns = self.log.is_current(keeper.worker.group, keeper.worker.membership)
        if not keeper.reader.lied and owns:  # what the next owner commits may look odd
            raise Violation(f"{keeper} halted for no reason: {error}") from error

    def committed(self, keeper: Keeper, done: list[Applied]) -> None:
        stage = keeper.worker.world.stage
        self.applied.setdefault((stage, keeper.number), []).extend(done)

    def trouble(self) -> Trouble:
        """What goes wrong with a producer's call, if anything."""
        if "trouble" not in self.faults or self.rng.random() > TROUBLES * self.often:
            return ""
        trouble: Trouble = self.rng.choice(("again", "failed", "answer lost"))
        self.seen[f"trouble: {trouble}"] += 1
        self.say(f"trouble: {trouble}")
        return trouble


def _counts(rng: random.Random, joined: int) -> dict[str, int]:
    counts = dict.fromkeys(BY_ENTITY, 1)
    counts |= dict.fromkeys(("predictions", "feedback", "examples", "checkpoints.monitor"), joined)
    counts |= dict.fromkeys(("predictions.dlq", "feedback.dlq"), joined)
    requests, summaries = rng.choice((joined, joined, 1, 2)), rng.choice((1, 1, 2))
    counts |= dict.fromkeys(("requests", "requests.dlq", "checkpoints.score"), requests)
    counts |= dict.fromkeys(("summaries", "checkpoints.evaluate"), summaries)
    return counts | {"commands": rng.choice((1, 2))}
