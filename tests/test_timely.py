"""Harm by late labels: impatience is no harm, and weights that are a little wrong do not matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.core.bets import LOSS_STAKES, LOSS_VALUES, BetTable, mean_bets, table_of
from stream.core.delays import Delays
from stream.core.detector import Detector
from stream.core.lateness import BINS, EDGES, judged_on, judging_bin
from stream.core.timely import (
    HEAVIEST,
    guarded,
    on_nodes,
    timely_table,
    weighed,
    weight_of,
    weights,
)
from stream.events import LOSS_BINS

Floats = NDArray[np.float64]
DAY = 86_400.0
ALARM, TICK, EVENTS = 1_000.0, 100, 20_000
ONE, NONE = LOSS_BINS - 1, 0  # bins of an error and of none

# Of what is positive 90 % is labelled by the judging age, of the rest 20 %: labels that are there
# are wrong twice as often as all are.
LABELLED = {"0": 0.2, "1": 0.9}
POSITIVE, BOUND = 0.2, 0.105
CALM, HARMED = (0.0335, 0.37), (0.085, 0.42)  # share of errors where negative, positive


def tick(wrong: tuple[float, float], draw: np.random.Generator) -> dict[str, list[int]]:
    """What is judged of a hundred predictions: labels by loss bin, by stratum."""
    judged: dict[str, list[int]] = {}
    for true in (draw.random(TICK) < POSITIVE).astype(int).tolist():
        if draw.random() < LABELLED[str(true)]:
            is_wrong = draw.random() < wrong[true]
            row = judged.setdefault(f"{true ^ is_wrong}/{true}", [0] * LOSS_BINS)
            row[ONE if is_wrong else NONE] += 1
    return judged


def alarms(
    streams: int,
    wrong: tuple[float, float],
    rho: float = 0.0,
    off: Mapping[str, float] | None = None,
) -> list[int | None]:
    """The tick in which each of so many streams of 20,000 events alarms.

    Args:
        off: by true stratum, the factor by which the chance of being labelled is taken wrong.
    """
    used = {
        f"/{true}": 1 / (share * (off or {}).get(true, 1.0)) for true, share in LABELLED.items()
    }
    edge = guarded(BOUND, rho)
    table = timely_table(edge, deflation=1.0, name="harm")
    told = []
    for seed in range(streams):
        draw, detector = np.random.default_rng(seed), Detector(table)
        counts = (on_nodes(tick(wrong, draw), used, edge) for _ in range(EVENTS // TICK))
        told.append(first(detector, counts))
    return told


def first(detector: Detector, ticks: Iterator[list[float]]) -> int | None:
    for number, counts in enumerate(ticks):
        if detector.update(counts, growth=1.0) >= ALARM:
            return number
    return None


def found(told: list[int | None]) -> int:
    return sum(one is not None for one in told)


def test_a_test_that_takes_labels_as_they_come_calls_impatience_harm() -> None:
    """Or this page would be about nothing: at the true error below the bound, it always alarms."""
    rows = mean_bets(LOSS_VALUES, BOUND, LOSS_STAKES / BOUND)
    table, told = table_of("harm", rows, LOSS_STAKES**-0.5, 1.0), []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        counts = (
            np.sum([*tick(CALM, draw).values()], axis=0).astype(float).tolist()
            for _ in range(EVENTS // TICK)
        )
        told.append(first(Detector(table), counts))
    assert found(told) >= 19


def test_labels_weighted_by_what_they_stand_for_keep_the_budget_and_find_harm() -> None:
    """At most (events / tick) / ALARM = 0.2 false alarms a stream are allowed."""
    assert found(alarms(40, CALM)) <= 0.2 * 40
    told = alarms(20, HARMED)
    assert found(told) >= 19
    assert np.median([EVENTS if one is None else one * TICK for one in told]) <= 4_000


def test_chances_that_are_ten_per_cent_wrong_keep_the_budget_with_the_guard_only() -> None:
    """Positives are taken for less often labelled than they are, and the rest for more often."""
    off = {"1": 0.9, "0": 1.1}
    assert found(alarms(40, CALM, rho=0.1, off=off)) <= 0.2 * 40
    assert found(alarms(20, CALM, off=off)) > found(alarms(20, CALM))


@pytest.mark.parametrize("edge", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("below", [False, True])
def test_no_law_within_the_null_is_paid_for_however_late_its_labels_are(
    edge: float, below: bool
) -> None:
    """The payment is linear in the law, so the worst has two atoms; all pairs are tried."""
    table = timely_table(edge, below=below, deflation=1.0, name="harm")
    for pi in product((1 / HEAVIEST, 0.35, 1.0), repeat=2):
        assert worst(table, edge, pi, pi, below=below) <= 1 + 1e-9


@pytest.mark.parametrize("signs", [*product((-1, 1), repeat=2)])
def test_the_guard_holds_for_chances_that_are_wrong_by_its_share(signs: tuple[int, int]) -> None:
    bound, rho, true = 0.1, 0.1, (0.3, 0.8)
    edge = guarded(bound, rho)
    taken = (true[0] * (1 + rho * signs[0]), true[1] * (1 + rho * signs[1]))
    table = timely_table(edge, deflation=1.0, name="harm")
    assert worst(table, bound, true, taken, edge=edge) <= 1 + 1e-9
    if signs == (1, -1):
        unguarded = timely_table(bound, deflation=1.0, name="harm")
        assert worst(unguarded, bound, true, taken) > 1


def worst(
    table: BetTable,
    bound: float,
    true: tuple[float, ...],
    taken: tuple[float, ...],
    *,
    edge: float | None = None,
    below: bool = False,
) -> float:
    """The largest mean payment of any bet over laws of stratum and loss with a mean loss at bound.

    Args:
        true: the chances to be labelled, by stratum.
        taken: what they are taken for.
    """
    paid = []
    for stratum, (chance, used) in enumerate(zip(true, taken, strict=True)):
        for b in range(LOSS_BINS):
            row = [0] * LOSS_BINS
            row[b] = 1
            name = f"{stratum}/{stratum}"
            counts = on_nodes({name: row}, {name: 1 / used}, bound if edge is None else edge)
            paid.append(chance * np.exp(table.log_bets @ np.array(counts)) + 1 - chance)
    pays, losses = np.array(paid), np.tile(LOSS_VALUES, len(true))
    low, high = losses <= bound + 1e-12, losses >= bound - 1e-12
    most = float(pays[high if below else low].max())
    for i, j in product(np.flatnonzero(losses < bound), np.flatnonzero(losses > bound)):
        share = (bound - losses[i]) / (losses[j] - losses[i])
        most = max(most, float((share * pays[j] + (1 - share) * pays[i]).max()))
    return most


def delays(**counts: tuple[int, int]) -> Delays:
    """Labels by stratum: so many within a day, so many later."""
    rows = {}
    for name, (soon, late) in counts.items():
        row = np.zeros(BINS, dtype=np.int64)
        row[judging_bin(DAY) - 1], row[judging_bin(DAY)] = soon, late
        rows[name.replace("_", "/").strip("/")] = row
    return Delays(rows)


def test_a_label_weighs_what_it_stands_for_by_the_judging_age_exactly() -> None:
    told = weights(delays(_0_0=(200, 800), _1_1=(900, 100), _0_1=(9, 1)), DAY)
    assert told is not None
    assert weight_of(told, "0/0") == pytest.approx(5.0)
    assert weight_of(told, "1/1") == pytest.approx(1 / 0.9)
    assert weight_of(told, "0/1") == pytest.approx(1 / 0.9)  # few of its own: that of its label
    assert weight_of(told, "1/0") == pytest.approx(5.0)
    rest = [0] * (LOSS_BINS - 2)
    assert weighed({"0/0": [0, 3, *rest], "1/1": [9, 0, *rest]}, told)[:2] == [10, 15]


def test_without_knowledge_or_with_too_few_labels_by_then_nothing_is_judged() -> None:
    assert weights(delays(), DAY) is None
    assert weights(delays(_0_0=(1, 9)), DAY) is None  # ten labels tell nothing
    assert weights(delays(_0_0=(100, 900), _1_1=(900, 100)), DAY) is None


def test_a_prediction_is_judged_in_a_tick_that_begins_when_it_has_the_age() -> None:
    bin_ = judging_bin(DAY)
    age_ms = int(EDGES[bin_]) * 1000
    for predicted_ms in (0, 1, 12_345_678):
        start_ms = judged_on(predicted_ms, bin_, 30_000) * 30_000
        assert predicted_ms + age_ms <= start_ms <= predicted_ms + age_ms * 33 / 32 + 30_000
    ticks = {judged_on(n * 60_000, bin_, 30_000) for n in range(24 * 60)}
    assert len(ticks) <= 34  # so that few are open at a time
