"""Places where a fault suite makes this process die, stop or stand still.

`DRIFTLINE_FAILPOINT=<name>[:<n>[:<action>]]`: at the n-th hit (1 by default) of that place do the
action: `exit` (137, as SIGKILL would; the default), `stop` (SIGSTOP), or seconds to sleep at this
and every later hit. Without the variable a failpoint is one comparison.
"""

from __future__ import annotations

import os
import signal
import threading
import time

NAMES = frozenset(
    {
        *("assign", "init", "restore", "apply", "revoke"),
        *("begin", "produce", "send_offsets", "before_commit", "after_commit"),
        *("fit", "registered", "publishing"),  # of the trainer
    }
)


class Failpoint:
    """
    >>> Failpoint("before_commit:3")
    Failpoint(name='before_commit', nth=3, action='exit')
    """

    def __init__(self, text: str) -> None:
        name, _, rest = text.partition(":")
        if name and name not in NAMES:
            raise ValueError(f"no failpoint {name!r}; there are {', '.join(sorted(NAMES))}")
        nth, _, action = rest.partition(":")
        self.name = name
        self.nth = int(nth or 1)
        self.action = action or "exit"
        self._hits = 0
        self._lock = threading.Lock()

    def hit(self) -> None:
        with self._lock:
            self._hits += 1
            hits = self._hits
        if self.action not in ("exit", "stop"):
            if hits >= self.nth:
                time.sleep(float(self.action))
        elif hits == self.nth:
            if self.action == "exit":
                os._exit(137)
            os.kill(os.getpid(), signal.SIGSTOP)

    def __repr__(self) -> str:
        return f"Failpoint(name={self.name!r}, nth={self.nth}, action={self.action!r})"


_ARMED = Failpoint(os.environ.get("DRIFTLINE_FAILPOINT", ""))


def failpoint(name: str) -> None:
    """Mark a place; `name` is one of `NAMES`."""
    if name == _ARMED.name:
        _ARMED.hit()
