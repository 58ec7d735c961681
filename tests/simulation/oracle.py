"""What must hold after any run, once it has drained.

The state and the outputs of each partition are those of a straight replay without a crash: of the
monitor by the journal that it wrote itself, of score and evaluate by what was applied between
commits. Whatever a replay could share a fault with is counted apart, by hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any

import msgspec

from stream import checkpoints
from stream.core.processor import Batch, Context, Fleet, Output, Processor
from stream.events import ProgressReported
from stream.topics import INPUTS, STAGES, Stage
from tests.simulation.counts import Counts, data_of, examples_in
from tests.simulation.kafka import by_key, latest_of
from tests.simulation.keeper import PROCESSORS, Applied
from tests.simulation.log import Place, source
from tests.simulation.world import SETTINGS, Simulation, Violation

_MANIFEST = msgspec.json.Decoder(checkpoints.Manifest)
_MANIFEST_KEY = checkpoints.MANIFEST_KEY.encode()
_EMPTY = checkpoints.Manifest(stage="", partition=0, next={}, partitions={})
State = dict[str, bytes | None]


def demand(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


class Oracle:
    """Told of the end of the run in two looks: with waiting labels, and when all has expired."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self._states: dict[tuple[Stage, int], State] = {}
        self._upto: dict[tuple[Stage, int], int] = {}
        self._fleets: dict[frozenset[tuple[str, int]], Fleet] = {}  # by generations

    def look(self) -> None:
        """Take down what the checkpoints hold now, and how much had been applied by then."""
        for stage in STAGES:
            for number in self.sim.partitions(stage):
                place = stage, number
                self._states[place] = self._restored(stage, number)
                if stage == "monitor":
                    self._upto[place] = len(self._reports(number))
                else:
                    self._upto[place] = len(self.sim.applied.get(place, ()))

    def judge(self) -> None:
        """
        Raises:
            Violation: what was promised does not hold.
        """
        self._written = self._all_written()
        demand(not self.sim.log.went_back, f"offsets went back: {self.sim.log.went_back[:3]}")
        for number in self.sim.partitions("monitor"):
            self._judge_monitor(number)
        for stage in ("score", "evaluate"):
            for number in self.sim.partitions(stage):
                self._judge_applied(stage, number)
        self._check_offsets()
        self._check_manifests()
        Counts(self.sim).check()

    # Replays:

    def _judge_applied(self, stage: Stage, number: int) -> None:
        """Score and evaluate: every record was applied once, and a replay says the same."""
        applied = self.sim.applied.get((stage, number), [])
        (entity,) = INPUTS[stage]
        self._check_covered(stage, number, entity, [(a[1], a[2]) for a in applied if a[0]])
        processor, upto = self._processor(stage, number), self._upto[stage, number]
        outputs = [out for one in applied[:upto] for out in self._tell(processor, number, one)]
        self._check_state(stage, number, processor)
        outputs += [out for one in applied[upto:] for out in self._tell(processor, number, one)]
        self._check_outputs(stage, number, outputs)

    def _tell(self, processor: Processor, number: int, one: Applied) -> list[Output]:
        entity, first, end, clock_ms, caught_up, fleet = one
        if not entity:
            return processor.advance(clock_ms, caught_up, fleet)
        records = self._log(entity, number).visible(first, end)
        return processor.apply(Batch(entity, number, records), fleet)

    def _judge_monitor(self, number: int) -> None:
        """Monitor: nothing but its own journal decides."""
        reports = self._reports(number)
        sequences = [report.sequence for report in reports]
        demand(sequences == list(range(len(reports))), f"reports of {number}: {sequences}")
        for entity in INPUTS["monitor"]:
            runs = [run for report in reports for run in report.applied if run.entity == entity]
            self._check_covered("monitor", number, entity, [(run.first, run.end) for run in runs])
        processor, upto = self._processor("monitor", number), self._upto["monitor", number]
        generations: dict[str, int] = {}
        outputs = [*self._replayed(processor, number, reports[:upto], generations)]
        self._check_state("monitor", number, processor)
        outputs += self._replayed(processor, number, reports[upto:], generations)
        self._check_outputs("monitor", number, outputs)

    def _replayed(
        self,
        processor: Processor,
        number: int,
        reports: list[ProgressReported],
        generations: dict[str, int],
    ) -> Iterator[Output]:
        for report in reports:
            yield from self._reported(processor, number, report, generations)

    def _reported(
        self,
        processor: Processor,
        number: int,
        report: ProgressReported,
        generations: dict[str, int],
    ) -> Iterator[Output]:
        fleet = self._fleet(generations)
        for run in report.applied:
            if run.generations:
                for model, generation in run.generations.items():
                    demand(generation > generations.get(model, 0), f"{model} went back in monitor")
                generations |= run.generations
                fleet = self._fleet(generations)
            if run.entity:
                records = self._log(run.entity, number).visible(run.first, run.end)
                yield from processor.apply(Batch(run.entity, number, records), fleet)
        yield from processor.advance(report.clock_ms, report.caught_up, fleet)

    def _fleet(self, generations: dict[str, int]) -> Fleet:
        """The same object while nothing changes, as workers have it."""
        key, states = frozenset(generations.items()), self.sim.registry.states
        if key not in self._fleets:
            lives = {model: self.sim.live(states[model, g]) for model, g in generations.items()}
            self._fleets[key] = MappingProxyType(lives)
        return self._fleets[key]

    # What is compared:

    def _check_covered(
        self, stage: Stage, number: int, entity: str, runs: list[tuple[int, int]]
    ) -> None:
        """Each visible record lies in one run, and runs come in the order of the log."""
        where, position, inside = f"{stage}[{number}] {entity}", 0, 0
        log = self._log(entity, number)
        for first, end in runs:
            demand(first >= position, f"{where}: {first} applied again after {position}")
            position = end
            inside += len(log.visible(first, end))
        visible = len(log.visible(0, position))
        demand(inside == visible, f"{where}: {visible - inside} records left out")
        if stage != "evaluate":  # there monitor's last reports may still lie unread
            left = len(log.visible(position))
            demand(not left, f"{where}: {left} records not applied")

    def _check_state(self, stage: Stage, number: int, processor: Processor) -> None:
        again, held = processor.changes(complete=True), self._states[stage, number]
        odd = sorted(name for name in {**again, **held} if again.get(name) != held.get(name))
        demand(not odd, f"{stage}[{number}]: the checkpoint differs from the fold in {odd}")

    def _check_outputs(self, stage: Stage, number: int, outputs: Iterable[Output]) -> None:
        """What lies in the topics under this partition's id, and what a replay wrote."""
        owner = source(stage, number)
        expected: dict[Place, list[Any]] = defaultdict(list)
        for one in outputs:
            partition = one.partition
            if partition is None:
                partition = by_key(one.key, self.sim.counts[one.entity])
            place = self.sim.topics[one.entity], partition
            expected[place].append((one.key, one.value, one.headers))
        written = self._written[owner]
        for place in written.keys() | expected.keys():
            told = [one for one in written.get(place, []) if not _is_measured(one)]
            again = expected.get(place, [])
            if place[0] == self.sim.topics["examples"]:
                told, again = _one_by_one(told), _one_by_one(again)
            demand(told == again, _differs(f"{stage}[{number}] into {place}", told, again))

    def _check_offsets(self) -> None:
        """A group's offsets are those of the checkpoints, where they have not expired."""
        for stage in STAGES:
            group = self.sim.log.offsets[SETTINGS.names.group(stage)]
            for number in self.sim.partitions(stage):
                found = self._checkpoint(stage, number)
                for entity, offset in found.manifest.next.items() if found else ():
                    place = self.sim.topics[entity], number
                    demand(group.get(place, offset) == offset, f"{stage} {place}: {offset}")

    def _check_manifests(self) -> None:
        """Positions and generations only grow from checkpoint to checkpoint, none is forgotten."""
        for stage in STAGES:
            for number in self.sim.partitions(stage):
                place = SETTINGS.names.checkpoints(stage), number
                before = _EMPTY
                for record in self.sim.log.partitions[place].visible():
                    if record.key == _MANIFEST_KEY:
                        after = _MANIFEST.decode(record.value or b"")
                        for old, new in (
                            (before.next, after.next),
                            (before.generations, after.generations),
                        ):
                            back = [name for name in old if new.get(name, -1) < old[name]]
                            demand(not back, f"{stage}[{number}]: {old} became {new}")
                        before = after

    # What lies in the log:

    def _all_written(self) -> dict[str, dict[Place, list[Any]]]:
        """Outputs by what wrote them and place."""
        written: dict[str, dict[Place, list[Any]]] = defaultdict(lambda: defaultdict(list))
        for place, log in self.sim.log.partitions.items():
            if "checkpoints" not in place[0]:
                for record in log.visible():
                    said = (record.key, record.value, record.headers)
                    written[log.owners[record.offset]][place].append(said)
        return written

    def _log(self, entity: str, number: int) -> Any:
        return self.sim.log.partitions[self.sim.topics[entity], number]

    def _processor(self, stage: Stage, number: int) -> Processor:
        return PROCESSORS[stage](Context(number, self.sim.counts, SETTINGS.core))

    def _checkpoint(self, stage: Stage, number: int) -> checkpoints.Checkpoint | None:
        place = SETTINGS.names.checkpoints(stage), number
        return checkpoints.parse(latest_of(self.sim.log, place), stage, number)

    def _restored(self, stage: Stage, number: int) -> State:
        """What a processor would hold that restored now, whole."""
        processor, found = self._processor(stage, number), self._checkpoint(stage, number)
        if found is not None:
            processor.restore(found.parts)
        return processor.changes(complete=True)

    def _reports(self, number: int) -> list[ProgressReported]:
        owner = source("monitor", number)
        return [
            msgspec.json.decode(msgspec.Raw(data_of(record)), type=ProgressReported)
            for record in self._log("summaries", 0).visible_of(owner)
            if b"progress.reported" in (record.value or b"")[:300]
        ]


def _is_measured(written: tuple[Any, bytes | None, Any]) -> bool:
    """How long score took: a fact to whoever reads it, but no output of a replay."""
    return b'"latencies":' in (written[1] or b"")


def _one_by_one(written: list[tuple[Any, bytes | None, Any]]) -> list[str]:
    """Examples, sorted: which of them share a record depends on what was applied together."""
    return sorted(repr(example) for _, value, _ in written for example in examples_in(value or b""))


def _differs(where: str, told: list[Any], again: list[Any]) -> str:
    at = next((i for i, (a, b) in enumerate(zip(told, again, strict=False)) if a != b), None)
    if at is None:
        return f"{where}: {len(told)} records, the replay has {len(again)}"
    return f"{where}: record {at} is {told[at]}, in the replay {again[at]}"
