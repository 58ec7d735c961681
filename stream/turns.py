"""Keepers of one process compute in turn.

Threads that wait for a lock do not fight for the interpreter's, whose every hand-over costs more
than an event does. But nobody waits for long: beside a slow model the others go on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 0.1

_turn = threading.Lock()


@contextmanager
def turn() -> Iterator[None]:
    """Compute when the others do not, or when they take too long."""
    held = _turn.acquire(timeout=PATIENCE_SECONDS)
    try:
        yield
    finally:
        if held:
            _turn.release()
