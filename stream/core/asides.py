"""Summaries that score writes of its own: what it refused, how long versions took, what it shed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec.structs import replace

from stream.core.accepted import Events
from stream.core.partitioning import partition_of
from stream.core.processor import Context, Output
from stream.core.trails import Offsets, hull
from stream.envelope import derived_id, write
from stream.events import LifecycleChanged, SummaryComputed

Place = tuple[str, int, int]  # model, version, tick


class Asides:
    """What one partition of score counted of requests since it last said so, by model and tick.

    No part of a checkpoint: some of it may be lost.
    """

    def __init__(self, context: Context, why: str, field: Literal["latencies", "shed"]) -> None:
        self._why, self._field = why, field
        self._source = f"requests/{context.partition}"
        self._partition = context.partition
        self._partitions = context.partitions.get("summaries", 1)
        self._interval_ms = context.settings.summary_interval_ms
        self._due_ms = 0
        self._counts: dict[Place, dict[str, Any]] = {}
        self._offsets: Offsets = {}
        self._newest_ms = 0

    def note(self, lifecycle: LifecycleChanged, events: Events) -> Place:
        """Where what is counted of these requests belongs."""
        offsets, newest_ms = events.records.offsets, events.records.stamps_ms[-1]
        self._offsets = hull(self._offsets, {self._source: (offsets[0], offsets[-1] + 1)})
        self._newest_ms = max(self._newest_ms, newest_ms)
        return lifecycle.model, lifecycle.champion or 0, newest_ms // lifecycle.spec.tick_ms

    def counts(self, place: Place) -> dict[str, Any]:
        """By version, to be added to."""
        return self._counts.setdefault(place, {})

    def told(self, clock_ms: int) -> Iterator[Output]:
        """One summary for each model and tick, if it is time; nothing is left."""
        if clock_ms < self._due_ms or not self._counts:
            return
        self._due_ms = clock_ms + self._interval_ms
        counted, offsets = self._counts, self._offsets
        self._counts, self._offsets = {}, {}
        for (model, version, tick), counts in sorted(counted.items()):
            delta = SummaryComputed(
                model=model, version=version, tick=tick, partition=self._partition, offsets=offsets
            )
            delta = replace(delta, **{self._field: counts})
            yield aside(self._why, delta, self._newest_ms, self._partitions)


def aside(why: str, delta: SummaryComputed, time_ms: int, partitions: int) -> Output:
    """One summary, under an id of what it counts.

    Args:
        why: what it tells of; two of the same records do not have the same.
        partitions: of `summaries`.
    """
    place = (delta.model, delta.version, delta.tick)
    cause = (why, delta.partition, *sorted(delta.offsets.items()), *place)
    value = write(
        "driftline.summary.computed.v1",
        delta,
        id=derived_id(*cause),
        source="driftline/score",
        time_ms=time_ms,
    )
    key = delta.model.encode()
    return Output("summaries", key, value, partition_of(key, partitions, "murmur2"))
