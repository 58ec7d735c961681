"""One fit in a child process: killable, limited in time and memory, gone when its parent is.

The child (`consumers.fit_child`) gets a job as one JSON line on stdin. In the file that is its
stdout it leaves a line for each step it begins, and its result as the last one, all as JSON.
Nothing is pickled, and only the parent touches the registry.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from consumers.places import Span
from models.runs import Candidate, DataRange
from models.spec import ModelSpec
from models.state import VersionCard
from stream.settings import Settings

KILL_SECONDS = 2.0  # from asking the child to end to making it


class Job(Struct, frozen=True, kw_only=True):
    """What to fit, which examples may be read for it, and where to write.

    `settings` holds secrets: it goes to the child through a pipe, and shows in no repr.
    """

    spec: ModelSpec
    settings: dict[str, Any]
    examples: list[Span]
    erased: list[str] = []  # what `models.erasures` keeps of predictions to leave out
    champion: VersionCard | None = None  # from which an online learner goes on

    def __repr__(self) -> str:
        return f"Job(spec={self.spec.name!r}, examples={self.examples!r})"

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        settings: Settings,
        examples: Sequence[Span],
        erased: Iterable[str] = (),
        champion: VersionCard | None = None,
    ) -> Job:
        return cls(
            spec=spec,
            settings=settings.plain(),
            examples=list(examples),
            erased=sorted(erased),
            champion=champion,
        )


class Fitted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a job.

    Attributes:
        verdict: accepted; refused (data or spec forbid it); failed (it broke, or was ended).
        reason: one sentence, empty where accepted.
        candidates: every learner that was tried, the chosen one marked.
        metrics: of the chosen one, on the newest slice.
    """

    verdict: Literal["accepted", "refused", "failed"]
    reason: str = ""
    artefact_digest: str = ""
    artefact_url: str = ""
    profile_digest: str = ""
    profile_url: str = ""
    metrics: dict[str, float] = {}
    candidates: list[Candidate] = []
    parameters: dict[str, Any] = {}
    data: DataRange | None = None


class Step(Struct, frozen=True):
    """What the child is doing."""

    doing: str


class Fit:
    """A running child. `poll` never waits; `cancel` ends it in `KILL_SECONDS` at most."""

    def __init__(
        self,
        job: Job,
        *,
        command: Sequence[str] = (sys.executable, "-m", "consumers.fit_child"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._limit_seconds = job.spec.training.timeout_seconds
        self._started = clock()
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115  closed with the child
        self._child = subprocess.Popen(  # noqa: S603  our own interpreter and module
            command,
            stdin=subprocess.PIPE,
            stdout=self._answer,
            start_new_session=True,  # an interrupt at the terminal is the parent's to handle
        )
        self._write(msgspec.json.encode(job) + b"\n")

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def doing(self) -> str:
        """The step that the child began last; empty before the first."""
        for line in reversed(self._lines()):
            with contextlib.suppress(msgspec.DecodeError):  # half a line, or the result
                return msgspec.json.decode(line, type=Step).doing
        return ""

    def poll(self) -> Fitted | None:
        """The result once there is one; a child over its time is ended here."""
        code = self._child.poll()
        if code is not None:
            return self._result(code)
        if self._clock() - self._started <= self._limit_seconds:
            return None
        self.cancel()
        return Fitted(
            verdict="failed",
            reason=f"took longer than training.timeout_seconds = {self._limit_seconds:g}",
        )

    def cancel(self) -> None:
        """End the child and forget what it did."""
        self._child.terminate()
        try:
            self._child.wait(KILL_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._close()

    def _write(self, line: bytes) -> None:
        # The pipe stays open for as long as the parent lives: its end tells the child to end.
        assert self._child.stdin is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # it died at once; poll tells why
            self._child.stdin.write(line)
            self._child.stdin.flush()

    def _result(self, code: int) -> Fitted:
        lines = self._lines()
        self._close()
        if code == 0 and lines:
            with contextlib.suppress(msgspec.DecodeError):
                return msgspec.json.decode(lines[-1], type=Fitted)
        return Fitted(verdict="failed", reason=_ending(code))

    def _lines(self) -> list[bytes]:
        """What the child has written so far. Its position in the file is ours too: leave it."""
        if self._answer.closed:
            return []
        handle = self._answer.fileno()
        return os.pread(handle, os.fstat(handle).st_size, 0).splitlines()

    def _close(self) -> None:
        self._answer.close()
        if self._child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()


def _ending(code: int) -> str:
    """
    >>> _ending(-9)
    'the fit was ended by SIGKILL (out of memory?)'
    """
    if code < 0:
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"the fit was ended by {signal.Signals(-code).name}{hint}"
    return f"the fit ended with exit code {code}; its error is in the trainer's log"
