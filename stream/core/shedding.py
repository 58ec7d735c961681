"""What score leaves out when it falls behind: shadows, for whole batches, never a prediction.

Whether a batch goes without its shadows is decided by how many records lie behind it, before
anything of it is predicted: neither what a version would have said nor how it turns out has a part
in that, so the pairs that are left are as good for the paired tests, and fewer. How many are
missing is told as an event. Like timings it is no part of a checkpoint: some of it may be lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream.core.accepted import Events
from stream.core.asides import aside
from stream.core.processor import Batch, Context, Output
from stream.core.trails import Offsets, hull
from stream.events import LifecycleChanged, SummaryComputed


class Shedding:
    """What one partition of score left out since it last said so."""

    def __init__(self, context: Context) -> None:
        self._limit = context.settings.shed_shadows_lag
        self._place = f"requests/{context.partition}"
        self._partition = context.partition
        self._partitions = context.partitions.get("summaries", 1)
        self._interval_ms = context.settings.summary_interval_ms
        self._due_ms = 0
        self._is_on = False
        # By model, version and tick: requests, by the shadow that did not see them.
        self._counts: dict[tuple[str, int, int], dict[str, int]] = {}
        self._offsets: Offsets = {}
        self._newest_ms = 0

    def begin(self, batch: Batch) -> None:
        """Decide about this batch."""
        self._is_on = 0 < self._limit < batch.ahead

    def left(self, lifecycle: LifecycleChanged) -> tuple[int, ...]:
        """The shadows that predict now. A canary does in any case: it answers some requests."""
        if not self._is_on:
            return lifecycle.shadows
        return tuple(v for v in lifecycle.shadows if v == lifecycle.canary)

    def note(self, lifecycle: LifecycleChanged, events: Events, missing: set[int]) -> None:
        """These shadows have not predicted these events."""
        offsets, newest_ms = events.records.offsets, events.records.stamps_ms[-1]
        self._offsets = hull(self._offsets, {self._place: (offsets[0], offsets[-1] + 1)})
        self._newest_ms = max(self._newest_ms, newest_ms)
        at = (lifecycle.model, lifecycle.champion or 0, newest_ms // lifecycle.spec.tick_ms)
        counts = self._counts.setdefault(at, {})
        for version in map(str, sorted(missing)):
            counts[version] = counts.get(version, 0) + len(events)

    def told(self, clock_ms: int) -> Iterator[Output]:
        """One summary for each model and tick, if it is time; nothing is left."""
        if clock_ms < self._due_ms or not self._counts:
            return
        self._due_ms = clock_ms + self._interval_ms
        counted, offsets = self._counts, self._offsets
        self._counts, self._offsets = {}, {}
        for (model, champion, tick), shed in sorted(counted.items()):
            delta = SummaryComputed(
                model=model,
                version=champion,
                tick=tick,
                partition=self._partition,
                shed=shed,
                offsets=offsets,
            )
            yield aside("shed", delta, self._newest_ms, self._partitions)
