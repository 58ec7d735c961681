"""Texts made for many events at once are those that each alone would get."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
from hypothesis import given

from stream.core.framing import time_texts
from stream.envelope import from_ms

TIMES_MS = st.integers(0, 253_402_300_799_999)  # to the end of the year 9999


@given(st.lists(TIMES_MS | TIMES_MS.map(lambda time_ms: time_ms // 1000 * 1000)))
def test_times_of_a_batch_are_spelt_as_each_alone(times_ms: list[int]) -> None:
    """With a fraction only where there is one."""
    assert time_texts(times_ms) == [msgspec.json.encode(from_ms(one)) for one in times_ms]
