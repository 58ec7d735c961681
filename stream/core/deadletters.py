"""Dead letters: records that were refused, whole, with the reason.

Key, value and the producer's headers stay as they were, so a repaired record can be sent again;
the headers `dl_*` say where it lay and what was wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    (letter,) = dead_letters(entity, [(record, refused)], stage, partition, source)
    return letter


def dead_letters(
    entity: str,
    unfit: Iterable[tuple[Record, Refused]],
    stage: str,
    partition: int,
    source: str = "",
) -> list[Output]:
    """As `dead_letter`, of many."""
    name = f"{entity}.dlq"
    topic, number = (HEADER_TOPIC, entity.encode()), (HEADER_PARTITION, b"%d" % partition)
    last: Headers = ((HEADER_STAGE, stage.encode()),)
    if source:
        last = (*last, (HEADER_SOURCE, source.encode()))
    letters = []
    for (offset, timestamp_ms, key, value, headers), refused in unfit:
        ours: Headers = (
            *_why(refused.reason, refused.detail),
            topic,
            number,
            (HEADER_OFFSET, b"%d" % offset),
            (HEADER_TIMESTAMP, b"%d" % timestamp_ms),
            *last,
        )
        if headers:
            ours = tuple(header for header in headers if header[0] not in _SHED) + ours
        letters.append(Output(name, key, value, partition, ours))
    return letters


@lru_cache(maxsize=1024)
def _why(reason: str, detail: str) -> tuple[Header, Header]:
    return (HEADER_REASON, reason.encode()), (HEADER_DETAIL, detail.encode(errors="replace"))
