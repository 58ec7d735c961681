"""Tables of bets: what each event adds to the evidence that a signal has left its null.

A table has K fixed bets on B bins. `log_bets[k, b]` is the log of what bet k pays for an event in
bin b, such that `sum_b q_b exp(log_bets[k, b]) <= 1` for every distribution q of the null. While
the null holds, a product of such payments over events is worth at most 1 on average, whatever the
tick size and however q moves inside the null (Waudby-Smith, Ramdas 2024; Larsson, Ramdas, Ruf
2025). A bet is of one of two kinds: on the mean of a score of the bins, or on one bin's share.

The null always holds the reference, its sampling error and the tolerance. So a table is as sure as
its reference is large, and a small reference makes it blind to small changes, never trigger-happy.

Beside these a table has bets that go on what was seen (`learning`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from models.profile import SignalProfile, Validation
from stream.core.intervals import mean_upper_bound, share_bounds
from stream.core.learning import (
    SHIFTS,
    SIDES,
    LearnedBets,
    PastBets,
    common,
    learned_bets,
    past_bets,
)
from stream.events import LOSS_BINS

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

LOSS_VALUES: Final[Array] = np.arange(LOSS_BINS) / (LOSS_BINS - 1)  # what its bins stand for

LOSS_STAKES: Final = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.8])  # of the largest possible stake
ODDS_UP: Final = np.array([1.5, 4.0])  # a bin's odds against those of its bound
ODDS_DOWN: Final = np.array([0.6, 0.2])
RAREST_DOWN: Final = 0.005  # a bin whose share may be below this is not bet to shrink
WEIGHTS: Final = {"location": 0.2, "scale": 0.1, "bins": 0.3}
PAST_WEIGHT: Final = 0.3
LEARNED_WEIGHT: Final = 0.1
RANGE: Final = 0.5  # of values beyond the reference on one side are a shift; more are a wrong unit
BOLDEST: Final = 0.9  # of the capital may be lost on one event
DEFLATE_FROM: Final = 1.5  # a smaller variance inflation is taken for noise of its estimate
IDLE: Final = -1e-3  # log of what an idle bet pays for each event: one at L = 1 would grow as time
PRIOR_ROWS: Final = 100  # of the reference, mixed into the counts that a recovery table starts from


class BetTable(NamedTuple):
    """The bets on one signal. All weights together add up to 1, or there are no bets.

    Attributes:
        log_bets: shape (K, B).
        weights: shape (K,).
        deflation: counts are divided by it before they are bet on, at least 1.
    """

    name: str
    log_bets: Array
    weights: Array
    deflation: float = 1.0
    past: PastBets | None = None
    learned: LearnedBets | None = None


class HarmBound(NamedTuple):
    """What the validated loss allows to certify, on the bounded loss."""

    mean: float  # validated
    upper: float  # the null: the live mean is at most this
    by_ignorance: bool = False  # it is what knowing nothing would lose

    @property
    def smallest_harm(self) -> float:
        """A rise of the loss that no number of labels can certify with this validation set."""
        return max(0.0, self.upper - self.mean)


def harm_bound(
    validation: Validation,
    *,
    tolerance: float,
    delta: float,
    objective: float | None = None,
    ignorance: float | None = None,
) -> HarmBound:
    """The validated mean loss, and the most it may be: its upper bound at delta plus the tolerance.

    Args:
        objective: a mean loss that was promised, in the unit of the loss; takes the place of the
            bound, and then no sampling error is left.
        ignorance: what knowing nothing loses, in the same unit: the bound is never more. A version
            that does worse is harmed however little its validation says.

    >>> bins = (400, 60, 20, 10, 6, 4) + (0,) * 14
    >>> v = Validation(n=500, loss_bins=bins, loss_scale=4.0, metrics={})
    >>> bound = harm_bound(v, tolerance=0.0, delta=0.005)
    >>> round(bound.mean, 4), round(bound.smallest_harm, 4)
    (0.0183, 0.0142)
    >>> harm_bound(v, tolerance=0.0, delta=0.005, objective=0.1).upper
    0.025
    """
    counts = np.asarray(validation.loss_bins, dtype=float)
    n = float(counts.sum())
    mean = float(counts @ LOSS_VALUES) / n if n else 1.0
    if objective is not None:
        return HarmBound(mean, min(1.0, objective / validation.loss_scale))
    own = min(1.0, _upper_bound(validation.loss_bins, validation.deflation, delta) + tolerance)
    most = 1.0 if ignorance is None else min(1.0, ignorance / validation.loss_scale)
    return HarmBound(mean, min(own, most), by_ignorance=most < own)


@lru_cache(maxsize=4096)  # of a version and a segment; every alert on harm asks for it again
def _upper_bound(loss_bins: tuple[int, ...], deflation: float, delta: float) -> float:
    counts = np.asarray(loss_bins, dtype=float) / _deflation(deflation)
    return mean_upper_bound(LOSS_VALUES, counts, delta)


def loss_table(
    validation: Validation,
    *,
    tolerance: float,
    delta: float,
    objective: float | None = None,
    ignorance: float | None = None,
    name: str = "harm",
) -> BetTable:
    """Bets against "the mean bounded loss is at most the validated one", on LOSS_BINS counts.

    Wrong about the validated loss with probability at most delta (see `harm_bound`). Losses must
    have been rounded onto the bins without moving their mean. Without an objective, a rise against
    the validation and the past together is harm as well.
    """
    bound = harm_bound(
        validation, tolerance=tolerance, delta=delta, objective=objective, ignorance=ignorance
    )
    rows = mean_bets(LOSS_VALUES, bound.upper, LOSS_STAKES / bound.upper)
    past = _past_loss(validation, tolerance) if objective is None else None
    return _table(name, _staked(rows), validation.deflation, past=past)


def recovery_edge(bound: HarmBound, level: float) -> float:
    """The mean loss that parts "still as bad" as `level` from "recovered"; see `recovery_table`."""
    good = min(bound.mean, bound.upper)
    middle, far = (good + level) / 2, good + 0.75 * (level - good)
    return min(max(middle, min(bound.upper, far), 1e-6), 1 - 1e-6)


def recovery_table(
    validation: Validation,
    level: float,
    *,
    tolerance: float,
    delta: float,
    objective: float | None = None,
    ignorance: float | None = None,
    name: str = "harm",
) -> BetTable:
    """Bets against "the loss is still nearer to `level` (at the alarm) than to the validated one".

    The edge lies midway between the two, or, up to three quarters of the way, where `loss_table`
    ceases to call harmless.
    """
    bound = harm_bound(
        validation, tolerance=tolerance, delta=delta, objective=objective, ignorance=ignorance
    )
    edge = recovery_edge(bound, level)
    rows = mean_bets(-LOSS_VALUES, -edge, LOSS_STAKES / (1 - edge))
    return _table(name, _staked(rows), validation.deflation)


def distribution_table(
    signal: SignalProfile,
    *,
    tolerance_psi: float,
    delta: float,
    cell_of: SignalProfile | None = None,
) -> BetTable:
    """Bets against "the signal is distributed as in the reference, up to the tolerance".

    Args:
        tolerance_psi: changes up to this population stability index are no news; a shift of d
            standard deviations has about d squared.
        delta: chance that the reference's sampling error alone reaches past the null (approximate
            for location and scale, exact for bins). With S signals take 0.01 / S.
        cell_of: the signal with its season, of which the counts are one cell. Tables of all cells
            have the same bets in the same order: where a cell allows none, an idle one.
    """
    counts = np.asarray(signal.counts, dtype=float) / _deflation(signal.deflation)
    scored = signal.kind == "numeric"
    seasonal, cells = cell_of is not None, len(cell_of.cells) if cell_of else 1
    delta_each = delta / cells / (3 * len(counts) + 4 * scored)
    rows, bins = float(counts.sum()), len(counts)
    if rows <= 0:
        return _table(signal.name, [], signal.deflation, bins=bins)
    p, tolerated = _smoothed(counts), tolerance_psi**0.5
    groups = [(WEIGHTS["bins"], _share_bets(counts, p, tolerance_psi, delta_each, keep=seasonal))]
    directions = _scores(p) if scored else common(_smoothed((cell_of or signal).counts))
    if scored:
        slack = max(tolerated, float(-special.ndtri(delta_each)) / rows**0.5)
        shifts = _shift_bets(p, directions, slack, keep=seasonal)
        groups += zip((WEIGHTS["location"], WEIGHTS["scale"]), shifts, strict=True)
    past = past_bets(p, rows, directions, slack=tolerated, weight=PAST_WEIGHT, cells=cells)
    if seasonal:
        return _table(signal.name, groups, signal.deflation, bins=bins, past=past)
    learned = learned_bets(
        p, rows, tolerance_psi=tolerance_psi, delta=bins * delta_each, weight=LEARNED_WEIGHT
    )
    return _table(signal.name, groups, signal.deflation, bins=bins, past=past, learned=learned)


def broken_table(signal: SignalProfile, *, delta: float) -> BetTable:
    """Bets against "nulls (and unseen categories) are no more frequent than in the reference".

    Of numeric signals also against "at most `RANGE` lie below, or above, all of the reference": a
    few do after any shift, but a wrong unit or scale puts most there.

    It takes the same counts as the signal's distribution table; its name is `<signal>:broken`.
    """
    counts = np.asarray(signal.counts, dtype=float) / _deflation(signal.deflation)
    last = len(counts) - 1
    bins = np.array([last, 0, last - 1] if signal.kind == "numeric" else [last, last - 1])
    _, high = share_bounds(counts[bins], float(counts.sum()), delta / len(bins))
    if signal.kind == "numeric":
        high[1:] = np.maximum(high[1:], RANGE)
    bets = _odds_bets(high, bins, high < 1, ODDS_UP, len(counts))
    return _table(f"{signal.name}:broken", [(1.0, [bets])], signal.deflation, bins=len(counts))


def signal_recovery_table(signal: SignalProfile, counts: ArrayLike) -> BetTable:
    """Bets against "the signal is still nearer to `counts` (at the alarm) than to the reference".

    Nearness is measured along the log ratio of the two distributions, the score that separates
    them best (Neyman, Pearson 1933), so one table serves every shape of drift.
    """
    deflation = _deflation(signal.deflation)
    p = _smoothed(np.asarray(signal.counts, dtype=float) / deflation)
    drifted = np.asarray(counts, dtype=float) / deflation + PRIOR_ROWS * p
    drifted /= drifted.sum()
    score = np.log(drifted / p)
    edge = float((p + drifted) @ score) / 2
    gap = edge - float(p @ score)
    best = gap / max(1e-12, float(p @ (score - edge) ** 2))
    rows = mean_bets(-score, -edge, best * np.array([0.25, 0.5, 1.0, 2.0]))
    return _table(signal.name, [(1.0, [rows])], signal.deflation, bins=len(p))


def mean_bets(values: Array, edge: float, stakes: Array) -> Array:
    """Bets against "the mean of `values` is at most `edge`": log(1 + stake (value - edge)).

    Args:
        values: score of each bin, shape (B,).
        stakes: shape (K,), positive; capped so that no event takes more than `BOLDEST`.

    Returns:
        Shape (K, B); (0, B) if no value exceeds the edge, for then there is nothing to win.
    """
    gains = values - edge
    if gains.max() <= 0:
        return np.empty((0, len(values)))
    worst = max(1e-12, float(-gains.min()))
    rows: Array = np.log1p(np.minimum(stakes, BOLDEST / worst)[:, None] * gains)
    return rows


def _shift_bets(p: Array, scores: Array, slack: float, *, keep: bool) -> list[list[Array]]:
    """Both sides of "the score's mean stays within `slack` standard deviations", of each score.

    The mean of a score s moves by at most sqrt(PSI) standard deviations (Cauchy-Schwarz), hence the
    one unit for tolerance and sampling error. A stake of d / (1 + d^2) grows fastest at shift d.

    Args:
        scores: shape (D, B).
        keep: have an idle bet where there can be none.

    Returns:
        by score, its sides' bets.
    """
    centred = scores - (scores @ p)[:, None]
    units = centred / np.maximum(centred**2 @ p, 1e-18)[:, None] ** 0.5
    gains = units[:, None] * SIDES[:, None] - slack
    worst = np.maximum(-gains.min(axis=2), 1e-12)
    stakes = np.minimum(SHIFTS / (1 + SHIFTS**2), (BOLDEST / worst)[:, :, None])
    rows = np.log1p(stakes[..., None] * gains[:, :, None])
    winnable = gains.max(axis=2) > 0
    if keep:
        rows[~winnable] = IDLE
        return [*map(list, rows)]
    return [[*both[mine]] for both, mine in zip(rows, winnable, strict=True)]


def _share_bets(
    counts: Array, p: Array, tolerance_psi: float, delta: float, *, keep: bool
) -> list[Array]:
    """For every bin, that its share has grown; for those not rare, that it has shrunk.

    All have the same number of bets, so together they share a weight as evenly as one by one.

    Args:
        p: the counts as smoothed shares.
        keep: have an idle bet where there can be none.
    """
    low, high = share_bounds(counts, float(counts.sum()), delta)
    slack = np.sqrt(tolerance_psi * p * (1 - p))
    low, high = np.minimum(low, p - slack), np.maximum(high, p + slack)
    bins = np.arange(len(counts))
    both = ((high, high < 1, ODDS_UP), (low, (low > RAREST_DOWN) & (low < 1), ODDS_DOWN))
    found = []
    for bounds, winnable, odds in both:
        bets = _odds_bets(bounds, bins, winnable, odds, len(bins))
        if keep:
            kept = np.full((len(bins), len(odds), len(bins)), IDLE)
            kept[winnable] = bets.reshape(-1, len(odds), len(bins))
            bets = kept.reshape(-1, len(bins))
        found.append(bets)
    return [np.concatenate(found)]


def _odds_bets(
    bounds: Array, at: Ints, winnable: NDArray[np.bool_], odds: Array, bins: int
) -> Array:
    """Likelihood ratios of shares with other odds against the shares at their bounds.

    Args:
        bounds: of the shares, shape (D,).
        at: their bins, shape (D,).
        winnable: which of them are bet on, shape (D,).
        odds: against those of the bound, shape (K,).

    Returns:
        shape (K for each that is bet on, bins).
    """
    bounds, at = bounds[winnable][:, None], at[winnable]
    rows = np.repeat(-np.log(1 - bounds + bounds * odds), bins).reshape(len(at), len(odds), bins)
    rows[np.arange(len(at)), :, at] += np.log(odds)
    return rows.reshape(-1, bins)


def _scores(p: Array) -> Array:
    """Normal scores of the ordered bins, and their squares without what location explains.

    The null bin, which is last, gets each score's mean: it speaks neither for nor against.

    Returns:
        shape (2, B).
    """
    q = p[:-1] / p[:-1].sum()
    z = special.ndtri(np.cumsum(q) - q / 2)
    z -= q @ z
    z /= max(1e-9, float(q @ z**2) ** 0.5)
    square = z**2
    scores = np.zeros((2, len(p)))
    scores[0, :-1] = z
    scores[1, :-1] = square - 1 - float(q @ (square * z)) * z
    return scores


def _smoothed(counts: ArrayLike) -> Array:
    """Shares with half a row added to each bin (Jeffreys' prior)."""
    smoothed = np.asarray(counts, dtype=float) + 0.5
    smoothed /= smoothed.sum()
    return smoothed


def _deflation(inflation: float) -> float:
    return inflation if inflation > DEFLATE_FROM else 1.0


def _staked(rows: Array) -> list[tuple[float, list[Array]]]:
    """Low stakes weigh more: what they are for is slow to show, what high ones are for is not."""
    weights = LOSS_STAKES**-0.5 / (LOSS_STAKES**-0.5).sum()
    return [(float(weight), [row[None]]) for weight, row in zip(weights, rows, strict=False)]


def _past_loss(validation: Validation, tolerance: float) -> PastBets | None:
    """Only a rise is harm. A row of the greatest loss, that was not seen, keeps costs careful."""
    counts = np.asarray(validation.loss_bins, dtype=float) / _deflation(validation.deflation)
    rows = float(counts.sum())
    if rows <= 0:
        return None
    counts[-1] += 1
    p = counts / counts.sum()
    spread = float(p @ (LOSS_VALUES - p @ LOSS_VALUES) ** 2) ** 0.5
    slack = tolerance / max(spread, 1e-9)
    return past_bets(p, rows, LOSS_VALUES[None], slack=slack, weight=1.0, sides=SIDES[:1])


def table_of(name: str, rows: Array, weights: Array, inflation: float) -> BetTable:
    """Bets as they are, shape (K, B), with weights (K,) of any sum; there may be none."""
    column = weights[: len(rows)]
    return BetTable(name, rows, column / (column.sum() or 1.0), _deflation(inflation))


def _table(
    name: str,
    groups: Sequence[tuple[float, Sequence[Array]]],
    inflation: float,
    bins: int = LOSS_BINS,
    past: PastBets | None = None,
    learned: LearnedBets | None = None,
) -> BetTable:
    """Stack directions. A group's weight is split evenly over directions, then over their bets."""
    rows, weights = [np.empty((0, bins))], [np.empty(0)]
    for weight, directions in groups:
        winnable = [bets for bets in directions if len(bets)]
        rows += winnable
        weights += [np.full(len(bets), weight / len(winnable) / len(bets)) for bets in winnable]
    column = np.concatenate(weights)
    more = [bets for bets in (past, learned) if bets is not None]
    total = float(column.sum() + sum(bets.weights.sum() for bets in more)) or 1.0
    return BetTable(
        name,
        np.vstack(rows),
        column / total,
        _deflation(inflation),
        past._replace(weights=past.weights / total) if past else None,
        learned._replace(weights=learned.weights / total) if learned else None,
    )
