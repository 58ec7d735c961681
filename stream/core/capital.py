"""What the bets of many signals are worth, tick by tick: arrays over all signals at once.

Three kinds of bets (`bets`) share one recursion, M becomes L (M + g), and differ in what a tick
pays, L. Every kind pays at most 1 on average while its null holds, so their weighted sum is one
e-detector (`detector`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.core.bets import BetTable
from stream.core.learning import LearnedBets, PastBets

Array = NDArray[np.float64]

STORED: Final = np.dtype("<f8")
CEILING: Final = 1e150  # capital is capped: lower is always allowed, and infinity is no plain data
LARGEST_LOG: Final = 345.0  # what a tick pays at most; about log(CEILING), so no product overflows
HALF_LIVES: Final = np.array([10.0, 60.0])  # ticks that learned bets remember
CAUTION_ROWS: Final = 100.0  # of the reference, mixed into what was learned
IDLE_LOG: Final = -0.1  # a learned bet without an opinion: at L = 1 its capital would grow as time
NEWTON_STEPS: Final = 4


class Stack:
    """All bets of S signals.

    Args:
        tables: one a signal.

    Attributes:
        bins: of the signal that has most.
    """

    def __init__(self, tables: Sequence[BetTable]) -> None:
        self.bins = max((table.log_bets.shape[1] for table in tables), default=0)
        past = {i: table.past for i, table in enumerate(tables) if table.past is not None}
        learned = {i: table.learned for i, table in enumerate(tables) if table.learned is not None}
        kinds: list[tuple[list[int], _Kind]] = []
        kinds += [([*range(len(tables))], _Fixed(tables))] if tables else []
        kinds += [([*past], _Past([*past.values()]))] if past else []
        kinds += [([*learned], _Learned([*learned.values()]))] if learned else []
        self._parts: list[list[tuple[_Kind, int]]] = [[] for _ in tables]
        for members, kind in kinds:
            for at, signal in enumerate(members):
                self._parts[signal].append((kind, at))
        self._kinds = [(_places(members, len(tables)), kind) for members, kind in kinds]

    def update(self, rows: Array, growth: Array) -> None:
        """Take one tick; signals without events in it stay as they are.

        Args:
            rows: deflated counts, shape (S, bins), filled up with zeros.
            growth: new capital, shape (S, 1).
        """
        seen: NDArray[np.bool_] = np.asarray(rows.any(axis=1, keepdims=True))
        for members, kind in self._kinds:
            kind.update(rows[members], growth[members], seen[members])

    def turn(self, signal: int, table: BetTable, cell: int) -> None:
        """Go over to the table of another cell of the signal's season: as many bets of like kind,
        whose capital goes on."""
        for kind, at in self._parts[signal]:
            kind.turn(at, table, cell)

    @property
    def evidence(self) -> Array:
        """Weighted capital, shape (S,)."""
        total = np.zeros(len(self._parts))
        for members, kind in self._kinds:
            total[members] += (kind.weights * kind.capital).sum(axis=1)
        return total

    def reset(self, signals: Iterable[int]) -> None:
        """Take the capital of these away, not what their bets have learned."""
        for signal in signals:
            for kind, at in self._parts[signal]:
                kind.capital[at] = 0.0

    def save(self, signal: int) -> bytes:
        """All that must be kept of one signal, as little-endian floats; its table says how many."""
        parts = [part for kind, at in self._parts[signal] for part in kind.kept(at)]
        return b"".join([part.astype(STORED, copy=False).tobytes() for part in parts])

    def load(self, signal: int, values: Array) -> bool:
        """Take over what `save` gave; False if it was of other bets, and these begin afresh."""
        parts = [part for kind, at in self._parts[signal] for part in kind.kept(at)]
        fits = len(values) == sum(part.size for part in parts)
        for part in parts:
            part[...] = values[: part.size].reshape(part.shape) if fits else 0.0
            values = values[part.size :]
        return fits


class _Kind(Protocol):
    """The bets of one kind, of the signals that have some."""

    capital: Array  # shape (signals, bets)
    weights: Array

    def update(self, rows: Array, growth: Array, seen: NDArray[np.bool_]) -> None:
        """Take one tick; `seen`: shape (signals, 1), whether there are any counts."""

    def turn(self, at: int, table: BetTable, cell: int) -> None:
        """Go over to the table of another cell of the season."""

    def kept(self, at: int) -> Sequence[Array]:
        """State of one signal: views, to be read and to be written."""


class _Fixed:
    """Bets that were written down once: log L of each is a sum over the tick's events."""

    def __init__(self, tables: Sequence[BetTable]) -> None:
        self._log_bets = _stacked([table.log_bets for table in tables])
        self.weights = _stacked([table.weights for table in tables])
        self.capital: Array = np.zeros_like(self.weights)
        self._sizes = [len(table.weights) for table in tables]

    def update(self, rows: Array, growth: Array, seen: NDArray[np.bool_]) -> None:
        paid = (self._log_bets @ rows[:, :, None])[:, :, 0]
        self.capital = _grown(self.capital, paid, growth, seen)

    def turn(self, at: int, table: BetTable, cell: int) -> None:
        bets, bins = table.log_bets.shape
        self._log_bets[at, :bets, :bins] = table.log_bets

    def kept(self, at: int) -> Sequence[Array]:
        return [self.capital[at, : self._sizes[at]]]


class _Past:
    """Bets that a mean is not what it was: in the reference, and in all that was seen since.

    With N events before (in this cell of the season), of mean score m, and n in the tick, of sum S,
    S - n m has mean 0 and a variance of n (1 + n / N) while nothing changes, whatever the mean is,
    and is independent of earlier such differences if scores are normal. L is its exponential over
    what that is worth on average: the test of a mean that nobody knows which does not depend on it
    (Perez-Ortiz et al. 2024), taken one tick at a time. Approximate where scores are not normal.
    """

    def __init__(self, past: Sequence[PastBets]) -> None:
        self._scores = _stacked([bets.scores for bets in past])
        self._stakes = _stacked([bets.stakes for bets in past])
        self._squares = (self._stakes**2).sum(axis=2)
        self._costs = _stacked([bets.costs for bets in past])
        self._reference = np.array([[bets.rows] for bets in past])
        self.weights = _stacked([bets.weights for bets in past])
        self.capital: Array = np.zeros_like(self.weights)
        self._sizes = [(bets.cells, len(bets.scores), len(bets.weights)) for bets in past]
        most = max(bets.cells for bets in past)
        self._all = np.arange(len(past))
        self._cell: NDArray[np.intp] = np.zeros(len(past), dtype=np.intp)
        self._sums: Array = np.zeros((len(past), most, self._scores.shape[1]))
        self._rows: Array = np.zeros((len(past), most, 1))  # since the reference

    def turn(self, at: int, table: BetTable, cell: int) -> None:
        bets = table.past
        if bets is not None:
            self._cell[at] = cell
            self._scores[at, : len(bets.scores), : bets.scores.shape[1]] = bets.scores
            self._costs[at, : len(bets.costs)] = bets.costs
            self._reference[at] = bets.rows

    def update(self, rows: Array, growth: Array, seen: NDArray[np.bool_]) -> None:
        rows = rows[:, : self._scores.shape[2]]
        here = (self._all, self._cell)
        n, before = rows.sum(axis=1, keepdims=True), self._reference + self._rows[here]
        sums = (self._scores @ rows[:, :, None])[:, :, 0]
        surprise = sums - n * self._sums[here] / before
        uncertain = n * n / before / 2 * self._squares
        paid = (self._stakes @ surprise[:, :, None])[:, :, 0] - n * self._costs - uncertain
        self.capital = _grown(self.capital, paid, growth, seen)
        self._sums[here] += sums
        self._rows[here] += n

    def kept(self, at: int) -> Sequence[Array]:
        cells, scores, bets = self._sizes[at]
        sums = self._sums[at, :cells, :scores]
        return [self._rows[at, :cells], sums, self.capital[at, :bets]]


class _Learned:
    """Bets that the last ticks go on: for changes that nobody thought of beforehand.

    What was learned, r, mixes the reference p and earlier ticks. The bet is log r / q with q on the
    way from p to r, so that r / q = 1 + l - l p / q for some l >= 0. By Jensen's inequality, for
    every law q' with KL(p, q') <= radius,

        sum_b q'_b r_b / q_b <= 1 + l - l exp(KL(p, q) - radius):

    fair if KL(p, q) >= radius, and growing fastest where they are equal (the reverse information
    projection of r; Larsson, Ramdas, Ruf 2025). KL(p, q) is convex along the way, so Newton's steps
    from r never pass that point: any number of them is fair.
    """

    def __init__(self, learned: Sequence[LearnedBets]) -> None:
        self._p = _stacked([bets.reference for bets in learned])[:, None, :]
        self._radius = np.array([[bets.radius] for bets in learned])
        self.weights = np.array([bets.weights for bets in learned])
        self.capital: Array = np.zeros_like(self.weights)
        self._counts: Array = np.zeros((*self.weights.shape, self._p.shape[2]))
        self._keep = 0.5 ** (1 / HALF_LIVES)[:, None]
        self._sizes = [len(bets.reference) for bets in learned]

    def update(self, rows: Array, growth: Array, seen: NDArray[np.bool_]) -> None:
        rows = rows[:, : self._p.shape[2]]
        log_bets, idle = learned_bets(self._p, self._counts, self._radius)
        paid = np.where(idle, IDLE_LOG, (log_bets @ rows[:, :, None])[:, :, 0])
        self.capital = _grown(self.capital, paid, growth, seen)
        learned = self._counts * self._keep + rows[:, None]
        self._counts = np.where(seen[:, :, None], learned, self._counts)

    def turn(self, at: int, table: BetTable, cell: int) -> None:
        """Learned bets go on ticks of other cells too: signals with a season have none."""

    def kept(self, at: int) -> Sequence[Array]:
        return [self._counts[at, :, : self._sizes[at]], self.capital[at]]


def learned_bets(p: Array, counts: Array, radius: Array) -> tuple[Array, NDArray[np.bool_]]:
    """What follows from earlier counts, and which of them are too near the reference for a bet.

    Args:
        p: the reference's shares, shape (..., 1, B).
        counts: deflated and faded, shape (..., memories, B).
        radius: of the null in nats, shape (..., 1).

    Returns:
        Log bets in the shape of counts, and which are idle, shape (..., memories).
    """
    share = CAUTION_ROWS / (CAUTION_ROWS + counts.sum(axis=-1, keepdims=True))
    r = share * (p + counts / CAUTION_ROWS)
    away = np.divide(r, p, out=np.ones_like(r), where=p > 0) - 1
    short = (p * np.log(1 + away)).sum(axis=-1) + radius
    idle = short >= 0
    log_bets = np.zeros_like(r)
    some = ~idle
    if some.any():  # while nothing changes, none
        here, radii = np.broadcast_to(p, r.shape)[some], np.broadcast_to(radius, idle.shape)[some]
        log_bets[some] = _leaning(here, away[some], radii)
    return log_bets, idle


def _leaning(p: Array, away: Array, radius: Array) -> Array:
    """log r / q, where q = p (1 + t away) lies as far from p as the radius, on the way to r.

    Args:
        p, away: shape (n, B).
        radius: shape (n,).
    """
    t, inside, pull = np.ones(len(p)), 1 + away, p * away
    for _ in range(NEWTON_STEPS):
        short = (p * np.log(inside)).sum(axis=1) + radius  # of it, if positive
        slope = (pull / inside).sum(axis=1)
        t = t - np.divide(short, slope, out=np.zeros(len(t)), where=slope < 0)
        inside = 1 + t[:, None] * away
    return np.log((1 + away) / inside)


def _stacked(arrays: Sequence[Array]) -> Array:
    """Arrays of as many dimensions, side by side, filled up with zeros to one size."""
    shape = [max(sizes) for sizes in zip(*[array.shape for array in arrays], strict=True)]
    stack = np.zeros((len(arrays), *shape))
    for place, array in zip(stack, arrays, strict=True):
        place[tuple(slice(size) for size in array.shape)] = array
    return stack


def _grown(capital: Array, paid: Array, growth: Array, seen: NDArray[np.bool_]) -> Array:
    grown = np.minimum(np.exp(np.minimum(paid, LARGEST_LOG)) * (capital + growth), CEILING)
    return np.where(seen, grown, capital)


def _places(members: Sequence[int], count: int) -> slice | NDArray[np.intp]:
    """An index of some of `count` rows; of all of them one that copies nothing."""
    return slice(None) if len(members) == count else np.array(members, dtype=np.intp)
