"""A user's file as events: requests, predictions or feedback, keyed as any producer would.

Event ids come from the model, the file's name and the line, so that publishing a file twice, after
an error half-way, gives doubles that the join recognises.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from consumers import files
from consumers.files import FileRow
from consumers.producing import Publisher
from models.spec import ModelSpec
from stream.envelope import derived_id, write
from stream.events import FeedbackReceived, PredictionMade, PredictionRequested
from stream.settings import Settings

SOURCE = "driftline/publish"
Kind = Literal["requests", "predictions", "feedback"]
KINDS: tuple[Kind, ...] = ("requests", "predictions", "feedback")


class Columns(NamedTuple):
    """Names of the columns that are no features."""

    id: str = "prediction_id"
    time: str = "time"
    label: str = "label"
    output: str = "output"
    version: str = "version"


class Event(NamedTuple):
    key: str
    time_ms: int
    value: bytes


def events(
    kind: Kind, spec: ModelSpec, rows: Iterable[FileRow], columns: Columns, now_ms: int
) -> Iterator[Event]:
    """One event for each row; a row without a time happened now.

    Raises:
        ConfigurationError: a row does not fit, and which.
    """
    make, event_type = MAKERS[kind]
    for row in rows:
        try:
            data = make(spec, row, columns)
            at = row.values.get(columns.time)
            time_ms = now_ms if at is None else files.time_ms(at)
        except (ValueError, TypeError) as error:
            raise row.wrong(error) from error
        key: str = data.prediction_id
        event_id = derived_id("publish", kind, spec.name, row.place, key)
        value = write(event_type, data, id=event_id, source=SOURCE, time_ms=time_ms)
        yield Event(key, time_ms, value)


def publish(
    kind: Kind, spec: ModelSpec, rows: Iterable[FileRow], columns: Columns, settings: Settings
) -> int:
    """Write every row of a file; returns how many.

    Raises:
        ConfigurationError: a row does not fit; those before it are written.
        BrokerError: some were not written.
    """
    publisher = Publisher(settings)
    now_ms = time.time_ns() // 1_000_000
    sent = 0
    try:
        for event in events(kind, spec, rows, columns, now_ms):
            stamp = event.time_ms if settings.clock == "event" else 0
            publisher.send(kind, event.key.encode(), event.value, timestamp_ms=stamp)
            sent += 1
    finally:
        publisher.flush()
    return sent


def _request(spec: ModelSpec, row: FileRow, columns: Columns) -> PredictionRequested:
    return PredictionRequested(
        prediction_id=_id(spec, row, columns),
        model=spec.name,
        features=files.features(spec, _flat(row)),
    )


def _prediction(spec: ModelSpec, row: FileRow, columns: Columns) -> PredictionMade:
    return PredictionMade(
        prediction_id=_id(spec, row, columns),
        model=spec.name,
        version=int(str(_required(row, columns.version))),
        output=output_of(_required(row, columns.output)),
        features=files.features(spec, _flat(row)),
    )


def _feedback(spec: ModelSpec, row: FileRow, columns: Columns) -> FeedbackReceived:
    return FeedbackReceived(
        prediction_id=str(_required(row, columns.id)),
        model=spec.name,
        label=files.label(spec, row.values.get(columns.label)),
    )


def _flat(row: FileRow) -> dict[str, object]:
    """Features may stand beside the other columns, or in an object of their own."""
    nested = row.values.get("features")
    return nested if isinstance(nested, dict) else row.values


def _id(spec: ModelSpec, row: FileRow, columns: Columns) -> str:
    """The row's own id; else one that is the same each time this file is published."""
    given = row.values.get(columns.id)
    return derived_id("row", spec.name, row.place) if given is None else str(given)


def _required(row: FileRow, name: str) -> object:
    value = row.values.get(name)
    if value is None:
        raise ValueError(f"nothing in column {name!r}")
    return value


def output_of(value: object) -> float | list[float]:
    """A number, or one probability for each class (JSON list; in CSV separated by blanks)."""
    if isinstance(value, list):
        return [float(number) for number in value]
    numbers = [float(number) for number in str(value).split()]
    return numbers[0] if len(numbers) == 1 else numbers


Made = PredictionRequested | PredictionMade | FeedbackReceived
MAKERS: dict[Kind, tuple[Callable[[ModelSpec, FileRow, Columns], Made], str]] = {
    "requests": (_request, "driftline.prediction.requested.v1"),
    "predictions": (_prediction, "driftline.prediction.made.v1"),
    "feedback": (_feedback, "driftline.feedback.received.v1"),
}
