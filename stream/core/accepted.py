"""Accepted events, many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final, overload

from msgspec import Struct

from models.features import Row
from stream.core.processor import Record, Records
from stream.events import FeedbackReceived, PredictionMade, PredictionRequested

Data = PredictionRequested | PredictionMade | FeedbackReceived


class Event(Struct, frozen=True, gc=False):
    """One accepted event.

    Attributes:
        time_ms: event time.
        data: the event's struct; `features` in it is a generated struct, of requests still text:
            use `row` instead.
        row: feature values in the order of the spec; () for feedback.
        values: predictions: the output as `spec.outputs` floats; feedback: the encoded label.
    """

    record: Record
    time_ms: int
    data: Data
    row: Row
    values: tuple[float, ...] = ()
    traceparent: str | None = None


class Events(Sequence[Event]):
    """Events as columns of equal length; an `Event` is made where one is looked at."""

    __slots__ = ("_ids", "data", "records", "rows", "times_ms", "traceparents", "values")

    def __init__(
        self,
        records: Records,
        times_ms: Sequence[int],
        data: Sequence[Any],
        rows: Sequence[Row],
        values: Sequence[tuple[float, ...]],
        traceparents: Sequence[str | None],
    ) -> None:
        self.records = records
        self.times_ms = times_ms
        self.data = data
        self.rows = rows
        self.values = values
        self.traceparents = traceparents
        self._ids: list[str] | None = None

    @classmethod
    def of(cls, events: Sequence[Event]) -> Events:
        """The columns of events."""
        record, *others = (list(map(get, events)) for get in _FIELDS)
        return cls(Records.of(record), *others)

    @classmethod
    def joined(cls, parts: Sequence[Events], events: Sequence[Event] = ()) -> Events:
        """Columns of several, and of single events, one after the other."""
        if events or not parts:
            parts = [*parts, cls.of(events)]
        if len(parts) == 1:
            return parts[0]
        records = Records.joined([part.records for part in parts])
        others = zip(*(part._columns[1:] for part in parts), strict=True)  # noqa: SLF001
        return cls(records, *(list(chain.from_iterable(columns)) for columns in others))

    def __len__(self) -> int:
        return len(self.data)

    @overload
    def __getitem__(self, place: int) -> Event: ...
    @overload
    def __getitem__(self, place: slice) -> Events: ...
    def __getitem__(self, place: int | slice) -> Event | Events:
        columns = (column[place] for column in self._columns)
        return Events(*columns) if isinstance(place, slice) else Event(*columns)

    def __iter__(self) -> Iterator[Event]:
        return map(Event, *self._columns)

    @property
    def ids(self) -> list[str]:
        if self._ids is None:
            self._ids = [one.prediction_id for one in self.data]
        return self._ids

    def take(self, places: Sequence[int]) -> Events:
        """The events at these places."""
        others = [[column[place] for place in places] for column in self._columns[1:]]
        return Events(self.records.take(places), *others)

    @property
    def _columns(self) -> tuple[Any, ...]:
        return (
            self.records,
            self.times_ms,
            self.data,
            self.rows,
            self.values,
            self.traceparents,
        )


_FIELDS: Final = [attrgetter(name) for name in Event.__struct_fields__]
