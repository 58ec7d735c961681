"""Distances: right values, honest noise levels, intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stream.core.distances import (
    MEASURES,
    compare,
    compare_all,
    ks,
    psi,
    psi_interval,
    wasserstein,
)

EVEN = np.full(10, 500)


@pytest.mark.parametrize("name", MEASURES)
def test_equal_shares_are_at_distance_0_and_opposite_ones_far(name: str) -> None:
    distance = MEASURES[name].distance
    assert distance(EVEN, EVEN) == pytest.approx(0, abs=1e-7)
    assert distance([9000, 1000], [1000, 9000]) > 0.3


@pytest.mark.parametrize("name", MEASURES)
def test_distances_work_along_the_last_axis(name: str) -> None:
    rng = np.random.default_rng(1)
    current = rng.multinomial(500, EVEN / EVEN.sum(), size=(3, 4))
    together = MEASURES[name].distance(EVEN, current)
    assert together.shape == (3, 4)
    assert together[2, 1] == MEASURES[name].distance(EVEN, current[2, 1])


@pytest.mark.parametrize("n", [100, 2000])
@pytest.mark.parametrize("name", MEASURES)
def test_the_stated_noise_is_what_unchanged_data_gives(name: str, n: int) -> None:
    rng = np.random.default_rng(2)
    m, bins, share = 5000, 10, np.full(10, 0.1)
    reference, current = rng.multinomial(m, share, 2000), rng.multinomial(n, share, 2000)
    seen = float(MEASURES[name].distance(reference, current).mean())
    stated = MEASURES[name].noise(n, m, bins)
    slack = 0.35 if MEASURES[name].ordered else 0.12  # ordered ones state an upper value
    assert stated * (1 - slack) <= seen <= stated * 1.06


@pytest.mark.parametrize("n", [500, 2000, 10_000])
@pytest.mark.parametrize("tilt", [0.0, 0.1, 0.4])
def test_the_psi_interval_covers_the_true_psi(n: int, tilt: float) -> None:
    """Coverage of 95 % intervals over 400 runs with a reference of 5,000 rows."""
    rng = np.random.default_rng(3)
    p = np.full(10, 0.1)
    q = np.exp(tilt * np.linspace(-1.5, 1.5, 10))
    q /= q.sum()
    true = float(((q - p) * np.log(q / p)).sum())
    values = psi(rng.multinomial(5000, p, 400), rng.multinomial(n, q, 400))
    ends = np.array([psi_interval(float(v), n, 5000, 10) for v in values])
    covered = ((ends[:, 0] <= true + 1e-12) & (true <= ends[:, 1])).mean()
    assert 0.91 <= covered <= 1.0


def test_bins_that_nobody_occupies_add_no_psi_and_no_noise() -> None:
    padded = compare([0, 500, 500, 0, 0], [0, 52, 48, 0, 0])
    assert padded == pytest.approx(compare([500, 500], [52, 48]))


def test_signals_compared_at_once_get_the_very_figures_of_each_alone() -> None:
    rng = np.random.default_rng(5)
    widths = rng.integers(1, 30, 60)
    pairs = [(rng.poisson(200, w).tolist(), rng.poisson(2, w).tolist()) for w in widths]
    together = compare_all([one for one, _ in pairs], [other for _, other in pairs])
    assert together == [compare(*pair) for pair in pairs]


def test_a_signal_without_rows_compares_without_a_figure_that_json_cannot_hold() -> None:
    for reference, current in (([5, 5], [0, 0]), ([0, 0], [5, 5]), ([0, 0], [0, 0]), ([9], [9])):
        figures = compare(reference, current)
        assert np.isfinite(figures).all()
        assert figures.psi_noise == 0


def test_ks_on_bins_never_exceeds_that_of_the_raw_values() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=400), rng.normal(0.4, 1, size=300)
    edges = np.r_[-np.inf, np.quantile(a, np.linspace(0, 1, 11))[1:-1], np.inf]
    counts = [np.histogram(x, edges)[0] for x in (a, b)]
    exact = stats.ks_2samp(a, b).statistic
    assert 0.5 * exact < ks(*counts) <= exact + 1e-12


def test_wasserstein_is_how_far_values_moved_in_shares_of_the_reference() -> None:
    """A tenth of the rows moves from the middle of the first bin to that of the second: by 0.35."""
    assert wasserstein([5000, 2000, 3000], [4000, 3000, 3000]) == pytest.approx(0.1 * 0.35)
