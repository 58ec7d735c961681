"""How the inputs of an event go together: one number out of the bins of all its features.

It is the squared distance from the centre of the reference, in which each direction counts by its
inverse variance (Mahalanobis 1936), over the directions that the reference's dependence makes
tightest: what is left of a reconstruction by principal components. A change of the dependence moves
its distribution while every feature keeps its own. All is whole numbers below 2^53, so that the
same event has the same distance on every machine and in every batch.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NAME: Final = "inputs together"  # of the signal
COMPONENTS: Final = 16  # at most: what an event costs
ROWS_EACH: Final = 50  # of the reference for each feature, at least
UNIT: Final = 32  # of a standard deviation
FINENESS: Final = 256  # of a direction's weights
RIDGE: Final = 0.05  # of a variance: no direction is tighter


class Joint(Struct, frozen=True, kw_only=True):
    """What a reference fixes of the distance.

    Attributes:
        scores: for each feature, of each of its bins.
        weights: for each component, of each feature.
    """

    scores: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[int, ...], ...]


class Distance:
    """The distance of events by their features' bins.

    Attributes:
        scores: shape (features, most bins).
        weights: shape (features, components).
    """

    def __init__(self, joint: Joint) -> None:
        width = max(len(scores) for scores in joint.scores)
        self.scores = np.zeros((len(joint.scores), width))
        for row, scores in zip(self.scores, joint.scores, strict=True):
            row[: len(scores)] = scores
        self.weights = np.array(joint.weights, dtype=np.float64).T
        self._flat = self.scores.ravel()
        self._starts = np.arange(len(joint.scores))[:, None] * width

    def of(self, bins: Ints) -> Floats:
        """Shape (n,), of bins of shape (n, features); whole numbers."""
        scores = self._flat.take(bins.T + self._starts)
        along = np.floor(self.weights.T @ scores / FINENESS)
        total: Floats = (along * along).sum(axis=0)
        return total


def joint(bins: Ints, places: list[Floats]) -> Joint | None:
    """The distance that a reference defines; None if it has too few features or rows.

    Args:
        bins: of the features, shape (m, features).
        places: for each feature, where each of its bins lies on a line; NaN for one that says
            nothing (null, unseen).
    """
    m, features = bins.shape
    if features < 2 or m < ROWS_EACH * features:
        return None
    scores = [_scores(bins[:, i], places[i]) for i in range(features)]
    values = np.column_stack([scores[i][bins[:, i]] for i in range(features)]) / UNIT
    variances, directions = np.linalg.eigh(values.T @ values / m + RIDGE * np.eye(features))
    tightest = directions[:, :COMPONENTS] / np.sqrt(variances[:COMPONENTS])
    return Joint(
        scores=tuple(tuple(map(int, row)) for row in scores),
        weights=tuple(tuple(map(int, row)) for row in np.rint(tightest.T * FINENESS)),
    )


def _scores(bins: Ints, places: Floats) -> Floats:
    """Normal scores of mid-ranks along the line, of mean 0 and variance `UNIT` squared."""
    known = np.flatnonzero(~np.isnan(places))
    order = known[np.argsort(places[known], kind="stable")]
    counts = np.bincount(bins, minlength=len(places)).astype(np.float64)
    shares = (counts[order] + 0.5) / (counts[order] + 0.5).sum()
    z = ndtri(np.cumsum(shares) - shares / 2)
    z -= shares @ z
    spread = float(np.sqrt(shares @ z**2))
    scores = np.zeros(len(places))
    scores[order] = np.rint(np.clip(z / max(spread, 1e-9), -4, 4) * UNIT)
    return scores
