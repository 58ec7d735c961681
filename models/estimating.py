"""Performance without labels: which predictions to expect errors of, learnt on the reference.

The estimate is confidence-based. A ridge regression (Hoerl, Kennard 1970) on the profile's bins
scores the expected error of a prediction from its output, and from those features that help on
stretches of time that they were not fitted on; predictions are then counted by bin of the score,
and what the measures were in each bin of the reference is what is expected of it (histogram
calibration: Zadrozny, Elkan 2001). It holds while errors depend on the bins as they did in the
reference: under a shift of the inputs inside its support, not when the concept changes.

Scores are sums of integer points and bins are counted, so estimates merge like everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from scipy import sparse

from models.features import Row
from models.losses import measures
from models.profile import Estimator, ReferenceProfile
from models.profiling import Binner
from models.scorecard import Scorecard
from models.spec import ModelSpec
from models.strata import Strata

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_ROWS: Final = 200  # labelled rows to learn from; with fewer there is no estimator
BLOCKS: Final = 5  # stretches of time, each scored by what was fitted on the others
RIDGE_ROWS: Final = 10.0  # a bin of so many rows is pulled half way to the mean
MAX_TRIED: Final = 40  # features that are tried, those first whose bins differ most in error
SCORE_BINS: Final = 20
RAREST: Final = 0.001  # share of the reference; a bin with less lies outside of its support
MICRO: Final = 1_000_000


def fit_estimator(
    spec: ModelSpec,
    profile: ReferenceProfile,
    rows: Sequence[Row],
    outputs: Floats,
    labels: Floats,
) -> Estimator | None:
    """Learn where errors lie, from rows that the version was not fitted on; None if too few.

    Args:
        profile: of the version; its bins are what is learnt on.
        rows: in event-time order, so that blocks of them are stretches of time.
        outputs: shape (n, spec.outputs).
        labels: shape (n,), from `losses.encode_label`.
    """
    if len(rows) < FEWEST_ROWS:
        return None
    binner, strata = Binner(profile, spec), Strata(spec, profile)
    codes, groups = binner.codes(rows, outputs), strata.of_outputs(outputs)
    values = measures(spec, outputs, labels, profile.validation.loss_scale)
    error = values["loss"] if spec.task == "regression" else 1.0 - values["correct"]
    starts = [int(cells[0]) for cells in binner.split(np.arange(binner.size)).values()]
    columns = [codes[:, i] - start for i, start in enumerate(starts)]
    inputs = len(binner.places)
    features = _most_telling(columns[:inputs], error)
    said = range(inputs, len(columns))  # what the model said, as signals
    names = [*(binner.names[j] for j in (*features, *said)), ""]
    design = _Design([*(columns[j] for j in (*features, *said)), groups], error)
    chosen = _choose(design, len(features))
    points = design.points(chosen)
    scores = sum(np.array(points[j])[design.codes[j]] for j in chosen)
    cuts = _between(np.asarray(scores))
    sizes = {name: len(cells) for name, cells in binner.split(np.arange(binner.size)).items()}
    named = {names[j]: _padded(points[j], sizes.get(names[j], strata.size)) for j in chosen}
    bins, size = np.searchsorted(cuts, scores, side="right"), len(cuts) + 1
    estimator = Estimator(
        stratum_points=named.pop(""),
        points=named,
        cuts=tuple(cuts.tolist()),
        rare={name: places for name in binner.names if (places := _rare(profile, name))},
        counts=(),
        sums={name: _totals(bins, value, size) for name, value in values.items()},
        squares={name: _totals(bins, value**2, size) for name, value in values.items()},
        wander={name: _wander(bins, value, size) for name, value in values.items()},
    )
    _, outside = Scorecard(estimator, binner).bins(codes, groups)
    counts = (*np.bincount(bins, minlength=size).tolist(), int(outside.sum()))
    return replace(estimator, counts=counts)


def _most_telling(columns: Sequence[Ints], error: Floats) -> list[int]:
    """Features in order of how much of the error's variance lies between their bins."""
    centred = error - error.mean()

    def between(column: Ints) -> float:
        totals = np.bincount(column, weights=centred)
        return float((totals**2 / (np.bincount(column) + RIDGE_ROWS)).sum())

    gains = [between(column) for column in columns]
    return sorted(range(len(columns)), key=lambda j: -gains[j])[:MAX_TRIED]


class _Design:
    """Signals as columns, one for each of their bins; the error is regressed on some of them.

    Args:
        codes: of each signal, the bins of all rows, shape (n,).
        error: shape (n,).
    """

    def __init__(self, codes: Sequence[Ints], error: Floats) -> None:
        self.codes, n = codes, len(error)
        sizes = [int(column.max()) + 1 for column in codes]
        self._starts = [0, *(int(end) for end in np.cumsum(sizes))]
        cells = np.column_stack([c + start for c, start in zip(codes, self._starts, strict=False)])
        ends = np.arange(0, cells.size + 1, len(codes))
        shape = (n, self._starts[-1])
        self._matrix = sparse.csr_matrix((np.ones(cells.size), cells.ravel(), ends), shape=shape)
        self._error = error - error.mean()
        self._block = np.arange(n) * BLOCKS // n
        parts = [np.flatnonzero(self._block == block) for block in range(BLOCKS)]
        self._grams = [(self._matrix[at].T @ self._matrix[at]).toarray() for at in parts]
        self._moments = [self._matrix[at].T @ self._error[at] for at in parts]
        self._gram: Floats = np.sum(self._grams, axis=0)
        self._moment: Floats = np.sum(self._moments, axis=0)
        self.signals = len(codes)

    def out_of_fold(self, chosen: Sequence[int]) -> Floats:
        """Scores of all rows, shape (n,), each by a fit without its block."""
        columns = self._columns(chosen)
        scores = np.empty(len(self._error))
        for block, (gram, moment) in enumerate(zip(self._grams, self._moments, strict=True)):
            fit = _solve(self._gram - gram, self._moment - moment, columns)
            at = self._block == block
            scores[at] = self._matrix[at][:, columns] @ fit
        return scores

    def squared_error(self, chosen: Sequence[int]) -> float:
        return float(np.mean((self.out_of_fold(chosen) - self._error) ** 2))

    def points(self, chosen: Sequence[int]) -> dict[int, list[int]]:
        """Points of each chosen signal's bins, fitted on all rows, in millionths of the error."""
        columns = self._columns(chosen)
        points = np.zeros(self._starts[-1], dtype=np.int64)
        points[columns] = np.rint(MICRO * _solve(self._gram, self._moment, columns))
        return {j: points[self._starts[j] : self._starts[j + 1]].tolist() for j in chosen}

    def _columns(self, chosen: Sequence[int]) -> Ints:
        places = [np.arange(self._starts[j], self._starts[j + 1]) for j in chosen]
        return np.concatenate(places)


def _solve(gram: Floats, moment: Floats, columns: Ints) -> Floats:
    ridge = gram[np.ix_(columns, columns)] + RIDGE_ROWS * np.eye(len(columns))
    return np.asarray(np.linalg.solve(ridge, moment[columns]), dtype=np.float64)


def _choose(design: _Design, features: int) -> list[int]:
    """What the model said, and features one by one while one lowers the out-of-fold error.

    Args:
        features: how many of the design's signals are features; they come first.
    """
    chosen = [*range(features, design.signals)]
    best, left = design.squared_error(chosen), [*range(features)]
    while left:
        tried = {j: design.squared_error([*chosen, j]) for j in left}
        found = min(left, key=lambda j: (tried[j], j))
        if tried[found] >= best:
            break
        best = tried[found]
        chosen.append(found)
        left.remove(found)
    return chosen


def _between(scores: Ints) -> Ints:
    """Cuts that part scores into about SCORE_BINS equal shares, each midway between two scores."""
    distinct = np.unique(scores)
    shares = np.arange(1, SCORE_BINS) / SCORE_BINS
    above = np.searchsorted(distinct, np.quantile(scores, shares, method="higher"))
    above = above[above > 0]
    return np.unique((distinct[above - 1] + distinct[above]) // 2)


def _padded(points: Sequence[int], size: int) -> tuple[int, ...]:
    return (*points, *[0] * (size - len(points)))


def _rare(profile: ReferenceProfile, name: str) -> tuple[int, ...]:
    signal = profile.signal(name)
    if signal is None:
        return ()
    least = RAREST * sum(signal.counts)
    return tuple(i for i, count in enumerate(signal.counts) if count <= least)


def _totals(bins: Ints, values: Floats, size: int) -> tuple[int, ...]:
    totals = np.bincount(bins, weights=values, minlength=size)
    return tuple(np.rint(MICRO * totals).astype(np.int64).tolist())


def _wander(bins: Ints, values: Floats, size: int) -> float:
    """See `Estimator`: each block is estimated by what the bins of the others were."""
    n = len(bins)
    block = np.arange(n) * BLOCKS // n
    excess = []
    for b in range(BLOCKS):
        own = block == b
        counts = np.bincount(bins[~own], minlength=size) + 1e-9
        means = np.bincount(bins[~own], weights=values[~own], minlength=size) / counts
        residuals = values[own] - means[bins[own]]
        excess.append(residuals.mean() ** 2 - residuals.var() / own.sum())
    return float(max(0.0, np.mean(excess)) ** 0.5)
