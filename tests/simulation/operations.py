"""Work of a keeper that may be stopped half-way: killed, or paused while the world goes on.

Each piece of work has a stack of its own but no thread: only one is ever under way, and the
schedule says which, so that a seed always gives the same run and a pause costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from greenlet import greenlet

Action = Literal["crash", "pause"]


class Crash(BaseException):
    """The process is gone; not even `except Exception` sees it."""


class Operation:
    """One call of the real code.

    Args:
        place, action: what to do when it first reaches which failpoint.

    Attributes:
        stopped_at: the failpoint at which that was done.
        error: what it ended with, None if all went well.
    """

    current: ClassVar[Operation | None] = None

    def __init__(self, work: Callable[[], object], place: str, action: Action) -> None:
        self.done = False
        self.error: BaseException | None = None
        self.stopped_at = ""
        self._work = work
        self._place = place
        self.action = action
        self._stack = greenlet(self._run)

    def go(self) -> bool:
        """Begin or go on, up to the end or a pause; whether it is done."""
        Operation.current = self
        self._stack.switch()
        Operation.current = None
        return self.done

    def kill(self) -> None:
        """The process that it runs in is gone."""
        if not self._stack.dead:
            Operation.current = self
            self._stack.throw(Crash("killed while it was paused"))
            Operation.current = None

    def at(self, name: str) -> None:
        """A failpoint is reached."""
        if name == self._place:
            self._place, self.stopped_at = "", name
            if self.action == "crash":
                raise Crash(name)
            self.pause()

    def pause(self) -> None:
        """Let the world go on until the schedule resumes this."""
        world = self._stack.parent
        assert world is not None
        world.switch()

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
