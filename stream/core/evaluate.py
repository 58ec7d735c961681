"""The stage evaluate: merges summaries of all partitions, closes ticks, judges, decides.

A tick is closed when every partition of monitor has reported a watermark past its end. Verdicts are
a fold over closed ticks in their order, so neither the order in which partitions deliver nor where
batches are cut can change them. Checkpoint parts: `progress`, and `model.<name>` for each model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import Struct

from stream.core.alerts import answered
from stream.core.evaluation import ModelState
from stream.core.judging import Fact
from stream.core.processor import Batch, Context, Fleet, LiveModel, Output, Parts, Record
from stream.core.trails import Offsets, hull
from stream.core.watching import Kit
from stream.envelope import derived_id, open_record, read, write
from stream.errors import Refused
from stream.events import (
    AccuracyMeasured,
    Alert,
    AlertHandled,
    Command,
    DriftMeasured,
    GenerationAdopted,
    ProgressReported,
    RetrainHeld,
    SummaryComputed,
)

SOURCE = "driftline/evaluate"
PROGRESS = "progress"
MODEL = "model."
SUMMARY_TYPE = "driftline.summary.computed.v1"
HANDLED_TYPE = "driftline.alert.handled.v1"
MAX_BYTES = 2**31  # summaries are our own, and may be larger than what producers are allowed

#: Where facts go whose kind does not begin with it.
ENTITIES: Mapping[type[Struct], str] = {
    Alert: "alerts",
    RetrainHeld: "decisions",
    GenerationAdopted: "decisions",
}

# Dicts keep the order they were filled in, also across a restore: equal histories, equal bytes.
_ENCODER = msgspec.json.Encoder()


class Progress(Struct, omit_defaults=True):
    """How far each partition of monitor is."""

    partitions: int = 0
    watermarks: dict[int, int] = {}
    next: int = 0  # offset of `summaries` that is applied next

    def take(self, report: ProgressReported) -> None:
        self.partitions = report.partitions
        known = self.watermarks.get(report.partition, report.watermark_ms)
        self.watermarks[report.partition] = max(known, report.watermark_ms)

    @property
    def watermark_ms(self) -> int | None:
        """Event time that every partition has passed; None before all have reported.

        >>> Progress(partitions=2, watermarks={0: 70}).watermark_ms is None
        True
        >>> Progress(partitions=2, watermarks={0: 70, 1: 50}).watermark_ms
        50
        """
        if not self.partitions or not set(range(self.partitions)) <= self.watermarks.keys():
            return None
        return min(self.watermarks[partition] for partition in range(self.partitions))


_PROGRESS = msgspec.json.Decoder(Progress)
_MODEL = msgspec.json.Decoder(ModelState)


def _trusting(_: Record) -> None:
    """Nobody's word is checked."""


class EvaluateProcessor:
    """One partition of `summaries`: the models whose key falls there.

    Args:
        check: raises `Refused` for a record about handling an alert whose writer is not trusted.
    """

    def __init__(self, context: Context, check: Callable[[Record], None] = _trusting) -> None:
        self._context = context
        self._check = check
        self._progress = Progress()
        self._models: dict[str, ModelState] = {}
        self._kits: dict[str, tuple[tuple[int, int], Kit]] = {}  # by model; made again at a restart
        self._dirty: set[str] = set()  # parts
        self._counters: Counter[str] = Counter()

    def restore(self, parts: Mapping[str, bytes]) -> None:
        for part, data in parts.items():
            if part == PROGRESS:
                self._progress = _PROGRESS.decode(data)
            else:
                self._models[part.removeprefix(MODEL)] = _MODEL.decode(data)

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        outputs: list[Output] = []
        for record in batch.records:
            try:
                outputs += self._apply(record, fleet)
            except Refused as refused:  # counted: there is nobody to give it back to
                self._counters[f"refused:{refused.reason}"] += 1
            self._progress.next = record.offset + 1
        if batch.records:
            self._dirty.add(PROGRESS)
        return outputs

    def advance(self, clock_ms: int, caught_up: bool, fleet: Fleet) -> list[Output]:
        """Follow lifecycle. Ticks are closed by the progress that monitor reports, by no clock."""
        return [output for name in sorted(self._models) for output in self._adopt(name, fleet)]

    def changes(self, *, complete: bool) -> Parts:
        if complete:
            self._dirty = {PROGRESS, *(MODEL + name for name in self._models)}
        parts: Parts = {part: self._encode(part) for part in sorted(self._dirty)}
        self._dirty = set()
        return parts

    @property
    def generations(self) -> Mapping[str, int]:
        return {name: state.generation for name, state in self._models.items() if state.generation}

    @property
    def counters(self) -> Mapping[str, int]:
        return self._counters

    def _apply(self, record: Record, fleet: Fleet) -> list[Output]:
        opened = open_record("summaries", record, max_bytes=MAX_BYTES)
        if opened.type == SUMMARY_TYPE:
            return self._add(read(opened, SummaryComputed), record.offset, fleet)
        if opened.type == HANDLED_TYPE:
            self._check(record)
            return self._handle(read(opened, AlertHandled), fleet)
        before = self._progress.watermark_ms
        report = read(opened, ProgressReported)
        self._progress.take(report)
        self._trace(report)
        after = self._progress.watermark_ms
        if after is None or after == before:
            return []
        return [
            output for name in sorted(self._models) for output in self._close(name, after, fleet)
        ]

    def _add(self, delta: SummaryComputed, offset: int, fleet: Fleet) -> list[Output]:
        state = self._models.setdefault(delta.model, ModelState())
        outputs = self._adopt(delta.model, fleet)
        self._dirty.add(MODEL + delta.model)
        if delta.tick < state.closed:
            self._counters["late"] += 1
        here = {f"summaries/{self._context.partition}": (offset, offset + 1)}
        if not state.take(delta, hull(here, delta.offsets)):
            self._counters["dropped:unknown-model"] += 1
        return outputs

    def _trace(self, report: ProgressReported) -> None:
        applied: Offsets = {}
        for run in report.applied:
            if run.entity:
                place = f"{run.entity}/{report.partition}"
                applied = hull(applied, {place: (run.first, run.end)})
        for name, state in self._models.items():
            if report.partition in state.touched or state.held:
                state.trace(report.partition, applied)
                self._dirty.add(MODEL + name)

    def _handle(self, said: AlertHandled, fleet: Fleet) -> list[Output]:
        """A person's word on an alert; it is counted if there is no such alert open."""
        state = self._models.get(said.model)
        outputs = self._adopt(said.model, fleet) if state else []
        fact = state.handle(said) if state else None
        if fact is not None:
            self._dirty.add(MODEL + said.model)
        else:
            fact = answered(said)
        if fact is None:
            self._counters["unhandled"] += 1
            return outputs
        return outputs + self._published([fact])

    def _adopt(self, name: str, fleet: Fleet) -> list[Output]:
        live, state = fleet.get(name), self._models[name]
        if live is None or live.lifecycle.generation <= state.generation:
            return []
        self._dirty.add(MODEL + name)
        settled = state.adopt(live.lifecycle)
        adopted = GenerationAdopted(
            model=name,
            generation=state.generation,
            partition=self._context.partition,
            offset=self._progress.next,
            closed_ms=state.closed * state.tick_ms,
        )
        return self._published([adopted, *settled])

    def _close(self, name: str, watermark_ms: int, fleet: Fleet) -> list[Output]:
        live, state = fleet.get(name), self._models[name]
        if live is None:
            return []
        is_newer = live.lifecycle.generation > state.generation
        outputs = self._adopt(name, fleet) if is_newer else []
        if watermark_ms // state.tick_ms <= state.closed:
            return outputs
        self._dirty.add(MODEL + name)
        facts = state.close(watermark_ms // state.tick_ms, live, self._kit(name, live))
        return outputs + self._published(facts)

    def _kit(self, name: str, live: LiveModel) -> Kit | None:
        """Tables of the champion: costly to build, so kept while version and spec stay."""
        lifecycle = live.lifecycle
        if lifecycle.champion is None:
            return None
        key = (lifecycle.champion, lifecycle.spec_revision)
        known = self._kits.get(name)
        if known is not None and known[0] == key:
            return known[1]
        profile = live.profile(lifecycle.champion)
        if profile is None:
            self._counters["unjudged:no-profile"] += 1
            return None
        kit = Kit(lifecycle.spec, profile)
        self._kits[name] = (key, kit)
        return kit

    def _encode(self, part: str) -> bytes:
        if part == PROGRESS:
            return _ENCODER.encode(self._progress)
        return _ENCODER.encode(self._models[part.removeprefix(MODEL)])

    def _published(self, facts: Iterable[Fact | GenerationAdopted]) -> list[Output]:
        outputs = []
        for fact in facts:
            kind, output = publish(fact)
            self._counters[kind] += 1
            outputs.append(output)
        return outputs


def publish(fact: Fact | GenerationAdopted) -> tuple[str, Output]:
    """A fact or command as a record, and what to count it as; its id is a hash of its cause."""
    kind, cause, time_ms = _cause(fact)
    model = fact.model
    if isinstance(fact, Command):
        entity, key, id_ = "commands", model, fact.command_id
    else:
        entity = ENTITIES.get(type(fact), kind.partition(".")[0])
        key = fact.alert_id if isinstance(fact, Alert) else model
        id_ = derived_id(entity, model, *cause)
    value = write(f"driftline.{kind}.v1", fact, id=id_, source=SOURCE, time_ms=time_ms)
    return kind, Output(entity, key.encode(), value)


def _cause(fact: Fact | GenerationAdopted) -> tuple[str, tuple[object, ...], int]:
    """Kind, what makes the fact the one it is, and when it was so."""
    match fact:
        case AccuracyMeasured():
            cause = (fact.version, fact.segment, fact.window, fact.end_ms, fact.revision)
            return "accuracy.measured", cause, fact.end_ms
        case DriftMeasured():
            cause = (fact.version, fact.signal, fact.window, fact.end_ms, fact.revision)
            return "drift.measured", cause, fact.end_ms
        case Alert():
            told = {0: "opened"}.get(fact.revision, "updated")
            told = "resolved" if fact.state == "resolved" else told
            return f"alert.{told}", (fact.alert_id, fact.revision), fact.updated_ms
        case Command():
            return f"command.{fact.kind}", (fact.command_id,), fact.issued_ms
        case RetrainHeld():
            why = ("held", fact.generation, fact.cause, fact.reason, fact.held_ms)
            return "retrain.held", why, fact.held_ms
        case GenerationAdopted():
            return "generation.adopted", ("adopted", fact.generation), fact.closed_ms
