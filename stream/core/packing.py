"""Predictions and labels as packed bytes: what a join holds millions of.

A row starts with the number of its kind, which says how the rest is laid out. Numbers, not names,
because a model, its version, shadows and horizons are the same for a great many predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from struct import Struct as Layout
from typing import Any, Final

import numpy as np
from msgspec import Struct
from msgspec.structs import astuple
from numpy.typing import NDArray

from models.spec import ModelSpec
from stream.core.rowparts import HEAD, HEAD_FIELDS, SERIAL

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Rows = NDArray[Any]  # structured

_FINISHED: Final = 0x8000_0000  # beside the number of the kind: the row has its label
_LATE: Final = 0x4000_0000  # it has a floor that is later than its time
_KIND: Final = 0x3FFF_FFFF  # without the flags: the number of the kind
NO_ROW: Final = _KIND  # a number that no kind has
_MAX_U32: Final = 0xFFFF_FFFF
NUMBER: Final = Layout("<I")  # what a row begins with
_number = NUMBER.unpack_from
_WAITING: Final = Layout("<qqqdd")  # a Label without its id


class Kind(Struct, frozen=True, array_like=True, cache_hash=True):
    """What all predictions made alike have in common, pinned when they are made.

    Attributes:
        shadows: versions whose outputs follow the version's own.
        outputs: floats of one version's output.
        segments: categorical features; a row holds the code of the value of each.
        early_ms: how long a label waits for its prediction.
        loss_scale: of the version's bounded loss.
        facets: how many features are searched for the worst slice; a row holds the group of each.
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
    facets: int = 0

    @property
    def codes(self) -> int:
        """Bytes of a row's codes."""
        return len(self.segments) + self.facets


def kind_of(
    spec: ModelSpec, version: int, shadows: tuple[int, ...], loss_scale: float, facets: int = 0
) -> Kind:
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
        facets=facets,
    )


def early_ms(spec: ModelSpec) -> int:
    """How long a label waits for its prediction."""
    return round(spec.labels.early_seconds * 1000)


class Prediction(Struct, frozen=True, gc=False):
    """A prediction to join.

    Attributes:
        floor_ms: no earlier time may be counted by arrival.
        codes: of the values of the segments' features, then of the facets'.
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
        layout: of rows; those of kinds with an equal one differ in their numbers only.
    """

    def __init__(self, kind: Kind, number: int) -> None:
        self.kind = kind
        self.number = number
        self.forgotten_ms = min(kind.correction_ms, kind.horizon_ms)
        codes, values = kind.codes, kind.outputs * (1 + len(kind.shadows))
        self.layout = (codes, values, kind.outputs)
        self._pending = Layout(f"<IQ{codes}s{values}d")
        self._late = Layout(f"<IQ{codes}s{values}dI")
        self._finished = Layout(f"<IIQqdd{codes}s{kind.outputs}d")
        fields: list[Any] = [
            *HEAD_FIELDS,
            ("number", "<u4"),
            ("offset", "<u8"),
            ("codes", "u1", (codes,)),
            ("values", "<f8", (values,)),
        ]
        self._pending_rows = np.dtype(fields)
        self._late_rows = np.dtype([*fields, ("late_ms", "<u4")])
        self._finished_bodies = np.dtype(
            [
                ("number", "<u4"),
                ("revision", "<u4"),
                ("offset", "<u8"),
                ("predicted_ms", "<i8"),
                ("label", "<f8"),
                ("weight", "<f8"),
                ("codes", "u1", (codes,)),
                ("values", "<f8", (kind.outputs,)),
            ]
        )

    def pending(self, made: Prediction) -> bytes:
        """A row that waits for its label. Its time is the row's due time less the horizon."""
        late_ms = made.floor_ms - made.time_ms
        if late_ms <= 0:
            return self._pending.pack(self.number, made.offset, made.codes, *made.values)
        late_ms = min(_MAX_U32, late_ms)
        return self._late.pack(self.number | _LATE, made.offset, made.codes, *made.values, late_ms)

    def read_pending(self, id_: str, body: bytes, due_ms: int) -> Prediction:
        time_ms = due_ms - self.kind.horizon_ms
        if is_late(body):
            _, offset, codes, *values, late_ms = self._late.unpack(body)
            return Prediction(id_, time_ms, time_ms + late_ms, offset, codes, tuple(values))
        fields = self._pending.unpack(body)
        return Prediction(id_, time_ms, time_ms, fields[1], fields[2], fields[3:])

    def all_pending(
        self,
        numbers: Ints | int,
        offsets: Sequence[int],
        codes: Sequence[bytes],
        values: Sequence[tuple[float, ...]],
        late_ms: Ints,
    ) -> Bytes:
        """As `pending` of each: shape (n, bytes).

        Args:
            numbers: of the rows' kinds, shape (n,) or of all; all of this one's layout.
            late_ms: shape (n,), the floors less the times: all above 0, or none.
        """
        is_late = late_ms[0] > 0
        rows = np.empty(len(offsets), dtype=self._late_rows if is_late else self._pending_rows)
        rows["number"] = numbers | (_LATE if is_late else 0)
        rows["offset"] = offsets
        rows["codes"] = np.frombuffer(b"".join(codes), np.uint8).reshape(rows["codes"].shape)
        flat = np.fromiter(chain.from_iterable(values), np.float64, rows["values"].size)
        rows["values"] = flat.reshape(rows["values"].shape)
        if is_late:
            rows["late_ms"] = np.minimum(late_ms, _MAX_U32)
        return rows.view(np.uint8).reshape(len(rows), rows.itemsize)[:, HEAD.size :]

    def read_all_pending(self, rows: Sequence[bytes]) -> tuple[Rows, Ints]:
        """Rows with their heads as a table, and late_ms of each. They are of kinds of this one's
        layout; all are late, or none is.

        The table's fields: serial, due_ms, number, offset, codes, values.
        """
        if rows[0][HEAD.size + 3] & 0x40:
            table = np.frombuffer(b"".join(rows), dtype=self._late_rows)
            return table, table["late_ms"].astype(np.int64)
        table = np.frombuffer(b"".join(rows), dtype=self._pending_rows)
        return table, np.zeros(len(rows), dtype=np.int64)

    def all_finished(
        self,
        numbers: Ints | int,
        made: Rows,
        times_ms: Ints,
        labels: Sequence[float],
        weights: Sequence[float],
    ) -> Bytes:
        """As `finish` of each: shape (n, bytes). `made`: a table of `read_all_pending`; `numbers`:
        of its rows' kinds.
        """
        rows = np.zeros(len(made), dtype=self._finished_bodies)
        rows["number"] = numbers | _FINISHED
        rows["offset"] = made["offset"]
        rows["predicted_ms"] = times_ms
        rows["label"] = labels
        rows["weight"] = weights
        rows["codes"] = made["codes"]
        rows["values"] = made["values"][:, : self.kind.outputs]
        return rows.view(np.uint8).reshape(len(rows), rows.itemsize)

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


def sort_of(numbers: Ints) -> tuple[Ints, NDArray[np.bool_], NDArray[np.bool_]]:
    """Of the numbers that rows begin with: those of their kinds, and whether the rows are finished,
    and late; shape (n,) each."""
    return numbers & _KIND, numbers & _FINISHED > 0, numbers & _LATE > 0


def pending_of(heads: Bytes) -> list[tuple[int, int]]:
    """When rows that wait for their label are due, and the numbers of their kinds; in that order.

    Args:
        heads: of rows, each with the number that its body begins with: shape (n, bytes).
    """
    dues_ms = np.ascontiguousarray(heads[:, SERIAL.size : HEAD.size]).view("<i8").ravel()
    numbers = np.ascontiguousarray(heads[:, HEAD.size :]).view("<u4").ravel().astype(np.int64)
    kinds, finished, _ = sort_of(numbers)
    waits = ~finished
    return sorted(zip(dues_ms[waits].tolist(), kinds[waits].tolist(), strict=True))


def is_finished(body: bytes) -> bool:
    return body[3] >= 0x80


def is_late(body: bytes) -> bool:
    """Of a row that waits: whether its floor is later than its time."""
    return bool(body[3] & 0x40)


def pack_labels(labels: list[Label]) -> bytes:
    """Labels of one id that wait for their prediction, in the order they came."""
    return b"".join([_WAITING.pack(*astuple(label)[1:]) for label in labels])


def unpack_labels(id_: str, body: bytes) -> list[Label]:
    return [Label(id_, *fields) for fields in _WAITING.iter_unpack(body)]
