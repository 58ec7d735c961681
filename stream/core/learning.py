"""Bets that go on what was seen: on the stream's own past, and on the last ticks.

The bets of `bets` know the reference alone, and allow for all that a finite reference does not
know. Comparing with the reference and the stream's own past at once needs no such allowance: what
is known of the mean grows with every tick. What these bets pay is computed in `capital`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

SHIFTS: Final = np.array([0.1, 0.2, 0.4, 0.8])  # in standard deviations
LEAST_ROWS: Final = 30.0  # of a reference after deflation, to be compared with
SPREAD_CAUTION: Final = 3.0  # standard errors by which a reference's variance may be too small
COMMON: Final = 0.05  # a category of a smaller share is too rare for its mean to be near normal
MAX_COMMON: Final = 8
FARTHEST: Final = 4.0  # standard deviations: no single event says more
MEMORIES: Final = 2  # of learned bets, see `capital.HALF_LIVES`


class PastBets(NamedTuple):
    """J bets that the mean of a score is not what it was.

    Attributes:
        scores: shape (J, B): stake times score, of mean 0 in the reference.
        costs: shape (J,): log of what an event pays on average while nothing changes, and what the
            tolerance lets go.
        variances: shape (J,), of the scores.
        rows: of the reference, deflated.
        weights: shape (J,).
    """

    scores: Array
    costs: Array
    variances: Array
    rows: float
    weights: Array


class LearnedBets(NamedTuple):
    """Bets on what the last ticks looked like.

    Attributes:
        reference: shape (B,), shares.
        radius: the null holds every law q with KL(reference, q) up to it, in nats.
        weights: shape (MEMORIES,).
    """

    reference: Array
    radius: float
    weights: Array


def past_bets(
    p: Array, rows: float, scores: Sequence[Array], *, slack: float, weight: float
) -> PastBets | None:
    """Bets on each score's mean, None if there is nothing to compare with.

    Args:
        p: shares of the reference, shape (B,).
        rows: of the reference, deflated.
        scores: shape (B,) each; one of no spread gets no bet. Two-sided: give it with either sign.
        slack: changes up to so many standard deviations are no news.
    """
    units = [unit for score in scores if (unit := _standardised(p, score)) is not None]
    if rows < LEAST_ROWS or not units:
        return None
    staked = np.concatenate([SHIFTS[:, None] * unit for unit in units])
    kurtosis = np.repeat([p @ unit**4 for unit in units], len(SHIFTS))
    caution = 1 + SPREAD_CAUTION * np.sqrt(np.maximum(0.0, kurtosis - 1) / rows)
    stakes = np.tile(SHIFTS, len(units))
    costs = np.log(np.exp(staked) @ p) * caution + stakes * slack
    weights = np.full(len(staked), weight / len(staked))
    return PastBets(staked, costs, stakes**2, rows, weights)


def learned_bets(
    p: Array, rows: float, *, tolerance_psi: float, delta: float, weight: float
) -> LearnedBets:
    """The null is a ball about the reference: half the tolerance (PSI is about twice the KL), or
    what sampling error alone reaches with probability delta (approximate)."""
    sampling = float(special.chdtri(len(p) - 1, delta)) / (2 * rows)
    radius = max(tolerance_psi / 2, sampling)
    return LearnedBets(p, radius, np.full(MEMORIES, weight / MEMORIES))


def common(p: Array) -> list[Array]:
    """Indicators of the categories that are not rare, most frequent first."""
    order = [int(b) for b in np.argsort(-p[:-2], kind="stable") if p[b] >= COMMON]
    return [np.eye(len(p))[b] for b in order[:MAX_COMMON]]


def _standardised(p: Array, score: Array) -> Array | None:
    centred = score - float(p @ score)
    spread = float(p @ centred**2) ** 0.5
    if spread <= 1e-9:
        return None
    unit: Array = np.clip(centred / spread, -FARTHEST, FARTHEST)
    unit -= float(p @ unit)
    return unit
