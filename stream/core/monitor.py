"""The monitor stage: predictions meet their labels, and both become counts.

One partition of `predictions` and the same one of `feedback` make `examples`, `summaries` (what
this partition adds to each model, version, segment and tick) and `progress`: how far it is.

Checkpoint parts: `state`, `deltas`, `join.*`, `early.*`, `parked.*`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, compress, repeat
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from models.features import Inputs, Row, of_events
from stream.core.accepted import Events
from stream.core.batchjoin import BatchJoin, Labels, Predictions
from stream.core.clocks import Clocks
from stream.core.deadletters import dead_letter
from stream.core.decoding import Decoded, all_right, decode
from stream.core.deltas import Deltas, add_named
from stream.core.folding import FEW, Line, Made, fold_labels, fold_pairs, fold_predictions
from stream.core.grouping import chosen, crowds, numbered, others, places_of
from stream.core.joining import Counted, Joined, Meetings
from stream.core.journal import Journal
from stream.core.labelled import Labelled
from stream.core.packing import Ints
from stream.core.parking import Parking
from stream.core.processor import Batch, Context, Fleet, Output, Parts, Record, Records
from stream.core.refusals import counter, named_model
from stream.core.reporting import examples, progress, summaries
from stream.core.rerouting import misplaced, sent_on
from stream.core.shadowed import Shadowed, told_apart
from stream.core.sources import Source, Sources
from stream.core.telling import due, over
from stream.core.traces import few, is_trace
from stream.core.trails import Offsets, reached
from stream.errors import Refused
from stream.events import PredictionMade, ProgressReported, SummaryComputed
from stream.topics import INPUTS

STATE: Final = "state"

_Maker = tuple[str, int, *tuple[str, ...]]  # model, version, shadows


class _State(Struct):
    """What is small and changes with every batch."""

    clocks: Clocks
    journal: Journal
    reach: Offsets = {}  # ranges of all that was reported as applied


_STATE: Final = msgspec.msgpack.Decoder(_State)


class MonitorProcessor:
    """One partition of the monitor stage."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._settings = context.settings
        self._by_broker = context.settings.clock == "append"
        self._state = _State(Clocks.of(INPUTS["monitor"]), Journal())
        self._written = b""  # the part `state`
        self._join = BatchJoin()
        self._deltas = Deltas()
        self._parking = Parking(context.settings.unknown_model_wait_ms)
        self._fleet: Fleet = {}
        self._sources = Sources({})
        self._lines: dict[_Maker, Line] = {}
        self._made = Made()  # to be folded, as the next is
        self._joined: list[Joined] = []  # to be counted, as the next are
        self._met: list[Meetings] = []
        self._counters: Counter[str] = Counter()

    @property
    def generations(self) -> Mapping[str, int]:
        return self._state.journal.generations

    @property
    def counters(self) -> Mapping[str, int]:
        return self._counters

    @property
    def gauges(self) -> Mapping[str, int]:
        join = self._join
        return {"parked": len(self._parking), "pending": join.held, "early": join.early}

    def restore(self, parts: Mapping[str, bytes]) -> None:
        if STATE in parts:
            self._written = parts[STATE]
            self._state = _STATE.decode(self._written)
        for part in (self._join, self._deltas, self._parking):
            part.restore(parts)

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        outputs = self._meet(fleet)
        if not batch.records:
            return outputs
        records = Records.of(batch.records)
        self._state.journal.applied(batch.entity, records.offsets)
        clock = self._state.clocks.topics[batch.entity]
        clock.observe(records.stamps_ms)
        shadowed: list[Shadowed] = []
        decoded = all_right(batch.entity, records, fleet, self._settings)
        if decoded is None:
            if batch.entity == "predictions":
                records, shadowed = told_apart(records, self._settings.max_event_bytes)
            decoded = decode(batch.entity, records, fleet, self._settings, tried=not shadowed)
        for time_ms in decoded.clocks:
            clock.reach(time_ms)
        outputs += self._take(batch.entity, decoded)
        return outputs + self._shadow(shadowed)

    def advance(self, clock_ms: int, caught_up: bool, fleet: Fleet) -> list[Output]:
        journal, interval_ms = self._state.journal, self._settings.summary_interval_ms
        certain = caught_up or not self._by_broker
        if not journal.due(clock_ms, interval_ms, certain=certain):
            return []
        outputs = self._meet(fleet)
        for parked in self._parking.expired(clock_ms):
            outputs.append(self._refuse(parked.entity, parked.record, parked.refused))
        if caught_up and self._by_broker:
            self._state.clocks.idle(clock_ms)
        before_ms = self._state.clocks.watermark_ms
        self._move_watermark(clock_ms)
        return outputs + self._report(clock_ms, caught_up, before_ms)

    def changes(self, *, complete: bool) -> Parts:
        self._fold()
        parts = self._join.changes(complete=complete)
        parts |= self._deltas.changes(complete=complete)
        parts |= self._parking.changes(complete=complete)
        state = msgspec.msgpack.encode(self._state)
        if state != self._written or complete:
            self._written = parts[STATE] = state
        return parts

    def _meet(self, fleet: Fleet) -> list[Output]:
        """Go over to a fleet, if it is another one, and try again what waited for it."""
        if fleet is self._fleet:
            return []
        self._fold()
        self._fleet, self._sources, self._lines = fleet, Sources(fleet), {}
        self._state.journal.meet(fleet)
        retried = self._parking.retry(fleet, self._settings)
        return [output for entity, decoded in retried for output in self._take(entity, decoded)]

    def _take(self, entity: str, decoded: Decoded) -> list[Output]:
        outputs = [self._refuse(entity, record, refused) for record, refused in decoded.refused]
        for record, refused in decoded.unknown:
            if self._parking.park(entity, record, refused):
                self._counters["parked"] += 1
            else:
                outputs.append(self._refuse(entity, record, refused))
        events = decoded.events
        self._counters[entity] += len(events)
        elsewhere = misplaced(entity, events, self._context)
        if elsewhere:
            self._counters[f"rerouted:{entity}"] += len(elsewhere)
            outputs += [
                sent_on(entity, events.records[i], right, self._context)
                for i, right in elsewhere.items()
            ]
            events = events.take([i for i in range(len(events)) if i not in elsewhere])
        if events and entity == "predictions":
            self._predict(events)
        elif events:
            self._label(events)
        return outputs + self._examples()

    def _predict(self, events: Events) -> None:
        shadows = [one.shadow for one in events.data]
        lines = self._lines_of(_makers(events.data, shadows))
        sources = [line.source for line in lines]
        many = crowds(sources, FEW)
        inputs = {s: s.inputs(chosen(events.rows, places)) for s, places in many.items()}
        codes = _codes(sources, events.rows, inputs)
        made = Predictions(
            [line.packer for line in lines],
            events.ids,
            *self._times(events),
            events.records.offsets,
            codes,
            _with_shadows(events.values, shadows),
        )
        new = self._join.predict_all(made, self._state.clocks.watermark_ms)
        is_new = np.array(new)
        for source, places in many.items():
            kept = places[is_new[places]]
            self._made.add_many(
                source,
                chosen(events.times_ms, kept),
                chosen(codes, kept),
                of_events(inputs[source], np.flatnonzero(is_new[places])),
                chosen(events.values, kept),
            )
        alone = others(many, len(events))
        kept = alone[is_new[alone]]
        self._made.add(
            chosen(sources, kept),
            chosen(events.times_ms, kept),
            chosen(codes, kept),
            chosen(events.rows, kept),
            chosen(events.values, kept),
        )
        self._trace(events, new)

    def _shadow(self, shadowed: Sequence[Shadowed]) -> list[Output]:
        """What shadows would have said of predictions that lie before it in this partition."""
        outputs = []
        for one in shadowed:
            live = self._fleet.get(one.data.model)
            floor_ms = max(
                one.record.timestamp_ms - self._sources.lateness_ms,
                self._state.clocks.watermark_ms,
            )
            try:
                beside = one.beside(live.lifecycle.spec, floor_ms) if live else None
            except Refused as refused:
                outputs.append(self._refuse("predictions", one.record, refused))
                continue
            used = beside is not None and self._join.shadow(one.data.model, beside)
            self._counters["shadowed" if used else "shadowed:unused"] += 1
        return outputs

    def _label(self, events: Events) -> None:
        models = [one.model for one in events.data]
        times_ms, floors_ms = self._times(events)
        known, which = numbered(models)
        early_ms = np.array([self._sources.early_ms[model] for model in known])[which]
        self._join.label_all(
            Labels(
                models,
                events.ids,
                times_ms,
                floors_ms,
                times_ms + early_ms,
                [said for (said,) in events.values],
                [one.weight for one in events.data],
            )
        )
        self._trace(events, repeat(True))

    def _trace(self, events: Events, taken: Iterable[object]) -> None:
        """Keep a few of the traces that led here, where what they led to is counted."""
        if not any(events.traceparents):
            return
        for trace, data, time_ms in compress(
            zip(events.traceparents, events.data, events.times_ms, strict=True), taken
        ):
            if trace is not None and is_trace(trace):
                version = getattr(data, "version", None)
                delta = self._deltas.at(self._sources.place(data.model, version, time_ms))
                delta.traces = few(delta.traces, [trace])

    def _times(self, events: Events) -> tuple[Ints, Ints]:
        """The times of events, and their floors; those that are late are noted."""
        stamps_ms = times_ms = np.fromiter(events.times_ms, np.int64, len(events))
        if events.times_ms is not events.records.stamps_ms:
            stamps_ms = np.fromiter(events.records.stamps_ms, np.int64, len(events))
        floors_ms = np.maximum(
            stamps_ms - self._sources.lateness_ms, self._state.clocks.watermark_ms
        )
        self._note_late(events, times_ms, stamps_ms, floors_ms)
        return times_ms, floors_ms

    def _note_late(self, events: Events, times_ms: Ints, stamps_ms: Ints, floors_ms: Ints) -> None:
        """Count events that come before their floor, if that is later than their model allows."""
        late = np.flatnonzero(times_ms < floors_ms).tolist()
        counts = Counter(
            (model, getattr(data, "version", None), "late", int(floors_ms[place]))
            for place in late
            for data, model in [(events.data[place], events.data[place].model)]
            if self._sources.is_late(model, int(times_ms[place]), int(stamps_ms[place]))
        )
        self._join.counted += [Counted(*what, count) for what, count in counts.items()]

    def _lines_of(self, makers: Sequence[_Maker]) -> list[Line]:
        """The line of each, one or more."""
        first = makers[0]
        if makers.count(first) == len(makers):
            return [self._lines.get(first) or self._line(first)] * len(makers)
        return [self._lines.get(maker) or self._line(maker) for maker in makers]

    def _line(self, maker: _Maker) -> Line:
        model, version, *shadows = maker
        source = self._sources.of(model, version, tuple(shadows))
        line = self._lines[maker] = Line(source, self._join.packer(source.kind))
        return line

    def _examples(self) -> list[Output]:
        join = self._join
        joined, join.joined = join.joined, []
        met, join.met = join.met, []
        self._joined += joined
        self._met += met
        self._counters["joined"] += len(joined) + sum(len(one.ids) for one in met)
        return examples(joined, self._sources.classes, self._context.partition, met)

    def _refuse(self, entity: str, record: Record, refused: Refused) -> Output:
        self._counters[f"refused:{refused.reason}"] += 1
        model = named_model(record, self._fleet)
        if model is not None:
            place = self._sources.place(model, None, record.timestamp_ms)
            add_named(self._deltas.at(place).counters, counter(entity, refused.reason), 1)
        return dead_letter(entity, record, refused, "monitor", self._context.partition)

    def _move_watermark(self, clock_ms: int) -> None:
        clocks = self._state.clocks
        before_ms = clocks.watermark_ms
        clocks.advance(
            lateness_ms=self._sources.lateness_ms,
            held_ms=self._parking.earliest_ms,
            ceiling_ms=clock_ms if self._by_broker else None,
        )
        self._join.expire(clocks.watermark_ms, before_ms)

    def _report(self, clock_ms: int, caught_up: bool, before_ms: int) -> list[Output]:
        """Args:
        before_ms: the watermark of the last report.
        """
        self._fold()
        partition, count = self._context.partition, self._context.partitions["summaries"]
        sequence = self._state.journal.sequence
        report = ProgressReported(
            partition=partition,
            partitions=self._context.partitions["predictions"],
            sequence=sequence,
            watermark_ms=self._state.clocks.watermark_ms,
            clock_ms=clock_ms,
            caught_up=caught_up,
            applied=self._state.journal.report(clock_ms),
        )
        deltas = self._tell(report, before_ms)
        return [
            *summaries(deltas, count, sequence=sequence, clock_ms=clock_ms),
            *progress(report, count),
        ]

    def _tell(self, report: ProgressReported, before_ms: int) -> list[SummaryComputed]:
        """Counts; all of a model whose spec may have changed: its ticks may be others now."""
        below = over(self._sources.ticks_ms, before_ms, report.watermark_ms)
        for run in report.applied:
            for model in run.generations:
                below.pop(model, None)
        before = self._state.reach
        self._state.reach = reached(before, report.applied, report.partition)
        told = due(self._deltas.places, below)
        return self._deltas.tell(report.partition, told, before, self._state.reach)

    def _fold(self) -> None:
        """Count what has gathered; done for many events at once."""
        fold_predictions(self._made, self._deltas)
        self._made.clear()
        again = self._sources.again
        fold_labels(Labelled.gathered(self._joined, again, self._met), self._deltas)
        fold_pairs(Labelled.gathered(self._join.paired, again), self._deltas)
        self._joined.clear()
        self._met.clear()
        self._join.paired.clear()
        for counted in self._join.counted:
            self._counters[counted.name] += counted.n
            if counted.model in self._fleet:
                place = self._sources.place(counted.model, counted.version, counted.time_ms)
                add_named(self._deltas.at(place).counters, counted.name, counted.n)
        self._join.counted.clear()


def _makers(data: Sequence[PredictionMade], shadows: Sequence[Mapping[str, Any]]) -> list[_Maker]:
    """What made each prediction. `shadows`: what they say, by version."""
    models, versions = [one.model for one in data], [one.version for one in data]
    if any(shadows):
        made = zip(models, versions, shadows, strict=True)
        return [(model, version, *said) for model, version, said in made]
    if models.count(models[0]) == versions.count(versions[0]) == len(data):
        return [(models[0], versions[0])] * len(data)
    return list(zip(models, versions, strict=True))


def _codes(
    sources: Sequence[Source], rows: Sequence[Row], inputs: Mapping[Source, Inputs]
) -> Sequence[bytes]:
    """The codes of predictions, of all of a source at once. `inputs`: of those of many."""
    codes = [b""] * len(sources)
    if not any(source.is_coded for source in {*sources}):
        return codes
    for source, places in places_of(sources).items():
        found = source.all_codes(chosen(rows, places), inputs.get(source))
        if len(found) == len(codes):
            return found
        for place, code in zip(places.tolist(), found, strict=True):
            codes[place] = code
    return codes


def _with_shadows(
    values: Sequence[tuple[float, ...]], shadows: Sequence[Mapping[str, Any]]
) -> Sequence[tuple[float, ...]]:
    """The outputs of the versions, each followed by those of its shadows."""
    if not any(shadows):
        return values
    return [
        (*own, *chain.from_iterable(one if type(one) is list else (one,) for one in said.values()))
        for own, said in zip(values, shadows, strict=True)
    ]
