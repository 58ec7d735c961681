"""Bet tables: no null distribution makes any bet worth more than 1, and alternatives do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from models.profile import SignalProfile, Validation
from stream.core.bets import (
    IDLE,
    LOSS_STAKES,
    LOSS_VALUES,
    BetTable,
    broken_table,
    distribution_table,
    harm_bound,
    loss_table,
    mean_bets,
    recovery_table,
    signal_recovery_table,
)
from stream.core.detector import Detector
from stream.events import LOSS_BINS

Array = NDArray[np.float64]
DELTA = 0.01


def numeric(rows: int, rng: np.random.Generator, **more: Any) -> SignalProfile:
    """Reference of a standard normal feature, 10 quantile bins."""
    x = rng.standard_normal(rows)
    edges = np.quantile(x, np.linspace(0, 1, 11))
    counts = (0, *map(int, np.histogram(x, edges)[0]), 0, 0)
    return SignalProfile(
        name="x", kind="numeric", counts=counts, edges=tuple(edges.tolist()), **more
    )


def ideal(rows: int, **more: Any) -> SignalProfile:
    """Reference whose counts are as expected of a standard normal feature."""
    edges = tuple(norm.ppf(np.linspace(0.5 / rows, 1 - 0.5 / rows, 11)).tolist())
    counts = (0, *[rows // 10] * 10, 0, 0)
    return SignalProfile(name="x", kind="numeric", counts=counts, edges=edges, **more)


def truth(signal: SignalProfile, mean: float = 0.0, spread: float = 1.0) -> Array:
    """Shares of the signal's bins under a normal law; the null bin's is 0."""
    below = norm.cdf((np.array(signal.edges) - mean) / spread)
    shares: Array = np.r_[below[0], np.diff(below), 1 - below[-1], 0.0]
    return shares


def categorical(*counts: int) -> SignalProfile:
    names = tuple(f"c{i}" for i in range(len(counts) - 2))
    return SignalProfile(name="c", kind="categorical", categories=names, counts=counts)


def validation(rows: int = 2000, error: float = 0.1, **more: Any) -> Validation:
    """A validation set of 0/1 losses."""
    wrong = round(rows * error)
    bins = (rows - wrong, *([0] * 18), wrong)
    return Validation(n=rows, loss_bins=bins, loss_scale=4.0, metrics={}, **more)


def worth(table: BetTable, q: Array) -> Array:
    """What each bet pays on average if events follow q."""
    paid: Array = np.exp(table.log_bets) @ q
    return paid


def wealth(table: BetTable, q: Array) -> float:
    """Log growth per event of the bet that does best under q."""
    return float((table.log_bets @ q).max())


# --- validity ---------------------------------------------------------------------------------

shares = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda x: sum(x) > 0.01)


@given(shares, st.lists(st.floats(-5, 5), min_size=4, max_size=4), st.floats(-5, 5))
def test_a_bet_on_a_mean_is_fair_at_its_edge_and_loses_below(
    q: list[float], values: list[float], edge: float
) -> None:
    share, score = np.array(q) / sum(q), np.array(values)
    rows = mean_bets(score, edge, np.array([0.01, 0.3, 10.0]))
    assert np.isfinite(rows).all()
    if share @ score <= edge:
        assert (np.exp(rows) @ share <= 1 + 1e-9).all()


@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.2])
@pytest.mark.parametrize(
    "signal",
    [
        numeric(5000, np.random.default_rng(1)),
        numeric(300, np.random.default_rng(1)),
        numeric(3000, np.random.default_rng(1), deflation=4.0),
        categorical(350, 300, 200, 150, 0, 0),
        categorical(1, 0, 0),
        SignalProfile(name="constant", kind="numeric", counts=(0, 900, 0, 100), edges=(2.0, 2.0)),
        SignalProfile(name="one", kind="numeric", counts=(0, 1, 0, 0), edges=(2.0, 2.0)),
    ],
    ids=lambda signal: signal.name,
)
def test_the_reference_itself_pays_no_bet(signal: SignalProfile, tolerance: float) -> None:
    table = distribution_table(signal, tolerance_psi=tolerance, delta=DELTA)
    counts = np.array(signal.counts)
    p = (counts + 0.5) / (counts + 0.5).sum()
    assert np.isfinite(table.log_bets).all()
    assert (worth(table, counts / counts.sum()) <= 1 + 1e-9).all()
    assert (worth(table, p) <= 1 + 1e-9).all()
    kinds = [table, table.past, table.learned]
    assert sum(bets.weights.sum() for bets in kinds if bets is not None) == pytest.approx(1)


@pytest.mark.parametrize("rows", [300, 5000])
def test_the_truth_behind_a_reference_pays_no_bet_with_probability_1_minus_delta(rows: int) -> None:
    """The sampling error of the reference is part of the null, at small references too."""
    rng = np.random.default_rng(2)
    delta, runs, broken = 0.1, 100, 0
    for _ in range(runs):
        signal = numeric(rows, rng)
        table = distribution_table(signal, tolerance_psi=0.0, delta=delta)
        broken += bool((worth(table, truth(signal)) > 1 + 1e-9).any())
    assert broken <= runs * delta + 3 * (runs * delta) ** 0.5


def test_a_change_within_the_tolerance_pays_no_bet() -> None:
    signal = numeric(50_000, np.random.default_rng(3))
    table = distribution_table(signal, tolerance_psi=0.04, delta=DELTA)
    for mean, spread in ((0.19, 1.0), (-0.19, 1.0), (0.0, 1.1), (0.0, 0.92)):
        assert (worth(table, truth(signal, mean, spread)) <= 1 + 1e-9).all()
    assert wealth(table, truth(signal, 0.4)) > 0


@pytest.mark.parametrize("rows", [200, 2000])
def test_the_truth_behind_a_validation_pays_no_harm_bet_with_probability_1_minus_delta(
    rows: int,
) -> None:
    rng = np.random.default_rng(4)
    q = np.exp(-0.4 * np.arange(20))
    q /= q.sum()
    delta, runs, broken = 0.1, 200, 0
    for bins in rng.multinomial(rows, q, runs):
        seen = Validation(n=rows, loss_bins=tuple(bins.tolist()), loss_scale=4.0, metrics={})
        table = loss_table(seen, tolerance=0.0, delta=delta)
        broken += bool((worth(table, q) > 1 + 1e-9).any())
    assert broken <= runs * delta


def test_harm_bets_are_fair_on_every_law_whose_mean_is_at_the_bound() -> None:
    bound = harm_bound(validation(), tolerance=0.03, delta=0.005).upper
    table = loss_table(validation(), tolerance=0.03, delta=0.005)
    for low, high in ((0, 19), (0, 10), (2, 3), (1, 19)):
        if LOSS_VALUES[low] <= bound <= LOSS_VALUES[high]:
            up = (bound - LOSS_VALUES[low]) / (LOSS_VALUES[high] - LOSS_VALUES[low])
            q = np.eye(20)[low] * (1 - up) + np.eye(20)[high] * up
            assert worth(table, q) == pytest.approx(1, abs=1e-9)


# --- power ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "spread"), [(0.3, 1.0), (-0.3, 1.0), (0.0, 1.4), (0.0, 0.7), (3.0, 0.1)]
)
def test_shifts_and_changed_spreads_win_either_way(mean: float, spread: float) -> None:
    signal = numeric(5000, np.random.default_rng(5))
    table = distribution_table(signal, tolerance_psi=0.0, delta=DELTA)
    assert wealth(table, truth(signal, mean, spread)) > 0.005


@pytest.mark.parametrize("change", [(0.2, 1.0), (0.0, 1.2)])
def test_a_change_wins_as_much_as_its_mirror_image(change: tuple[float, float]) -> None:
    signal = ideal(5000)
    table = distribution_table(signal, tolerance_psi=0.0, delta=DELTA)
    q = truth(signal, *change)
    mirrored = np.r_[q[:-1][::-1], q[-1]]
    assert np.sort(worth(table, q)) == pytest.approx(np.sort(worth(table, mirrored)))


def test_new_nulls_and_new_categories_win() -> None:
    signal = categorical(3000, 2000, 0, 0)
    table = distribution_table(signal, tolerance_psi=0.01, delta=DELTA)
    for at in (2, 3):
        q = 0.98 * np.array([0.6, 0.4, 0, 0]) + 0.02 * np.eye(4)[at]
        assert wealth(table, q) > 0.005


def test_broken_bets_see_nulls_unseen_categories_and_wrong_ranges_and_nothing_else() -> None:
    table = broken_table(categorical(3000, 2000, 0, 0), delta=DELTA)
    assert table.name == "c:broken"
    assert wealth(table, np.array([0.01, 0.99, 0, 0])) < 0
    for at in (2, 3):
        assert wealth(table, 0.9 * np.array([0.6, 0.4, 0, 0]) + 0.1 * np.eye(4)[at]) > 0.05
    drifted = broken_table(numeric(1000, np.random.default_rng(6)), delta=DELTA)
    for share, broken in ((0.4, False), (0.9, True)):  # a shift takes some out of range, a unit all
        for at in (0, 11):
            assert (
                wealth(drifted, share * np.eye(13)[at] + (1 - share) * np.eye(13)[5]) > 0
            ) == broken


def test_a_smaller_or_dependent_reference_asks_for_a_larger_change() -> None:
    def slowest_win(rows: int, **more: Any) -> float:
        signal = ideal(rows, **more)
        table = distribution_table(signal, tolerance_psi=0.0, delta=DELTA)
        return wealth(table, truth(signal, 0.3))

    assert slowest_win(300) < slowest_win(1000) < slowest_win(10_000)
    assert slowest_win(10_000, deflation=20.0) < slowest_win(10_000)


def test_cells_of_a_season_have_the_same_bets_and_idle_ones_where_nothing_can_be_won() -> None:
    """So that capital goes on from cell to cell; an idle bet loses a little, on whatever comes."""
    full, sparse = (0, *[400] * 10, 0, 0), (0, *[1] * 3, *[0] * 7, 0, 0)
    whole = ideal(4_003, season="day", cells=(full, sparse))
    tables = [
        distribution_table(whole.in_cell(cell), tolerance_psi=0.01, delta=DELTA, cell_of=whole)
        for cell in (0, 1)
    ]
    alone = distribution_table(whole.in_cell(0), tolerance_psi=0.01, delta=DELTA / 2)
    idle = [(table.log_bets == IDLE).all(axis=1) for table in tables]
    assert tables[0].log_bets.shape == tables[1].log_bets.shape
    assert np.array_equal(tables[0].log_bets[~idle[0]], alone.log_bets)
    assert idle[0].sum() < idle[1].sum() < len(idle[1])
    for table, none in zip(tables, idle, strict=True):
        assert not ((table.log_bets < 0).all(axis=1) & ~none).any()


def test_small_inflation_is_not_deflated() -> None:
    assert loss_table(validation(), tolerance=0, delta=0.01).deflation == 1.0
    assert loss_table(validation(deflation=1.4), tolerance=0, delta=0.01).deflation == 1.0
    assert loss_table(validation(deflation=3.0), tolerance=0, delta=0.01).deflation == 3.0


# --- what a validation set can certify ----------------------------------------------------------


@pytest.mark.parametrize(("rows", "most"), [(300, 0.07), (2000, 0.025), (10_000, 0.011)])
def test_the_smallest_certifiable_harm_shrinks_with_validation_rows(rows: int, most: float) -> None:
    bound = harm_bound(validation(rows), tolerance=0.0, delta=0.005)
    assert bound.mean == pytest.approx(0.1)
    assert 0 < bound.smallest_harm <= most


def test_the_tolerance_is_added_and_dependence_widens() -> None:
    plain = harm_bound(validation(), tolerance=0.0, delta=0.005)
    tolerant = harm_bound(validation(), tolerance=0.02, delta=0.005)
    dependent = harm_bound(validation(deflation=4.0), tolerance=0.0, delta=0.005)
    assert tolerant.upper == pytest.approx(plain.upper + 0.02)
    assert dependent.mean == plain.mean
    assert dependent.smallest_harm > 1.7 * plain.smallest_harm


def test_without_validation_or_signal_rows_nothing_can_be_won() -> None:
    nothing = Validation(n=0, loss_bins=(0,) * 20, loss_scale=4.0, metrics={})
    assert harm_bound(nothing, tolerance=0.0, delta=0.005).upper == 1
    assert loss_table(nothing, tolerance=0.0, delta=0.005).log_bets.shape == (0, 20)
    empty = categorical(0, 0, 0)
    assert distribution_table(empty, tolerance_psi=0, delta=0.01).log_bets.shape == (0, 3)
    assert broken_table(empty, delta=0.01).log_bets.shape == (0, 3)


def test_a_perfect_validation_still_bets_and_a_hopeless_one_cannot() -> None:
    perfect = loss_table(validation(500, 0.0), tolerance=0.0, delta=0.005)
    assert perfect.log_bets.shape == (len(LOSS_STAKES), 20)
    assert wealth(perfect, np.eye(20)[3]) > 0
    assert len(loss_table(validation(500, 1.0), tolerance=0.0, delta=0.005).weights) == 0


# --- recovery ---------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.13, 0.2, 0.6, 1.0])
def test_recovery_wins_at_the_validated_loss_and_not_at_the_level_of_the_alarm(
    level: float,
) -> None:
    table = recovery_table(validation(), level, tolerance=0.0, delta=0.005)

    def at(error: float) -> Array:
        q: Array = np.eye(20)[0] * (1 - error) + np.eye(20)[19] * error
        return q

    assert wealth(table, at(0.1)) > 0
    assert (worth(table, at(max(level, 0.14))) < 1).all()


@pytest.mark.parametrize("shift", [0.3, -1.0, 4.0])
def test_a_signal_recovers_by_looking_like_the_reference_again(shift: float) -> None:
    signal = numeric(3000, np.random.default_rng(8))
    table = signal_recovery_table(signal, np.round(2000 * truth(signal, shift)))
    assert wealth(table, truth(signal)) > 0.005
    assert (worth(table, truth(signal, shift)) < 1).all()
    assert (worth(table, truth(signal, 0.7 * shift)) < 1).all()


def test_a_signal_that_alarmed_without_a_visible_change_may_not_recover_by_noise() -> None:
    signal = categorical(500, 500, 0, 0)
    table = signal_recovery_table(signal, np.zeros(4))
    assert (worth(table, np.array([0.5, 0.5, 0, 0])) <= 1 + 1e-9).all()


def test_what_does_worse_than_knowing_nothing_is_harmed_however_little_its_validation_says() -> (
    None
):
    """Deflated, its own bound would allow anything; what knowing nothing loses needs no rows."""
    hopeless = validation(500, 0.8, deflation=20.0)
    arguments: dict[str, Any] = {"tolerance": 0.0, "delta": 0.005}
    own = harm_bound(hopeless, **arguments)
    assert own.upper > 0.9
    arguments["ignorance"] = 0.45 * hopeless.loss_scale
    bound = harm_bound(hopeless, **arguments)
    assert (bound.upper, bound.by_ignorance, bound.smallest_harm) == (0.45, True, 0.0)
    detector = Detector(loss_table(hopeless, **arguments))
    tick = [20, *[0] * (LOSS_BINS - 2), 80]
    assert max(detector.update(tick, 1.0) for _ in range(60)) > 1_000
    recovery = recovery_table(hopeless, 0.8, **arguments)
    still, mended = np.zeros(LOSS_BINS), np.zeros(LOSS_BINS)
    still[[0, -1]], mended[[0, -1]] = (0.2, 0.8), (0.7, 0.3)
    assert (np.exp(recovery.log_bets) @ still <= 1 + 1e-9).all()
    assert (recovery.log_bets @ mended > 0).any()


def test_a_version_that_knows_something_has_the_bound_of_its_validation() -> None:
    arguments: dict[str, Any] = {"tolerance": 0.0, "delta": 0.005}
    good = validation(2000, 0.1)
    assert harm_bound(good, ignorance=0.45 * 4, **arguments) == harm_bound(good, **arguments)
