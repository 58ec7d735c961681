"""Detectors: bets folded over ticks, and a bank of them under one alarm budget.

Shiryaev-Roberts recursion on e-values (Shin, Ramdas, Rinaldo 2023): the capital M of a bet becomes
L (M + g), where L is what the tick's counts pay and g, the growth, is new capital: one more start
point of the bet. While the null holds E[M] <= sum of g, hence:

* Alarm at M >= A and restart at 0: at most (sum of g) / A false alarms are expected, for ever.
* With g = elapsed time / month and A = 1 / (alarms * share), a signal raises at most alarms * share
  false alarms a month, and a model at most `alarms`, however its signals depend on each other.
* A growth may be smaller than the elapsed time (it only lowers M), but must not be larger, and must
  not depend on what the tick's events are, only on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream.core.bets import BetTable

Array = NDArray[np.float64]

CEILING: Final = 1e150  # capital is capped: lower is always allowed, and infinity is no plain data
LARGEST_LOG: Final = 345.0  # what a tick pays at most; about log(CEILING), so no product overflows

#: A period grows no faster than this many events of a signal. Without it a signal of few events
#: would collect a month's growth while its bets have hardly been tested, and alarm by age alone.
PERIOD_EVENTS: Final = 20_000


class Detector:
    """One table's e-detector, starting without capital.

    With a growth of n / 100 for n events, evidence of 1000 comes falsely at most once in 100,000.

    >>> table = BetTable("coin", np.log([[0.5, 1.5]]), np.ones(1))
    >>> detector = Detector(table)
    >>> detector.update([0, 2], growth=1.0)
    2.25
    >>> detector.update([2, 0], growth=1.0)
    0.8125
    """

    def __init__(self, table: BetTable) -> None:
        self.table = table
        self._capital: Array = np.zeros(len(table.weights))

    @property
    def evidence(self) -> float:
        """Weighted capital of the bets: reaches A at most once per A of growth, on average."""
        return float(self.table.weights @ self._capital)

    def update(self, counts: ArrayLike, growth: float) -> float:
        """Take one tick's counts, shape (B,). Returns the evidence. An empty tick changes nothing.

        Raises:
            ValueError: the counts are not on the table's bins.
        """
        row = _on_bins(self.table, counts) / self.table.deflation
        if row.any():
            self._capital = _grown(self._capital, self.table.log_bets @ row, growth)
        return self.evidence

    def reset(self) -> None:
        self._capital = np.zeros_like(self._capital)

    def snapshot(self) -> list[float]:
        """The bets' capital, as plain numbers."""
        return [float(value) for value in self._capital]

    def restore(self, snapshot: Sequence[float]) -> None:
        """Raises:
        ValueError: the snapshot is of another table.
        """
        if len(snapshot) != len(self._capital):
            raise ValueError(f"{self.table.name}: {len(snapshot)} bets, not {len(self._capital)}")
        self._capital = np.array(snapshot, dtype=float)


class Bank:
    """Named detectors under one budget of `alarms` false alarms per period.

    A signal alarms alone when its own capital reaches its threshold; the signals of a group also
    alarm together when their weighted capital reaches the group's, which is never later. Whatever
    has been summed for an alarm restarts at 0: the budget's proof needs it.

    Args:
        tables: names must differ.
        shares: of the budget, by table name; they add up to at most 1.
        alarms: false alarms allowed per period (a month).
        groups: table name -> group, by default one for all. Signals whose alarms mean different
            things (harm, drift) need different groups: none may alarm on another's evidence.

    Raises:
        ValueError: names or shares do not fit.
    """

    def __init__(
        self,
        tables: Sequence[BetTable],
        shares: Mapping[str, float],
        *,
        alarms: float,
        groups: Mapping[str, str] | None = None,
    ) -> None:
        names = [table.name for table in tables]
        if len(set(names)) < len(names) or not set(names) <= set(shares):
            raise ValueError("every table needs a name of its own and a share")
        if sum(shares[name] for name in names) > 1 + 1e-9:
            raise ValueError("shares add up to more than the budget")
        self.tables = {table.name: table for table in tables}
        self._names = names
        self._group_of = [(groups or {}).get(name, "") for name in names]
        self._worth = np.array([alarms * shares[name] for name in names])
        self._suspended: NDArray[np.bool_] = np.zeros(len(names), dtype=bool)
        self._deflation = np.array([[table.deflation] for table in tables]).reshape(-1, 1)
        self._stack(tables)

    def _stack(self, tables: Sequence[BetTable]) -> None:
        """Pad all tables to one size, so that a tick costs a few array operations."""
        most_bets = max((len(table.weights) for table in tables), default=0)
        most_bins = max((table.log_bets.shape[1] for table in tables), default=0)
        self._log_bets = np.zeros((len(tables), most_bets, most_bins))
        self._weights = np.zeros((len(tables), most_bets))
        self._capital: Array = np.zeros((len(tables), most_bets))
        for i, table in enumerate(tables):
            bets, bins = table.log_bets.shape
            self._log_bets[i, :bets, :bins] = table.log_bets
            self._weights[i, :bets] = table.weights

    def update(self, counts: Mapping[str, ArrayLike], growth: float) -> tuple[str, ...]:
        """Take one tick; signals without events in it stay as they are.

        Args:
            counts: tick counts on the table's bins, by table name; others are ignored.
            growth: elapsed event time / period.

        Returns:
            Names that alarm, strongest first; of a group alarm those that carry half of it.

        Raises:
            ValueError: counts are not on a table's bins.
        """
        rows = np.zeros((len(self._names), self._log_bets.shape[2]))
        for i, name in enumerate(self._names):
            if name in counts and not self._suspended[i]:
                row = _on_bins(self.tables[name], counts[name])
                rows[i, : len(row)] = row
        rows /= self._deflation
        n = rows.sum(axis=1, keepdims=True)
        paid = (self._log_bets @ rows[:, :, None])[:, :, 0]
        grown = _grown(self._capital, paid, np.minimum(growth, n / PERIOD_EVENTS))
        self._capital = np.where(n > 0, grown, self._capital)
        return self._alarms()

    def levels(self) -> dict[str, float]:
        """Share of its own alarm threshold that each signal has reached (alarm at 1)."""
        return dict(zip(self._names, map(float, self._levels()), strict=True))

    def suspend(self, name: str) -> None:
        """Stop watching a signal, as long as its alert is open."""
        i = self._names.index(name)
        self._suspended[i] = True
        self._reset([i])

    def resume(self, name: str) -> None:
        """Watch a signal again, from no evidence."""
        self._suspended[self._names.index(name)] = False

    def snapshot(self) -> dict[str, list[float] | None]:
        """Plain data: the bets' capital by name, None for a suspended signal."""
        return {
            name: None if self._suspended[i] else [float(x) for x in self._capital_of(i)]
            for i, name in enumerate(self._names)
        }

    def restore(self, snapshot: Mapping[str, Sequence[float] | None]) -> None:
        """Take a snapshot over. Signals it lacks or has other bets for start from no evidence."""
        for i, name in enumerate(self._names):
            values = snapshot.get(name, ())
            self._suspended[i] = values is None
            capital = self._capital_of(i)
            capital[:] = values if values is not None and len(values) == len(capital) else 0.0

    def _alarms(self) -> tuple[str, ...]:
        levels = self._levels()
        order = [int(i) for i in np.argsort(-levels, kind="stable")]
        alone = {i for i in order if levels[i] >= 1}
        self._reset(alone)
        carried: set[int] = set()
        for group in dict.fromkeys(self._group_of):
            summed = [i for i in order if i not in alone and self._group_of[i] == group]
            reached = np.cumsum(levels[summed])
            if len(reached) and reached[-1] >= 1:
                carried |= set(summed[: int(np.searchsorted(reached, 0.5 * reached[-1])) + 1])
                self._reset(summed)
        return tuple(self._names[i] for i in order if i in alone | carried)

    def _levels(self) -> Array:
        levels: Array = self._worth * (self._weights * self._capital).sum(axis=1)
        return levels

    def _reset(self, signals: Iterable[int]) -> None:
        self._capital[list(signals)] = 0.0

    def _capital_of(self, i: int) -> Array:
        return self._capital[i, : len(self.tables[self._names[i]].weights)]


def _grown(capital: Array, paid: Array, growth: Array | float) -> Array:
    grown: Array = np.minimum(np.exp(np.minimum(paid, LARGEST_LOG)) * (capital + growth), CEILING)
    return grown


def _on_bins(table: BetTable, counts: ArrayLike) -> Array:
    row: Array = np.asarray(counts, dtype=float)
    if row.shape != table.log_bets.shape[1:]:
        raise ValueError(f"{table.name}: {row.shape} counts, not {table.log_bets.shape[1:]}")
    return row
