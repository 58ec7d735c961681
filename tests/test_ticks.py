"""Ticks: added up in any order, closed in order, grouped until there are enough events."""

from __future__ import annotations

from stream.core.ticks import Pending, Tick, added_pairs
from stream.events import Pairs, SummaryComputed


def delta(tick: int, **fields: object) -> SummaryComputed:
    return SummaryComputed(model="m", version=1, tick=tick, partition=0, **fields)  # type: ignore[arg-type]


def test_counts_of_two_partitions_add_up_in_any_order() -> None:
    one = delta(5, predictions=2, signals={"x": [1, 1]}, bets=[1], pairs={"2": Pairs(n=1, d_sum=7)})
    other = delta(5, predictions=1, signals={"x": [0, 1], "y": [1]}, pairs={"2": Pairs(n=2)})
    pending, reverse = Pending(), Pending()
    for part in (one, other):
        pending.add(part, closed=0)
    for part in (other, one):
        reverse.add(part, closed=0)
    assert pending == reverse
    assert pending.open[5] == Tick(3, {"x": [1, 2], "y": [1]}, [1], {"2": Pairs(n=3, d_sum=7)})


def test_small_ticks_wait_for_company_and_gaps_are_part_of_the_group() -> None:
    pending = Pending(open={n: Tick(predictions=10) for n in (1, 2, 9)})
    groups = list(pending.close(5, tick_ms=100, minimum_events=25))
    assert groups == []
    (group,) = pending.close(10, tick_ms=100, minimum_events=25)
    assert (group.start_ms, group.end_ms, group.counts.predictions) == (100, 1000, 30)


def test_grouping_is_the_same_when_ticks_are_closed_one_by_one_or_all_at_once() -> None:
    sizes = {1: 30, 2: 5, 3: 100, 4: 20, 6: 20, 7: 60}
    at_once = Pending(open={n: Tick(predictions=size) for n, size in sizes.items()})
    by_one = Pending(open={n: Tick(predictions=size) for n, size in sizes.items()})
    expected = list(at_once.close(10, tick_ms=1, minimum_events=50))
    assert [
        group for until in range(11) for group in by_one.close(until, tick_ms=1, minimum_events=50)
    ] == expected
    assert [group.counts.predictions for group in expected] == [135, 100]


def test_labels_alone_fill_a_group() -> None:
    """Traffic has ended, its labels still come: they are judged."""
    pending = Pending(open={1: Tick(bets=[20, 10])})
    assert len(list(pending.close(2, tick_ms=1, minimum_events=30))) == 1


def test_late_labels_are_judged_in_the_first_open_tick_and_late_predictions_nowhere() -> None:
    pending = Pending()
    pending.add(delta(3, predictions=4, signals={"x": [4]}, bets=[0, 2]), closed=8)
    pending.add(delta(3, predictions=4, signals={"x": [4]}), closed=8)
    assert pending.open == {8: Tick(bets=[0, 2])}


def test_a_discarded_tick_is_gone_and_later_ones_stay() -> None:
    pending = Pending(open={1: Tick(predictions=1), 5: Tick(predictions=1)})
    list(pending.close(2, tick_ms=1, minimum_events=10))
    pending.discard(3)
    assert pending == Pending(open={5: Tick(predictions=1)}, waiting_since=1)


def test_pairs_add_up_field_by_field() -> None:
    one = Pairs(n=1, d_sum=-2, d_squares=3, losses=4, shadow_losses=5)
    assert added_pairs(one, one) == Pairs(n=2, d_sum=-4, d_squares=6, losses=8, shadow_losses=10)
