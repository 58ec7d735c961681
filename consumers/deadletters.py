"""What was refused: looking at the dead letters, and sending them again once the cause is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from consumers.loop import RangeReader
from consumers.places import Delivered, Place, Span
from consumers.producing import ANY, Publisher
from stream.core.processor import Headers, Record
from stream.errors import ConfigurationError
from stream.settings import Settings
from stream.topics import (
    BRIDGE,
    HEADER_DETAIL,
    HEADER_OFFSET,
    HEADER_PARTITION,
    HEADER_REASON,
    HEADER_SOURCE,
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
        source: the topic that the bridge read it from; empty: it lay on the entity's own.
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
    source: str = ""

    @property
    def origin_partition(self) -> int:
        """-1: it does not say."""
        partition = self.origin.partition("/")[0]
        return int(partition) if partition.isdecimal() else -1


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

    Those that the bridge refused go to the topic and partition that it read them from: our topics
    do not hold what it reads, and the halves of a pair must come to the same bridge.

    What still does not fit comes back as a dead letter; what fits by now is applied once, because
    its id is the same.

    Raises:
        ConfigurationError: they are alerts, which were on their topic all the time; or nobody
            can say where the bridge found them. Then none was sent.
    """
    if any(letter.entity == "alerts" for letter in letters):
        raise ConfigurationError(
            "these alerts are on their topic; `driftline alerts retry SINK` sends them to a sink"
        )
    for letter in letters:
        _demand_a_way_back(letter, settings)
    publisher = Publisher(settings)
    for letter in letters:
        theirs = tuple(header for header in letter.headers if not header[0].startswith("dl_"))
        record = Record(0, letter.timestamp_ms, letter.key, letter.value, theirs)
        if letter.source:
            publisher.send_to(letter.source, letter.origin_partition, record)
        else:
            stamp = letter.timestamp_ms if settings.clock == "event" else 0
            ours = record._replace(timestamp_ms=stamp)
            publisher.send_to(settings.names.topic(letter.entity), ANY, ours)
    publisher.flush()
    return len(letters)


def _demand_a_way_back(letter: DeadLetter, settings: Settings) -> None:
    """
    Raises:
        ConfigurationError: there is none.
    """
    where = f"the dead letter {letter.entity} {letter.place.partition} {letter.place.offset}"
    if letter.stage == BRIDGE and not letter.source:
        raise ConfigurationError(
            f"{where} does not say which topic the bridge read it from; write it there again"
        )
    # Whoever may write dead letters must not have a person write to `commands`.
    if letter.source in {settings.names.topic(topic.entity) for topic in TOPICS}:
        raise ConfigurationError(f"{where} claims to come from {letter.source}, which is our own")


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
        source=said.get(HEADER_SOURCE, "") if said.get(HEADER_STAGE) == BRIDGE else "",
    )
