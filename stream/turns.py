"""Keepers of one process compute in turn.

Threads that wait for a lock do not fight for the interpreter's, whose every hand-over costs more
than an event does. But nobody waits for long: beside a slow model the others go on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 0.1
HAND_OVER_SECONDS = 0.001

_turn = threading.Lock()


@contextmanager
def turn(*, yields: bool = False) -> Iterator[None]:
    """Compute when the others do not, or when they take too long.

    Args:
        yields: let those who wait come first afterwards. A lock goes to whoever runs and asks for
            it, so one who has always more to do would have every turn until their patience ends.
    """
    held = _turn.acquire(timeout=PATIENCE_SECONDS)
    try:
        yield
    finally:
        if held:
            _turn.release()
    if yields:
        time.sleep(HAND_OVER_SECONDS)
