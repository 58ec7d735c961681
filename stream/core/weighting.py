"""What a window's figures would be had all labels come: each label weighs as many as it stands for.

Where positives are labelled sooner, the labels that are there hold too many of them, and a plain
mean of them is wrong. Here a label counts 1 / P(it had come by now), by predicted and true stratum
(Horvitz, Thompson 1952; normalised: Hajek 1971), and predicted strata count by their predictions,
of which all are known. It is right if, within a stratum, how late a label is does not depend on how
wrong the prediction was, and if labels come as they did for the cohorts that are complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.delays import Ages, Delays, labelled_by
from stream.core.intervals import Interval
from stream.core.windows import Cell
from stream.events import MICRO

LEAST_LABELLED: Final = 0.1  # of each true stratum: a younger cell would rest on too few labels
STEPS: Final = 8  # points of time that a cell's predictions are taken to be made at
_Z95: Final = 1.959964

Floats = NDArray[np.float64]


class Weighted(NamedTuple):
    """Weighted means by measure, and the share of the predictions that they speak for."""

    measures: dict[str, Interval]
    share: float


class _Row(NamedTuple):
    """Labels of one cell and stratum, and the chance that one of them had come."""

    stratum: str
    chance: float
    known: int  # labels that the chance was learnt from
    n: int
    sums: Mapping[str, int]  # micro
    squares: Mapping[str, int]

    @property
    def predicted(self) -> str:
        return self.stratum.partition("/")[0]


def weighted(cells: Sequence[Cell], delays: Delays, ages: Ages, as_of: int) -> Weighted | None:
    """Figures of a window's cells as of the end of a tick; None where too little is known.

    Cells of which not yet a tenth of each true stratum is labelled are left out whole: which ones
    is decided by their age alone, so that it does not depend on what their labels say.
    """
    strata = sorted({name for cell in cells for name, some in cell.outcomes.items() if some.n > 0})
    learnt = {name: counts for name in strata if (counts := delays.of(name)) is not None}
    if not strata or len(learnt) < len(strata):
        return None
    seconds = _ages_seconds(cells, ages, as_of)
    least = np.min([_chances(row, seconds) for row in delays.by_label.values()], axis=0)
    old_enough = [
        cell for cell, chance in zip(cells, least, strict=True) if chance >= LEAST_LABELLED
    ]
    seconds = seconds[least >= LEAST_LABELLED]
    rows = [
        row
        for name, counts in learnt.items()
        for row in _rows(name, counts, old_enough, _chances(counts, seconds))
    ]
    predictions = _predictions(old_enough)
    told = sum(predictions.get(name, 0) for name in {row.predicted for row in rows})
    if sum(row.n for row in rows) < 2 or told <= 0:
        return None
    names = sorted(set.intersection(*(set(row.sums) for row in rows)))
    measures = {name: _measure(name, rows, predictions, told) for name in names}
    return Weighted(measures, told / max(1, sum(cell.predictions for cell in cells)))


def _ages_seconds(cells: Sequence[Cell], ages: Ages, as_of: int) -> Floats:
    """Ages of cells' predictions at the end of a tick, taken as spread evenly; (cells, STEPS)."""
    start = np.array([[cell.start] for cell in cells], dtype=np.float64)
    length = np.array([[cell.end - cell.start] for cell in cells], dtype=np.float64)
    at = start + (np.arange(STEPS) + 0.5) / STEPS * length
    seconds: Floats = np.maximum(0.0, as_of + 1 - at) * ages.tick_ms / 1000
    return seconds


def _chances(counts: NDArray[np.int64], seconds: Floats) -> Floats:
    """Share of labels that have come, by cell; shape (cells,) of ages (cells, STEPS)."""
    chances: Floats = labelled_by(counts, seconds).mean(axis=1)
    return chances


def _rows(
    name: str, counts: NDArray[np.int64], cells: Sequence[Cell], chances: Floats
) -> Iterator[_Row]:
    known = int(counts.sum())
    for cell, chance in zip(cells, chances.tolist(), strict=True):
        some = cell.outcomes.get(name)
        if some is not None and some.n > 0:
            yield _Row(name, chance, known, some.n, some.sums, some.squares)


def _predictions(cells: Sequence[Cell]) -> dict[str, int]:
    """By predicted stratum."""
    total: dict[str, int] = {}
    for cell in cells:
        for name, count in cell.predicted.items():
            total[name] = total.get(name, 0) + count
    return total


def _measure(name: str, rows: Sequence[_Row], predictions: dict[str, int], told: int) -> Interval:
    """Mean and 95 % interval, by linearisation; chances are as unsure as what they are learnt from.

    Labels are taken as drawn from all that could have been, so the interval also covers what
    chance does to the window itself.
    """
    value, variance = 0.0, 0.0
    for stratum in sorted({row.predicted for row in rows}):
        some = [row for row in rows if row.predicted == stratum]
        share = predictions.get(stratum, 0) / told
        chance, n, total, squares = (
            np.array(column, dtype=float)
            for column in zip(
                *[(r.chance, r.n, r.sums[name], r.squares[name]) for r in some], strict=True
            )
        )
        total, squares = total / MICRO, squares / MICRO
        stands_for = n / chance
        weight = stands_for.sum()
        mean = float((total / chance).sum() / weight)
        spread = ((squares - 2 * mean * total + n * mean**2) / chance**2).sum() / weight**2
        pull = stands_for / weight * (total / n - mean)
        doubt = (1 - chance) / (chance * np.array([row.known for row in some]))
        value += share * mean
        variance += share**2 * (max(0.0, float(spread)) + _learning(some, pull, doubt))
    half = _Z95 * variance**0.5
    return Interval(value, value - half, value + half)


def _learning(rows: Sequence[_Row], pull: Floats, doubt: Floats) -> float:
    """Variance from the chances: cells share what was learnt of a stratum, so they err together."""
    total: dict[str, float] = {}
    for row, part in zip(rows, pull * np.sqrt(doubt), strict=True):
        total[row.stratum] = total.get(row.stratum, 0.0) + float(part)
    return sum(part**2 for part in total.values())
