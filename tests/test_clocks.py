"""The watermark: as far as is certain, and never back."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from stream.core.clocks import IDLE_MARGIN_MS, Clocks, TopicClock

STAMPS = st.lists(st.integers(0, 1000), max_size=20)


def two(first: list[int], second: list[int]) -> Clocks:
    clocks = Clocks.of(("predictions", "feedback"))
    clocks.topics["predictions"].observe(first)
    clocks.topics["feedback"].observe(second)
    return clocks


def test_the_slower_topic_holds_the_watermark() -> None:
    clocks = two([100, 200, 300], [100, 150])
    assert clocks.advance(lateness_ms=10, held_ms=None, ceiling_ms=None) == 90


def test_a_topic_that_nobody_heard_of_yet_holds_the_watermark_at_zero() -> None:
    assert two([100, 200], []).advance(lateness_ms=0, held_ms=None, ceiling_ms=None) == 0


@given(STAMPS, st.integers(0, 20), st.integers(1000, 10**15))
def test_one_future_stamp_moves_no_clock(stamps: list[int], place: int, future: int) -> None:
    stamps = sorted(stamps)
    clock = TopicClock()
    clock.observe([*stamps[:place], future, *stamps[place:]])
    assert clock.now_ms <= max(stamps, default=0)


@given(STAMPS, st.integers(0, 20))
def test_a_clock_does_not_depend_on_how_records_are_cut_into_batches(
    stamps: list[int], cut: int
) -> None:
    whole, pieces = TopicClock(), TopicClock()
    whole.observe(stamps)
    pieces.observe(stamps[:cut])
    pieces.observe(stamps[cut:])
    assert whole == pieces


@given(STAMPS)
def test_no_later_record_of_an_ordered_topic_is_before_its_clock(stamps: list[int]) -> None:
    clock = TopicClock()
    for stamp in sorted(stamps):
        assert stamp >= clock.now_ms
        clock.observe([stamp])


def test_an_idle_topic_is_as_far_as_the_wall_clock_less_a_margin_for_the_brokers() -> None:
    clocks = two([100_000, 200_000], [])
    clocks.idle(150_000)
    watermark = clocks.advance(lateness_ms=500, held_ms=None, ceiling_ms=150_000)
    assert watermark == 150_000 - IDLE_MARGIN_MS - 500


def test_a_waiting_record_holds_the_watermark() -> None:
    clocks = two([100, 200, 300], [100, 200, 300])
    assert clocks.advance(lateness_ms=10, held_ms=150, ceiling_ms=None) == 140


def test_no_stamp_takes_the_watermark_beyond_the_wall_clock() -> None:
    clocks = two([10**15, 10**15], [10**15, 10**15])
    assert clocks.advance(lateness_ms=0, held_ms=None, ceiling_ms=500) == 500


def test_the_watermark_never_goes_back() -> None:
    clocks = two([100, 200], [100, 200])
    assert clocks.advance(lateness_ms=0, held_ms=None, ceiling_ms=None) == 100
    assert clocks.advance(lateness_ms=90, held_ms=20, ceiling_ms=None) == 100
