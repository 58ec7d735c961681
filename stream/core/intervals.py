"""How sure a figure is: intervals of shares and means, and bounds that tests may rest on.

Shown intervals (`wilson`, `mean_interval`) are approximate and of fixed samples. Bounds
(`share_bounds`, `mean_upper_bound`) hold at every sample size; tables of bets are built on them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

REFERENCE_RISK: Final = 0.01  # chance that a reference's sampling error raises an alarm of its own


class Interval(NamedTuple):
    """A figure with its interval; `low` and `high` are None where the sample cannot tell."""

    value: float
    low: float | None
    high: float | None


def wilson(successes: float, n: float, *, confidence: float = 0.95) -> Interval:
    """Share `successes / n` with its score interval (Wilson 1927), which never leaves [0, 1].

    >>> wilson(90, 100)
    Interval(value=0.9, low=0.8256..., high=0.9447...)

    Raises:
        ValueError: n is not positive.
    """
    _need_rows(n)
    share = successes / n
    z = float(special.ndtri(0.5 + confidence / 2))
    spread = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    centre, shrink = share + z * z / (2 * n), 1 + z * z / n
    low, high = (centre - spread) / shrink, (centre + spread) / shrink
    return Interval(share, max(0.0, float(low)), min(1.0, float(high)))


def mean_interval(n: int, total: float, squares: float, *, confidence: float = 0.95) -> Interval:
    """Mean of n values from their sum and sum of squares, with Student's interval (1908).

    >>> mean_interval(4, 10.0, 30.0)
    Interval(value=2.5, low=0.445..., high=4.554...)
    >>> mean_interval(1, 2.0, 4.0)
    Interval(value=2.0, low=None, high=None)

    Raises:
        ValueError: n is not positive.
    """
    _need_rows(n)
    mean = total / n
    if n < 2:
        return Interval(mean, None, None)
    variance = max(0.0, squares - n * mean * mean) / (n - 1)
    half = float(special.stdtrit(n - 1, 0.5 + confidence / 2)) * (variance / n) ** 0.5
    return Interval(mean, mean - half, mean + half)


def share_bounds(counts: ArrayLike, n: float, delta: float) -> tuple[Array, Array]:
    """One-sided bounds of shares, wrong with probability <= delta each (Clopper, Pearson 1934).

    Args:
        counts: any shape, each in [0, n]; may be fractions (deflated counts).
        n: rows they are out of.

    Returns:
        Lower and upper bounds in the shape of counts.
    """
    k = np.asarray(counts, dtype=float)
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, special.betaincinv(np.maximum(k, 1e-12), n - k + 1, delta), 0.0)
        high = np.where(k < n, special.betaincinv(k + 1, np.maximum(n - k, 1e-12), 1 - delta), 1.0)
    return low, high


#: Standard deviations that `mean_upper_bound` is prepared for; values in [0, 1] have at most 0.5.
SPREADS: Final = np.array([0.04, 0.06, 0.1, 0.15, 0.22, 0.33, 0.5])


def mean_upper_bound(values: ArrayLike, counts: ArrayLike, delta: float) -> float:
    """Upper bound of a mean in [0, 1], wrong with probability at most delta at any sample size.

    The smaller of two bounds, each wrong with probability at most delta / 2:

    * Binomial tail times e (Bentkus 2004; as a risk bound: Bates et al. 2021). Near the exact bound
      if the values are mostly 0 and 1, too wide if they vary less than that.
    * Betting (Waudby-Smith, Ramdas 2024), which gains from a small variance; see `_betting_bound`.

    Args:
        values: what each bin stands for, in [0, 1]; shape (B,).
        counts: rows per bin; shape (B,). May be fractions (deflated counts).

    >>> round(mean_upper_bound([0, 1], [1800, 200], 0.005), 3)
    0.123
    >>> round(mean_upper_bound([0.05, 0.1, 0.15], [500, 1000, 500], 0.005), 3)
    0.104
    >>> mean_upper_bound([0, 1], [0, 0], 0.005)
    1.0
    """
    x, c = np.asarray(values, dtype=float), np.asarray(counts, dtype=float)
    n = float(c.sum())
    if n <= 0:
        return 1.0
    total = min(n, float(np.ceil(c @ x - 1e-9)))
    _, binomial = share_bounds(total, n, delta / 2 / np.e)
    return min(float(binomial), _betting_bound(x, c, delta / 2))


def _betting_bound(x: Array, c: Array, delta: float) -> float:
    """The smallest u such that bets against "the mean is at least u" win 1 / delta.

    The capital, an average over stakes t <= 1 of prod(1 - t (x - u)), is not negative and has mean
    at most 1 under the claim, so by Markov's inequality it reaches 1 / delta with probability at
    most delta; and it grows with u. Stakes are fixed before the data are seen (each is best for one
    standard deviation), so the order of rows does not matter and their counts are enough.
    """
    n = float(c.sum())
    stakes = np.minimum(1.0, np.sqrt(2 * np.log(1 / delta) / n) / SPREADS)[:, None]
    low, high = float(c @ x) / n, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        with np.errstate(divide="ignore"):
            logs = np.log1p(-stakes * (x - middle)) @ c
        rejected = np.logaddexp.reduce(logs) >= np.log(len(SPREADS) / delta)
        low, high = (low, middle) if rejected else (middle, high)
    return high


def _need_rows(n: float) -> None:
    if n <= 0:
        raise ValueError("an interval needs at least one row")
