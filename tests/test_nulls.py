"""The worst that a null allows: for every row of every table, the law on which it pays most.

A row of fixed bets is linear in the law, so a linear programme finds the worst law of its null. The
null of learned bets is a ball, searched from many starts along its surface. What a bet on the past
pays on average has a closed form in the law that reference and stream have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special
from scipy.optimize import linprog
from scipy.stats import bernoulli, expon, norm
from scipy.stats import t as student

from models.profile import SignalProfile
from models.profiling import _numeric
from models.rhythms import Rhythm
from stream.core.bets import (
    LOSS_VALUES,
    broken_table,
    distribution_table,
    harm_bound,
    loss_table,
    recovery_table,
)
from stream.core.capital import learned_bets
from stream.core.intervals import share_bounds
from stream.core.learning import SHIFTS, PastBets
from tests.summaries import SPEC
from tests.test_bets import categorical, numeric, validation

Array = NDArray[np.float64]
DELTA = 0.0005
SIGNALS = [
    numeric(5000, np.random.default_rng(1)),
    numeric(300, np.random.default_rng(2)),
    numeric(3000, np.random.default_rng(3), deflation=4.0),
    categorical(3500, 3000, 2000, 1500, 60, 0, 0),
    categorical(40, 0, 0),
]


def worst(row: Array, at_most: Sequence[tuple[Array, float]]) -> float:
    """The most that a row pays on average on a law q with every `score @ q <= edge`."""
    found = linprog(
        -np.exp(row),
        A_ub=np.array([score for score, _ in at_most]),
        b_ub=[edge for _, edge in at_most],
        A_eq=np.ones((1, len(row))),
        b_eq=[1.0],
    )
    assert found.success, found.message
    return float(-found.fun)


def null(signal: SignalProfile, tolerance: float) -> list[tuple[Array, float]]:
    """As the documentation of the tables says it, computed apart from them."""
    counts = np.array(signal.counts) / max(1.0, signal.deflation)
    n, bins = float(counts.sum()), len(counts)
    p = (counts + 0.5) / (n + bins / 2)
    delta = DELTA / (3 * bins + 4 * (signal.kind == "numeric"))
    low, high = share_bounds(counts, n, delta)
    slack = np.sqrt(tolerance * p * (1 - p))
    low, high, rows = np.minimum(low, p - slack), np.maximum(high, p + slack), np.eye(bins)
    limits = [(rows[b], float(high[b])) for b in range(bins)]
    limits += [(-rows[b], -float(low[b])) for b in range(bins)]
    if signal.kind == "numeric":
        q = p[:-1] / p[:-1].sum()
        z = special.ndtri(np.cumsum(q) - q / 2)
        z = (z - q @ z) / np.sqrt(q @ (z - q @ z) ** 2)
        reach = max(tolerance**0.5, -special.ndtri(delta) / n**0.5)
        for score in (np.append(z, 0.0), np.append(z**2 - 1 - (q @ z**3) * z, 0.0)):
            spread = float(np.sqrt(p @ (score - p @ score) ** 2))
            limits += [(s * score, float(s * (p @ score) + reach * spread)) for s in (1.0, -1.0)]
    return limits


@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: f"{signal.name}{signal.counts[0]}")
def test_no_law_of_the_null_pays_a_row_of_a_distribution_table(
    signal: SignalProfile, tolerance: float
) -> None:
    table = distribution_table(signal, tolerance_psi=tolerance, delta=DELTA)
    limits = null(signal, tolerance)
    paid = [worst(row, limits) for row in table.log_bets]
    assert max(paid) <= 1 + 1e-9
    assert max(paid) > 1 - 1e-6  # nothing is given away either


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: f"{signal.name}{signal.counts[0]}")
def test_no_law_of_the_null_pays_a_row_of_a_broken_table(signal: SignalProfile) -> None:
    table = broken_table(signal, delta=DELTA)
    counts = np.array(signal.counts) / max(1.0, signal.deflation)
    least = share_bounds(counts, float(counts.sum()), DELTA)[1]
    for row in table.log_bets:
        at = int(np.argmax(row))
        bound = float(np.expm1(-row[at - 1]) / np.expm1(row[at] - row[at - 1]))
        assert worst(row, [(np.eye(len(row))[at], bound)]) <= 1 + 1e-9
        assert bound >= least[at] - 1e-9


@pytest.mark.parametrize("objective", [None, 0.3, 0.6])
@pytest.mark.parametrize("rows", [200, 10_000])
def test_no_law_of_the_null_pays_a_row_of_a_harm_or_a_recovery_table(
    rows: int, objective: float | None
) -> None:
    seen = validation(rows)
    bound = harm_bound(seen, tolerance=0.01, delta=0.005, objective=objective)
    harm = loss_table(seen, tolerance=0.01, delta=0.005, objective=objective)
    for row in harm.log_bets:
        assert worst(row, [(LOSS_VALUES, bound.upper)]) <= 1 + 1e-9
    for level in (0.15, 0.3, 0.9):
        table = recovery_table(seen, level, tolerance=0.01, delta=0.005, objective=objective)
        far = bound.mean + 0.75 * (level - bound.mean)
        edge = max((bound.mean + level) / 2, min(bound.upper, far))
        for row in table.log_bets:
            assert worst(row, [(-LOSS_VALUES, -edge)]) <= 1 + 1e-9


@pytest.mark.parametrize("bins", [3, 13])
def test_no_law_of_the_ball_pays_what_was_learned(bins: int) -> None:
    """Along many ways out of the reference, and from the best of them on in smaller steps."""
    rng = np.random.default_rng(4)
    highest, active = 0.0, 0
    for _ in range(60):
        p = rng.dirichlet(np.full(bins, 2.0))
        counts = rng.multinomial(rng.integers(1, 400), rng.dirichlet(np.full(bins, 1.0)))
        radius = float(10 ** rng.uniform(-3.5, -1))
        log_bets, idle = learned_bets(p[None], counts[None].astype(float), np.array([radius]))
        if idle[0]:
            continue
        active += 1
        pays = np.exp(log_bets[0])
        way = np.vstack([pays - p @ pays, rng.normal(size=(30, bins))])
        for scale in (1.0, 0.3, 0.1, 0.03):
            paid = np.array([_on_surface(p, one, radius) @ pays for one in way])
            best = way[int(paid.argmax())]
            highest = max(highest, float(paid.max()))
            way = best + scale * np.linalg.norm(best) * rng.normal(size=(30, bins)) / bins**0.5
    assert active > 20
    assert highest <= 1 + 1e-9
    assert highest > 0.99


def _on_surface(p: Array, way: Array, radius: float) -> Array:
    """The law p exp(t way) / sum at KL(p, law) = radius; t by bisection from inside."""
    low, high = 0.0, 1.0

    def law(t: float) -> Array:
        logs = np.log(p) + t * way
        q: Array = np.exp(logs - logs.max())
        q /= q.sum()
        return q

    def far(t: float) -> float:
        return float(p @ (np.log(p) - np.log(law(t) + 1e-300)))

    while far(high) < radius and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if far(middle) <= radius else (low, middle)
    return law(low)


LAWS: dict[str, Any] = {
    "normal": norm(),
    "skewed": expon(),
    "heavy tails": student(3),
    "one value in two": bernoulli(0.5),
    "one value in fifty": bernoulli(0.02),
}


@pytest.mark.parametrize("rows", [500, 5000])
@pytest.mark.parametrize("law", LAWS, ids=str)
def test_a_bet_on_the_past_is_fair_over_references_of_the_same_law(law: str, rows: int) -> None:
    """A tick of 100, the first after the reference: mean payment over 300 references of every bet.

    The claim is about references and streams together, and approximate; so it is held to three
    standard errors, for the worst bet of each law; the boldest pays too seldom for an average.
    """
    rng = np.random.default_rng(5)
    paid = []
    for _ in range(300):
        signal = _numeric(
            "x",
            np.asarray(LAWS[law].rvs(size=rows, random_state=rng), dtype=float),
            Rhythm(SPEC, None),
        )
        past = distribution_table(signal, tolerance_psi=0.0, delta=DELTA).past
        assert past is not None
        edges = np.array(signal.edges)
        below = LAWS[law].cdf(np.nextafter(edges, -np.inf))
        below[-1] = LAWS[law].cdf(edges[-1])
        q = np.r_[below[0], np.diff(below), 1 - below[-1], 0.0]
        paid.append(_first_tick(past, q, rows))
    assert_fair(np.array(paid))


@pytest.mark.parametrize("error", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("rows", [500, 10_000])
def test_a_bet_on_the_past_loss_is_fair_over_validations_of_the_same_error(
    rows: int, error: float
) -> None:
    rng = np.random.default_rng(6)
    paid = []
    for wrong in rng.binomial(rows, error, 300):
        past = loss_table(validation(rows, wrong / rows), tolerance=0.0, delta=0.005).past
        assert past is not None
        q = np.eye(20)[0] * (1 - error) + np.eye(20)[19] * error
        paid.append(_first_tick(past, q, rows))
    assert_fair(np.array(paid))


def _first_tick(past: PastBets, q: Array, rows: int, n: int = 100) -> Array:
    """Log of what each bet but the boldest pays on average on n events of law q."""
    shifts = np.abs(past.stakes).sum(axis=1)
    cost = n * (past.costs + n / rows * shifts**2 / 2)
    timid = shifts < SHIFTS[-1] - 1e-9
    paid: Array = (n * np.log(np.exp(past.stakes @ past.scores) @ q) - cost)[timid]
    return paid


def assert_fair(paid: Array) -> None:
    worth = np.exp(paid)
    assert (worth.mean(axis=0) <= 1 + 3 * worth.std(axis=0) / len(worth) ** 0.5).all()
