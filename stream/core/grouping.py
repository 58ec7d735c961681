"""Events by the places where they count, and exact sums of whole numbers over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.deltas import Place
from stream.core.sources import Source
from stream.events import MICRO

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_Cell = tuple[Source, int, int]  # source, segment and code or -1 for all, tick
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

    def only(self, count: int) -> Groups:
        """The first `count` events alone."""
        kept = self.who < count
        return self._replace(whole=self.whole[:count], of=self.of[kept], who=self.who[kept])

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


def group(sources: Sequence[Source], times_ms: Ints, codes: Sequence[bytes]) -> Groups:
    """Group events by source, tick and segment.

    Args:
        times_ms: shape (n,), of the sources' events.
        codes: of the values of each event's segments.
    """
    cells: list[_Cell] = list(zip(sources, repeat(-1), _ticks(sources, times_ms), strict=False))
    who = [*range(len(cells))]
    if any(codes):
        for i, (source, _, tick) in enumerate(cells[:]):
            cells += [(source, segment << 8 | code, tick) for segment, code in enumerate(codes[i])]
            who += [i] * len(codes[i])
    index = {cell: i for i, cell in enumerate(dict.fromkeys(cells))}
    of = np.fromiter(map(index.__getitem__, cells), np.int64, count=len(cells))
    places = [
        Place(source.kind.model, source.kind.version, source.segment_name(which), tick)
        for source, which, tick in index
    ]
    return Groups(places, of[: len(sources)], of, np.array(who, dtype=np.int64))


def _ticks(sources: Sequence[Source], times_ms: Ints) -> list[int]:
    lengths = {source: source.tick_ms for source in dict.fromkeys(sources)}
    ticks = times_ms // np.fromiter(map(lengths.__getitem__, sources), np.int64, len(sources))
    return ticks.tolist()  # type: ignore[no-any-return]


def micro(values: Floats) -> Floats:
    """Values in millionths, whole numbers, each rounded by itself."""
    return np.rint(values * MICRO)


def sums_by(of: Ints, values: Floats, count: int) -> list[int]:
    """Exact sums of whole numbers by index."""
    if np.abs(values).sum() < _EXACT:
        return [int(total) for total in np.bincount(of, weights=values, minlength=count).tolist()]
    exact = [0] * count
    for index, value in zip(of.tolist(), values.tolist(), strict=True):
        exact[index] += int(value)
    return exact
