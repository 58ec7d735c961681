"""Events that a producer put into the wrong partition: sent on to the right one, once.

Producers' default partitioners differ, and a prediction and its label only meet in one partition.
"""

from __future__ import annotations

import numpy as np

from stream.core.accepted import Events
from stream.core.partitioning import partitions_of_ids
from stream.core.processor import Context, Output, Record
from stream.topics import HEADER_REROUTED


def misplaced(entity: str, events: Events, context: Context) -> dict[int, int]:
    """Indices of the events that belong to another partition, with that partition.

    One that was sent on before stays where it is: partitioners that disagree must not make it
    travel for ever.
    """
    count = context.partitions[entity]
    if count == 1:
        return {}
    right = partitions_of_ids(events.ids, count, context.settings.partitioner)
    return {
        i: int(right[i])
        for i in np.flatnonzero(right != context.partition).tolist()
        if not _was_sent_on(events.records[i])
    }


def sent_on(entity: str, record: Record, right: int, context: Context) -> Output:
    """The record as it came, and a header that says from which partition."""
    headers = (*record.headers, (HEADER_REROUTED, str(context.partition).encode()))
    stamp_ms = record.timestamp_ms if context.settings.clock == "event" else None
    return Output(entity, record.key, record.value, right, headers, stamp_ms)


def _was_sent_on(record: Record) -> bool:
    return any(name == HEADER_REROUTED for name, _ in record.headers)
