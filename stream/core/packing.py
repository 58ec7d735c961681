"""Predictions and labels as packed bytes: what a join holds millions of.

A row starts with the number of its kind, which says how the rest is laid out. Numbers, not names,
because a model, its version, shadows and horizons are the same for a great many predictions.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Final, NamedTuple

from msgspec import Struct

from models.spec import ModelSpec

_FINISHED: Final = 0x8000_0000  # beside the number of the kind: the row has its label
_LATE: Final = 0x4000_0000  # it has a floor that is later than its time
_FLAGS: Final = _FINISHED | _LATE
_MAX_U32: Final = 0xFFFF_FFFF
_NUMBER: Final = Layout("<I")
_WAITING: Final = Layout("<qqqdd")  # a Label without its id


class Kind(Struct, frozen=True, array_like=True, cache_hash=True):
    """What all predictions made alike have in common, pinned when they are made.

    Attributes:
        shadows: versions whose outputs follow the version's own.
        outputs: floats of one version's output.
        segments: categorical features; a row holds the code of the value of each.
        early_ms: how long a label waits for its prediction.
        loss_scale: of the version's bounded loss.
    """

    model: str
    version: int
    shadows: tuple[int, ...]
    outputs: int
    segments: tuple[str, ...]
    horizon_ms: int
    correction_ms: int
    early_ms: int
    loss_scale: float


def kind_of(spec: ModelSpec, version: int, shadows: tuple[int, ...], loss_scale: float) -> Kind:
    return Kind(
        model=spec.name,
        version=version,
        shadows=shadows,
        outputs=spec.outputs,
        segments=spec.segments,
        horizon_ms=round(spec.labels.horizon_seconds * 1000),
        correction_ms=round(spec.labels.correction_horizon_seconds * 1000),
        early_ms=early_ms(spec),
        loss_scale=loss_scale,
    )


def early_ms(spec: ModelSpec) -> int:
    """How long a label waits for its prediction."""
    return round(spec.labels.early_seconds * 1000)


class Prediction(NamedTuple):
    """A prediction to join.

    Attributes:
        floor_ms: no earlier time may be counted by arrival.
        codes: of the values of the segments' features.
        values: outputs of the version, then those of each shadow.
    """

    id: str
    time_ms: int
    floor_ms: int
    offset: int
    codes: bytes
    values: tuple[float, ...]


class Label(NamedTuple):
    """A label to join, encoded as a float; it waits for its prediction until `due_ms`."""

    id: str
    time_ms: int
    floor_ms: int
    due_ms: int
    label: float
    weight: float


class Finished(NamedTuple):
    """A prediction that has its label."""

    revision: int
    offset: int
    predicted_ms: int
    label: float
    weight: float
    codes: bytes
    values: tuple[float, ...]  # of the version alone


class Packer:
    """Packs and unpacks the rows of one kind."""

    def __init__(self, kind: Kind, number: int) -> None:
        self.kind = kind
        self.number = number
        self._codes = len(kind.segments)
        values = f"{self._codes}B{kind.outputs * (1 + len(kind.shadows))}d"
        self._pending = Layout(f"<IQ{values}")
        self._late = Layout(f"<IQI{values}")
        self._finished = Layout(f"<IIQqdd{self._codes}B{kind.outputs}d")

    def pending(self, made: Prediction) -> bytes:
        """A row that waits for its label. Its time is the row's due time less the horizon."""
        _, time_ms, floor_ms, offset, codes, values = made
        if floor_ms <= time_ms:
            return self._pending.pack(self.number, offset, *codes, *values)
        late_ms = min(_MAX_U32, floor_ms - time_ms)
        return self._late.pack(self.number | _LATE, offset, late_ms, *codes, *values)

    def read_pending(self, id_: str, body: bytes, due_ms: int) -> Prediction:
        late_ms = 0
        if body[3] & 0x40:
            _, offset, late_ms, *rest = self._late.unpack(body)
        else:
            _, offset, *rest = self._pending.unpack(body)
        time_ms = due_ms - self.kind.horizon_ms
        codes, values = bytes(rest[: self._codes]), tuple(rest[self._codes :])
        return Prediction(id_, time_ms, time_ms + late_ms, offset, codes, values)

    def finished(self, row: Finished) -> bytes:
        return self._finished.pack(
            self.number | _FINISHED, *row[:5], *row.codes, *row.values[: self.kind.outputs]
        )

    def read_finished(self, body: bytes) -> Finished:
        _, revision, offset, predicted_ms, label, weight, *rest = self._finished.unpack(body)
        codes, values = bytes(rest[: self._codes]), tuple(rest[self._codes :])
        return Finished(revision, offset, predicted_ms, label, weight, codes, values)

    def output(self, body: bytes) -> tuple[float, ...]:
        """The version's own output, of either sort of row."""
        if is_finished(body):
            return self.read_finished(body).values
        return self.read_pending("", body, 0).values[: self.kind.outputs]


def number_of(body: bytes) -> int:
    """The number of a row's kind."""
    number: int = _NUMBER.unpack_from(body)[0]
    return number & ~_FLAGS


def is_finished(body: bytes) -> bool:
    return body[3] >= 0x80


def pack_labels(labels: list[Label]) -> bytes:
    """Labels of one id that wait for their prediction, in the order they came."""
    return b"".join([_WAITING.pack(*label[1:]) for label in labels])


def unpack_labels(id_: str, body: bytes) -> list[Label]:
    return [Label(id_, *fields) for fields in _WAITING.iter_unpack(body)]
