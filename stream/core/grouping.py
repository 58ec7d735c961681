"""Events by the places where they count, and exact sums of whole numbers over them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.deltas import Place
from stream.core.sources import Source

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_EXACT = 2.0**53  # sums of integers below it are exact in float64


class Groups(NamedTuple):
    """Events by place: each in the place that is all, and in one for each of its segments.

    Attributes:
        whole: shape (n,): index of the first of these in `places`.
        places: the places, and for each whether it is all.
        of, who: shape (n + segments,): index of a place, and of an event that belongs there.
    """

    places: list[Place]
    whole: Ints
    of: Ints
    who: Ints

    @property
    def segments(self) -> Groups:
        """The places that are not all."""
        return self._replace(of=self.of[len(self.whole) :], who=self.who[len(self.whole) :])

    def sums(self, values: Floats) -> Iterable[tuple[Place, int]]:
        """Sums of whole numbers, shape (n,), by place; exact."""
        return zip(self.places, sums_by(self.of, values[self.who], len(self.places)), strict=True)

    def cells(self, columns: Ints, width: int) -> Iterable[tuple[Place, int, int]]:
        """Counts by place and column (n,), below `width`, where they are not zero."""
        return self._cells(self.of * width + columns[self.who], width)

    def whole_cells(self, columns: Ints, width: int) -> Iterable[tuple[Place, int, int]]:
        """Counts by place and columns (n, k), of places that are all."""
        return self._cells((self.whole[:, None] * width + columns).ravel(), width)

    def _cells(self, cells: Ints, width: int) -> Iterable[tuple[Place, int, int]]:
        counts = np.bincount(cells)
        for cell in np.flatnonzero(counts).tolist():
            place, column = divmod(cell, width)
            yield self.places[place], column, int(counts[cell])


def group(events: Iterable[tuple[Source, int, bytes]]) -> Groups:
    """Group events, given as source, time in ms and segment codes."""
    index: dict[tuple[Source, int, int], int] = {}
    whole: list[int] = []
    of: list[int] = []
    who: list[int] = []
    for i, (source, time_ms, codes) in enumerate(events):
        tick = time_ms // source.tick_ms
        whole.append(index.setdefault((source, -1, tick), len(index)))
        for segment, code in enumerate(codes):
            of.append(index.setdefault((source, segment << 8 | code, tick), len(index)))
            who.append(i)
    places = [
        Place(source.kind.model, source.kind.version, source.segment_name(which), tick)
        for source, which, tick in index
    ]
    return Groups(
        places,
        np.array(whole, dtype=np.int64),
        np.array(whole + of, dtype=np.int64),
        np.array([*range(len(whole)), *who], dtype=np.int64),
    )


def sums_by(of: Ints, values: Floats, count: int) -> list[int]:
    """Exact sums of whole numbers by index."""
    if np.abs(values).sum() < _EXACT:
        return [int(total) for total in np.bincount(of, weights=values, minlength=count).tolist()]
    exact = [0] * count
    for index, value in zip(of.tolist(), values.tolist(), strict=True):
        exact[index] += int(value)
    return exact
