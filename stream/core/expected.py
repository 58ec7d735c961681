"""Harm that is expected without labels: bets on how predictions fall on the estimator's bins.

What is bet on is that the mean loss to be expected of predictions exceeds the bound of the
measured one. Each bin is taken at the least that its loss may be, given the reference. So while
errors depend on the bins as in the reference, a false alarm is as rare as any other; when they do
not, this says nothing, which is why it informs and does not command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from models.profile import Estimator
from stream.core.bets import LOSS_STAKES, BetTable, mean_bets, table_of
from stream.core.estimates import expected_values, is_supported
from stream.core.intervals import REFERENCE_RISK

LOSS: Final = "loss"  # the bounded one

Array = NDArray[np.float64]


def expected_table(
    estimator: Estimator, edge: float, deflation: float, *, below: bool = False
) -> BetTable:
    """Bets against "the mean expected loss is at most `edge`", on counts by bin of the score.

    Args:
        below: against "at least" instead; bins are then taken at their mean.
    """
    means, variances = expected_values(estimator, LOSS)
    if below:
        rows = mean_bets(-means, -edge, LOSS_STAKES / max(1e-9, 1 - edge))
    else:
        counts = np.array(estimator.counts[:-1], dtype=float) / deflation
        z = -float(special.ndtri(REFERENCE_RISK / len(means)))
        least = np.maximum(0.0, means - z * np.sqrt(variances / (counts + 1)))
        rows = mean_bets(least, edge, LOSS_STAKES / max(1e-9, edge))
    return table_of("estimate", rows, LOSS_STAKES**-0.5, deflation)


def supported(estimator: Estimator, counts: Sequence[int]) -> list[int]:
    """Counts by bin, of predictions like those of the reference; none where too many are not."""
    if len(counts) != len(estimator.counts) or not is_supported(estimator, counts):
        return []
    return [*counts[:-1]]


def expected_loss(estimator: Estimator, counts: Sequence[int]) -> float:
    """Mean of the bounded loss that is expected of predictions by bin of the score."""
    means, _ = expected_values(estimator, LOSS)
    found: Array = np.asarray(counts, dtype=float)
    return float(found @ means / max(1.0, float(found.sum())))
