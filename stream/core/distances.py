"""How far two samples of counts lie apart, and how far noise alone would put them.

Distances explain; they decide nothing (the detectors do). All take counts on the same B bins, in
the last axis of arrays of any shape, and work along it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from stream.core.noncentral import noncentralities

Array = NDArray[np.float64]

LARGEST: Final = float(np.finfo(float).max)
TINY: Final = 1e-300


class Measure(NamedTuple):
    """One drift measure. To add one, write its two functions and a line in `MEASURES`."""

    distance: Callable[[ArrayLike, ArrayLike], Array]  # (reference counts, current counts) -> (...)
    # (rows n, reference rows m, bins), each (...) -> about its mean with no change, (...)
    noise: Callable[[ArrayLike, ArrayLike, ArrayLike], Array]
    ordered: bool = False  # means something on ordered bins only: numeric, without the null bin


class Comparison(NamedTuple):
    """The figures shown of one signal."""

    psi: float
    psi_noise: float
    psi_low: float  # 95 % interval of the PSI without noise
    psi_high: float
    js: float
    js_noise: float


def compare(reference: ArrayLike, current: ArrayLike) -> Comparison:
    """What a person is shown of one signal: counts of shape (B,) each.

    Without rows on either side every figure is 0 and the interval is open: (0, inf) is not plain
    data, so its high end is the largest float.

    >>> figures = compare([250, 250, 250, 250], [50, 60, 45, 45])
    >>> round(figures.psi, 3), round(figures.psi_noise, 3), figures.psi_low
    (0.014, 0.018, 0.0)
    """
    return _compared(np.array([reference], float), np.array([current], float))[0]


def compare_all(
    references: Sequence[Sequence[int]], currents: Sequence[Sequence[int]]
) -> list[Comparison]:
    """As `compare` of each pair; those with as many bins are compared at once.

    >>> compare_all([[5, 5], [9, 9, 9]], [[6, 4], [1, 2, 3]])[1] == compare([9, 9, 9], [1, 2, 3])
    True
    """
    alike: dict[int, list[int]] = {}
    for i, counts in enumerate(currents):
        alike.setdefault(len(counts), []).append(i)
    found: dict[int, Comparison] = {}
    for some in alike.values():
        tables = (_table([each[i] for i in some]) for each in (references, currents))
        found.update(zip(some, _compared(*tables), strict=True))
    return [found[i] for i in range(len(currents))]


def _compared(r: Array, c: Array) -> list[Comparison]:
    """Of counts of shape (signals, B) each."""
    rows = _pooled(c.sum(-1), r.sum(-1))
    freedom = ((r > 0) | (c > 0)).sum(-1) - 1
    p, q = _shares(r, c)
    value, noise = _psi(p, q), _noise(rows, freedom)
    low, high = _interval(value, rows, freedom)
    columns = value, noise, low, high, _js(p, q), _js_noise(noise)
    return list(map(Comparison, *(column.tolist() for column in columns)))


def _table(rows: Sequence[Sequence[int]]) -> Array:
    """As `np.array` of rows of one length, in a third of the time."""
    width = len(rows[0])
    flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)
    return flat.reshape(len(rows), width)


def psi(reference: ArrayLike, current: ArrayLike) -> Array:
    """Population stability index, sum of (q - p) ln(q / p) (Lewis 1994): shape (...), at least 0.

    >>> float(psi([500, 500], [500, 500]))
    0.0
    """
    return _psi(*_shares(reference, current))


def psi_noise(n: ArrayLike, m: ArrayLike, bins: ArrayLike) -> Array:
    """Mean PSI of n rows against m reference rows if nothing changed (Yurdakul 2018)."""
    return _noise(_pooled(n, m), np.asarray(bins) - 1)


def _noise(rows: Array, freedom: NDArray[np.int64]) -> Array:
    return np.where((rows > 0) & (freedom > 0), freedom / _positive(rows), 0.0)


def psi_interval(
    value: ArrayLike, n: ArrayLike, m: ArrayLike, bins: ArrayLike, *, confidence: float = 0.95
) -> tuple[Array, Array]:
    """Interval of the true PSI behind a measured one, for a window fixed beforehand: both (...).

    n m / (n + m) times PSI is about noncentral chi-square with bins - 1 degrees of freedom; the
    interval holds the noncentralities that do not make the measured value an extreme one.
    """
    values, rows, freedoms = np.broadcast_arrays(
        np.asarray(value, float), _pooled(n, m), np.asarray(bins) - 1
    )
    return _interval(values, rows, freedoms, confidence)


def _interval(
    value: Array, rows: Array, freedom: NDArray[np.int64], confidence: float = 0.95
) -> tuple[Array, Array]:
    known, tail = (rows > 0) & (freedom > 0), (1 - confidence) / 2
    spread, worth = np.asarray(value * rows), _positive(rows)
    reached = special.chdtr(freedom, spread)
    shares = 1 - tail, tail
    # Where a measured PSI is not so far up by any true one, that end is 0.
    there = np.array([known & (reached > share) for share in shares])
    low, high = noncentralities(spread, freedom, shares, there) / worth
    return low, np.where(known, high, LARGEST)


def jensen_shannon(reference: ArrayLike, current: ArrayLike) -> Array:
    """Jensen-Shannon distance, base 2 (Lin 1991; Endres, Schindelin 2003): shape (...), in [0, 1].

    >>> float(jensen_shannon([10**6, 0], [0, 10**6])) > 0.99
    True
    """
    return _js(*_shares(reference, current))


def js_noise(n: ArrayLike, m: ArrayLike, bins: ArrayLike) -> Array:
    """About the mean distance with no change: near 0 the divergence is PSI / 8 in nats."""
    return _js_noise(psi_noise(n, m, bins))


def _js_noise(noise: Array) -> Array:
    return np.asarray(np.sqrt(noise / (8 * np.log(2))))


def hellinger(reference: ArrayLike, current: ArrayLike) -> Array:
    """Hellinger distance, sqrt(1 - sum of sqrt(p q)) (1909): shape (...), in [0, 1]."""
    p, q = _shares(reference, current)
    return np.asarray(np.sqrt(np.maximum(0.0, 1 - np.sqrt(p * q).sum(-1))))


def hellinger_noise(n: ArrayLike, m: ArrayLike, bins: ArrayLike) -> Array:
    """About the mean distance with no change: near 0 its square is PSI / 8."""
    return np.asarray(np.sqrt(psi_noise(n, m, bins) / 8))


def ks(reference: ArrayLike, current: ArrayLike) -> Array:
    """Largest gap of the two distribution functions at bin edges (Kolmogorov 1933): shape (...).

    At most the statistic of the raw values, so never larger than it should be.
    """
    p, q = _shares(reference, current, smooth=False)
    return np.asarray(np.abs(np.cumsum(q - p, axis=-1)).max(-1))


def ks_noise(n: ArrayLike, m: ArrayLike, bins: ArrayLike) -> Array:
    """At most the mean with no change: that of the largest gap of a Brownian bridge."""
    return np.asarray(np.sqrt(np.pi / 2) * np.log(2) * _noise_unit(n, m))


def wasserstein(reference: ArrayLike, current: ArrayLike) -> Array:
    """Earth mover's distance between ranks in the reference: shape (...), in [0, 1].

    The mean gap of the distribution functions over the reference's bins; 0.1 means that values
    moved past a tenth of the reference on average. Without units, so signals can be compared.
    """
    p, q = _shares(reference, current, smooth=False)
    gap = np.abs(np.cumsum(q - p, axis=-1))
    before = np.concatenate([np.zeros_like(gap[..., :1]), gap[..., :-1]], axis=-1)
    return np.asarray((p * (gap + before) / 2).sum(-1))


def wasserstein_noise(n: ArrayLike, m: ArrayLike, bins: ArrayLike) -> Array:
    """At most the mean with no change: that of a Brownian bridge's mean absolute height."""
    return np.asarray(np.sqrt(2 * np.pi) / 8 * _noise_unit(n, m))


#: Every drift measure by name: the one place to add another.
MEASURES: Final[dict[str, Measure]] = {
    "psi": Measure(psi, psi_noise),
    "jensen_shannon": Measure(jensen_shannon, js_noise),
    "hellinger": Measure(hellinger, hellinger_noise),
    "ks": Measure(ks, ks_noise, ordered=True),
    "wasserstein": Measure(wasserstein, wasserstein_noise, ordered=True),
}


def _psi(p: Array, q: Array) -> Array:
    return np.asarray(((q - p) * (np.log(_positive(q)) - np.log(_positive(p)))).sum(-1))


def _js(p: Array, q: Array) -> Array:
    middle = (p + q) / 2
    divergence = (special.rel_entr(p, middle) + special.rel_entr(q, middle)).sum(-1) / 2
    return np.asarray(np.sqrt(np.maximum(divergence, 0.0) / np.log(2)))


def _shares(
    reference: ArrayLike, current: ArrayLike, *, smooth: bool = True
) -> tuple[Array, Array]:
    """Both as shares; smooth: with half a row added to every bin that either sample occupies."""
    r, c = np.asarray(reference, float), np.asarray(current, float)
    half = (r + c > 0) * (0.5 * smooth)
    r, c = r + half, c + half
    return r / _positive(r.sum(-1, keepdims=True)), c / _positive(c.sum(-1, keepdims=True))


def _positive(x: Array) -> Array:
    """To divide by, or to take the logarithm of, what is then multiplied by 0."""
    return np.maximum(x, TINY)


def _pooled(n: ArrayLike, m: ArrayLike) -> Array:
    """Rows that a sample of n and one of m are worth when compared; 0 without rows on a side."""
    n, m = np.asarray(n, float), np.asarray(m, float)
    return np.asarray(n * m / _positive(n + m))


def _noise_unit(n: ArrayLike, m: ArrayLike) -> Array:
    """Standard deviation that two empirical distribution functions share; 0 without rows."""
    rows = _pooled(n, m)
    return np.where(rows > 0, _positive(rows) ** -0.5, 0.0)
