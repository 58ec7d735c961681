"""Where harm is worst: a search through slices that nobody declared, to explain, never to decide.

Of every slice that has enough labels it is asked whether its loss rose more than that of all the
rest, against the reference, by Welch's test (1947). So many slices are looked at that some would
seem bad by chance: one is named only if the chance of its like among all of them, harm being spread
evenly, is at most `CHANCE` (Bonferroni). Harm that is spread evenly then names none. The test is
approximate, and the labels are those on which the alarm was raised, so the rise itself is a little
overstated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from models.facets import Grid, Slices
from stream.events import MICRO

CHANCE: Final = 0.05
MOST_NAMED: Final = 5
FEWEST_LABELS: Final = 20  # live, in the slice
FEWEST_ROWS: Final = 50  # of the reference, in the slice

Floats = NDArray[np.float64]


def search(
    slices: Slices, live: Mapping[str, Sequence[int]], deflation: float = 1.0
) -> dict[str, Any]:
    """Slices whose loss rose most above the rest's, the surest first.

    Args:
        live: by cell of the slices' grid: labels, and the sums of their losses and of their
            squares in millionths.
        deflation: how many neighbouring labels count as one.
    """
    grid = Grid(slices.facets)
    before = _Cells(np.array([slices.n, slices.sums, slices.squares], dtype=float), grid)
    after = _Cells(_table(live, grid.size), grid)
    enough = (np.minimum(after.n, after.rest_n) >= FEWEST_LABELS) & (
        np.minimum(before.n, before.rest_n) >= FEWEST_ROWS
    )
    looked_at = int(enough.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        rise, elsewhere = after.mean - before.mean, after.rest_mean - before.rest_mean
        spread = (before.variance + after.variance) * deflation
        errors = (rise - elsewhere) / np.sqrt(np.maximum(spread, 1e-12))
        freedom = np.maximum(1.0, (np.minimum(before.n, after.n) - 1) / deflation)
        chances = np.minimum(1.0, looked_at * special.stdtr(freedom, -errors))
    found = [c for c in np.flatnonzero(enough) if chances[c] <= CHANCE]
    found.sort(key=lambda c: (float(chances[c]), -float(errors[c]), int(c)))
    return {
        "looked_at": looked_at,
        "by_chance": CHANCE,
        "found": [
            {
                "slice": grid.name(int(c)),
                "n": int(after.n[c]),
                "loss": float(after.mean[c]),
                "validated": float(before.mean[c]),
                "rest": float(after.rest_mean[c]),
                "rest_validated": float(before.rest_mean[c]),
                "chance": float(chances[c]),
            }
            for c in found[:MOST_NAMED]
        ],
    }


class _Cells:
    """Counts (n, sums, squares) of cells, shape (3, size), each beside all events outside of it."""

    def __init__(self, table: Floats, grid: Grid) -> None:
        # Every event lies in one group of the first feature.
        total = table[:, : grid.facets[0].groups].sum(axis=1, keepdims=True)
        rest = total - table
        self.n, self.rest_n = table[0], rest[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            self.mean, own = _moments(table)
            self.rest_mean, others = _moments(rest)
            _, every = _moments(total)
            # Of few events the variance may by chance be far too small.
            self.variance = np.maximum(own, every) / self.n + others / self.rest_n


def _moments(table: Floats) -> tuple[Floats, Floats]:
    mean: Floats = table[1] / table[0] / MICRO
    variance: Floats = np.maximum(0.0, table[2] / table[0] / MICRO - mean**2)
    return mean, variance


def _table(live: Mapping[str, Sequence[int]], size: int) -> Floats:
    table = np.zeros((3, size))
    for cell, counts in live.items():
        if int(cell) < size:
            table[:, int(cell)] = counts
    return table
