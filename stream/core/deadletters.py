"""Dead letters: records that were refused, whole, with the reason.

Key, value and the producer's headers stay as they were, so a repaired record can be sent again;
the headers `dl_*` say where it lay and what was wrong.
"""

from __future__ import annotations

from stream.core.processor import Headers, Output, Record
from stream.errors import Refused
from stream.topics import (
    HEADER_DETAIL,
    HEADER_OFFSET,
    HEADER_PARTITION,
    HEADER_REASON,
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


def dead_letter(
    entity: str, record: Record, refused: Refused, stage: str, partition: int
) -> Output:
    """The refused record as one for `<entity>.dlq`, in the partition it lay in.

    `dl_topic` names the entity ("requests"): the core does not know the topics' prefix.
    """
    values = (
        refused.reason.encode(),
        refused.detail.encode(errors="replace"),
        entity.encode(),
        b"%d" % partition,
        b"%d" % record.offset,
        b"%d" % record.timestamp_ms,
        stage.encode(),
    )
    ours: Headers = tuple(zip(HEADERS, values, strict=True))
    if not record.headers:
        return Output(f"{entity}.dlq", record.key, record.value, partition, ours)
    theirs = tuple(header for header in record.headers if header[0] not in HEADERS)
    return Output(f"{entity}.dlq", record.key, record.value, partition, theirs + ours)
