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

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stream.core.bets import BetTable
from stream.core.capital import STORED, Stack

Array = NDArray[np.float64]

#: A period grows no faster than this many events of a signal. Without it a signal of few events
#: would collect a month's growth while its bets have hardly been tested, and alarm by age alone.
PERIOD_EVENTS: Final = 20_000

QUIET: Final = 0.9  # of an alarm: levels that add up to less reach none, however they are rounded

#: One signal's bets: packed float64, or numbers as release 0.1 wrote them; None: suspended.
State = bytes | list[float] | None
Row = Sequence[int] | Sequence[float] | NDArray[Any]  # counts of one signal


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
        self._stack = Stack([table])

    @property
    def evidence(self) -> float:
        """Weighted capital of the bets: reaches A at most once per A of growth, on average."""
        return float(self._stack.evidence[0])

    def update(self, counts: ArrayLike, growth: float) -> float:
        """Take one tick's counts, shape (B,). Returns the evidence. An empty tick changes nothing.

        Raises:
            ValueError: the counts are not on the table's bins.
        """
        row = _on_bins(self.table, counts) / self.table.deflation
        self._stack.update(row[None], np.array([[growth]]))
        return self.evidence

    def reset(self) -> None:
        """From no evidence again; what the bets have learned stays."""
        self._stack.reset([0])

    def snapshot(self) -> list[float]:
        """State as plain numbers."""
        return [*map(float, _numbers(self._stack.save(0)))]

    def restore(self, snapshot: Sequence[float]) -> None:
        """Raises:
        ValueError: the snapshot is of another table.
        """
        if not self._stack.load(0, np.array(snapshot, dtype=float)):
            raise ValueError(f"{self.table.name}: a snapshot of other bets")


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

    Attributes:
        reached: by name, `levels()` as they were when the last tick was taken, before any restart.

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
        self._places = {name: i for i, name in enumerate(names)}
        self.reached: dict[str, float] = {}
        self._group_of = [(groups or {}).get(name, "") for name in names]
        self._worth = np.array([alarms * shares[name] for name in names])
        self._suspended = [False] * len(names)
        self._deflation = np.array([[table.deflation] for table in tables]).reshape(-1, 1)
        self._stack = Stack(tables)
        self._told: Mapping[str, State] = {}

    def update(self, counts: Mapping[str, Row], growth: float) -> tuple[str, ...]:
        """Take one tick; signals without events in it stay as they are.

        Args:
            counts: tick counts on the table's bins, by table name; others are ignored.
            growth: elapsed event time / period.

        Returns:
            Names that alarm, strongest first; of a group alarm those that carry half of it.

        Raises:
            ValueError: counts are not on a table's bins.
        """
        self._told = {}
        rows = np.zeros((len(self._names), self._stack.bins))
        for row, name, suspended in zip(rows, self._names, self._suspended, strict=True):
            seen = counts.get(name)
            if seen is not None and not suspended:
                _demand_bins(self.tables[name], (len(seen),))
                row[: len(seen)] = seen
        rows /= self._deflation
        self._stack.update(
            rows, np.minimum(growth, rows.sum(axis=1, keepdims=True) / PERIOD_EVENTS)
        )
        return self._alarms()

    def turn(self, name: str, table: BetTable, cell: int) -> None:
        """Judge a signal by the table of another cell of its season from now on.

        Args:
            table: has as many bets as the one that it takes the place of, each of like kind.
        """
        known = self.tables[name]
        sizes = [one.past and one.past.stakes.shape for one in (table, known)]
        if table.log_bets.shape != known.log_bets.shape or sizes[0] != sizes[1]:
            raise ValueError(f"{name}: the tables of a season must be of one size")
        self._stack.turn(self._places[name], table, cell)

    def levels(self) -> dict[str, float]:
        """Share of its own alarm threshold that each signal has reached (alarm at 1)."""
        levels: Array = self._worth * self._stack.evidence
        return dict(zip(self._names, levels.tolist(), strict=True))

    def suspend(self, name: str) -> None:
        """Stop watching a signal, as long as its alert is open. What it has learned goes, too: a
        snapshot keeps nothing of it, and a restored bank must go on as this one does."""
        i, self._told = self._places[name], {}
        self._suspended[i] = True
        self._stack.load(i, _numbers(None))

    def resume(self, name: str) -> None:
        """Watch a signal again, from no evidence."""
        self._told = {}
        self._suspended[self._places[name]] = False

    def snapshot(self) -> dict[str, State]:
        """Plain data: the state of each signal's bets, None for a suspended one."""
        self._told = {
            name: None if self._suspended[i] else self._stack.save(i)
            for i, name in enumerate(self._names)
        }
        return self._told

    def restore(self, snapshot: Mapping[str, State]) -> None:
        """Take a snapshot over. Signals it lacks or has other bets for start from no evidence.

        The one that was given last, whole as it was, is what the bank holds already.
        """
        if snapshot is self._told and len(snapshot) == len(self._names):
            return
        for i, name in enumerate(self._names):
            state = snapshot.get(name, b"")
            self._suspended[i] = state is None
            self._stack.load(i, _numbers(state))

    def _alarms(self) -> tuple[str, ...]:
        self.reached = self.levels()
        levels = list(self.reached.values())
        if sum(levels) < QUIET:
            return ()
        order = sorted(range(len(levels)), key=levels.__getitem__, reverse=True)
        alone = {i for i in order if levels[i] >= 1}
        self._stack.reset(alone)
        carried: set[int] = set()
        for group in dict.fromkeys(self._group_of):
            summed = [i for i in order if i not in alone and self._group_of[i] == group]
            reached = [*accumulate(levels[i] for i in summed)]
            if reached and reached[-1] >= 1:
                carried |= set(summed[: bisect_left(reached, 0.5 * reached[-1]) + 1])
                self._stack.reset(summed)
        return tuple(self._names[i] for i in order if i in alone | carried)


def _numbers(state: State) -> Array:
    if isinstance(state, bytes):
        return np.frombuffer(state, dtype=STORED)
    return np.array(state or (), dtype=float)


def _on_bins(table: BetTable, counts: ArrayLike) -> Array:
    row: Array = np.asarray(counts, dtype=float)
    _demand_bins(table, row.shape)
    return row


def _demand_bins(table: BetTable, shape: tuple[int, ...]) -> None:
    if shape != table.log_bets.shape[1:]:
        raise ValueError(f"{table.name}: {shape} counts, not {table.log_bets.shape[1:]}")
