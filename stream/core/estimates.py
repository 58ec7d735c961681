"""Performance that is expected of predictions without labels, with how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from models.profile import Estimator
from stream.core.intervals import Interval
from stream.events import MICRO, Estimate, Measure

MOST_OUTSIDE: Final = 0.1  # of the predictions beyond the reference's own; more is unreliable
ENOUGH_LABELLED: Final = 0.5  # of a window's predictions, for a plain mean to pass as the truth
_Z95: Final = 1.959964

Floats = NDArray[np.float64]


def estimate(estimator: Estimator, counts: Sequence[int]) -> Estimate | None:
    """What the measures are expected to be; None where the counts are of another estimator.

    Args:
        counts: predictions by bin of the score, then how many of all were outside.
    """
    n = sum(counts[:-1])
    if len(counts) != len(estimator.counts) or n <= 0:
        return None
    outside, reliable = counts[-1] / n, is_supported(estimator, counts)
    reason = f"{outside:.0%} of the predictions have values that the reference hardly had"
    return Estimate(
        metrics={
            shown_name(name): shown(name, _expected(estimator, name, counts))
            for name in sorted(estimator.sums)
        },
        reliable=reliable,
        outside=outside,
        reason="" if reliable else reason,
    )


def is_supported(estimator: Estimator, counts: Sequence[int]) -> bool:
    """Whether about as many predictions as in the reference have values that it had."""
    n, reference = max(1, sum(counts[:-1])), max(1, sum(estimator.counts[:-1]))
    return counts[-1] / n - estimator.counts[-1] / reference <= MOST_OUTSIDE


def expected_values(estimator: Estimator, name: str) -> tuple[Floats, Floats]:
    """Mean and variance of a measure in each bin of the score; shape (bins,) each."""
    counts = np.array(estimator.counts[:-1], dtype=float)
    total = np.array(estimator.sums[name], dtype=float) / MICRO
    squares = np.array(estimator.squares[name], dtype=float) / MICRO
    overall = total.sum() / max(1.0, counts.sum())
    means = (total + overall) / (counts + 1)  # one row of the overall mean, for empty bins
    variances = np.maximum(0.0, squares / np.maximum(1.0, counts) - means**2)
    return means, variances


def _expected(estimator: Estimator, name: str, counts: Sequence[int]) -> Interval:
    """The interval covers chance in the window and in the reference, what the estimate was off on
    stretches of the reference that it had not seen, and where inside of a bin predictions lie that
    it has more or fewer of than the reference: anywhere midway to the next bin.
    """
    means, variances = expected_values(estimator, name)
    live = np.array(counts[:-1], dtype=float)
    shares = live / live.sum()
    value = float(shares @ means)
    in_window = float(shares @ variances) / live.sum()
    reference = np.array(estimator.counts[:-1], dtype=float)
    in_reference = float(shares**2 @ (variances / (reference + 1.0)))
    moved = (shares - reference / reference.sum()) * _half_gaps(means)
    wander = estimator.wander.get(name, 0.0)
    inside = float(moved @ moved) / 3  # variance of an even spread
    half = _Z95 * float(np.sqrt(in_window + in_reference + inside + wander**2))
    return Interval(value, value - half, value + half)


def _half_gaps(means: Floats) -> Floats:
    """Half the larger step from each mean to its neighbours'; 0 where there is one bin only.

    >>> _half_gaps(np.array([1.0, 2.0, 4.0])).tolist()
    [0.5, 1.0, 1.0]
    """
    steps = np.abs(np.diff(means, prepend=means[:1], append=means[-1:])) / 2
    gaps: Floats = np.maximum(steps[:-1], steps[1:])
    return gaps


def against(
    told: Estimate, raw: Mapping[str, Measure], coverage: float, weighted: Mapping[str, Measure]
) -> Estimate:
    """The estimate with how far it was off: against weighted figures, else against plain ones.

    Where the interval of a metric misses that of the truth altogether, errors no longer depend on
    what they did in the reference: the estimate is not reliable.
    """
    truth = weighted or (raw if coverage >= ENOUGH_LABELLED else {})
    known = {name: truth[name] for name in told.metrics if name in truth}
    error = {name: told.metrics[name].value - one.value for name, one in known.items()}
    missed = [name for name, one in known.items() if not _touch(told.metrics[name], one)]
    if missed and told.reliable:
        reason = f"labels that came say otherwise of {', '.join(missed)}"
        return replace(told, error=error, reliable=False, reason=reason)
    return replace(told, error=error)


def _touch(one: Measure, other: Measure) -> bool:
    """Whether two intervals meet; a figure without one is taken for certain."""
    lows = [m.value if m.low is None else m.low for m in (one, other)]
    highs = [m.value if m.high is None else m.high for m in (one, other)]
    return max(lows) <= min(highs)


def shown_name(name: str) -> str:
    """A metric's name, from that of its sums."""
    return "accuracy" if name == "correct" else name


def shown(name: str, interval: Interval) -> Measure:
    """A mean as it is shown: a share stays in [0, 1], a loss is not negative."""
    value, low, high = interval
    highest = 1.0 if name in ("correct", "loss") else None
    return Measure(
        value=value,
        low=None if low is None else max(0.0, low),
        high=high if high is None or highest is None else min(highest, high),
    )
