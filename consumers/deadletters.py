"""What was refused: looking at the dead letters, and sending them again once the cause is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from consumers.loop import RangeReader
from consumers.places import Delivered, Place, Span
from consumers.producing import Publisher
from stream.core.processor import Headers
from stream.errors import ConfigurationError
from stream.settings import Settings
from stream.topics import (
    HEADER_DETAIL,
    HEADER_OFFSET,
    HEADER_PARTITION,
    HEADER_REASON,
    HEADER_STAGE,
    HEADER_TIMESTAMP,
    TOPICS,
)

ENTITIES = tuple(t.entity.removesuffix(".dlq") for t in TOPICS if t.entity.endswith(".dlq"))


class DeadLetter(NamedTuple):
    """One refused record.

    Attributes:
        entity: the topic it was refused on.
        place: where it lies among the dead letters.
        timestamp_ms: of the refused record.
        origin: where it lay on its topic, "partition/offset".
        laid_ms: when it became a dead letter.
    """

    entity: str
    place: Place
    timestamp_ms: int
    reason: str
    detail: str
    stage: str
    origin: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    laid_ms: int = 0


def read(
    reader: RangeReader, entities: Sequence[str], reason: str | None = None
) -> Iterator[DeadLetter]:
    """Every dead letter of these topics, or those with one reason.

    Raises:
        ConfigurationError: no such topic has dead letters.
    """
    for entity in entities:
        if entity not in ENTITIES:
            raise ConfigurationError(
                f"no dead letters of {entity!r}, only of {', '.join(ENTITIES)}"
            )
        for came in reader.read(f"{entity}.dlq", reader.bounds(f"{entity}.dlq")):
            letter = _letter(entity, came)
            if reason in (None, letter.reason):
                yield letter


def find(reader: RangeReader, entity: str, place: Place) -> DeadLetter:
    """The dead letter at one place.

    Raises:
        ConfigurationError: there is none.
    """
    dlq = f"{entity}.dlq"
    held = {span.partition: span for span in reader.bounds(dlq)}.get(place.partition)
    if held is not None and held.start <= place.offset < held.end:
        for came in reader.read(dlq, [Span(place.partition, place.offset, place.offset + 1)]):
            return _letter(entity, came)
    raise ConfigurationError(
        f"no dead letter {entity} {place.partition} {place.offset}; `driftline dlq list` shows all"
    )


def replay(letters: Sequence[DeadLetter], settings: Settings) -> int:
    """Write refused records to their topics again, as they were; returns how many.

    What still does not fit comes back as a dead letter; what fits by now is applied once, because
    its id is the same.

    Raises:
        ConfigurationError: they are alerts, which were on their topic all the time.
    """
    if any(letter.entity == "alerts" for letter in letters):
        raise ConfigurationError(
            "these alerts are on their topic; `driftline alerts retry SINK` sends them to a sink"
        )
    publisher = Publisher(settings)
    for letter in letters:
        theirs = tuple(header for header in letter.headers if not header[0].startswith("dl_"))
        stamp = letter.timestamp_ms if settings.clock == "event" else 0
        publisher.send(letter.entity, letter.key, letter.value, headers=theirs, timestamp_ms=stamp)
    publisher.flush()
    return len(letters)


def _letter(entity: str, came: Delivered) -> DeadLetter:
    record = came.record
    said = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    stamp = said.get(HEADER_TIMESTAMP, "")
    return DeadLetter(
        entity=entity,
        place=came.place,
        timestamp_ms=int(stamp) if stamp.isdecimal() else record.timestamp_ms,
        reason=said.get(HEADER_REASON, ""),
        detail=said.get(HEADER_DETAIL, ""),
        stage=said.get(HEADER_STAGE, ""),
        origin=f"{said.get(HEADER_PARTITION, '?')}/{said.get(HEADER_OFFSET, '?')}",
        key=record.key,
        value=record.value,
        headers=record.headers,
        laid_ms=record.timestamp_ms,
    )
