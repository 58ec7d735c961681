"""What is counted by hand, without the code under test: nothing lost, nothing twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from stream.core.processor import Record
from stream.events import ExampleLabelled, ExamplesLabelled
from stream.topics import INPUTS
from tests.simulation.log import source
from tests.simulation.models import said
from tests.simulation.registry import Trainer
from tests.simulation.world import Simulation, demand

#: What becomes of an event in monitor; each is counted under one of these.
FATES = (
    *("predictions", "bets", "corrections", "duplicates"),
    *("conflicts", "too_late", "orphans"),
)


class _Event(msgspec.Struct):
    id: str
    type: str
    data: msgspec.Raw = msgspec.Raw(b"")


_EVENT = msgspec.json.Decoder(_Event)
_ANY = msgspec.json.Decoder()


class _Examples(msgspec.Struct):
    data: ExamplesLabelled


_EXAMPLES = msgspec.json.Decoder(_Examples)


def data_of(record: Record) -> bytes:
    """The data of an event that a stage wrote, as JSON."""
    return bytes(_EVENT.decode(record.value or b"").data)


def examples_in(value: bytes) -> Iterator[ExampleLabelled]:
    """The examples of a record, one by one."""
    return _EXAMPLES.decode(value).data.each()


class Counts:
    """The counts of one run."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self._summed: dict[int, Counter[str]] = defaultdict(Counter)  # by partition of monitor

    def check(self) -> None:
        self._sum_up()
        self._check_requests()
        for number in self.sim.partitions("monitor"):
            self._check_monitor(number)
        self._check_examples()
        for entity in ("accuracy", "drift", "alerts", "commands"):
            ids = [_EVENT.decode(r.value or b"").id for r in self._visible(entity)]
            demand(len(ids) == len(set(ids)), f"{entity}: an id lies there twice")
        self._check_commands()

    def _visible(self, entity: str, owner: str | None = None) -> Iterator[Record]:
        for number in range(self.sim.counts[entity]):
            log = self.sim.log.partitions[self.sim.topics[entity], number]
            yield from log.visible() if owner is None else log.visible_of(owner)

    def _check_requests(self) -> None:
        """Each request has one prediction or one dead letter, by the version that was live."""
        for number in self.sim.partitions("score"):
            owner = source("score", number)
            log = self.sim.log.partitions[self.sim.topics["requests"], number]
            asked = Counter(f"{number}/{record.offset}" for record in log.visible())
            refused = [dict(record.headers) for record in self._visible("requests.dlq", owner)]
            found = Counter(
                f"{number}/{(headers['dl_offset'] or b'').decode()}" for headers in refused
            )
            newest: dict[tuple[int, str], int] = {}
            for place in range(self.sim.counts["predictions"]):
                made = self.sim.log.partitions[self.sim.topics["predictions"], place]
                for record in made.visible_of(owner):
                    event = _EVENT.decode(record.value or b"")
                    found[event.id] += 1
                    self._check_prediction(_ANY.decode(event.data), place, newest)
            demand(found == asked, f"score[{number}]: {_odd(found, asked)}")

    def _check_prediction(
        self, data: dict[str, Any], place: int, newest: dict[tuple[int, str], int]
    ) -> None:
        model, generation = data["model"], data["generation"]
        demand(
            generation >= newest.get((place, model), 0),
            f"{data['prediction_id']}: {model} goes back to generation {generation}",
        )
        newest[place, model] = generation
        state = self.sim.registry.states[model, generation]
        demand(data["version"] == state.champion, f"{data['prediction_id']}: wrong version")
        shadows = {int(version): output for version, output in data.get("shadow", {}).items()}
        told = shadows | {data["version"]: data["output"]}
        age = data["features"]["age"]
        right = {v: said(model, v, age) for v in (data["version"], *state.shadows)}
        demand(told == right, f"{data['prediction_id']}: said {told}, not {right}")

    def _sum_up(self) -> None:
        for record in self._visible("summaries"):
            if b"summary.computed" in (record.value or b"")[:300]:
                data = _ANY.decode(data_of(record))
                if not data.get("segment"):
                    summed = self._summed[data["partition"]]
                    summed["predictions"] += data.get("predictions", 0)
                    summed["bets"] += sum(data.get("bets", ()))
                    summed.update(data.get("counters", {}))

    def _check_monitor(self, number: int) -> None:
        """Counted + dead-lettered + sent on = what lies in the inputs."""
        owner = source("monitor", number)
        summed = self._summed[number]
        counted = sum(summed[fate] for fate in FATES)
        dead, rerouted, inputs = 0, 0, 0
        for entity in INPUTS["monitor"]:
            dead += sum(1 for _ in self._visible(f"{entity}.dlq", owner))
            rerouted += sum(1 for _ in self._visible(entity, owner))
            log = self.sim.log.partitions[self.sim.topics[entity], number]
            inputs += len(log.visible())
        total = counted + dead + rerouted
        what = f"{counted} counted + {dead} dead + {rerouted} sent on = {total}"
        demand(total == inputs, f"monitor[{number}]: {what}, of {inputs}: {dict(summed)}")

    def _check_examples(self) -> None:
        """One for each prediction and revision, as many as were bet on and corrected."""
        examples = [
            example
            for record in self._visible("examples")
            for example in examples_in(record.value or b"")
        ]
        ids = Counter((e.model, e.prediction_id, e.revision) for e in examples)
        twice = [place for place, count in ids.items() if count > 1]
        demand(not twice, f"examples twice: {twice[:3]}")
        summed: Counter[str] = sum(self._summed.values(), Counter())
        first = sum(1 for place in ids if place[2] == 0)
        demand(first == summed["bets"], f"{first} first labels, {summed['bets']} bets")
        demand(len(ids) - first == summed["corrections"], "corrections are not the examples")

    def _check_commands(self) -> None:
        """Each changed what is live at most once; generations follow one another."""
        registry = self.sim.registry
        told = {Trainer.read(record).command_id for record in self._visible("commands")}
        demand(set(registry.effects) <= told, "an effect without a command")
        twice = [command for command, count in registry.effects.items() if count > 1]
        demand(not twice, f"commands that took effect twice: {twice}")
        for model in registry.models.values():
            numbers = [g for name, g in registry.states if name == model.name]
            demand(numbers == list(range(1, model.generation + 1)), f"{model.name}: {numbers}")


def _odd(found: Counter[str], expected: Counter[str]) -> str:
    extra, lost = found - expected, expected - found
    return f"{extra.total()} too many {list(extra)[:3]}, {lost.total()} lost {list(lost)[:3]}"
