"""Detection end to end: a budget that is kept, changes that are found, problems that resolve.

The simulations are the acceptance checks of the design, smaller. Ticks are of 100 events, and a
threshold of A ticks means at most one false alarm per A ticks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from models.profile import SignalProfile, Validation
from stream.core.bets import (
    LOSS_STAKES,
    BetTable,
    distribution_table,
    loss_table,
    mean_bets,
    recovery_table,
    signal_recovery_table,
)
from stream.core.detector import PERIOD_EVENTS, Bank, Detector

Array = NDArray[np.float64]
TICK = 100


def reference(rows: int, rng: np.random.Generator, name: str = "x") -> SignalProfile:
    x = rng.standard_normal(rows)
    return profiled(x, name)


def profiled(x: Array, name: str = "x", deflation: float = 1.0) -> SignalProfile:
    edges = np.quantile(x, np.linspace(0, 1, 11))
    counts = (0, *map(int, np.histogram(x, edges)[0]), 0, 0)
    return SignalProfile(
        name=name,
        kind="numeric",
        counts=counts,
        edges=tuple(edges.tolist()),
        deflation=deflation,
    )


def shares(signal: SignalProfile, mean: float = 0.0, spread: float = 1.0) -> Array:
    below = norm.cdf((np.array(signal.edges) - mean) / spread)
    q: Array = np.r_[below[0], np.diff(below), 1 - below[-1], 0.0]
    q /= q.sum()
    return q


def binned(signal: SignalProfile, x: Array, tick: int) -> NDArray[np.int64]:
    """Counts per tick of a stream of values: shape (ticks, bins)."""
    place = np.searchsorted(signal.edges, x, side="right")
    return np.stack([np.bincount(part, minlength=13) for part in place.reshape(-1, tick)])


def errors(wrong: int, n: int = TICK) -> Array:
    """One tick of 0/1 losses."""
    row = np.zeros(20)
    row[0], row[19] = n - wrong, wrong
    return row


def validated(rng: np.random.Generator, rows: int, error: float = 0.1) -> Validation:
    wrong = int(rng.binomial(rows, error))
    bins = (rows - wrong, *([0] * 18), wrong)
    return Validation(n=rows, loss_bins=bins, loss_scale=4.0, metrics={})


def test_a_bank_and_single_detectors_agree() -> None:
    rng = np.random.default_rng(1)
    signals = [reference(500, rng, name) for name in "xy"]
    tables = [distribution_table(s, tolerance_psi=0.0, delta=0.01) for s in signals]
    tables[1] = tables[1]._replace(deflation=3.0)
    tables.append(loss_table(validated(rng, 500), tolerance=0, delta=0.01))
    share = {"x": 0.3, "y": 0.3, "harm": 0.4}
    together = Bank(tables, share, alarms=1.0)
    single = {table.name: Detector(table) for table in tables}
    for _ in range(20):
        counts = {s.name: rng.multinomial(TICK, shares(s, 0.2)) for s in signals}
        counts["harm"] = errors(int(rng.binomial(TICK, 0.15))).astype(int)
        assert together.update(counts, 1e-20) == ()
        for name, row in counts.items():
            single[name].update(row, 1e-20)
    expected = {name: share[name] * d.evidence for name, d in single.items()}
    assert min(expected.values()) > 0
    assert together.levels() == pytest.approx(expected, rel=1e-9, abs=0)


def test_time_with_few_events_never_alarms() -> None:
    """A hundred years of one label a month: too few to tell, so age must not tell either."""
    rng = np.random.default_rng(2)
    table = loss_table(validated(rng, 2000), tolerance=0.0, delta=0.005)
    quiet = Bank([table], {"harm": 0.4}, alarms=1.0)
    for _ in range(1200):
        assert quiet.update({"harm": errors(int(rng.random() < 0.1), n=1)}, 1.0) == ()
    assert quiet.levels()["harm"] < 1200 / PERIOD_EVENTS


# --- false alarms -------------------------------------------------------------------------------


def test_at_the_exact_edge_of_the_null_about_half_the_budget_is_used() -> None:
    """Error 0.1 known, A = 100 ticks, 2,000 ticks: at most 20 alarms are expected, 4 at least."""
    runs, ticks = 40, 2000
    bets = mean_bets(np.array([0.0, 1.0]), 0.1, LOSS_STAKES / 0.1)
    names = [str(i) for i in range(runs)]
    weights = loss_table(validated(np.random.default_rng(3), 100), tolerance=0, delta=0.1).weights
    tables = [BetTable(name, bets, weights) for name in names]
    watch = Bank(
        tables,
        dict.fromkeys(names, 1 / runs),
        alarms=10.0 * runs,
        groups={name: name for name in names},
    )
    wrong = np.random.default_rng(3).binomial(TICK, 0.1, (ticks, runs))
    alarms = sum(
        len(watch.update({n: (TICK - k, k) for n, k in zip(names, row, strict=True)}, 0.001))
        for row in wrong
    )
    assert 4 <= alarms / runs <= 20


def test_stationary_models_with_dependent_features_stay_within_the_budget() -> None:
    """20 features a model, 8 of them correlated at 0.8; 20,000 events; budget 0.2 alarms."""
    rng = np.random.default_rng(4)
    models, features, ticks, alarms = 20, 20, 200, 0
    names = [str(i) for i in range(features)]
    for _ in range(models):
        signals = [reference(5000, rng, name) for name in names]
        watch = Bank(
            [distribution_table(s, tolerance_psi=0.0, delta=0.01 / features) for s in signals],
            dict.fromkeys(names, 1 / features),
            alarms=0.2,
        )
        x = rng.standard_normal((features, ticks * TICK))
        x[:8] = 0.8**0.5 * rng.standard_normal(ticks * TICK) + 0.2**0.5 * x[:8]
        rows = [binned(s, values, TICK) for s, values in zip(signals, x, strict=True)]
        for t in range(ticks):
            counts = {name: row[t] for name, row in zip(names, rows, strict=True)}
            alarms += len(watch.update(counts, 1 / ticks))
    assert alarms <= 0.2 * models + 3 * (0.2 * models) ** 0.5


@pytest.mark.parametrize("rows", [300, 1000])
def test_a_million_stable_events_keep_to_the_budget_and_no_evidence_grows_with_time(
    rows: int,
) -> None:
    rng = np.random.default_rng(5)
    ticks, tick, names = 4000, 250, [str(i) for i in range(10)]
    signals = [reference(rows, rng, name) for name in names]
    watch = Bank(
        [distribution_table(s, tolerance_psi=0.0, delta=0.01 / len(names)) for s in signals],
        dict.fromkeys(names, 1 / len(names)),
        alarms=float(len(names)),  # A = 4,000 ticks for each
        groups={name: name for name in names},
    )
    counts = [rng.multinomial(tick, shares(s), ticks) for s in signals]
    alarms = 0
    for t in range(ticks):
        row = {name: c[t] for name, c in zip(names, counts, strict=True)}
        alarms += len(watch.update(row, 1 / ticks))
        if t == 99:
            early = float(np.median(list(watch.levels().values())))
    assert alarms <= len(names)
    assert float(np.median(list(watch.levels().values()))) < 2 * early


@pytest.mark.parametrize(("inflation", "most"), [(1.0, 30), (19.0, 1)])
def test_deflation_keeps_an_autocorrelated_stream_quiet(inflation: float, most: int) -> None:
    """AR(1) with 0.9: all of 30 streams alarm without deflation, hardly one with it."""
    rng = np.random.default_rng(6)
    alarmed = 0
    for _ in range(30):
        noise = rng.standard_normal(25_000) * (1 - 0.81) ** 0.5
        x = noise.copy()
        for i in range(1, len(x)):
            x[i] += 0.9 * x[i - 1]
        signal = profiled(x[:5000], deflation=inflation)
        detector = Detector(distribution_table(signal, tolerance_psi=0.01, delta=0.01))
        rows = binned(signal, x[5000:], TICK)
        alarmed += any(detector.update(row, 1.0) >= 100 for row in rows)
    assert alarmed == most if inflation == 1 else alarmed <= most


# --- delays -------------------------------------------------------------------------------------


def delay(
    detector: Detector, before: Array, after: Array, rng: np.random.Generator, tick: int = TICK
) -> float:
    """Events from a change to evidence of 1,000 ticks of 100; inf if early or not in 10,000."""
    stable, changed = 5000 // tick, 10_000 // tick
    rows = np.vstack([rng.multinomial(tick, before, stable), rng.multinomial(tick, after, changed)])
    for i, row in enumerate(rows, start=1):
        if detector.update(row, growth=tick / 100) >= 1000:
            return float((i - stable) * tick) if i > stable else np.inf
    return np.inf


def with_nulls(signal: SignalProfile) -> Array:
    q: Array = 0.99 * shares(signal) + 0.01 * np.eye(13)[12]
    return q


@pytest.mark.parametrize(
    ("change", "most"),
    [
        pytest.param(lambda s: shares(s, 0.1), 3000, id="mean + 0.1 sd"),
        pytest.param(lambda s: shares(s, 0.2), 1000, id="mean + 0.2 sd"),
        pytest.param(lambda s: shares(s, 0.3), 400, id="mean + 0.3 sd"),
        pytest.param(lambda s: shares(s, 0.5), 200, id="mean + 0.5 sd"),
        pytest.param(lambda s: shares(s, 0.0, 1.5), 200, id="sd x 1.5"),
        pytest.param(with_nulls, 1500, id="1 % in a new bin"),
    ],
)
def test_a_change_of_distribution_is_found_in_time(
    change: Callable[[SignalProfile], Array], most: float
) -> None:
    """Median over 60 references of 5,000 rows."""
    rng = np.random.default_rng(7)
    delays = []
    for _ in range(60):
        signal = reference(5000, rng)
        detector = Detector(distribution_table(signal, tolerance_psi=0.0, delta=0.01))
        delays.append(delay(detector, shares(signal), change(signal), rng))
    assert np.median(delays) <= most


@pytest.mark.parametrize(("rows", "error", "most"), [(10_000, 0.15, 800), (10_000, 0.2, 300)])
def test_harm_is_found_in_time(rows: int, error: float, most: float) -> None:
    rng = np.random.default_rng(8)
    delays = []
    for _ in range(60):
        table = loss_table(validated(rng, rows), tolerance=0.0, delta=0.005)
        stable, harmed = errors(100, 1000) / 1000, errors(round(error * 1000), 1000) / 1000
        delays.append(delay(Detector(table), stable, harmed, rng))
    assert np.median(delays) <= most


@pytest.mark.parametrize(("error", "most"), [(0.15, 600), (0.2, 200)])
def test_harm_against_a_stated_objective_is_found_in_time(error: float, most: float) -> None:
    """The validation does not matter then: 300 rows are as good as any."""
    rng = np.random.default_rng(14)
    delays = []
    for _ in range(60):
        seen = validated(rng, 300)
        table = loss_table(seen, tolerance=0.0, delta=0.005, objective=0.1 * seen.loss_scale)
        stable, harmed = errors(100, 1000) / 1000, errors(round(error * 1000), 1000) / 1000
        delays.append(delay(Detector(table), stable, harmed, rng))
    assert np.median(delays) <= most


def test_harm_is_found_with_a_few_hundred_validation_rows() -> None:
    rng = np.random.default_rng(9)
    delays = [
        delay(
            Detector(loss_table(validated(rng, 300), tolerance=0.0, delta=0.005)),
            errors(100, 1000) / 1000,
            errors(300, 1000) / 1000,
            rng,
        )
        for _ in range(60)
    ]
    assert np.median(delays) <= 300


def test_shorter_ticks_with_less_growth_find_a_change_no_later() -> None:
    delays: dict[int, list[float]] = {100: [], 25: []}
    for tick, found in delays.items():
        rng = np.random.default_rng(10)
        for _ in range(100):
            signal = reference(5000, rng)
            detector = Detector(distribution_table(signal, tolerance_psi=0.0, delta=0.01))
            found.append(delay(detector, shares(signal), shares(signal, 0.2), rng, tick))
    assert np.median(delays[25]) <= np.median(delays[100])


# --- resolving ----------------------------------------------------------------------------------


def resolved(table: BetTable, q: Array, rng: np.random.Generator, ticks: int = 170) -> float:
    """Ticks until recovery is certain (evidence 1,000); inf if it is not."""
    detector = Detector(table)
    for i, row in enumerate(rng.multinomial(TICK, q, ticks), start=1):
        if detector.update(row, growth=1.0) >= 1000:
            return i
    return np.inf


def test_harm_resolves_when_it_is_over_and_not_while_it_lasts() -> None:
    """Validated 0.1, error 0.2 at the alarm; back to 0.1 within 10 ticks, at 0.2 never."""
    rng = np.random.default_rng(11)
    table = recovery_table(validated(rng, 10_000), 0.2, tolerance=0.0, delta=0.005)
    good, bad = errors(100, 1000) / 1000, errors(200, 1000) / 1000
    assert np.median([resolved(table, good, rng) for _ in range(60)]) <= 10
    assert min(resolved(table, bad, rng) for _ in range(60)) == np.inf


@pytest.mark.parametrize("shift", [0.5, -1.0, 3.0])
def test_drift_resolves_when_it_is_over_and_not_while_it_lasts(shift: float) -> None:
    rng = np.random.default_rng(12)
    signal = reference(2000, rng)
    table = signal_recovery_table(signal, rng.multinomial(1000, shares(signal, shift)))
    assert np.median([resolved(table, shares(signal), rng) for _ in range(30)]) <= 10
    assert min(resolved(table, shares(signal, shift), rng) for _ in range(30)) == np.inf


def test_a_flapping_error_opens_and_resolves_once_per_real_change() -> None:
    """Error 0.1 and 0.3 in turn, every 50 ticks, five times."""
    rng = np.random.default_rng(13)
    validation = validated(rng, 5000)
    harm = Detector(loss_table(validation, tolerance=0.0, delta=0.005))
    recovery, seen, changes = None, np.zeros(20), []
    for tick in range(500):
        bad = tick // 50 % 2 == 1
        row = errors(int(rng.binomial(TICK, 0.3 if bad else 0.1)))
        if recovery is None:
            seen = seen + row if harm.evidence > 1 else row
            if harm.update(row, 1.0) >= 1000:
                level = float(seen @ np.arange(20)) / 19 / seen.sum()
                table = recovery_table(validation, level, tolerance=0.0, delta=0.005)
                recovery = Detector(table)
                changes.append(tick // 50)
        elif recovery.update(row, 1.0) >= 1000:
            harm.reset()
            recovery = None
            changes.append(tick // 50)
    assert changes == list(range(1, 10))
