"""Dead letters: records that were refused, whole, with the reason.

Key, value and the producer's headers stay as they were, so a repaired record can be sent again;
the headers `dl_*` say where it lay and what was wrong.
"""

from __future__ import annotations

from functools import lru_cache

from stream.core.processor import Header, Headers, Output, Record
from stream.errors import Refused
from stream.topics import (
    HEADER_DETAIL,
    HEADER_OFFSET,
    HEADER_PARTITION,
    HEADER_REASON,
    HEADER_SOURCE,
    HEADER_STAGE,
    HEADER_TIMESTAMP,
    HEADER_TOPIC,
)

#: Written here; a record that comes back from the dead letters sheds those of its first refusal.
HEADERS = (
    HEADER_REASON,
    HEADER_DETAIL,
    HEADER_TOPIC,
    HEADER_PARTITION,
    HEADER_OFFSET,
    HEADER_TIMESTAMP,
    HEADER_STAGE,
)
_SHED = frozenset({*HEADERS, HEADER_SOURCE})


def dead_letter(
    entity: str, record: Record, refused: Refused, stage: str, partition: int, source: str = ""
) -> Output:
    """The refused record as one for `<entity>.dlq`, in the partition it lay in.

    `dl_topic` names the entity ("requests"): the core does not know the topics' prefix. `source`
    is the full name of a topic of somebody else's that it was read from.
    """
    offset, timestamp_ms, key, value, headers = record
    entity_name, topic, number, by = _place(entity, partition, stage)
    ours: Headers = (
        *_why(refused.reason, refused.detail),
        topic,
        number,
        (HEADER_OFFSET, b"%d" % offset),
        (HEADER_TIMESTAMP, b"%d" % timestamp_ms),
        by,
    )
    if source:
        ours = (*ours, (HEADER_SOURCE, source.encode()))
    if headers:
        ours = tuple(header for header in headers if header[0] not in _SHED) + ours
    return Output(entity_name, key, value, partition, ours)


@lru_cache(maxsize=1024)
def _place(entity: str, partition: int, stage: str) -> tuple[str, Header, Header, Header]:
    """What the dead letters of one place share: the entity to write to, and three headers."""
    topic, number, by = entity.encode(), b"%d" % partition, stage.encode()
    headers = (HEADER_TOPIC, topic), (HEADER_PARTITION, number), (HEADER_STAGE, by)
    return f"{entity}.dlq", *headers


@lru_cache(maxsize=1024)
def _why(reason: str, detail: str) -> tuple[Header, Header]:
    return (HEADER_REASON, reason.encode()), (HEADER_DETAIL, detail.encode(errors="replace"))
