"""Work of a keeper that may be stopped half-way: killed, or paused while the world goes on.

Work that is to be paused runs in a thread of its own; only one thread is ever under way, and the
schedule says which, so that a seed always gives the same run.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable
from typing import ClassVar, Literal

Action = Literal["crash", "pause"]


class Crash(BaseException):
    """The process is gone; not even `except Exception` sees it."""


class Operation:
    """One call of the real code.

    Args:
        place, action: what to do when it first reaches which failpoint.
        threaded: whether it can pause.

    Attributes:
        stopped_at: the failpoint at which that was done.
        error: what it ended with, None if all went well.
    """

    current: ClassVar[Operation | None] = None

    def __init__(
        self, work: Callable[[], object], place: str, action: Action, *, threaded: bool
    ) -> None:
        self.done = False
        self.error: BaseException | None = None
        self.stopped_at = ""
        self._work = work
        self._place = place
        self.action = action
        self._threaded = threaded
        self._thread: int | None = None
        self._killed = False

    def go(self) -> bool:
        """Begin or go on, up to the end or a pause; whether it is done."""
        Operation.current = self
        if not self._threaded:
            self._run()
        else:
            if self._thread is None:
                self._go, self._back = _thread.allocate_lock(), _thread.allocate_lock()
                self._go.acquire()
                self._back.acquire()
                self._thread = _thread.start_new_thread(self._in_thread, ())
            self._go.release()
            self._back.acquire()
        Operation.current = None
        return self.done

    def kill(self) -> None:
        """The process that it runs in is gone."""
        self._killed = True
        if self._thread is not None and not self.done:
            self.go()

    def at(self, name: str) -> None:
        """A failpoint is reached."""
        if name == self._place:
            self._place, self.stopped_at = "", name
            if self.action == "crash":
                raise Crash(name)
            self.pause()

    def pause(self) -> None:
        """Let the world go on until the schedule resumes this."""
        assert self._threaded, "only an operation with a thread can wait"
        self._back.release()
        self._go.acquire()
        if self._killed:
            raise Crash("killed while it was paused")

    def _in_thread(self) -> None:
        self._go.acquire()
        self._run()
        self._back.release()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error
        self.done = True


def failpoint(name: str) -> None:
    """Stands in for `stream.failpoints.failpoint`."""
    if Operation.current is not None:
        Operation.current.at(name)


def sleep(_seconds: float) -> None:
    """Stands in for `time.sleep`: waiting is for the schedule to end."""
    if Operation.current is not None:
        Operation.current.pause()
