"""Predictions as the records that score writes: structured CloudEvents, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import repeat
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw, Struct

from stream.core.framing import SLOT, framed, slot_after, texts, time_texts
from stream.envelope import SPEC_VERSION, from_ms
from stream.events import LifecycleChanged

SOURCE: Final = "driftline/score"
KIND: Final = "driftline.prediction.made.v1"
_ENCODER: Final = msgspec.json.Encoder()

Said = float | list[float] | None  # one output; None where the model has none that is finite


class _Prediction(Struct, frozen=True, gc=False, omit_defaults=True):
    """`PredictionMade`, its features the text that the request brought: not a digit changes."""

    prediction_id: str
    model: str
    version: int
    output: Said
    features: Raw
    spec_revision: int
    generation: int
    shadow: dict[str, Said] = {}


class _Envelope(Struct, frozen=True, gc=False, omit_defaults=True):
    """`stream.envelope.Envelope` with its data inside, so that one pass encodes both."""

    specversion: str
    id: str
    source: str
    type: str
    time: datetime
    datacontenttype: str
    data: _Prediction
    traceparent: str | None = None


class Columns(NamedTuple):
    """What differs from prediction to prediction.

    Attributes:
        offsets, times_ms: of the requests.
        said: the outputs of the version that answers.
        features: the requests' own text.
        beside: what shadows said, by version; empty where there are no shadows.
    """

    offsets: Sequence[int]
    times_ms: Sequence[int]
    ids: Sequence[str]
    said: Sequence[Said]
    features: Sequence[Raw]
    beside: Sequence[dict[str, Said]]
    traceparents: Sequence[str | None]


def encoded(
    columns: Columns, lifecycle: LifecycleChanged, version: int, partition: int
) -> list[bytes]:
    """One event for each; the bytes of an event do not depend on what it is encoded with.

    Args:
        version: that answers.
    """
    if any(columns.traceparents) or {} in columns.beside:
        return list(map(_ENCODER.encode, _envelopes(columns, lifecycle, version, partition)))
    return _framed(columns, lifecycle, version, partition)


def _envelopes(
    columns: Columns, lifecycle: LifecycleChanged, version: int, partition: int
) -> Iterable[_Envelope]:
    predictions = map(
        _Prediction,
        columns.ids,
        repeat(lifecycle.model),
        repeat(version),
        columns.said,
        columns.features,
        repeat(lifecycle.spec_revision),
        repeat(lifecycle.generation),
        columns.beside or repeat({}),
    )
    return map(
        _Envelope,
        repeat(SPEC_VERSION),
        # A derived event's id tells its cause: here the request's place is enough.
        [f"{partition}/{offset}" for offset in columns.offsets],
        repeat(SOURCE),
        repeat(KIND),
        map(from_ms, columns.times_ms),
        repeat("application/json"),
        predictions,
        columns.traceparents,
    )


def _framed(
    columns: Columns, lifecycle: LifecycleChanged, version: int, partition: int
) -> list[bytes]:
    """Of events that have no more to say than most: the same bytes in a third of the time."""
    prediction = _Prediction(
        SLOT,
        lifecycle.model,
        version,
        SLOT,
        SLOT,
        lifecycle.spec_revision,
        lifecycle.generation,
        SLOT if columns.beside else {},
    )
    place = slot_after(f"{partition}/")
    frame = _Envelope(SPEC_VERSION, place, SOURCE, KIND, SLOT, "application/json", prediction)
    filled: list[Iterable[bytes]] = [
        texts(columns.offsets),
        time_texts(columns.times_ms),
        texts(columns.ids),
        texts(columns.said),
        columns.features,
    ]
    return framed(frame, [*filled, texts(columns.beside)] if columns.beside else filled)
