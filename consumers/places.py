"""Where records lie, and which of them are dealt with. Plain values, no Kafka."""

from __future__ import annotations

from typing import NamedTuple

from stream.core.processor import Record


class Place(NamedTuple):
    """Where a record lies in its topic."""

    partition: int
    offset: int


class Delivered(NamedTuple):
    place: Place
    record: Record


class Span(NamedTuple):
    """Offsets of one partition: from `start` up to but without `end`."""

    partition: int
    start: int
    end: int

    @property
    def length(self) -> int:
        return max(self.end - self.start, 0)


class Acknowledged:
    """What may be committed: in each partition, everything before the oldest open record.

    >>> seen = Acknowledged()
    >>> for offset in (4, 5, 6):
    ...     seen.take(Place(0, offset))
    >>> seen.done(Place(0, 5)); seen.committable()
    {0: 4}
    >>> seen.done(Place(0, 4)); seen.committable()
    {0: 6}
    """

    def __init__(self) -> None:
        self._open: dict[int, set[int]] = {}
        self._next: dict[int, int] = {}

    def take(self, place: Place) -> None:
        self._open.setdefault(place.partition, set()).add(place.offset)
        self._next[place.partition] = place.offset + 1

    def done(self, place: Place) -> None:
        self._open.get(place.partition, set()).discard(place.offset)

    def drop(self, partition: int) -> None:
        """The partition went to someone else, who reads it from the last commit on."""
        self._open.pop(partition, None)
        self._next.pop(partition, None)

    def committable(self) -> dict[int, int]:
        return {p: min(self._open.get(p) or {end}) for p, end in self._next.items()}
