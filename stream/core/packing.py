"""Predictions and labels as packed bytes: what a join holds millions of.

A row starts with the number of its kind, which says how the rest is laid out. Numbers, not names,
because a model, its version, shadows and horizons are the same for a great many predictions.
"""

from __future__ import annotations

from struct import Struct as Layout
from typing import Final

from msgspec import Struct
from msgspec.structs import astuple

from models.spec import ModelSpec

_FINISHED: Final = 0x8000_0000  # beside the number of the kind: the row has its label
_LATE: Final = 0x4000_0000  # it has a floor that is later than its time
_KIND: Final = 0x3FFF_FFFF  # without the flags: the number of the kind
_MAX_U32: Final = 0xFFFF_FFFF
_number = Layout("<I").unpack_from
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


class Prediction(Struct, frozen=True, gc=False):
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


class Label(Struct, frozen=True, gc=False):
    """A label to join, encoded as a float; it waits for its prediction until `due_ms`."""

    id: str
    time_ms: int
    floor_ms: int
    due_ms: int
    label: float
    weight: float


class Finished(Struct, frozen=True, gc=False):
    """A prediction that has its label. `values`: of the version alone."""

    revision: int
    offset: int
    predicted_ms: int
    label: float
    weight: float
    codes: bytes
    values: tuple[float, ...]


class Packer:
    """Packs and unpacks the rows of one kind.

    Attributes:
        forgotten_ms: so long after its time, a prediction's row may have been let go of.
    """

    def __init__(self, kind: Kind, number: int) -> None:
        self.kind = kind
        self.number = number
        self.forgotten_ms = min(kind.correction_ms, kind.horizon_ms)
        codes, values = len(kind.segments), kind.outputs * (1 + len(kind.shadows))
        self._pending = Layout(f"<IQ{codes}s{values}d")
        self._late = Layout(f"<IQ{codes}s{values}dI")
        self._finished = Layout(f"<IIQqdd{codes}s{kind.outputs}d")

    def pending(self, made: Prediction) -> bytes:
        """A row that waits for its label. Its time is the row's due time less the horizon."""
        late_ms = made.floor_ms - made.time_ms
        if late_ms <= 0:
            return self._pending.pack(self.number, made.offset, made.codes, *made.values)
        late_ms = min(_MAX_U32, late_ms)
        return self._late.pack(self.number | _LATE, made.offset, made.codes, *made.values, late_ms)

    def read_pending(self, id_: str, body: bytes, due_ms: int) -> Prediction:
        time_ms = due_ms - self.kind.horizon_ms
        if body[3] & 0x40:
            _, offset, codes, *values, late_ms = self._late.unpack(body)
            return Prediction(id_, time_ms, time_ms + late_ms, offset, codes, tuple(values))
        fields = self._pending.unpack(body)
        return Prediction(id_, time_ms, time_ms, fields[1], fields[2], fields[3:])

    def finish(self, made: Prediction, label: float, weight: float) -> bytes:
        """The row of a prediction that has got its label."""
        return self._finished.pack(
            self.number | _FINISHED,
            0,
            made.offset,
            made.time_ms,
            label,
            weight,
            made.codes,
            *made.values[: self.kind.outputs],
        )

    def finished(self, row: Finished) -> bytes:
        """A row whose label has been corrected."""
        *fields, values = astuple(row)
        return self._finished.pack(self.number | _FINISHED, *fields, *values)

    def read_finished(self, body: bytes) -> Finished:
        _, revision, offset, predicted_ms, label, weight, codes, *values = self._finished.unpack(
            body
        )
        return Finished(revision, offset, predicted_ms, label, weight, codes, tuple(values))

    def output(self, body: bytes) -> tuple[float, ...]:
        """The version's own output, of either sort of row."""
        if is_finished(body):
            return self.read_finished(body).values
        return self.read_pending("", body, 0).values[: self.kind.outputs]


def number_of(body: bytes) -> int:
    """The number of a row's kind."""
    number: int = _number(body)[0]
    return number & _KIND


def is_finished(body: bytes) -> bool:
    return body[3] >= 0x80


def pack_labels(labels: list[Label]) -> bytes:
    """Labels of one id that wait for their prediction, in the order they came."""
    return b"".join([_WAITING.pack(*astuple(label)[1:]) for label in labels])


def unpack_labels(id_: str, body: bytes) -> list[Label]:
    return [Label(id_, *fields) for fields in _WAITING.iter_unpack(body)]
