"""The wall clock that stages go by: read once, then paced by a clock that nobody sets."""

from __future__ import annotations

import time
from collections.abc import Callable

# Linux's counts what a suspended machine sleeps; elsewhere that time is missing until a restart.
_PACE = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def steady(wall: Callable[[], float] = time.time) -> Callable[[], float]:
    """Seconds since 1970, going on evenly from now.

    A watermark never goes back, so a jump of the machine's clock must not carry one along.

    >>> clock = steady(iter([1000.0]).__next__)
    >>> 1000.0 <= clock() <= clock() < 1001.0
    True
    """
    began = wall() - time.clock_gettime(_PACE)
    return lambda: began + time.clock_gettime(_PACE)
