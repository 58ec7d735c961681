"""Runs of records read as columns: one check of a column instead of one of each record.

A run passes only if each of its records would pass alone, with the same outcome. Where it does
not, nothing is said about which one is to blame: its records are then read one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec import UNSET

from stream.core.processor import CoreSettings, Headers, Records
from stream.core.shapes import BROKEN, Shape, is_event
from stream.envelope import ms_of


class Columns(NamedTuple):
    """What the records of one run say, in their order.

    Attributes:
        times_ms: event times.
        data: structs of the shape's data type.
    """

    times_ms: Sequence[int]
    data: Sequence[Any]
    traceparents: Sequence[str | None]


def read_columns(shape: Shape, records: Records, settings: CoreSettings) -> Columns | None:
    """The columns of one or more records, None if any of them needs a closer look."""
    values: Sequence[Any] = records.values
    if not all(values) or max(map(len, values)) > settings.max_event_bytes:
        return None
    if any(map(has_attributes, filter(None, records.headers))):
        return None
    stamps = records.stamps_ms
    try:
        if is_event(values[0]):
            columns = _structured(list(map(shape.structured.decode, values)), stamps)
        else:
            data = list(map(shape.data.decode, values))
            no_event = all(one.specversion is UNSET for one in data)
            if not (no_event and all(map(bytes.isascii, values))):  # others may not be UTF-8
                return None
            columns = Columns(stamps, data, [None] * len(data))
    except BROKEN:
        return None
    ids = "".join([data.prediction_id for data in columns.data])
    right = ids.isascii() and ids.isprintable() and _on_time(columns.times_ms, stamps, settings)
    return columns if right else None


def has_attributes(headers: Headers) -> bool:
    """Whether headers say something about the event."""
    return any(name[:3] == "ce_" or name == "traceparent" for name, _ in headers)


def _structured(envelopes: Sequence[Any], stamps: Sequence[int]) -> Columns:
    times = [envelope.time for envelope in envelopes]
    times_ms = [
        stamp if time is None else ms_of(time) for time, stamp in zip(times, stamps, strict=True)
    ]
    data = [envelope.data for envelope in envelopes]
    return Columns(times_ms, data, [envelope.traceparent for envelope in envelopes])


def _on_time(times_ms: Sequence[int], stamps: Sequence[int], settings: CoreSettings) -> bool:
    if times_ms is stamps:
        return settings.max_late_ms >= 0 and settings.max_ahead_ms >= 0
    ahead_ms = [time_ms - stamp for time_ms, stamp in zip(times_ms, stamps, strict=True)]
    return -settings.max_late_ms <= min(ahead_ms) and max(ahead_ms) <= settings.max_ahead_ms
