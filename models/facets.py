"""Slices that nobody declared: the values of features in a few groups, and pairs of them.

Losses are summed in every cell, in the reference and live, so that where harm is found, the slice
that it is worst in can be told (`stream.core.slices`). There are few features and few groups of
each: the more slices are looked through, the more of them look bad by chance.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.features import Inputs, numbers

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Groups = NDArray[np.int64] | NDArray[np.uint8]

FEW: Final = 16  # rows that are faster coded one by one
GROUPS: Final = 4  # of a feature, and one for whatever else comes


class Facet(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature in groups. The last group holds what is missing, and what is of no other.

    Attributes:
        cuts: numeric: ascending; group i holds cuts[i-1] <= value < cuts[i].
        values: categorical: a group for each of these.

    >>> hour = Facet(feature="hour", cuts=(6.0, 12.0))
    >>> [hour.name(hour.group(value)) for value in (3.0, 6.0, 99.0, None)]
    ['hour < 6', '6 <= hour < 12', 'hour >= 12', 'hour=(null)']
    >>> plan = Facet(feature="plan", values=("gold", "free"))
    >>> [plan.name(plan.group(value)) for value in ("free", "lead", None)]
    ['plan=free', 'plan=(other)', 'plan=(other)']
    """

    feature: str
    cuts: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def groups(self) -> int:
        return len(self.values) + 1 if self.values else len(self.cuts) + 2

    def group(self, value: Any) -> int:
        if self.values:
            return self.values.index(value) if value in self.values else len(self.values)
        return len(self.cuts) + 1 if value is None else bisect_right(self.cuts, value)

    def name(self, group: int) -> str:
        if self.values:
            value = self.values[group] if group < len(self.values) else "(other)"
            return f"{self.feature}={value}"
        if group > len(self.cuts):
            return f"{self.feature}=(null)"
        low = f"{self.cuts[group - 1]:g}" if group else ""
        high = f"{self.cuts[group]:g}" if group < len(self.cuts) else ""
        if low and high:
            return f"{low} <= {self.feature} < {high}"
        return f"{self.feature} < {high}" if high else f"{self.feature} >= {low}"


class Slices(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a version did in every cell of its facets, on rows that it was not fitted on.

    Attributes:
        n: rows by cell.
        sums, squares: of the bounded loss in each, in millionths.
    """

    facets: tuple[Facet, ...]
    n: tuple[int, ...]
    sums: tuple[int, ...]
    squares: tuple[int, ...]


class Coder:
    """Groups of whole rows, a byte each; as `Facet.group`, for every event there is.

    Args:
        names: of the features in a row.

    >>> plan, age = Facet(feature="plan", values=("free",)), Facet(feature="age", cuts=(30.0,))
    >>> coder = Coder([plan, age], ["age", "plan"])
    >>> coder.code((31.0, "free")), coder.code((None, "lead"))
    (b'\\x00\\x01', b'\\x01\\x02')
    """

    def __init__(self, facets: Sequence[Facet], names: Sequence[str]) -> None:
        self._facets = [(facet, names.index(facet.feature)) for facet in facets]
        self._quick = [(_quick(facet), place) for facet, place in self._facets]

    def code(self, row: Sequence[Any]) -> bytes:
        try:
            return bytes([group(row[place]) for group, place in self._quick])
        except TypeError:  # something numeric is missing
            return bytes([facet.group(row[place]) for facet, place in self._facets])

    def codes(self, inputs: Inputs) -> list[bytes]:
        """As `code` of each; many in a fraction of the time."""
        if isinstance(inputs, np.ndarray):
            return self._coded([inputs[place] for _, place in self._facets])
        if len(inputs) < FEW:
            return list(map(self.code, inputs))
        return self._coded([[*map(itemgetter(place), inputs)] for _, place in self._facets])

    def _coded(self, columns: Sequence[Sequence[Any] | Floats]) -> list[bytes]:
        """Of the values of each facet's feature."""
        groups = np.empty((len(columns[0]), len(columns)), dtype=np.uint8)
        for i, (column, (facet, _)) in enumerate(zip(columns, self._facets, strict=True)):
            groups[:, i] = _groups(facet, column)
        coded: list[bytes] = groups.view(f"V{len(self._facets)}")[:, 0].tolist()
        return coded


def _groups(facet: Facet, column: Sequence[Any] | Floats) -> Groups:
    """As `Facet.group` of each value, shape (n,)."""
    if facet.values:
        return np.array([*map(_quick(facet), column)], dtype=np.uint8)
    if isinstance(column, np.ndarray):
        values = column
    else:
        (values,) = numbers([tuple(column)], len(column))
    groups: Ints = np.searchsorted(facet.cuts, values, side="right") + np.isnan(values)
    return groups


class _Known(dict[Any, int]):
    """Groups of values; the last one is of all others."""

    def __missing__(self, value: Any) -> int:
        return len(self)


def _quick(facet: Facet) -> Callable[[Any], int]:
    if facet.values:
        return _Known({value: group for group, value in enumerate(facet.values)}).__getitem__
    return partial(bisect_right, facet.cuts)


class Grid:
    """The cells of facets: the groups of each, then those of each pair, numbered on.

    Attributes:
        size: cells in all.
        left, right: the facets of each line of cells; `right` is beyond them where there is one.
        widths: groups of each facet, and 1; starts: the first cell of each line, and `size`.

    >>> grid = Grid([Facet(feature="x", cuts=(1.0,)), Facet(feature="c", values=("a", "b"))])
    >>> grid.size, grid.cells(np.array([[0, 1]])).tolist(), grid.name(4), grid.name(7)
    (15, [[0, 4, 7]], 'c=b', 'x < 1 and c=b')
    """

    def __init__(self, facets: Sequence[Facet]) -> None:
        self.facets = tuple(facets)
        one = len(facets)  # stands for no second feature, in its only group
        self.widths = np.array([*(facet.groups for facet in facets), 1], dtype=np.int64)
        pairs = [(i, one) for i in range(one)]
        pairs += [(i, j) for i in range(one) for j in range(i + 1, one)]
        self.left, self.right = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        sizes = self.widths[self.left] * self.widths[self.right]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.size = int(self.starts[-1])

    def cells(self, groups: Groups) -> Ints:
        """The cells that events lie in, one a column: shape (n, lines) of groups (n, facets)."""
        return cells_of([self], np.zeros(len(groups), dtype=np.int64), groups)

    def name(self, cell: int) -> str:
        """What a cell holds, as people read it."""
        line = int(np.searchsorted(self.starts, cell, side="right")) - 1
        left, right = int(self.left[line]), int(self.right[line])
        one, other = divmod(cell - int(self.starts[line]), int(self.widths[right]))
        name = self.facets[left].name(one)
        return name if right == len(self.facets) else f"{name} and {self.facets[right].name(other)}"


def cells_of(grids: Sequence[Grid | None], of: Ints, groups: Groups) -> Ints:
    """As `Grid.cells`, each event by a grid of its own.

    Args:
        grids: with as many facets each; None where no event is of it.
        of: index of each event's grid, shape (n,).
    """
    one = next(grid for grid in grids if grid)
    known = [grid or one for grid in grids]
    starts = np.array([grid.starts[:-1] for grid in known]).T
    widths = np.array([grid.widths[one.right] for grid in known]).T
    if len(known) > 1:
        starts, widths = starts[:, of], widths[:, of]
    padded = np.zeros((groups.shape[1] + 1, len(groups)), dtype=np.int64)  # a facet side by side
    padded[:-1] = groups.T
    cells: Ints = padded[one.left]
    cells *= widths
    cells += starts
    cells += padded[one.right]
    return cells.T
