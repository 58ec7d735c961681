"""Sliding windows over event time, restated when labels come late.

A window slides by cells. For a window of seconds a cell is a fixed part of the time line, for a
window of labels it is as many whole ticks as bring a part of them. A window ends where a cell ends
and is published when every partition has passed it; a later change of any of its cells publishes
it again with a higher revision, for as long as the cells are held. How events interleave decides
how often that happens, never the figures that it ends with.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec import Struct

from models.spec import ModelSpec, Window
from stream.core.ticks import REFUSED, add_counts, add_up, added, added_outcomes
from stream.events import Outcomes, SummaryComputed

STEPS: Final = 24  # a window slides by this part of itself, or by a tick if that is longer
MAX_CELLS: Final = 240  # held of one window, so that state is bounded whatever the label horizon
RESTATE_TICKS: Final = 10  # windows of labels: restated at most this often


class Plan(NamedTuple):
    """How one window of a spec is cut, in ticks.

    Attributes:
        cell: ticks of a cell; 0: cells grow until they hold `cell_labels`.
        length: ticks of the window; 0: as many cells as hold `labels`.
        keep: ticks that a cell is held after its end: labels may still restate it.
    """

    name: str
    cell: int
    length: int
    cell_labels: int
    labels: int
    keep: int


class Cell(Struct, array_like=True):
    """Counts of ticks `start` to before `end`, and of the window that ends with them."""

    start: int
    end: int
    predictions: int = 0
    labelled: int = 0
    arrived: int = 0  # labels that came in these ticks, for whatever prediction
    sums: dict[str, int] = {}
    squares: dict[str, int] = {}
    signals: dict[str, list[int]] = {}
    revision: int = -1  # newest that was published of the window ending here
    dirty: bool = True
    predicted: dict[str, int] = {}
    estimates: list[int] = []
    outcomes: dict[str, Outcomes] = {}
    latest: int | None = None  # tick in which the last label arrived
    counters: dict[str, int] = {}  # of what happened in these ticks: orphans, duplicates, expired

    def add(self, more: Cell | SummaryComputed, *, signals: bool) -> None:
        self.predictions += more.predictions
        self.labelled += more.labelled
        self.arrived += more.arrived if isinstance(more, Cell) else sum(more.bets)
        add_counts(self.sums, more.sums)
        add_counts(self.squares, more.squares)
        add_counts(self.predicted, more.predicted)
        self.estimates = added(self.estimates, more.estimates)
        for stratum, some in more.outcomes.items():
            known = self.outcomes.get(stratum)
            self.outcomes[stratum] = added_outcomes(known, some) if known else some
        if more.latest is not None:
            self.latest = more.latest if self.latest is None else max(self.latest, more.latest)
        for name, count in more.counters.items():
            if not name.startswith(REFUSED):
                self.counters[name] = self.counters.get(name, 0) + count
        if signals:
            add_up(self.signals, more.signals)


class Published(NamedTuple):
    """One window to tell of: what lies in it, and how often it was told of before.

    Attributes:
        cells: whose sum the total is, newest first.
    """

    total: Cell
    revision: int
    cells: list[Cell]


class Series(Struct, omit_defaults=True):
    """The cells of one version, segment and window, in order."""

    cells: list[Cell] = []
    published: int = 0  # tick number of the last publication

    def add(self, delta: SummaryComputed, plan: Plan, closed: int, *, signals: bool) -> None:
        """Take a delta in; what is older than the cells held changes nothing."""
        if delta.tick < closed - plan.keep - plan.length or self._is_forgotten(delta.tick):
            return
        counted = bool(plan.cell and delta.counters)
        if not (delta.predictions or delta.sums or delta.labelled or delta.bets or counted):
            return
        index = self._place(delta.tick, plan)
        self.cells[index].add(delta, signals=signals)
        if delta.predictions or delta.labelled or delta.sums or counted:
            self._mark(index, plan)

    def due(self, closed: int, plan: Plan) -> Iterator[Published]:
        """Windows that are complete, or have changed since they were published, oldest first."""
        if not plan.cell:
            self._grow(closed, plan)
        if not self._is_time(closed, plan):
            return
        self.published = closed
        for index, cell in enumerate(self.cells):
            if cell.dirty and _complete(cell, closed, plan):
                cell.revision += 1
                window = self._window(index, plan, cell.revision)
                # Labels that came after the last closed tick: not all of that time are here yet.
                cell.dirty = (window.total.latest or 0) >= closed
                yield window
        self._forget(closed, plan)

    def _is_forgotten(self, tick: int) -> bool:
        """Older than as many cells as are held: told of for the last time."""
        return len(self.cells) >= MAX_CELLS and tick < self.cells[0].start

    def is_over(self, closed: int, plan: Plan) -> bool:
        """Whether labels can no longer restate any window."""
        return not self.cells or self.cells[-1].end <= closed - plan.keep - plan.length

    def _place(self, tick: int, plan: Plan) -> int:
        """Index of the cell that holds a tick; it is made if there is none."""
        index = bisect_right(self.cells, tick, key=_start) - 1
        if index >= 0 and tick < self.cells[index].end:
            return index
        start = tick // plan.cell * plan.cell if plan.cell else tick
        self.cells.insert(index + 1, Cell(start, start + max(1, plan.cell)))
        return index + 1

    def _mark(self, index: int, plan: Plan) -> None:
        """The windows that contain a changed cell must be published again."""
        changed, labelled_since = self.cells[index], 0
        changed.dirty = True
        for cell in self.cells[index + 1 :]:
            labelled_since += cell.labelled
            if plan.length and changed.start < cell.end - plan.length:
                break
            if plan.labels and labelled_since >= plan.labels:
                break
            cell.dirty = True

    def _is_time(self, closed: int, plan: Plan) -> bool:
        if plan.cell:
            return closed // plan.cell > self.published // plan.cell
        new = any(
            cell.revision < 0 and _complete(cell, closed, plan) for cell in self.cells[-STEPS:]
        )
        return new or closed - self.published >= RESTATE_TICKS

    def _grow(self, closed: int, plan: Plan) -> None:
        """Windows of labels: closed ticks join the cell before them until it is full."""
        cells: list[Cell] = []
        for cell in self.cells:
            last = cells[-1] if cells else None
            if last and cell.end <= closed and last.arrived < plan.cell_labels:
                last.add(cell, signals=True)
                last.end = cell.end
                last.revision = max(last.revision, cell.revision)  # of the window ending here
                last.dirty = True
            else:
                cells.append(cell)
        self.cells = cells

    def _window(self, index: int, plan: Plan, revision: int) -> Published:
        last, cells = self.cells[index], []
        total = Cell(last.end - plan.length, last.end)
        for cell in reversed(self.cells[: index + 1]):
            if plan.length and cell.start < last.end - plan.length:
                break
            total.add(cell, signals=True)
            cells.append(cell)
            if not plan.length:
                total.start = cell.start
                if total.labelled >= plan.labels:
                    break
        return Published(total, revision, cells)

    def _forget(self, closed: int, plan: Plan) -> None:
        """What no window needs that may yet be told of."""
        if plan.cell:
            oldest = closed - plan.keep - plan.length
            self.cells = [cell for cell in self.cells if cell.end > oldest]
        else:
            del self.cells[: self._first_needed(closed - plan.keep, plan.labels)]
        self.cells = self.cells[-MAX_CELLS:]

    def _first_needed(self, oldest: int, labels: int) -> int:
        """Index of the first cell of the windows that end after a tick, or have changed: a cell
        that comes between may be the first of these, and reach back for all of its labels.
        """
        ends = (i for i, cell in enumerate(self.cells) if cell.end > oldest or cell.dirty)
        index, held = next(ends, len(self.cells)), 0
        while index and held < labels:
            index -= 1
            held += self.cells[index].labelled
        return index


def plans(spec: ModelSpec) -> tuple[Plan, ...]:
    """How the windows of a spec are cut.

    >>> from models.spec import Feature
    >>> spec = ModelSpec(name="m", task="regression", features=(Feature(name="x"),))
    >>> [(plan.name, plan.cell, plan.length, plan.cell_labels) for plan in plans(spec)]
    [('86400s', 480, 2880, 0), ('1000 labels', 0, 0, 41)]
    """
    return tuple(_plan(window, spec) for window in spec.windows)


def _plan(window: Window, spec: ModelSpec) -> Plan:
    labels = spec.labels
    restated_seconds = labels.horizon_seconds + labels.correction_horizon_seconds
    keep = -(-round(restated_seconds * 1000) // spec.tick_ms)
    if window.seconds is None:
        count = window.labels or 1
        return Plan(f"{count} labels", 0, 0, max(1, count // STEPS), count, keep)
    ticks = max(1, round(window.seconds * 1000 / spec.tick_ms))
    steps = min(STEPS, max(1, MAX_CELLS * ticks // (ticks + keep)))
    cell = max(1, round(ticks / steps))
    length = max(1, round(ticks / cell)) * cell
    return Plan(f"{window.seconds:.15g}s", cell, length, 0, 0, keep)


def _complete(cell: Cell, closed: int, plan: Plan) -> bool:
    return cell.end <= closed and cell.arrived >= plan.cell_labels


def _start(cell: Cell) -> int:
    return cell.start
