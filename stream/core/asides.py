"""Summaries that score writes of its own: what it refused, how long versions took."""

from __future__ import annotations

from stream.core.partitioning import partition_of
from stream.core.processor import Output
from stream.envelope import derived_id, write
from stream.events import SummaryComputed


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
