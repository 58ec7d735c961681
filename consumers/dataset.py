"""Labelled examples with their features, read from Kafka by offsets.

`examples` is read backwards in growing chunks, so that a model with a short window does not cost
the whole log; `predictions` is then read once, sequentially, beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from consumers.labelled import examples_in
from consumers.places import Delivered, Span
from models.erasures import erasure_of
from models.features import Row, check_row
from models.runs import DataRange, OffsetRange
from models.spec import ModelSpec
from stream.core.processor import Record
from stream.core.shadowed import MARK
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import ExampleLabelled, Label, PredictionMade
from stream.settings import Settings

FIRST_CHUNK = 32  # records of each partition, a thousand examples each at most; the next: twice


class Reader(Protocol):
    """What this module needs of `consumers.reading.RangeReader`."""

    def bounds(self, entity: str) -> list[Span]: ...

    def read(self, entity: str, spans: Sequence[Span]) -> Iterator[Delivered]: ...


class Dataset(NamedTuple):
    """Labelled rows in the order of event time, and where they came from.

    Attributes:
        rows: feature values in the spec's order.
        times_ms: event time of the predictions; known_ms: of their labels.
        data: what was read, for the run's record.
        gone: labelled predictions that the log no longer holds.
        unfit: labelled predictions whose features do not fit the spec.
    """

    rows: list[Row]
    labels: list[Label]
    times_ms: list[int]
    weights: list[float]
    known_ms: list[int]
    data: DataRange
    gone: int = 0
    unfit: int = 0


class Labelled(NamedTuple):
    """One example with its features; sorts by event time."""

    time_ms: int
    prediction_id: str
    row: Row
    label: Label
    weight: float
    known_ms: int  # when the label came


def load(
    reader: Reader,
    spec: ModelSpec,
    bounds: Sequence[Span],
    settings: Settings,
    erased: frozenset[str] = frozenset(),
) -> Dataset:
    """The newest labelled examples of a model that its spec lets a retrain use.

    Args:
        bounds: what of `examples` may be read.
        erased: predictions to leave out, as `models.erasures` names them.

    Raises:
        BrokerError, ConfigurationError: the topics cannot be read.
    """
    examples, read_spans = _newest(reader, spec, bounds, settings.max_record_bytes)
    kept = [e for e in examples if erasure_of(spec.name, e.prediction_id) not in erased]
    wanted = {(example.partition, example.offset): example for example in kept}
    around = _around(wanted)
    found: list[Labelled] = []
    needle = msgspec.json.encode(spec.name)
    predictions = met = 0
    for place, record in reader.read("predictions", _held(reader, around)):
        value = record.value or b""
        predictions += needle in value and MARK not in value
        example = wanted.get(place)
        if example is not None:
            met += 1
            with contextlib.suppress(Refused, ValueError):
                row = _features(record, spec, settings.max_event_bytes)
                found.append(_labelled(example, row))
    found.sort(key=lambda item: (item.time_ms, item.prediction_id))
    spans = {"examples": read_spans, "predictions": around}
    facts = DataRange(
        ranges=[_range(settings, entity, span) for entity in spans for span in spans[entity]],
        predictions=predictions,
        labelled=len(examples),
        erased=len(examples) - len(kept),
    )
    return assemble(spec, found, facts)._replace(gone=len(kept) - met, unfit=met - len(found))


def assemble(spec: ModelSpec, found: Sequence[Labelled], facts: DataRange) -> Dataset:
    """Columns from examples in the order of time; the record of them completed."""
    classes = Counter("" if spec.task == "regression" else str(item.label) for item in found)
    data = msgspec.structs.replace(
        facts,
        rows=len(found),
        classes={name: classes[name] for name in sorted(classes) if name},
        start_ms=found[0].time_ms if found else None,
        end_ms=found[-1].time_ms if found else None,
        digest=_digest(found),
    )
    return Dataset(
        rows=[item.row for item in found],
        labels=[item.label for item in found],
        times_ms=[item.time_ms for item in found],
        weights=[item.weight for item in found],
        known_ms=[item.known_ms for item in found],
        data=data,
    )


def _labelled(example: ExampleLabelled, row: Row) -> Labelled:
    return Labelled(
        time_ms=example.predicted_ms,
        prediction_id=example.prediction_id,
        row=row,
        label=example.label,
        weight=example.weight,
        known_ms=example.labelled_ms,
    )


def _features(record: Record, spec: ModelSpec, max_bytes: int) -> Row:
    opened = open_record("predictions", record, max_bytes=max_bytes)
    return check_row(spec, read(opened, PredictionMade).features)


def _range(settings: Settings, entity: str, span: Span) -> OffsetRange:
    topic = settings.names.topic(entity)
    return OffsetRange(topic=topic, partition=span.partition, first=span.start, end=span.end)


def _newest(
    reader: Reader, spec: ModelSpec, bounds: Sequence[Span], max_bytes: int
) -> tuple[list[ExampleLabelled], list[Span]]:
    """The last word on each prediction of the window, and the spans read for it."""
    limits = spec.training
    window_ms = round(limits.window_seconds * 1000)
    latest: dict[str, ExampleLabelled] = {}
    newest_ms, starts = 0, {span.partition: span.end for span in bounds}
    for chunk in _backwards(bounds):
        chunk_ms = 0  # the newest label in the chunk, of any model; of what aborted there is none
        for example in _examples(reader, chunk, max_bytes):
            chunk_ms = max(chunk_ms, example.labelled_ms)
            if example.model == spec.name:
                newest_ms = max(newest_ms, example.labelled_ms)
                _keep(latest, example)
        starts |= {span.partition: span.start for span in chunk}
        past = newest_ms and 0 < chunk_ms < newest_ms - window_ms
        if past or len(latest) >= limits.maximum_rows:
            break
    kept = [e for e in latest.values() if e.predicted_ms > newest_ms - window_ms]
    kept.sort(key=lambda example: (example.predicted_ms, example.prediction_id))
    return kept[-limits.maximum_rows :], [s._replace(start=starts[s.partition]) for s in bounds]


def _examples(reader: Reader, spans: Sequence[Span], max_bytes: int) -> Iterator[ExampleLabelled]:
    for _, record in reader.read("examples", spans):
        # Only monitor writes here; what anyone else wrote is no example.
        with contextlib.suppress(Refused):
            yield from examples_in(record, max_bytes)


def _keep(latest: dict[str, ExampleLabelled], example: ExampleLabelled) -> None:
    """The newest correction of a label counts, whatever the order of reading."""
    known = latest.setdefault(example.prediction_id, example)
    if (example.revision, example.labelled_ms) > (known.revision, known.labelled_ms):
        latest[example.prediction_id] = example


def _backwards(bounds: Sequence[Span]) -> Iterator[list[Span]]:
    """
    >>> [[s.start for s in chunk] for chunk in _backwards([Span(0, 5, 205)])]
    [[173], [109], [5]]
    """
    left, size = [span for span in bounds if span.length], FIRST_CHUNK
    while left:
        yield [span._replace(start=max(span.end - size, span.start)) for span in left]
        left = [span._replace(end=span.end - size) for span in left if span.length > size]
        size *= 2


def _around(places: Iterable[tuple[int, int]]) -> list[Span]:
    """The shortest span of each partition that holds all places."""
    spans: dict[int, Span] = {}
    for partition, offset in places:
        span = spans.get(partition, Span(partition, offset, offset + 1))
        spans[partition] = Span(partition, min(span.start, offset), max(span.end, offset + 1))
    return [spans[partition] for partition in sorted(spans)]


def _held(reader: Reader, spans: Sequence[Span]) -> list[Span]:
    """The part of the spans that the log still holds."""
    if not spans:
        return []
    bounds: Mapping[int, Span] = {span.partition: span for span in reader.bounds("predictions")}
    return [
        Span(
            s.partition,
            max(s.start, bounds[s.partition].start),
            min(s.end, bounds[s.partition].end),
        )
        for s in spans
    ]


def _digest(found: Iterable[Labelled]) -> str:
    digest = hashlib.sha256()
    for item in found:
        digest.update(msgspec.json.encode(item))
    return digest.hexdigest()
