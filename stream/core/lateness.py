"""Label delays on bins: how late, in quarter octaves."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

BINS: Final = 112  # the last one begins after eight years

#: A label that is s seconds late is in the last bin b with EDGES[b] <= s: steps of 2 ** (1 / 4).
EDGES: Final[Ints] = np.ceil(2 ** (np.arange(BINS + 1) / 4) - 1e-9).astype(np.int64) - 1


def lateness_bin(delays_ms: Ints) -> Ints:
    """The bin of each delay; that of a label from before its prediction is 0.

    >>> lateness_bin(np.array([-5, 999, 1000, 3_000, 86_400_000]))
    array([ 0,  0,  4,  8, 65])
    """
    seconds = np.maximum(delays_ms, 0) // 1000
    return np.searchsorted(EDGES[:BINS], seconds, side="right").astype(np.int64) - 1


def judging_bin(seconds: float) -> int:
    """The first bin of delays that is too late for labels to be judged.

    >>> int(EDGES[judging_bin(86_400.0)])
    92681
    """
    return int(np.searchsorted(EDGES, seconds, side="left"))


def judged_on(predicted_ms: int, bin_: int, tick_ms: int) -> int:
    """The tick in which a prediction is judged: when it has the age, or up to 3 % later, so that
    few ticks are open at a time."""
    step = max(tick_ms, int(EDGES[bin_]) * 1000 // 32 // tick_ms * tick_ms)
    due_ms = predicted_ms + int(EDGES[bin_]) * 1000
    return -(-due_ms // step) * step // tick_ms
