"""Records from producers to checked events.

One pass with decoders made for the record's model accepts what is right, many records at once. What
that pass refuses is sifted, and only what still does not pass is looked at again, slowly, for the
exact reason. The pass guesses that the model is that of the record before, and a wrong guess costs
only time: what becomes of a record depends on its own bytes, never on its neighbours, so that every
split of a stream decodes to the same events.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from models.features import Row
from stream.core.accepted import Event, Events
from stream.core.checking import blamed, check_id, refuse_time
from stream.core.columns import has_attributes, read_columns
from stream.core.known import VALUES, Known, named_in, served_here, values_of
from stream.core.processor import CoreSettings, Fleet, Record, Records
from stream.core.shapes import BROKEN, Same, is_event, is_plain, shape_of
from stream.envelope import Opened, ms_of, open_record, read
from stream.errors import Refused
from stream.events import (
    DEFAULT_TYPES,
    EVENT_TYPES,
    ClockAdvanced,
    Model,
)

#: What lifecycle may be about to say: a producer can be quicker to know it than a worker.
UNKNOWN = frozenset({"unknown-feature", "unknown-model", "unknown-version"})


class Decoded(NamedTuple):
    """What became of a run of records; each is in one list, in the order they came in.

    Attributes:
        unknown: the model, version or feature is not known yet: to be parked.
        clocks: how far a replayer says that event time is, in ms.
    """

    events: Events
    refused: list[tuple[Record, Refused]]
    unknown: list[tuple[Record, Refused]]
    clocks: list[int]


class _Mixed(NamedTuple):
    """A `Decoded` in the making: events with their places in the batch, in any order."""

    parts: list[tuple[Sequence[int], Events]]
    alone: list[tuple[int, Event]]
    refused: list[tuple[Record, Refused]]
    unknown: list[tuple[Record, Refused]]
    clocks: list[int]

    def decoded(self) -> Decoded:
        places = [place for of, _ in self.parts for place in of] + [at for at, _ in self.alone]
        events = Events.joined([part for _, part in self.parts], [one for _, one in self.alone])
        order = sorted(range(len(places)), key=places.__getitem__)
        if order != list(range(len(places))):
            events = events.take(order)
        return Decoded(events, *self[2:])


class _Head(Struct):
    model: Model


_HEAD = msgspec.json.Decoder(_Head)
_OBJECT = frozenset(b"{ \t\r\n")  # how an object in JSON begins
_RUN = 64  # records that are read as columns: one that is not right makes the others slow, too
_FEW = 16  # records that are sooner read one by one than sifted


def all_right(
    entity: str, records: Records, fleet: Fleet, settings: CoreSettings
) -> Decoded | None:
    """As `decode`, if one pass tells that all records are right."""
    events = _Reader(entity, fleet, settings).together(records)
    return None if events is None else Decoded(events, [], [], [])


def decode(
    entity: str,
    records: Sequence[Record],
    fleet: Fleet,
    settings: CoreSettings,
    *,
    tried: bool = False,
) -> Decoded:
    """Tell events from refused records. Raises nothing for what a record holds.

    Args:
        entity: "requests", "predictions" or "feedback".
        tried: `all_right` said that they are not all right.
    """
    records = Records.of(records)
    reader = _Reader(entity, fleet, settings)
    events = None if tried else reader.together(records)
    if events is not None:
        return Decoded(events, [], [], [])
    places = range(len(records))
    # A single run has been tried already.
    parts, left = reader.in_runs(records, places) if len(records) > _RUN else ([], [*places])
    mixed = _Mixed(parts, [], [], [], [])
    _apart(reader, records, left, mixed)
    return mixed.decoded()


def _apart(reader: _Reader, records: Records, places: Sequence[int], mixed: _Mixed) -> None:
    """Records not all of which are right: what seems right together, the others one by one."""
    passed, others = reader.sifted(records, places)
    mixed.parts.extend(passed)
    found: Event | int | Refused | None
    for (place, known), record in zip(others.items(), records.take([*others]), strict=True):
        try:
            found = known if isinstance(known, Refused) else reader.alone(record, quick=known)
        except Refused as refused:
            found = refused.bare()
        if isinstance(found, Refused):
            kept = mixed.unknown if found.reason in UNKNOWN else mixed.refused
            kept.append((record, found))
        elif isinstance(found, Event):
            mixed.alone.append((place, found))
        else:
            mixed.clocks.append(found)


@lru_cache(maxsize=4)  # of the entities; it must not hold on to many fleets
def _known_of(entity: str, same: Same[Fleet]) -> dict[str, Known]:
    """The live models that were met so far: of a thousand, each batch meets most."""
    return {}


class _Reader:
    """Reads records of one entity with one fleet."""

    def __init__(self, entity: str, fleet: Fleet, settings: CoreSettings) -> None:
        self._entity, self._fleet = entity, fleet
        self._values = VALUES[entity]
        self._settings = settings
        self._clock_is_event = settings.clock == "event"
        self._max_bytes = settings.max_event_bytes
        self._max_late_ms = settings.max_late_ms
        self._max_ahead_ms = settings.max_ahead_ms
        self._guess: Known | None = None
        self._known = _known_of(entity, Same(fleet))

    def together(self, records: Records, known: Known | None = None) -> Events | None:
        """The events of a run of records, if one pass tells that all are right.

        Args:
            known: the model of one of them, where that is known.
        """
        if len(records) < 2:
            return None
        known = self._guess = known or self._guess or self._hinted(records.values[0] or b"")
        columns = known and read_columns(known.shape, records, self._settings)
        if not known or not columns:
            return None
        times_ms, data, traceparents = columns
        models = {name: self._lookup(name) for name in {one.model for one in data}}
        if any(model is None or model.shape is not known.shape for model in models.values()):
            return None
        try:
            values = values_of(self._entity, models, data)
            rows = self._rows(known, data)
        except (Refused, ValueError, *BROKEN):
            return None
        return Events(records, times_ms, data, rows, values, traceparents)

    def in_runs(
        self, records: Records, places: Sequence[int], known: Known | None = None
    ) -> tuple[list[tuple[Sequence[int], Events]], list[int]]:
        """As `together`, of short runs, for records not all of which are right.

        Args:
            places: one of each record.

        Returns:
            events by their places, and the places of the runs that do not pass.
        """
        passed: list[tuple[Sequence[int], Events]] = []
        left: list[int] = []
        for start in range(0, len(records), _RUN):
            run = places[start : start + _RUN]
            events = self.together(records[start : start + _RUN], known)
            if events is None:
                left += run
            else:
                passed.append((run, events))
        return passed, left

    def _features(self, known: Known, data: Sequence[Any]) -> list[Any]:
        return [] if self._entity == "feedback" else known.shape.features_of(data)

    def _rows(self, known: Known, data: Sequence[Any]) -> Sequence[Row]:
        if self._entity == "feedback":
            return ((),) * len(data)
        return known.shape.rows(known.shape.features_of(data))

    def sifted(
        self, records: Records, places: Sequence[int]
    ) -> tuple[list[tuple[Sequence[int], Events]], dict[int, Refused | bool]]:
        """What passes together once all that its decoder refuses is left out.

        Returns:
            events by their places, and the other places in order: why it is refused, as far as
            that is known already, or whether its decoder took it.
        """
        others: dict[int, Refused | bool] = {}
        if len(places) <= _FEW:
            return [], dict.fromkeys(places, True)
        values, headers = records.values, records.headers
        fitting: dict[tuple[int, bool], tuple[Known, list[int]]] = {}
        for place in places:
            value, more = values[place], headers[place]
            if not value or len(value) > self._max_bytes or (more and has_attributes(more)):
                others[place] = False
                continue
            plain = value[0] not in _OBJECT or is_plain(value)
            found = self._as_plain(value) if plain else self._as_event(value)
            if isinstance(found, Known):
                like = id(found.shape), plain
                if like not in fitting:
                    fitting[like] = found, []
                fitting[like][1].append(place)
            else:
                others[place] = found if found and not more else False
        passed: list[tuple[Sequence[int], Events]] = []
        for known, some in fitting.values():
            fits = records.take(some)
            events = self.together(fits, known)
            if events is not None:
                passed.append((some, events))
                continue
            parts, left = self.in_runs(fits, some, known)
            passed += parts
            others |= dict.fromkeys(left, True)
        return passed, dict(sorted(others.items()))

    def _as_plain(self, value: bytes) -> Known | Refused:
        """A model that data alone fits, that of a record before if it can be, or what is wrong."""
        known, error = self._guess, None
        if known and value[0] in _OBJECT:
            error = known.shape.misfit(value, plain=True)
            if error is None:
                return known
        named = self._named(value)
        if isinstance(named, Refused):
            return named
        if known is None or named.shape is not known.shape:
            self._guess = named
            error = named.shape.misfit(value, plain=True)
        return named if error is None else blamed(error)

    def _as_event(self, value: bytes) -> Known | None:
        """A model that the value fits as a CloudEvent; None: it takes a closer look."""
        if not is_event(value):
            return None
        known = self._guess
        if known and known.shape.misfit(value, plain=False) is None:
            return known
        named = self._hinted(value)
        if not named or (known and named.shape is known.shape):
            return None
        if named.shape.misfit(value, plain=False) is not None:
            return None
        self._guess = named
        return named

    def alone(self, record: Record, *, quick: bool) -> Event | int | Refused:
        """What becomes of one record, as `exact` says; quick: it is likely to be right."""
        return (quick and self.quick(record)) or self.exact(record)

    def quick(self, record: Record) -> Event | None:
        """The event, if one pass tells that the record is right."""
        _, _, _, value, headers = record
        if not value or value[0] not in _OBJECT or len(value) > self._max_bytes:
            return None
        if headers and has_attributes(headers):
            return None
        event = self._guess and self._one_pass(record, value, self._guess)
        if event:
            return event
        known = self._hinted(value)
        if not known or known is self._guess:
            return None
        self._guess = known
        return self._one_pass(record, value, known)

    def _hinted(self, value: bytes) -> Known | None:
        """What seems to be the record's model."""
        name = named_in(value)
        return self._lookup(name) if name else None

    def _one_pass(self, record: Record, value: bytes, known: Known) -> Event | None:
        time_ms, traceparent = record.timestamp_ms, None
        name, _, shape, _, _ = known
        try:
            if is_event(value):
                envelope = shape.structured.decode(value)
                data, traceparent = envelope.data, envelope.traceparent
                if envelope.time is not None:
                    time_ms = ms_of(envelope.time)
            elif b"\\" in value or not value.isascii():
                return None  # the text may yet spell specversion, or not be UTF-8
            else:
                data = shape.data.decode(value)
            features = self._features(known, [data])
        except BROKEN:
            return None
        if data.model != name:
            other = self._lookup(data.model)
            if other is None or other.shape is not shape:
                return None
            known = other  # of the same features: what was decoded holds
        return self._checked(record, time_ms, data, features, known, traceparent)

    def exact(self, record: Record) -> Event | int | Refused:
        """The event, the time of a clock record, or why it is neither; slower.

        Raises:
            Refused: as well. What is refused most is returned, which costs half of a raise.
        """
        time_ms, value = record.timestamp_ms, record.value
        bare = value and not record.headers and len(value) <= self._max_bytes
        if value and bare and (value[0] not in _OBJECT or is_plain(value)):
            return self._data(record, value, time_ms, None)
        opened = open_record(self._entity, record, max_bytes=self._max_bytes)
        if EVENT_TYPES[opened.type][0] is ClockAdvanced:
            return self._clock(record, opened)
        if opened.type != DEFAULT_TYPES[self._entity]:
            raise Refused("unknown-event", f"{opened.type!r} is not written to {self._entity}")
        return self._data(record, opened.data, opened.time_ms, opened.traceparent)

    def _data(
        self,
        record: Record,
        text: bytes | memoryview | msgspec.Raw,
        time_ms: int,
        traceparent: str | None,
    ) -> Event | Refused:
        known = self._named(text)
        if isinstance(known, Refused):
            return known
        try:
            if known.shape.strict:
                known.shape.strict.decode(text)
            data = known.shape.data.decode(text)
            features = self._features(known, [data])
        except BROKEN as error:
            return blamed(error)
        return self._checked(record, time_ms, data, features, known, traceparent)

    def _named(self, text: bytes | memoryview | msgspec.Raw) -> Known | Refused:
        """The model that data names, or why there is none."""
        try:
            name = _HEAD.decode(text).model
        except BROKEN as error:
            return blamed(error)
        return self._lookup(name) or Refused("unknown-model", f"no model {name!r} is live")

    def _lookup(self, name: str) -> Known | None:
        live, known = self._fleet.get(name), self._known.get(name)
        if live is None:
            return None
        if known is not None and known.live is live:
            return known
        if self._entity == "requests" and not served_here(live):
            return None
        shape = shape_of(self._entity, live.lifecycle.spec)
        known = self._known[name] = Known(name, live, shape, set(), {})
        return known

    def _checked(
        self,
        record: Record,
        time_ms: int,
        data: Any,
        features: list[Any],
        known: Known,
        traceparent: str | None,
    ) -> Event:
        id_ = data.prediction_id
        if not (id_.isascii() and id_.isprintable()):
            check_id(id_)
        ahead_ms = time_ms - record.timestamp_ms
        if not -self._max_late_ms <= ahead_ms <= self._max_ahead_ms:
            refuse_time(ahead_ms)
        values = self._values(known, data)
        try:
            rows = known.shape.rows(features)
        except ValueError as error:
            raise Refused("bad-features", str(error)) from error
        return Event(record, time_ms, data, rows[0] if rows else (), values, traceparent)

    def _clock(self, record: Record, opened: Opened) -> int:
        if not self._clock_is_event:
            raise Refused(
                "unknown-event", "the clock is the broker's: setting `clock` is not 'event'"
            )
        clock_ms = read(opened, ClockAdvanced).clock_ms
        if not -self._max_late_ms <= clock_ms - record.timestamp_ms <= self._max_ahead_ms:
            refuse_time(clock_ms - record.timestamp_ms)
        return clock_ms
