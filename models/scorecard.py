"""Predictions onto the bins of a profile's estimator; see `models.estimating`."""

from __future__ import annotations

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
        cuts: between them.
        points, outside: of each of the binner's bins, shape (bins,).
        stratum_points: of each predicted stratum.
    """

    def __init__(self, estimator: Estimator, binner: Binner) -> None:
        self.points = np.zeros(binner.size, dtype=np.int64)
        self.outside: Flags = np.zeros(binner.size, dtype=np.bool_)
        for name, cells in binner.split(np.arange(binner.size)).items():
            if name in estimator.points:
                self.points[cells] = estimator.points[name]
            self.outside[cells[list(estimator.rare.get(name, ()))]] = True
        self.stratum_points = np.array(estimator.stratum_points, dtype=np.int64)
        self.cuts = estimator.cuts
        self.size = len(estimator.cuts) + 1

    def bins(self, codes: Ints, strata: Ints) -> tuple[Ints, Flags]:
        """The bin of each prediction's score, and whether it lies outside of the reference.

        Args:
            codes: from `Binner.codes`, shape (n, signals).
            strata: from `Strata.of_outputs`, shape (n,).
        """
        columns = codes.T  # as they lie in memory
        scores = self.points.take(columns).sum(axis=0) + self.stratum_points[strata]
        bins = np.searchsorted(self.cuts, scores, side="right").astype(np.int64)
        outside: Flags = np.any(self.outside.take(columns), axis=0)
        return bins, outside
