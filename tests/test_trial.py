"""Paired tests: what is not better is not promoted, what is better is, at any time one looks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.core.trial import PairedTest

TICK, TICKS, RUNS, ALPHA = 100, 200, 150, 0.05


def outcomes(
    better: NDArray[np.float64], worse: NDArray[np.float64], seed: int
) -> NDArray[np.int64]:
    """Per run and tick: pairs where only the challenger is right, and only the champion."""
    rng = np.random.default_rng(seed)
    won = rng.binomial(TICK, better, (RUNS, len(better)))
    lost = rng.binomial(TICK - won, worse / (1 - better))
    return np.stack([won, lost], axis=2)


def promoted(
    better: float | NDArray[np.float64], worse: float | NDArray[np.float64], *, cycle: int = 1
) -> float:
    """Share of runs proven better within 20,000 pairs, looking every `cycle` ticks."""
    b, w = (np.broadcast_to(np.asarray(x, dtype=float), TICKS) for x in (better, worse))
    found = 0
    for run in outcomes(b, w, seed=1):
        test = PairedTest()
        for i, (won, lost) in enumerate(run, start=1):
            test.update(TICK, float(won - lost), float(won + lost))
            if i % cycle == 0 and test.e_value >= 1 / ALPHA:
                found += 1
                break
    return found / RUNS


def test_an_equal_challenger_is_promoted_with_probability_at_most_alpha() -> None:
    assert promoted(0.05, 0.05) <= ALPHA


@pytest.mark.parametrize("discordance", [0.04, 0.1])
def test_a_challenger_2_points_worse_is_not_promoted(discordance: float) -> None:
    assert promoted(discordance / 2 - 0.01, discordance / 2 + 0.01) == 0


def test_a_challenger_2_points_better_is_promoted() -> None:
    assert promoted(0.06, 0.04) >= 0.95


def test_a_challenger_better_and_worse_in_turn_is_not_promoted_at_whole_cycles() -> None:
    """±5 points, alternating every 2,000 pairs, 0 on average."""
    ahead = np.arange(TICKS) // 20 % 2 == 0
    better, worse = np.where(ahead, 0.075, 0.025), np.where(ahead, 0.025, 0.075)
    assert promoted(better, worse, cycle=40) <= ALPHA
    assert promoted(better, worse) > 0.9  # and would be within a cycle


def test_not_worse_by_a_margin_is_proven_of_equals_and_of_none_that_is_worse_by_it() -> None:
    equal, worse = PairedTest(null_mean=-0.02), PairedTest(null_mean=-0.02)
    for won_equal, won_worse in zip(
        outcomes(np.full(TICKS, 0.05), np.full(TICKS, 0.05), 2)[0],
        outcomes(np.full(TICKS, 0.04), np.full(TICKS, 0.06), 2)[0],
        strict=True,
    ):
        equal.update(TICK, float(won_equal[0] - won_equal[1]), float(won_equal.sum()))
        worse.update(TICK, float(won_worse[0] - won_worse[1]), float(won_worse.sum()))
    assert equal.e_value >= 1 / ALPHA
    assert worse.e_value < 1 / ALPHA


def test_the_sign_turns_the_claim_round() -> None:
    up, down = PairedTest(0.1, sign=1), PairedTest(-0.1, sign=-1)
    up.update(500, 120.0, 80.0)
    down.update(500, -120.0, 80.0)
    assert up.e_value == pytest.approx(down.e_value)
    with pytest.raises(ValueError, match="sign"):
        PairedTest(sign=0)


def test_the_interval_covers_at_every_time_at_once() -> None:
    missed = 0
    for run in outcomes(np.full(60, 0.08), np.full(60, 0.03), 3):
        test, outside = PairedTest(), False
        for i, (won, lost) in enumerate(run):
            test.update(TICK, float(won - lost), float(won + lost))
            if i % 10 == 0:
                low, high = test.interval(ALPHA)
                assert low <= test.mean <= high
                outside |= not low <= 0.05 <= high
        missed += outside
    assert missed <= ALPHA * RUNS


def test_the_interval_and_the_e_value_agree() -> None:
    test = PairedTest()
    test.update(3000, 150.0, 400.0)
    low, high = test.interval(ALPHA)
    at_low, at_high = PairedTest(low, sign=1), PairedTest(high, sign=-1)
    for edge in (at_low, at_high):
        edge.restore(test.snapshot())
        assert edge.e_value == pytest.approx(2 / ALPHA, rel=1e-3)


def test_a_tick_is_judged_by_what_was_known_before_it() -> None:
    """The second sum is of squared distances to the mean before the tick: 0, then 0.5."""
    test = PairedTest()
    test.update(10, 5.0, 3.0)
    assert test.snapshot() == [10, 5.0, 3.0]
    test.update(4, 1.0, 2.0)
    assert test.snapshot() == [14, 6.0, 3.0 + 2.0 - 2 * 0.5 * 1.0 + 4 * 0.25]


def test_before_the_first_pair_nothing_is_known() -> None:
    test = PairedTest()
    assert (test.n, test.mean) == (0, 0.0)
    assert test.e_value == pytest.approx(1.0)
    assert test.interval() == (-1.0, 1.0)
    test.update(0, 0.0, 0.0)
    assert test.e_value == pytest.approx(1.0)


def test_evidence_is_finite_plain_data_after_any_number_of_pairs() -> None:
    test = PairedTest()
    test.update(10_000_000, 10_000_000.0, 10_000_000.0)
    assert np.isfinite(test.e_value)
    test.update(10_000_000, 10_000_000.0, 10_000_000.0)
    assert np.isfinite(test.e_value)
    assert test.e_value > 1e100


def test_a_restored_test_goes_on_to_the_same_bits() -> None:
    one, other = PairedTest(0.01), PairedTest(0.01)
    one.update(100, 7.3, 9.1)
    other.restore(one.snapshot())
    for test in (one, other):
        test.update(50, -2.0, 3.0)
    assert one.snapshot() == other.snapshot()
    assert one.e_value == other.e_value
