"""What bets are worth: the recursion of each kind, written out beside the arrays."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.core.bets import BetTable, distribution_table
from stream.core.capital import CAUTION_ROWS, HALF_LIVES, IDLE_LOG, Stack, learned_bets
from stream.core.learning import LearnedBets, PastBets
from tests.test_bets import categorical, numeric

Array = NDArray[np.float64]
NOTHING = BetTable("x", np.empty((0, 2)), np.empty(0))
PAST = PastBets(
    scores=np.array([[-1.0, 1.0]]),
    stakes=np.array([[0.1], [-0.2]]),
    costs=np.array([0.006, 0.021]),
    rows=50.0,
    weights=np.array([0.5, 0.5]),
)
LEARNED = LearnedBets(np.array([0.5, 0.5]), 0.001, np.array([0.5, 0.5]))


def saved(stack: Stack, signal: int = 0) -> Array:
    return np.frombuffer(stack.save(signal))


def take(stack: Stack, *ticks: tuple[float, float], growth: float = 1.0) -> float:
    for tick in ticks:
        stack.update(np.array([tick]), np.array([[growth]]))
    return float(stack.evidence[0])


def test_a_bet_on_the_past_pays_for_what_differs_from_all_that_was_before() -> None:
    stack = Stack([NOTHING._replace(past=PAST)])
    ticks = [(3.0, 7.0), (4.0, 4.0), (0.0, 9.0)]
    capital, total, rows, stakes = np.zeros(2), 0.0, 50.0, PAST.stakes[:, 0]
    for tick in ticks:
        n, gain = sum(tick), tick[1] - tick[0]
        cost = n * PAST.costs + n**2 / rows * stakes**2 / 2
        capital = np.exp(stakes * (gain - n * total / rows) - cost) * (capital + 1.0)
        total, rows = total + gain, rows + n
        assert take(stack, tick) == pytest.approx(capital.mean())


def test_every_cell_of_a_season_has_a_past_of_its_own_and_the_capital_goes_on() -> None:
    whole = NOTHING._replace(past=PAST._replace(cells=2))
    other = whole._replace(past=PAST._replace(cells=2, rows=80.0, costs=PAST.costs * 2))
    stack = Stack([whole])
    take(stack, (3.0, 7.0))
    before = saved(stack)
    stack.turn(0, other, cell=1)
    assert (saved(stack) == before).all()
    take(stack, (8.0, 2.0))
    rows, sums, capital = np.split(saved(stack), [2, 4])
    assert (rows.tolist(), sums.tolist()) == ([10.0, 10.0], [4.0, -6.0])
    cost = 10 * 2 * PAST.costs + 100 / 80 * PAST.stakes[:, 0] ** 2 / 2
    paid = np.exp(PAST.stakes[:, 0] * -6.0 - cost)
    assert capital == pytest.approx(paid * (before[-2:] + 1.0))
    fresh = Stack([whole])
    assert fresh.load(0, saved(stack))
    assert (saved(fresh) == saved(stack)).all()


def test_a_learned_bet_goes_on_earlier_ticks_only_and_forgets_by_halves() -> None:
    stack = Stack([NOTHING._replace(learned=LEARNED)])
    counts, capital = np.zeros((2, 2)), np.zeros(2)
    for tick in [(30.0, 70.0), (30.0, 70.0), (20.0, 80.0)]:
        bets, idle = learned_bets(LEARNED.reference, counts, np.array([LEARNED.radius] * 2))
        paid = np.where(idle, IDLE_LOG, bets @ tick)
        capital = np.exp(paid) * (capital + 1.0)
        counts = counts * 0.5 ** (1 / HALF_LIVES)[:, None] + tick
        assert take(stack, tick) == pytest.approx(capital.mean())
    assert capital.min() > 1


def test_what_was_learned_is_a_mixture_with_the_reference_as_near_as_is_fair() -> None:
    p, counts = np.array([0.2, 0.3, 0.5]), np.array([[90.0, 5.0, 5.0]])
    bets, idle = learned_bets(p, counts, np.array([0.02]))
    r = (counts[0] + CAUTION_ROWS * p) / (counts.sum() + CAUTION_ROWS)
    q = r / np.exp(bets[0])
    assert not idle[0]
    assert q.sum() == pytest.approx(1)
    assert float(p @ np.log(p / q)) == pytest.approx(0.02, rel=1e-3)
    assert learned_bets(p, counts * 0.01, np.array([0.02]))[1].all()


def test_learned_bets_without_an_opinion_are_the_same_beside_one_that_has_one() -> None:
    p, few = np.array([0.2, 0.3, 0.5]), np.array([[0.9, 0.05, 0.05]])
    alone, idle = learned_bets(p, few, np.array([0.02]))
    beside, some_idle = learned_bets(p, np.vstack([few * 100, few]), np.array([0.02, 0.02]))
    assert (idle.tolist(), some_idle.tolist()) == ([True], [False, True])
    assert (alone[0] == beside[1]).all()
    assert (beside[0] != 0).any()


def test_a_tick_without_events_teaches_and_pays_nothing() -> None:
    stack = Stack([NOTHING._replace(past=PAST, learned=LEARNED)])
    take(stack, (3.0, 7.0))
    before = saved(stack)
    take(stack, (0.0, 0.0))
    assert (saved(stack) == before).all()


def test_reset_takes_the_capital_and_leaves_what_was_learned() -> None:
    stack = Stack([NOTHING._replace(past=PAST, learned=LEARNED)])
    take(stack, (3.0, 7.0), (3.0, 7.0))
    kept = saved(stack)
    stack.reset([0])
    assert stack.evidence[0] == 0
    after = saved(stack)
    assert ((after == kept) | (after == 0)).all()
    assert (after != 0).sum() == 1 + 1 + 4  # rows and sums since the reference, and faded counts


def test_signals_of_different_sizes_and_kinds_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(1)
    signals = [numeric(800, rng), categorical(500, 300, 0, 0), numeric(900, rng)]
    tables = [distribution_table(s, tolerance_psi=0.0, delta=0.01) for s in signals]
    tables.insert(1, BetTable("coin", np.log([[0.8, 1.2]]), np.ones(1)))
    together, apart = Stack(tables), [Stack([table]) for table in tables]
    for _ in range(5):
        rows = np.zeros((4, 13))
        for row, table in zip(rows, tables, strict=True):
            bins = table.log_bets.shape[1]
            row[:bins] = rng.multinomial(100, rng.dirichlet(np.ones(bins)))
        together.update(rows, np.full((4, 1), 0.5))
        for i, one in enumerate(apart):
            bins = tables[i].log_bets.shape[1]
            one.update(rows[i : i + 1, :bins], np.array([[0.5]]))
    np.testing.assert_allclose(together.evidence, [one.evidence[0] for one in apart])
    for i, one in enumerate(apart):
        np.testing.assert_allclose(saved(together, i), saved(one))
        fresh = Stack([tables[i]])
        assert fresh.load(0, saved(together, i))
        assert fresh.evidence[0] == pytest.approx(one.evidence[0])
        assert not fresh.load(0, np.ones(3))
        assert fresh.evidence[0] == 0
