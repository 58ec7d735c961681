"""Two versions on the same labelled events: which is better, by evidence to be looked at any time.

The difference D of bounded losses lies in [-1, 1]. An e-process of empirical-Bernstein form (Choe,
Ramdas 2024) tests "the average conditional mean of D so far is at most `null_mean`" and needs only
(n, sum, squares) of each tick. Within a business cycle an average may cross the edge back and
forth, so judge at whole cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STAKES: Final[Array] = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.35])
#: Cost of a stake per unit of squared surprise, for differences in [-1, 1] (Fan, Grama, Liu 2015).
COSTS: Final[Array] = (-np.log1p(-2 * STAKES) - 2 * STAKES) / 4


class PairedTest:
    """Evidence on the mean of D, tick by tick.

    Args:
        null_mean: the claim's edge.
        sign: +1 tests the claim "D is at most null_mean on average", -1 "it is at least that".

    >>> test = PairedTest(null_mean=0.0, sign=+1)
    >>> test.update(2000, d_sum=100.0, d_squares=200.0)
    >>> test.e_value >= 20
    True
    """

    def __init__(self, null_mean: float = 0.0, sign: int = 1) -> None:
        if sign not in (1, -1):
            raise ValueError("sign is +1 (claim: at most) or -1 (claim: at least)")
        self.null_mean = null_mean
        self.sign = sign
        self.n = 0
        self._sum = 0.0
        self._surprise = 0.0  # squared distances to the mean as it was known before each tick

    def update(self, n: int, d_sum: float, d_squares: float) -> None:
        """Take one tick: n pairs, the sum of D and of D squared."""
        guess = self.mean
        self._surprise += max(0.0, d_squares - 2 * guess * d_sum + n * guess * guess)
        self._sum += d_sum
        self.n += n

    @property
    def mean(self) -> float:
        """Mean of D so far; 0 before the first pair."""
        return self._sum / self.n if self.n else 0.0

    @property
    def e_value(self) -> float:
        """Evidence against the claim: ever 1/alpha with probability at most alpha if it holds."""
        return float(np.exp(min(700.0, self._log_evidence(self.null_mean, self.sign))))

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """Where the average mean of D lies, at every time at once, with probability 1 - alpha."""
        return self._edge(alpha, +1), self._edge(alpha, -1)

    def snapshot(self) -> list[float]:
        return [float(self.n), self._sum, self._surprise]

    def restore(self, snapshot: Sequence[float]) -> None:
        n, self._sum, self._surprise = snapshot
        self.n = int(n)

    def _log_evidence(self, null_mean: float, sign: int) -> float:
        gain = sign * (self._sum - self.n * null_mean)
        logs = STAKES * gain - COSTS * self._surprise
        return float(np.logaddexp.reduce(logs) - np.log(len(STAKES)))

    def _edge(self, alpha: float, sign: int) -> float:
        """The mean at which the claim stops being refuted at alpha / 2: bisection towards -sign."""
        refuted, kept = -1.0 * sign, self.mean
        if self._log_evidence(refuted, sign) < np.log(2 / alpha):
            return refuted
        for _ in range(50):
            middle = (refuted + kept) / 2
            if self._log_evidence(middle, sign) >= np.log(2 / alpha):
                refuted = middle
            else:
                kept = middle
        return refuted
