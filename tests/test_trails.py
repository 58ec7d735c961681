"""Where counts came from: ranges that hold every record, in bounded space."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream.core.trails import MARKS, Trail


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), min_size=1, max_size=400))
def test_a_range_holds_every_record_of_every_group_it_is_asked_for(
    groups: list[tuple[int, int]],
) -> None:
    trail, at, told = Trail(), 0, []
    for number, (partition, records) in enumerate(groups):
        offsets = {f"predictions/{partition}": (at, at + records)}
        trail.add(number * 10, number * 10 + 10, offsets)
        told.append((partition, at, at + records))
        at += records
    for since in range(0, len(groups), 7):
        found = trail.between(since * 10, len(groups) * 10)
        for partition, first, end in told[since:]:
            low, high = found[f"predictions/{partition}"]
            assert low <= first
            assert high >= end


def test_recent_groups_are_told_apart_and_old_ones_take_little_room() -> None:
    trail = Trail()
    for number in range(10_000):
        trail.add(number, number + 1, {"predictions/0": (number, number + 1)})
    assert trail.between(9_998, 10_000) == {"predictions/0": (9_998, 10_000)}
    assert len(trail.marks) <= 14 * (MARKS + 1)
    assert sum(mark.size for mark in trail.marks) == 10_000
