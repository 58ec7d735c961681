"""What a fit may cost, and what it did: time for each candidate, progress, and latency.

Each candidate may take an equal share of the time that is left. One that takes longer is given up,
and the others stay in the race.
"""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from models.features import Row
from models.serving import ServingModel
from models.training import TooCostly

RESERVE: Final = 0.1  # of the time, for what comes after the last candidate
REPEATS: Final = 9
BATCH: Final = 1000  # rows

Tell = Callable[[str], None]


def silent(_: str) -> None:
    """Tells nobody."""


class Stopwatch:
    """A `models.training.Watch` by the wall clock.

    Args:
        limit_seconds: of all candidates together, from now on, and of what comes before them.
        tell: is called with one sentence whenever a step begins.

    Attributes:
        seconds: candidate -> what its fit took.
    """

    def __init__(self, limit_seconds: float, tell: Tell = silent) -> None:
        self.seconds: dict[str, float] = {}
        self._end = time.monotonic() + limit_seconds * (1 - RESERVE)
        self.tell = tell

    @contextmanager
    def trying(self, name: str, place: int, of: int) -> Iterator[None]:
        self.tell(f"fitting {name} ({place} of {of})")
        begun = time.monotonic()
        with _limited((self._end - begun) / (of - place + 1)):
            yield
        self.seconds[name] = time.monotonic() - begun


def latency_ms(model: ServingModel, rows: Sequence[Row]) -> dict[str, float]:
    """The median time of a prediction, by batch: of one row, and of a thousand."""
    if not rows:
        return {}
    many = [rows[i % len(rows)] for i in range(BATCH)]
    batches = {"1 row": rows[:1], f"{BATCH} rows": many}
    return {name: statistics.median(_times_ms(model, some)) for name, some in batches.items()}


def _times_ms(model: ServingModel, rows: Sequence[Row]) -> Iterator[float]:
    for _ in range(REPEATS):
        begun = time.perf_counter()
        model.predict(rows)
        yield (time.perf_counter() - begun) * 1000


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `TooCostly` in the main thread when the time is over; other threads are not limited."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise TooCostly(f"took longer than its {max(seconds, 0):.3g} s of training.timeout_seconds")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
