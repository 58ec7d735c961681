"""Series, markers and histograms: bounded, and true to what was measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.console import charts
from consumers.console.history import Drifted
from models.profile import SignalProfile
from models.state import Entry
from tests.consoles import HOUR, PROFILE, START, alert, command, drifted, held, measured


def test_a_series_is_the_champions_with_who_ran_beside_them() -> None:
    line = charts.series(
        [
            measured(0.9, hour=1),
            measured(0.8, hour=2),
            measured(0.85, hour=2, version=2, champion=False),
            measured(0.86, hour=3, version=2),
        ],
        "accuracy",
    )

    assert line.value == [0.9, 0.8, 0.86]
    assert line.version == [1, 1, 2]
    assert line.baseline == [0.91] * 3
    assert [(shadow.version, shadow.value) for shadow in line.shadows] == [(2, [None, 0.85, None])]


def test_a_window_without_labels_is_a_gap() -> None:
    line = charts.series([measured(0.9, hour=1), measured(hour=2, metrics={})], "accuracy")

    assert line.value == [0.9, None]


@given(n=st.integers(1, 3000), most=st.integers(2, 700))
def test_thinning_keeps_order_both_ends_and_the_limit(n: int, most: int) -> None:
    times = list(range(n))
    kept = charts.thinned(times, most)

    assert len(kept) <= most
    assert kept == sorted(set(kept))
    assert (kept[0], kept[-1]) == (0, n - 1)


def test_markers_say_what_happened_within_the_range() -> None:
    windows = [measured(hour=1), measured(hour=2, version=2), measured(hour=3, version=2)]
    found = charts.markers(
        windows,
        [command(hour=2), command("promote", hour=9, version=2)],
        [alert(opened_ms=START + 3 * HOUR)],
        [held(hour=3), held("clock", hour=9)],
        START + HOUR,
        START + 3 * HOUR,
    )

    assert [(m.kind, m.text) for m in found] == [
        ("version", "v1 → v2"),
        ("command", "retrain: loss above its bound"),
        ("alert", "performance harmed: what harm says"),
        ("held", "harm: the week's budget of 2 is spent"),
    ]


def test_signals_come_with_the_most_suspicious_first() -> None:
    past = [Drifted("age", 1, 0.1, 0.0, 0.0), Drifted("age", 2, 0.2, 0.0, 0.0)]
    rows = charts.drift_rows(
        [drifted("plan", 0.2), drifted("age", 1.0), drifted("prediction", 0.01)],
        past,
        ["age", "plan"],
    )

    assert [(r.signal, r.level, r.kind) for r in rows] == [
        ("age", "alarm", "feature"),
        ("plan", "rising", "feature"),
        ("prediction", "quiet", "prediction"),
    ]
    assert rows[0].spark == [0.1, 0.2]


def test_a_histogram_is_on_the_references_bins_and_adds_up() -> None:
    age = PROFILE.signals[0]
    bins = charts.histogram(age, [0, 100, 300, 600, 0, 25])

    assert [b.label for b in bins] == ["18 to 30", "30 to 50", "50 to 90", "no value"]
    assert sum(b.reference_share for b in bins) == pytest.approx(1)
    assert sum(b.live_share for b in bins) == pytest.approx(1)


def test_counts_on_other_bins_are_not_drawn() -> None:
    with pytest.raises(ValueError, match="3 counts on 6 bins of 'age'"):
        charts.histogram(PROFILE.signals[0], [1, 2, 3])


def test_categories_are_named() -> None:
    plan = SignalProfile(name="p", kind="categorical", counts=(1, 2, 0), categories=("a",))

    assert charts.bin_labels(plan) == ["a", "never seen before", "no value"]


def test_reigns_follow_the_champion_not_the_generation() -> None:
    def generation(number: int, champion: int | None) -> Entry:
        return Entry(
            model="churn", generation=number, action="x", champion=champion, challengers=[],
            previous=None, probation=False, pinned=False, spec_revision=1, changed_ms=number * 10,
        )  # fmt: skip

    found = charts.reigns([generation(i, c) for i, c in enumerate((None, 1, 1, 2, 1), start=1)])

    assert [(r.version, r.start_ms, r.end_ms) for r in found] == [
        (1, 20, 40),
        (2, 40, 50),
        (1, 50, None),
    ]
