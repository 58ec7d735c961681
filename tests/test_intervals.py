"""Intervals and bounds: they hold what they promise, also for few rows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from stream.core.intervals import mean_interval, mean_upper_bound, share_bounds, wilson

VALUES = np.arange(20) / 19


def rounded(losses: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Counts on 20 bins after rounding that keeps the mean."""
    place = np.floor(losses * 19 + rng.random(len(losses))).astype(int)
    return np.bincount(np.minimum(place, 19), minlength=20)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 7), (90, 100)])
def test_wilson_agrees_with_scipy_and_stays_inside_0_and_1(k: int, n: int) -> None:
    expected = stats.binomtest(k, n).proportion_ci(method="wilson")
    got = wilson(k, n)
    assert got.value == k / n
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_mean_interval_agrees_with_students() -> None:
    x = np.random.default_rng(1).exponential(size=12)
    low, high = stats.t.interval(0.95, 11, x.mean(), x.std(ddof=1) / 12**0.5)
    assert mean_interval(12, x.sum(), (x**2).sum())[1:] == pytest.approx((low, high))


def test_no_rows_is_an_error_and_one_row_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        wilson(0, 0)
    with pytest.raises(ValueError, match="at least one row"):
        mean_interval(0, 0.0, 0.0)
    assert mean_interval(1, 3.0, 9.0) == (3.0, None, None)


def test_a_constant_sample_has_a_mean_interval_of_no_width() -> None:
    assert mean_interval(10, 1.0, 0.1) == pytest.approx((0.1, 0.1, 0.1), abs=1e-6)


def test_share_bounds_are_clopper_and_pearsons() -> None:
    low, high = share_bounds([0, 3, 40, 50], 50, 0.01)
    for i, k in enumerate((0, 3, 40, 50)):
        expected = stats.binomtest(k, 50).proportion_ci(0.98, method="exact")
        assert (low[i], high[i]) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("rows", [30, 300])
@pytest.mark.parametrize("law", ["share", "rare", "skewed", "narrow"])
def test_the_upper_bound_misses_the_mean_no_more_often_than_delta(law: str, rows: int) -> None:
    rng = np.random.default_rng(2)
    delta, runs = 0.1, 150
    samples = {
        "share": (rng.random((runs, rows)) < 0.1).astype(float),
        "rare": (rng.random((runs, rows)) < 0.01).astype(float),
        "skewed": rng.beta(0.5, 4.5, (runs, rows)),
        "narrow": rng.beta(20, 80, (runs, rows)),
    }[law]
    mean = {"share": 0.1, "rare": 0.01, "skewed": 0.1, "narrow": 0.2}[law]
    missed = sum(mean_upper_bound(VALUES, rounded(x, rng), delta) < mean for x in samples)
    assert missed <= runs * delta + 3 * (runs * delta) ** 0.5


def test_the_upper_bound_gains_from_rows_and_from_little_variance() -> None:
    wide = [mean_upper_bound([0, 1], [0.9 * n, 0.1 * n], 0.005) for n in (100, 1000, 10_000)]
    narrow = [mean_upper_bound([0, 0.1, 1], [0, n, 0], 0.005) for n in (100, 1000, 10_000)]
    assert wide == sorted(wide, reverse=True)
    assert wide[-1] < 0.111  # the exact bound is 0.108
    assert all(n < w for n, w in zip(narrow, wide, strict=True))


def test_the_upper_bound_without_rows_is_1_and_with_one_row_no_more() -> None:
    assert mean_upper_bound(VALUES, np.zeros(20), 0.005) == 1.0
    for at in (0, 19):
        assert mean_upper_bound(VALUES, np.eye(20)[at], 0.005) <= 1.0
