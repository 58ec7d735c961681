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
from stream.core.asides import aside
from stream.core.deltas import add_named
from stream.core.guards import latency_bin
from stream.core.processor import Context, LiveModel, Output
from stream.core.trails import Offsets, hull
from stream.events import SummaryComputed


class Timings:
    """What one partition of score measured since it last said so: nothing without a stopwatch."""

    def __init__(self, context: Context) -> None:
        self._stopwatch = context.stopwatch
        self._place = f"requests/{context.partition}"
        self._partition = context.partition
        self._partitions = context.partitions.get("summaries", 1)
        self._interval_ms = context.settings.summary_interval_ms
        self._due_ms = 0
        self._begun: _Begun | None = None
        # By model, version and tick: by the version that was timed, requests by bin.
        self._counts: dict[tuple[str, int, int], dict[str, dict[str, int]]] = {}
        self._offsets: Offsets = {}
        self._newest_ms = 0

    def begin(self, live: LiveModel, events: Events) -> None:
        """The champion predicts these events now; its shadows, if it has some, after it."""
        self._begun = None
        lifecycle, newest_ms = live.lifecycle, events.records.stamps_ms[-1]
        if self._stopwatch is None or not lifecycle.shadows or lifecycle.champion is None:
            return
        offsets = events.records.offsets
        self._offsets = hull(self._offsets, {self._place: (offsets[0], offsets[-1] + 1)})
        self._newest_ms = max(self._newest_ms, newest_ms)
        at = (lifecycle.model, lifecycle.champion, newest_ms // lifecycle.spec.tick_ms)
        self._begun = _Begun(at, len(events), self._stopwatch())

    def end(self, version: int) -> None:
        """This version has predicted them."""
        if self._begun is None or self._stopwatch is None:
            return
        at, requests, since = self._begun
        now = self._stopwatch()
        self._begun = _Begun(at, requests, now)
        counts = self._counts.setdefault(at, {}).setdefault(str(version), {})
        add_named(counts, str(latency_bin(now - since)), requests)

    def told(self, clock_ms: int) -> Iterator[Output]:
        """One summary for each model and tick, if it is time; nothing is left."""
        if clock_ms < self._due_ms or not self._counts:
            return
        self._due_ms = clock_ms + self._interval_ms
        counted, offsets = self._counts, self._offsets
        self._counts, self._offsets = {}, {}
        for (model, champion, tick), latencies in sorted(counted.items()):
            delta = SummaryComputed(
                model=model,
                version=champion,
                tick=tick,
                partition=self._partition,
                latencies=latencies,
                offsets=offsets,
            )
            yield aside("timed", delta, self._newest_ms, self._partitions)


class _Begun(NamedTuple):
    """A batch that is being predicted."""

    at: tuple[str, int, int]
    requests: int
    since: float  # the stopwatch, when the version that is at it began
