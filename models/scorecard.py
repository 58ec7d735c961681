"""Predictions onto the bins of a profile's estimator; see `models.estimating`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.profile import Estimator
from models.profiling import Binner

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Scorecard:
    """An estimator laid out along the bins of a `Binner`.

    Attributes:
        size: bins of the score.
    """

    def __init__(self, estimator: Estimator, binner: Binner) -> None:
        self._points = np.zeros(binner.size, dtype=np.int64)
        self._outside: Flags = np.zeros(binner.size, dtype=np.bool_)
        for name, cells in binner.split(np.arange(binner.size)).items():
            if name in estimator.points:
                self._points[cells] = estimator.points[name]
            self._outside[cells[list(estimator.rare.get(name, ()))]] = True
        self._stratum_points = np.array(estimator.stratum_points, dtype=np.int64)
        self._cuts = np.array(estimator.cuts, dtype=np.int64)
        self.size = len(estimator.cuts) + 1
        self._lists = (self._points.tolist(), self._outside.tolist(), [*estimator.stratum_points])

    def bins(self, codes: Ints, strata: Ints) -> tuple[Ints, Flags]:
        """The bin of each prediction's score, and whether it lies outside of the reference.

        Args:
            codes: from `Binner.codes`, shape (n, signals).
            strata: from `Strata.of_outputs`, shape (n,).
        """
        scores = self._points[codes].sum(axis=1) + self._stratum_points[strata]
        bins = np.searchsorted(self._cuts, scores, side="right").astype(np.int64)
        outside: Flags = np.any(self._outside[codes], axis=1)
        return bins, outside

    def bin(self, cells: Sequence[int], stratum: int) -> tuple[int, bool]:
        """As `bins`, for one prediction."""
        points, outside, stratum_points = self._lists
        score = sum(map(points.__getitem__, cells)) + stratum_points[stratum]
        return bisect_right(self._cuts, score), any(map(outside.__getitem__, cells))
