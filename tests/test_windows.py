"""Windows: they slide by cells, and are told again when late labels change them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import Feature, Labels, ModelSpec, Ticks, Window
from stream.core.windows import MAX_CELLS, Plan, Published, Series, plans
from stream.events import SummaryComputed

TIME = Plan("40s", cell=2, length=4, cell_labels=0, labels=0, keep=6)
LABELS = Plan("10 labels", cell=0, length=0, cell_labels=4, labels=10, keep=6)


def delta(
    tick: int,
    predictions: int = 0,
    labelled: int = 0,
    arrived: int = 0,
    latest: int | None = None,
) -> SummaryComputed:
    return SummaryComputed(
        model="m",
        version=1,
        tick=tick,
        partition=0,
        predictions=predictions,
        labelled=labelled,
        sums={"correct": labelled} if labelled else {},
        signals={"x": [predictions]} if predictions else {},
        bets=[arrived] if arrived else [],
        latest=latest,
    )


def told(series: Series, closed: int, plan: Plan) -> list[tuple[int, int, int, int]]:
    """(start, end, predictions, revision) of what is published."""
    return [_told(window) for window in series.due(closed, plan)]


def _told(window: Published) -> tuple[int, int, int, int]:
    total = window.total
    return total.start, total.end, total.predictions, window.revision


def test_a_window_of_seconds_is_told_when_its_last_cell_is_complete() -> None:
    series = Series()
    for tick in range(10, 15):
        series.add(delta(tick, predictions=1), TIME, closed=10, signals=True)
    assert told(series, 11, TIME) == []
    assert told(series, 14, TIME) == [(8, 12, 2, 0), (10, 14, 4, 0)]
    assert told(series, 15, TIME) == []
    assert told(series, 16, TIME) == [(12, 16, 3, 0)]


def test_late_labels_restate_every_window_that_holds_their_tick_and_no_other() -> None:
    series = Series()
    for tick in range(10, 18):
        series.add(delta(tick, predictions=1), TIME, closed=10, signals=True)
    told(series, 16, TIME)
    series.add(delta(11, labelled=1), TIME, closed=16, signals=True)
    assert told(series, 17, TIME) == []  # restated when the next cell ends, not with every label
    again = list(series.due(18, TIME))
    assert [_told(window) for window in again] == [
        (8, 12, 2, 1),
        (10, 14, 4, 1),
        (14, 18, 4, 0),
    ]
    assert [window.total.labelled for window in again] == [1, 1, 0]


def test_a_window_of_labels_reaches_back_until_it_holds_them() -> None:
    series = Series()
    for tick in range(8):
        series.add(
            delta(tick, predictions=3, labelled=2, arrived=2), LABELS, closed=0, signals=True
        )
    assert told(series, 8, LABELS) == [(0, 2, 6, 0), (0, 4, 12, 0), (0, 6, 18, 0), (2, 8, 18, 0)]
    series.add(delta(8, labelled=2, arrived=4), LABELS, closed=8, signals=True)
    assert told(series, 9, LABELS) == [(4, 9, 12, 0)]


def test_a_small_tick_waits_for_labels_before_a_window_of_labels_is_told() -> None:
    series = Series()
    series.add(delta(0, predictions=3, labelled=3, arrived=3), LABELS, closed=0, signals=True)
    assert told(series, 1, LABELS) == []
    series.add(delta(5, predictions=1, labelled=1, arrived=1), LABELS, closed=1, signals=True)
    assert told(series, 6, LABELS) == [(0, 6, 4, 0)]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.integers(0, 3)), max_size=40),
    st.lists(st.integers(1, 40), max_size=5),
    st.sampled_from([TIME, LABELS]),
)
def test_closing_in_more_steps_ends_in_the_same_windows(
    traffic: list[tuple[int, int, int]], stops: list[int], plan: Plan
) -> None:
    last = []
    for steps in ([], sorted(stops)):
        series, windows = Series(), {}
        for tick, predictions, labelled in traffic:
            one = delta(tick, predictions, labelled, arrived=labelled)
            series.add(one, plan._replace(keep=1000), closed=0, signals=True)
        for closed in [*steps, 100]:
            for window in series.due(closed, plan._replace(keep=1000)):
                windows[window.total.end] = msgspec.json.encode(window.total)
        last.append(windows)
    assert last[0] == last[1]


def test_cells_are_forgotten_when_labels_can_no_longer_come_and_later_ones_change_nothing() -> None:
    series = Series()
    for tick in (1, 20):
        series.add(delta(tick, predictions=1), TIME, closed=0, signals=True)
    told(series, 22, TIME)
    assert [cell.start for cell in series.cells] == [20]
    series.add(delta(1, labelled=1), TIME, closed=22, signals=True)
    assert [cell.start for cell in series.cells] == [20]
    assert not series.is_over(22, TIME)
    assert series.is_over(40, TIME)


def test_cells_are_bounded_however_long_labels_may_take() -> None:
    series, plan = Series(), LABELS._replace(cell_labels=1, keep=10**9)
    for tick in range(2 * MAX_CELLS):
        series.add(delta(tick, predictions=1, labelled=1, arrived=1), plan, tick, signals=True)
        list(series.due(tick + 1, plan))
    assert len(series.cells) <= MAX_CELLS


class Holding(Series, omit_defaults=True):
    """Forgets no cell of windows of labels."""

    def _first_needed(self, oldest: int, labels: int) -> int:
        return 0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),  # ticks that close
            st.lists(st.tuples(st.integers(-9, 3), st.integers(0, 4), st.integers(0, 4))),
            st.integers(-1, 20),  # how many ticks ahead the labels come
        ),
        max_size=40,
    )
)
def test_windows_of_labels_are_told_as_if_no_cell_were_forgotten(
    traffic: list[tuple[int, list[tuple[int, int, int]], int]],
) -> None:
    some, all_, closed = Series(), Holding(), 10
    for ticks, deltas, ahead in traffic:
        for since, predictions, labelled in deltas:
            one = delta(closed + since, predictions, labelled, labelled, latest=closed + ahead)
            some.add(one, LABELS, closed, signals=True)
            all_.add(one, LABELS, closed, signals=True)
        closed += ticks
        assert list(some.due(closed, LABELS)) == list(all_.due(closed, LABELS))


def test_cells_of_windows_of_labels_are_held_while_a_window_may_need_them() -> None:
    series = Series()
    for tick in range(100):
        series.add(delta(tick, predictions=4, labelled=4, arrived=4), LABELS, tick, signals=True)
        told(series, tick + 1, LABELS)
    assert [cell.start for cell in series.cells] == list(range(91, 100))  # 6, and 12 labels before


@pytest.mark.parametrize(
    ("tick_seconds", "window", "horizon_days", "expected"),
    [
        (86_400, Window(seconds=28 * 86_400), 2, ("2419200s", 1, 28)),
        (30, Window(seconds=86_400), 30, ("86400s", 480, 2880)),
        (30, Window(seconds=3600), 30, ("3600s", 120, 120)),
        (60, Window(seconds=10), 1, ("10s", 1, 1)),
        (30, Window(seconds=0.5), 1, ("0.5s", 1, 1)),
    ],
)
def test_a_window_is_cut_into_whole_cells_of_whole_ticks(
    tick_seconds: float, window: Window, horizon_days: float, expected: tuple[str, int, int]
) -> None:
    spec = ModelSpec(
        name="m",
        task="regression",
        features=(Feature(name="x"),),
        windows=(window,),
        ticks=Ticks(seconds=tick_seconds),
        labels=Labels(horizon_seconds=horizon_days * 86_400),
    )
    (plan,) = plans(spec)
    assert (plan.name, plan.cell, plan.length) == expected


def test_a_window_that_grows_over_one_told_before_counts_its_revisions_on() -> None:
    """Two words on the same window and end never have the same revision, so neither the same id."""
    series = Series()
    series.add(delta(12, predictions=4, labelled=4, arrived=4), LABELS, closed=12, signals=True)
    first = told(series, 13, LABELS)
    series.add(delta(10, predictions=1), LABELS, closed=13, signals=True)  # late, into a gap before
    again = told(series, 13 + 100, LABELS)

    assert [(end, revision) for _, end, _, revision in (*first, *again)] == [(13, 0), (13, 1)]


@given(
    st.lists(
        st.tuples(st.integers(-8, 3), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40
    ),
    st.sampled_from([TIME, LABELS]),
)
def test_no_two_words_on_a_window_have_the_same_end_and_revision(
    events: list[tuple[int, int, int]], plan: Plan
) -> None:
    series, words = Series(), []
    for closed, (behind, predictions, labels) in enumerate(events, start=20):
        more = delta(closed + behind, predictions, labels, arrived=labels)
        series.add(more, plan, closed, signals=True)
        words += [(window.total.end, window.revision) for window in series.due(closed, plan)]
    words += [(w.total.end, w.revision) for w in series.due(20 + len(events) + 200, plan)]

    assert len(words) == len(set(words))


def test_what_became_of_labels_that_fit_nothing_is_told_with_the_window_it_happened_in() -> None:
    """Orphans, duplicates, conflicts and what was closed unlabelled; refused records are not."""
    series = Series()
    series.add(delta(10, predictions=1), TIME, closed=10, signals=True)
    found = {"orphans": 2, "expired": 1, "refused:feedback:bad-data": 7}
    more = msgspec.structs.replace(delta(11), counters=found)
    series.add(more, TIME, closed=10, signals=True)
    (window,) = series.due(12, TIME)
    assert window.total.counters == {"orphans": 2, "expired": 1}
    again = msgspec.structs.replace(delta(11), counters={"orphans": 1})
    series.add(again, TIME, closed=12, signals=True)
    restated = [one.total.counters["orphans"] for one in series.due(14, TIME)]
    assert restated[0] == 3


def test_labels_of_ticks_that_are_still_open_have_their_window_told_again() -> None:
    """Another partition may yet bring labels of those ticks: what is told last knows them all."""
    series = Series()
    for tick in range(10, 15):
        series.add(delta(tick, predictions=1), TIME, closed=10, signals=True)
    ahead = msgspec.structs.replace(delta(11, labelled=1), latest=17)
    series.add(ahead, TIME, closed=12, signals=True)
    assert told(series, 14, TIME) == [(8, 12, 2, 0), (10, 14, 4, 0)]
    assert told(series, 16, TIME)[:2] == [(8, 12, 2, 1), (10, 14, 4, 1)]
    assert told(series, 18, TIME)[:2] == [(8, 12, 2, 2), (10, 14, 4, 2)]
    assert (8, 12, 2, 3) not in told(series, 20, TIME)
