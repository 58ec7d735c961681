"""How long versions take to predict, measured where they are compared on the same batches.

Each request of a batch waited as long as its version took for all of it, so a batch counts as many
times as it has requests. What was measured is told as an event; who reads it again, reads the same.
It is told in some intervals only and is no part of a checkpoint: some of it may be lost, which
makes a guard wait and nothing wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stream.core.accepted import Events
from stream.core.asides import Asides
from stream.core.deltas import add_named
from stream.core.guards import latency_bin
from stream.core.processor import Context, LiveModel, Output


class Timings:
    """What one partition of score measured since it last said so: nothing without a stopwatch."""

    def __init__(self, context: Context) -> None:
        self._stopwatch = context.stopwatch
        self._begun: _Begun | None = None
        self._asides = Asides(context, "timed", "latencies")

    def begin(self, live: LiveModel, events: Events) -> None:
        """The champion predicts these events now; its shadows, if it has some, after it."""
        self._begun = None
        lifecycle = live.lifecycle
        if self._stopwatch is None or not lifecycle.shadows or lifecycle.champion is None:
            return
        at = self._asides.note(lifecycle, events)
        self._begun = _Begun(at, len(events), self._stopwatch())

    def end(self, version: int) -> None:
        """This version has predicted them."""
        if self._begun is None or self._stopwatch is None:
            return
        at, requests, since = self._begun
        now = self._stopwatch()
        self._begun = _Begun(at, requests, now)
        counts = self._asides.counts(at).setdefault(str(version), {})
        add_named(counts, str(latency_bin(now - since)), requests)

    def told(self, clock_ms: int) -> Iterator[Output]:
        """Requests by bin, of each version that was timed: see `Asides`."""
        return self._asides.told(clock_ms)


class _Begun(NamedTuple):
    """A batch that is being predicted."""

    at: tuple[str, int, int]
    requests: int
    since: float  # the stopwatch, when the version that is at it began
