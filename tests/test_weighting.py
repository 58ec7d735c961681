"""Figures that late labels would bias: weighted, they are what they will be when all have come."""

from __future__ import annotations

import numpy as np
import pytest

from models.spec import Feature, Labels, ModelSpec, Ticks, Window
from stream.core.delays import Curve, ages, labelled_by
from stream.core.lateness import EDGES, lateness_bin
from stream.core.weighting import Weighted, weighted
from stream.core.windows import Cell, plans
from stream.events import MICRO, Outcomes, SummaryComputed

HOUR_MS = 3_600_000
SPEC = ModelSpec(
    name="m",
    task="binary",
    classes=("no", "yes"),
    features=(Feature(name="x"),),
    windows=(Window(seconds=86_400.0),),
    labels=Labels(horizon_seconds=30 * 86_400.0, complete_seconds=20 * 86_400.0),
    ticks=Ticks(seconds=3600.0),
)
AGES = ages(SPEC, plans(SPEC))
NOW = 24 * 60  # hours

# Labels that say yes come ten times as fast: 90 % of them within a day, and 20 % of the others.
YES_SHARE, WRONG, MEAN_HOURS = 0.2, (0.0335, 0.37), (104.0, 10.4)
TRUTH = 1 - (YES_SHARE * WRONG[1] + (1 - YES_SHARE) * WRONG[0])  # 0.899


def hour(tick: int, n: int, as_of: int, draw: np.random.Generator) -> SummaryComputed:
    """Predictions of one hour, and the labels of them that have come by the end of another."""
    true = (draw.random(n) < YES_SHARE).astype(int)
    wrong = draw.random(n) < np.array(WRONG)[true]
    predicted = true ^ wrong
    delay = draw.exponential(np.array(MEAN_HOURS)[true])
    came = tick + draw.random(n) + delay < as_of + 1
    outcomes, arrivals = {}, {}
    for p in (0, 1):
        for t in (0, 1):
            these = came & (predicted == p) & (true == t)
            if count := int(these.sum()):
                right = {"correct": count * MICRO * (p == t)}
                outcomes[f"{p}/{t}"] = Outcomes(n=count, sums=right, squares=right)
                late = lateness_bin((delay[these] * HOUR_MS).astype(np.int64))
                bins, counts = np.unique(late, return_counts=True)
                arrivals[f"{p}/{t}"] = {str(b): int(c) for b, c in zip(bins, counts, strict=True)}
    return SummaryComputed(
        model="m",
        version=1,
        tick=tick,
        partition=0,
        predictions=n,
        predicted={str(p): int((predicted == p).sum()) for p in (0, 1)},
        labelled=int(came.sum()),
        outcomes=outcomes,
        arrivals=arrivals,
        latest=as_of if came.any() else None,
    )


def history(draw: np.random.Generator, n: int = 200) -> Curve:
    curve = Curve()
    for tick in range(NOW - 24 * 40, NOW):
        curve.add(hour(tick, n, NOW, draw), AGES, closed=tick)
    return curve


def cell(delta: SummaryComputed) -> Cell:
    made = Cell(delta.tick, delta.tick + 1)
    made.add(delta, signals=False)
    return made


def day_old(draw: np.random.Generator, n: int = 20_000) -> Cell:
    return cell(hour(NOW - 24, n, NOW, draw))


def raw(some: Cell) -> float:
    return sum(one.sums["correct"] for one in some.outcomes.values()) / MICRO / some.labelled


def weigh(curve: Curve, *cells: Cell) -> Weighted | None:
    return weighted(cells, curve.known(AGES, NOW), AGES, NOW)


def test_where_positives_are_labelled_ten_times_as_fast_the_weighted_figure_is_the_truth() -> None:
    draw = np.random.default_rng(1)
    told = day_old(draw)
    found = weigh(history(draw), told)
    assert found is not None
    accuracy = found.measures["correct"]
    assert pytest.approx(0.899, abs=0.001) == TRUTH
    assert raw(told) == pytest.approx(0.79, abs=0.01)
    assert accuracy.value == pytest.approx(TRUTH, abs=0.01)
    assert accuracy.low is not None
    assert accuracy.high is not None
    assert accuracy.low < TRUTH < accuracy.high
    assert found.share == 1.0


@pytest.mark.parametrize(("hourly", "window"), [(200, 3_000), (4, 10_000)])
def test_the_interval_covers_the_truth_as_often_as_it_says(hourly: int, window: int) -> None:
    """Also where few labels tell how late labels come, which it must make up for."""
    draw = np.random.default_rng(2)
    covered = []
    for _ in range(10):
        curve = history(draw, n=hourly)
        for _ in range(12):
            found = weigh(curve, day_old(draw, n=window))
            assert found is not None
            _, low, high = found.measures["correct"]
            covered.append(low is not None and high is not None and low < TRUTH < high)
    assert np.mean(covered) >= 0.92


def test_hours_that_are_too_young_are_left_out_by_their_age_alone() -> None:
    draw = np.random.default_rng(3)
    curve = history(draw)
    young = cell(hour(NOW - 2, 20_000, NOW, draw))
    found = weigh(curve, young, day_old(draw))
    assert found is not None
    assert found.share == 0.5
    assert found.measures["correct"].value == pytest.approx(TRUTH, abs=0.01)
    assert weigh(curve, young) is None


def test_without_complete_predictions_nothing_is_weighted() -> None:
    draw = np.random.default_rng(4)
    curve = Curve()
    for tick in range(NOW - 24 * 10, NOW):
        curve.add(hour(tick, 50, NOW, draw), AGES, closed=tick)
    assert weigh(curve, day_old(draw)) is None


def test_how_soon_labels_come_is_learnt_from_complete_predictions_by_what_the_label_says() -> None:
    known = history(np.random.default_rng(5)).known(AGES, NOW)
    for stratum, expected in (("0/0", 0.2), ("1/1", 0.9), ("0/1", 0.9)):
        counts = known.of(stratum)
        assert counts is not None
        assert labelled_by(counts, np.array([86_400.0]))[0] == pytest.approx(expected, abs=0.03)


def test_the_delay_curve_counts_those_who_still_wait() -> None:
    """Kaplan-Meier: young predictions without a label say that it takes at least their age."""
    curve = history(np.random.default_rng(6))
    told = curve.survival(AGES, NOW)[""]
    day = int(np.searchsorted(EDGES, 86_400))
    expected = YES_SHARE * 0.9 + (1 - YES_SHARE) * 0.2
    assert told.shares[day - 1] == pytest.approx(expected, abs=0.03)
    assert told.labelled < told.predictions


def test_what_was_known_at_a_tick_stays_what_it_was() -> None:
    """Neither later deltas nor forgetting old predictions changes what is told as of a tick."""
    draw = np.random.default_rng(7)
    curve = history(draw, n=20)
    as_of = NOW - 3
    before = (_plain(curve, as_of), curve.survival(AGES, as_of))
    for tick in range(NOW, NOW + 3):
        curve.add(hour(tick, 20, NOW + 3, draw), AGES, closed=tick)
    curve.forget(NOW, AGES)
    assert (_plain(curve, as_of), curve.survival(AGES, as_of)) == before
    held = len(curve.cohorts)
    curve.add(hour(NOW - 24 * 40, 20, NOW, draw), AGES, closed=NOW)
    assert len(curve.cohorts) == held


def _plain(curve: Curve, as_of: int) -> dict[str, list[int]]:
    return {name: row.tolist() for name, row in curve.known(AGES, as_of).counts.items()}
