"""Registry, relay and trainer: the real rules of `models.transitions`, and nothing on disk."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from models.transitions import Action, Asked, Past, Refusal, Standing, decide
from stream.envelope import open_record, read, write
from stream.events import EVENT_TYPES, Command, LifecycleChanged
from tests.simulation.log import Log, Place
from tests.simulation.models import SPECS, card

KIND = "driftline.lifecycle.changed.v1"
COMMAND_BYTES = 1_000_000


class Model:
    """Where one model stands."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.standing = Standing()
        self.generation = 0
        self.newest = 0
        self.past: list[Past] = []


class Registry:
    """What is live, and every change of it once per command id.

    Attributes:
        states: every state there ever was, by model and generation.
        effects: changes by command id.
        once: whether command ids are remembered; a test may break it.
    """

    once = True

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.models: dict[str, Model] = {}
        self.states: dict[tuple[str, int], LifecycleChanged] = {}
        self.outbox: list[LifecycleChanged] = []
        self.effects: Counter[str] = Counter()
        self._handled: set[str] = set()
        self._now_ms = now_ms

    def add(self, name: str) -> None:
        self.models[name] = Model(name)
        self._enter(self.models[name], "add", Standing(), "")

    def register(self, name: str) -> int:
        self.models[name].newest += 1
        return self.models[name].newest

    def ask(self, action: Action, name: str, version: int | None, command: str = "") -> bool:
        """A person asks, or a command whose generation was found to be right."""
        model = self.models[name]
        asked = Asked(
            version=version, automatic=bool(command), newest=model.newest, past=model.past
        )
        after = decide(action, model.standing, asked)
        if isinstance(after, Refusal):
            return False
        self._enter(model, action, after, command)
        return True

    def obey(self, command: Command) -> str:
        """Command id, compare-and-set and change in one transaction; what came of it."""
        if self.once and command.command_id in self._handled:
            return "repeated"
        self._handled.add(command.command_id)
        model = self.models[command.model]
        if command.kind == "retrain":
            version = self.register(command.model)
            return str(self.ask("challenge", command.model, version, command.command_id))
        if command.generation != model.generation:
            return "stale"
        return str(self.ask(command.kind, command.model, command.version, command.command_id))

    def _enter(self, model: Model, action: str, standing: Standing, command: str) -> None:
        model.standing = standing
        model.generation += 1
        model.past.append(Past(action=action, champion=standing.champion, pinned=standing.pinned))
        if command:
            self.effects[command] += 1
        state = LifecycleChanged(
            model=model.name,
            generation=model.generation,
            spec=SPECS[model.name],
            spec_revision=1,
            champion=standing.champion,
            challengers=list(standing.challengers),
            previous=standing.previous,
            probation=standing.probation,
            pinned=standing.pinned,
            canary=standing.canary,
            versions=[card(version) for version in range(1, model.newest + 1)],
            changed_ms=self._now_ms(),
            cause=command,
        )
        self.states[model.name, model.generation] = state
        self.outbox.append(state)


class Trainer:
    """Reads commands, carries them out, commits last; and the relay that publishes the outbox.

    Attributes:
        repeats: commands that were delivered more than once.
    """

    def __init__(
        self, log: Log, registry: Registry, commands: list[Place], lifecycle: Place
    ) -> None:
        self.repeats = 0
        self._log = log
        self._registry = registry
        self._commands = commands
        self._lifecycle = lifecycle
        self._positions = dict.fromkeys(commands, 0)
        self._committed = dict.fromkeys(commands, 0)

    def work(self, rng: random.Random, *, faults: bool) -> list[str]:
        """One look at every partition; a fault may make it go back, or leave it uncommitted."""
        told = []
        for place in self._commands:
            if faults and rng.random() < 0.2:
                self.repeats += self._positions[place] - self._committed[place]
                self._positions[place] = rng.choice((0, self._committed[place]))
            records, self._positions[place] = self._log.fetch(place, self._positions[place], 5)
            for record in records:
                command = self.read(record)
                told.append(f"{command.kind} {command.model} {self._registry.obey(command)}")
            if not faults or rng.random() < 0.7:
                self._committed[place] = self._positions[place]
        return told

    def forget(self) -> None:
        """Its offsets expired: every command is delivered again."""
        self.repeats += sum(self._positions.values())
        self._positions = dict.fromkeys(self._commands, 0)

    def publish(self, rng: random.Random, *, faults: bool) -> list[str]:
        """The outbox in its order; a relay that dies before it can mark a row sends it again."""
        published, outbox = [], self._registry.outbox
        while outbox:
            state = outbox[0]
            self._send(state)
            published.append(f"{state.model} {state.generation}")
            if faults and rng.random() < 0.3:
                break
            outbox.pop(0)
        if faults and rng.random() < 0.05:
            stale = rng.choice(list(self._registry.states.values()))
            self._send(stale)
            published.append(f"{stale.model} {stale.generation} (again)")
        return published

    def _send(self, state: LifecycleChanged) -> None:
        id_ = f"{state.model}/{state.generation}"
        value = write(KIND, state, id=id_, source="registry", time_ms=state.changed_ms)
        self._log.append(self._lifecycle, state.model.encode(), value)

    @staticmethod
    def read(record: Any) -> Command:
        opened = open_record("commands", record, max_bytes=COMMAND_BYTES)
        assert EVENT_TYPES[opened.type][0] is Command
        return read(opened, Command)
