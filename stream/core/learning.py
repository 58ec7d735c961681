"""Bets that go on what was seen: on the stream's own past, and on the last ticks.

The bets of `bets` know the reference alone, and allow for all that a finite reference does not
know. Comparing with the reference and the stream's own past at once needs no such allowance: what
is known of the mean grows with every tick. What these bets pay is computed in `capital`.
"""

from __future__ import annotations

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
SIDES: Final = np.array([1.0, -1.0])  # a mean that rises, and one that falls
FARTHEST: Final = 4.0  # standard deviations: no single event says more
LEAST_COST: Final = 1e-3  # of an event: a bet that costs nothing would grow as time
MEMORIES: Final = 2  # of learned bets, see `capital.HALF_LIVES`


class PastBets(NamedTuple):
    """J bets that the means of D scores are not what they were.

    Attributes:
        scores: shape (D, B), of mean 0 and variance about 1 in the reference.
        stakes: shape (J, D): one score's stake each, either sign; the others' are 0.
        costs: shape (J,): log of what one event pays on average while nothing changes, and what the
            tolerance lets go.
        rows: of the reference, deflated.
        weights: shape (J,).
        cells: of the season: the past of each is remembered apart.
    """

    scores: Array
    stakes: Array
    costs: Array
    rows: float
    weights: Array
    cells: int = 1


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
    p: Array,
    rows: float,
    scores: Array,
    *,
    slack: float,
    weight: float,
    sides: Array = SIDES,
    cells: int = 1,
) -> PastBets | None:
    """Bets on each score's mean, None if there is nothing to compare with.

    Args:
        p: shares of the reference, shape (B,).
        rows: of the reference, deflated.
        scores: shape (D, B); bets on one of no spread can win nothing.
        slack: changes up to so many standard deviations are no news.
        sides: whether a mean may rise (1), fall (-1), or both.
        cells: of the season, if p is one of them.
    """
    if rows < LEAST_ROWS or not len(scores):
        return None
    units = _standardised(p, scores)
    each = np.outer(sides, SHIFTS).ravel()
    axes: Array = np.zeros((len(units), len(each), len(units)))
    for axis, some in enumerate(axes):
        some[:, axis] = each
    stakes = axes.reshape(-1, len(units))
    squares = units**2
    caution = 1 + SPREAD_CAUTION * np.sqrt(np.maximum(0.0, squares**2 @ p - 1) / rows)
    costs = np.log(np.exp(stakes @ units) @ p) * np.repeat(caution, len(each))
    costs = np.maximum(costs, LEAST_COST) + np.abs(stakes).sum(axis=1) * slack
    return PastBets(units, stakes, costs, rows, np.full(len(stakes), weight / len(stakes)), cells)


def learned_bets(
    p: Array, rows: float, *, tolerance_psi: float, delta: float, weight: float
) -> LearnedBets:
    """The null is a ball about the reference: half the tolerance (PSI is about twice the KL), or
    what sampling error alone reaches with probability delta (approximate)."""
    sampling = float(special.chdtri(len(p) - 1, delta)) / (2 * rows)
    radius = max(tolerance_psi / 2, sampling)
    return LearnedBets(p, radius, np.full(MEMORIES, weight / MEMORIES))


def common(p: Array) -> Array:
    """Indicators of the categories that are not rare, most frequent first; shape (D, B)."""
    order = [int(b) for b in np.argsort(-p[:-2], kind="stable") if p[b] >= COMMON]
    indicators = np.zeros((min(len(order), MAX_COMMON), len(p)))
    for row, b in zip(indicators, order, strict=False):
        row[b] = 1.0
    return indicators


def _standardised(p: Array, scores: Array) -> Array:
    """Of mean 0 and variance about 1; 0 where there is no spread."""
    centred = scores - (scores @ p)[:, None]
    spread = (centred**2 @ p) ** 0.5
    spread[spread <= 1e-9] = np.inf
    units: Array = np.minimum(np.maximum(centred / spread[:, None], -FARTHEST), FARTHEST)
    units -= (units @ p)[:, None]
    return units
