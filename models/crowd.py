"""Events of many versions, few of each, onto the bins of their profiles at once.

What a `Binner` does with many events of one version, for versions that are laid out alike: as many
signals of like kinds. Where their bins begin may differ.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.features import Row, numbers
from models.joint import FINENESS
from models.profiling import FEW_VALUES, Binner, Edges, on_bins
from models.scorecard import Scorecard

EDGES: Final = FEW_VALUES + 1  # of a numeric signal at most, as profiles are made today

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Sheet:
    """The bins of one version, as arrays that can lie beside those of others.

    Attributes:
        row, fields: of a table of versions that can be put together: inner, last and null of
            `Edges`, where each signal's bins start, weights of the distance.
        layout: versions with an equal one can be put together.
        weight: numbers that an event needs while it is put on the bins.
    """

    def __init__(self, binner: Binner, scorecard: Scorecard | None) -> None:
        self.binner, self.scorecard = binner, scorecard
        self.features = len(binner.places)
        self.categories = {i: known for i, known in enumerate(binner.categories) if known}
        edges = Edges(binner.edges, at_least=EDGES)
        self.scores, weights = np.empty(0), np.empty((0, 0))
        if binner.distance is not None:
            sizes = np.diff(binner.starts)[: self.features].tolist()
            rows = zip(binner.distance.scores, sizes, strict=True)
            self.scores = np.concatenate([row[:size] for row, size in rows])
            weights = binner.distance.weights
        columns = {
            "inner": edges.inner,
            "last": edges.last,
            "null": edges.null,
            "starts": np.array(binner.starts[:-1], dtype=np.int64),
            "weights": weights,
        }
        self.fields = np.dtype([(name, one.dtype, one.shape) for name, one in columns.items()])
        row = np.empty((), self.fields)
        for name, one in columns.items():
            row[name] = one
        self.row = row.tobytes()
        self.layout = (
            edges.inner.shape,
            self.features,
            tuple(self.categories),
            weights.shape,
            None if scorecard is None else len(scorecard.stratum_points),
        )
        self.weight = edges.inner.size + weights.size


class Crowd:
    """Versions that are laid out alike, and events of them.

    Args:
        sheets: one a version; their layouts are equal.
        of: shape (n,), indices of the events' versions.

    Attributes:
        starts: shape (n, signals), where each signal's bins begin among all of its version.
    """

    def __init__(self, sheets: Sequence[Sheet], of: Ints) -> None:
        self._sheets, self._of, self._first = sheets, of, sheets[0]
        rows = b"".join([sheet.row for sheet in sheets])  # numpy copies field by field
        self._table = np.frombuffer(rows, self._first.fields)
        self.starts: Ints = self._table["starts"][of]

    def codes(self, rows: Sequence[Row], outputs: Floats) -> Ints:
        """As `Binner.codes` of each event's version: shape (n, signals)."""
        of, features = self._of, self._first.features
        last, null = self._table["last"][of], self._table["null"][of]
        inner = np.moveaxis(self._table["inner"][of], 1, 0)

        def numeric(some: slice, values: Floats) -> NDArray[np.unsignedinteger]:
            """Each on edges of its own."""
            return on_bins(values, inner[:, :, some], last[:, some], null[:, some])

        _, width = outputs.shape
        known = features + width
        codes = np.empty(null.shape, dtype=np.int64)
        inputs = self._inputs(rows)
        codes[:, :known] = numeric(slice(known), np.hstack([self._numbers(inputs), outputs]))
        for column in self._first.categories:
            codes[:, column] = self._categories(column, inputs)
        if self._table["weights"].size:
            distances = self._distances(codes[:, :features])
            codes[:, known:] = numeric(slice(known, None), distances[:, None])
        return codes + self.starts

    def estimates(self, codes: Ints, strata: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """As `Scorecard.bins` of each event's version, which must have one; codes from `codes`."""
        cards = [sheet.scorecard for sheet in self._sheets if sheet.scorecard is not None]
        cells = _starts([card.points for card in cards])[self._of][:, None] + codes
        points = np.concatenate([card.points for card in cards])[cells].sum(axis=1)
        outside = np.concatenate([card.outside for card in cards])[cells].any(axis=1)
        of_strata = _stacked([card.stratum_points for card in cards])[self._of, strata]
        scores = zip(self._of.tolist(), (points + of_strata).tolist(), strict=True)
        bins = [bisect_right(cards[i].cuts, score) for i, score in scores]
        return np.array(bins, dtype=np.int64), outside

    def _inputs(self, rows: Sequence[Row]) -> list[Row]:
        """The features that have a signal."""
        every = tuple(range(self._first.features))
        places = [None if s.binner.places == every else s.binner.places for s in self._sheets]
        found = zip(rows, map(places.__getitem__, self._of.tolist()), strict=True)
        return [row if some is None else tuple(row[i] for i in some) for row, some in found]

    def _numbers(self, inputs: Sequence[Row]) -> Floats:
        """Shape (n, features); of a category, nothing that says anything."""
        features, categories = self._first.features, self._first.categories
        if categories:
            kept = [i not in categories for i in range(features)]
            inputs = [
                tuple(value if keep else None for value, keep in zip(row, kept, strict=False))
                for row in inputs
            ]
        return numbers(inputs, features)

    def _categories(self, column: int, inputs: Sequence[Row]) -> list[int]:
        places = [sheet.categories[column] for sheet in self._sheets]
        found = zip(map(places.__getitem__, self._of.tolist()), inputs, strict=True)
        return [known.get(row[column], len(known) - 1) for known, row in found]

    def _distances(self, bins: Ints) -> Floats:
        """As `joint.Distance.of`: sums of whole numbers, so their order changes nothing."""
        sheets, of = self._sheets, self._of
        cells = _starts([sheet.scores for sheet in sheets])[of][:, None] + bins
        cells += self.starts[:, : bins.shape[1]]
        scores = np.concatenate([sheet.scores for sheet in sheets])[cells]
        weights = self._table["weights"][of]
        along = np.floor((scores[:, None, :] @ weights)[:, 0] / FINENESS)
        total: Floats = (along * along).sum(axis=1)
        return total


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """As `np.stack` of arrays of one shape, in a fraction of the time where they are many."""
    shape: Sequence[int] = arrays[0].shape
    return np.concatenate(arrays).reshape(len(arrays), *shape)


def _starts(arrays: Sequence[NDArray[Any]]) -> Ints:
    """Where each begins when they lie end to end."""
    sizes = np.fromiter(map(len, arrays), np.int64, len(arrays))
    return np.cumsum(sizes) - sizes
