"""How neighbouring events of a reference hang together: in a season, or by mere dependence.

Both are remedies against alarms about nothing, and both are chosen from the time-ordered reference
by itself: counts are compared within the cells of a season, and divided by the deflation.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from models.profile import SignalProfile
from models.seasons import SEASONS, Calendar, Season
from models.spec import ModelSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCKS: Final = (50, 100, 200, 400)  # rows; of the deflation estimate
FEWEST_BLOCKS: Final = 5  # fewer block means say nothing of their variance
FEWEST_ROWS: Final = 100  # of a cell, on average and in effect (deflated)
FEWEST_CYCLES: Final = 2  # one to find a pattern in, one to find it again
LEAST_STRENGTH: Final = 0.01  # variance between cells, in variances: below it is no news
CERTAIN: Final = 3.0  # standard errors
NEARLY: Final = 0.8  # of the strength of the best season is enough for one of fewer cells


class Rhythm:
    """Seasons and dependence of signals whose rows have these times.

    Args:
        times_ms: ascending, shape (m,); None if nothing is known of them.
    """

    def __init__(self, spec: ModelSpec, times_ms: Ints | None) -> None:
        self._calendar = Calendar(spec.time_zone, spec.tick_ms)
        self._cells: dict[Season, Ints] = {}
        self._halves: dict[Season, Ints] = {}  # 0 and 1 in turn, cycle by cycle
        if times_ms is None or not len(times_ms):
            return
        for season, kind in SEASONS.items():
            enough = len(times_ms) >= FEWEST_ROWS * kind.cells
            cycles = (times_ms[-1] - times_ms[0]) / kind.cycle_ms
            if self._calendar.fits(season) and enough and cycles >= FEWEST_CYCLES:
                self._cells[season] = self._calendar.cells(season, times_ms)
                self._halves[season] = (times_ms - times_ms[0]) // kind.cycle_ms % 2

    def found(
        self, signal: SignalProfile, bins: Ints, scores: Floats, counted: slice = slice(None)
    ) -> SignalProfile:
        """The signal with its counts, its season, if it has one, and its deflation.

        Args:
            bins: of each row, shape (m,).
            scores: what is likely to move, shape (m, columns).
            counted: rows that count; the others were used up to define the signal.
        """
        season, width = self._season(scores), len(signal.counts)
        counts = np.bincount(bins[counted], minlength=width)
        signal = structs.replace(signal, counts=tuple(counts.tolist()))
        if season is None:
            return structs.replace(signal, deflation=deflation(scores))
        cells, number = self._cells[season], SEASONS[season].cells
        within = deflation(scores - cell_means(scores, cells, number)[cells])
        rows = np.bincount(cells[counted], minlength=number)
        if rows.min() < FEWEST_ROWS / 2 * within:
            return structs.replace(signal, deflation=deflation(scores))
        both = (cells * width + bins)[counted]
        table = np.bincount(both, minlength=number * width).reshape(number, width).tolist()
        return structs.replace(
            signal, season=season, cells=tuple(map(tuple, table)), deflation=within
        )

    def _season(self, scores: Floats) -> Season | None:
        """The season of fewest cells that explains nearly as much as any."""
        strengths = {
            season: strength(scores, cells, self._halves[season], SEASONS[season].cells)
            for season, cells in self._cells.items()
        }
        best = max(strengths.values(), default=0.0)
        if best <= LEAST_STRENGTH:
            return None
        return next(season for season, value in strengths.items() if value >= NEARLY * best)


def part(
    spec: ModelSpec,
    signal: SignalProfile,
    bins: Ints,
    scores: Floats,
    inside: NDArray[np.bool_],
    times_ms: Ints | None,
) -> SignalProfile:
    """A signal of some of its rows, in its season where they are enough for every cell.

    Without its season the cycle is dependence like any other, and divided out: by the deflation of
    all rows, which lie closer together than those of a part.

    Args:
        signal: of the whole, on whose bins the part is.
        bins, scores: of all rows, shapes (m,) and (m, columns), in time order.
        inside: which rows the part has, shape (m,).
        times_ms: of all rows; None if they are not known.
    """
    width = len(signal.counts)
    counts = np.bincount(bins[inside], minlength=width)
    pooled = structs.replace(signal, counts=tuple(counts.tolist()), season="", cells=())
    if not signal.season:
        return pooled
    if times_ms is not None:
        number = SEASONS[signal.season].cells
        calendar = Calendar(spec.time_zone, spec.tick_ms)
        cells = calendar.cells(signal.season, times_ms[inside])
        rows = np.bincount(cells, minlength=number)
        if rows.min() >= FEWEST_ROWS / 2 * signal.deflation:
            both = np.bincount(cells * width + bins[inside], minlength=number * width)
            table = both.reshape(number, width).tolist()
            return structs.replace(pooled, season=signal.season, cells=tuple(map(tuple, table)))
    return structs.replace(pooled, deflation=max(signal.deflation, deflation(scores)))


def strength(scores: Floats, cells: Ints, halves: Ints, number: int) -> float:
    """Variance between cells in variances of the score, of the column that has most; 0 if unsure.

    The product of a cell's mean in every other cycle with its mean in the rest: noise that is not
    bound to the cell, however dependent, has mean 0 there.
    """
    spread = scores.std(axis=0)
    units = (scores - scores.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)
    one, other = (
        cell_means(units[halves == half], cells[halves == half], number) for half in (0, 1)
    )
    if np.isnan(one).any() or np.isnan(other).any():
        return 0.0
    products = one * other
    share = np.bincount(cells, minlength=number) / len(cells)
    values = share @ products
    errors = products.std(axis=0) / number**0.5
    certain = values > CERTAIN * errors
    return float(np.where(certain, values, 0.0).max(initial=0.0))


def cell_means(scores: Floats, cells: Ints, number: int) -> Floats:
    """Shape (number, columns); NaN in a cell without rows."""
    rows = np.bincount(cells, minlength=number)
    sums = [np.bincount(cells, weights=column, minlength=number) for column in scores.T]
    with np.errstate(invalid="ignore"):
        means: Floats = np.column_stack(sums) / rows[:, None]
    return means


def deflation(scores: Floats) -> float:
    """How much block means of a time-ordered series vary more than those of independent events.

    The largest Var(block mean) * block / Var(score) over the columns and blocks of 50 to 400 that
    independent events would hardly show, at least 1: counts divided by it carry no more evidence
    than their dependence allows.

    Args:
        scores: shape (m,) or (m, columns), in time order.
    """
    columns = scores.reshape(len(scores), -1)
    variance = columns.var(axis=0)
    worst = 1.0
    for block in BLOCKS:
        blocks = len(columns) // block
        if blocks >= FEWEST_BLOCKS:
            means = columns[: blocks * block].reshape(blocks, block, -1).mean(axis=1)
            spread = means.var(axis=0, ddof=1) * block
            ratios = np.divide(spread, variance, out=np.ones_like(spread), where=variance > 1e-12)
            ratios[ratios < 1 + CERTAIN * (2 / (blocks - 1)) ** 0.5] = 1.0
            worst = max(worst, float(ratios.max(initial=1.0)))
    return worst
