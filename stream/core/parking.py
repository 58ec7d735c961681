"""Records that wait for a model or version which lifecycle does not know yet.

The wait is counted from the first `expired` after a record came, by the clock given there, because
records of a backlog or a replay carry times long past. The store is bounded; what does not fit is
refused at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct

from stream.core.decoding import Decoded, decode
from stream.core.processor import CoreSettings, Fleet, Parts, Record
from stream.errors import Refused

CHUNK_BYTES = 131_072  # a checkpoint part is closed at this size, far below the broker's limit
CHUNKS = 1_000_000  # numbers from here on are those of `stream.core.lines`
PREFIX = "parked."


class Parked(Struct, array_like=True):
    """One waiting record."""

    entity: str
    record: Record
    reason: str
    detail: str
    deadline_ms: int | None = None

    @property
    def refused(self) -> Refused:
        return Refused(self.reason, self.detail)


_CODEC = msgspec.msgpack.Decoder(list[Parked])


class Parking:
    """A bounded store of waiting records, written to checkpoints in chunks.

    Attributes:
        max_records, max_bytes: what it holds at most (keys, values and headers counted).
    """

    def __init__(
        self, wait_ms: int, *, max_records: int = 10_000, max_bytes: int = 8_388_608
    ) -> None:
        self.max_records = max_records
        self.max_bytes = max_bytes
        self._wait_ms = wait_ms
        self._chunks: dict[int, list[Parked]] = {}
        self._bytes: dict[int, int] = {}
        self._dirty: set[int] = set()
        self._fleet: Fleet | None = None

    def __len__(self) -> int:
        return sum(map(len, self._chunks.values()))

    @property
    def earliest_ms(self) -> int | None:
        """The earliest timestamp of a waiting record; None if none waits."""
        waiting = (p.record.timestamp_ms for chunk in self._chunks.values() for p in chunk)
        return min(waiting, default=None)

    def park(self, entity: str, record: Record, refused: Refused) -> bool:
        """Take a record in; False if it does not fit and must be refused now."""
        size = size_of(record)
        full = len(self) >= self.max_records or sum(self._bytes.values()) + size > self.max_bytes
        if full or self._wait_ms == 0:
            return False
        chunk = max(self._chunks, default=0)
        if self._bytes.get(chunk, 0) + size > CHUNK_BYTES and self._chunks.get(chunk):
            chunk += 1
        parked = Parked(entity, record, refused.reason, refused.detail)
        self._chunks.setdefault(chunk, []).append(parked)
        self._bytes[chunk] = self._bytes.get(chunk, 0) + size
        self._dirty.add(chunk)
        return True

    def retry(self, fleet: Fleet, settings: CoreSettings) -> list[tuple[str, Decoded]]:
        """Decode again what waits, if the fleet is another one; what is still unknown stays.

        Returns:
            by entity, in the order the records came in, what need not wait any more.
        """
        if fleet is self._fleet or not self._chunks:
            self._fleet = fleet
            return []
        self._fleet = fleet
        decoded = [
            (entity, decode(entity, records, fleet, settings))
            for entity, records in self._by_entity().items()
        ]
        still = {(entity, r.offset) for entity, d in decoded for r, _ in d.unknown}
        self._keep(lambda parked: (parked.entity, parked.record.offset) in still)
        return [(entity, d._replace(unknown=[])) for entity, d in decoded]

    def expired(self, clock_ms: int) -> list[Parked]:
        """Take out those that have waited long enough."""
        for chunk, waiting in self._chunks.items():
            for parked in waiting:
                if parked.deadline_ms is None:
                    parked.deadline_ms = clock_ms + self._wait_ms
                    self._dirty.add(chunk)
        return self._keep(lambda parked: clock_ms < (parked.deadline_ms or 0))

    def changes(self, *, complete: bool) -> Parts:
        """Chunks that differ from the last call, as parts `parked.<n>`; None for emptied ones."""
        wanted = self._dirty | set(self._chunks) if complete else self._dirty
        self._dirty = set()
        return {
            f"{PREFIX}{n}": msgspec.msgpack.encode(self._chunks[n]) if n in self._chunks else None
            for n in sorted(wanted)
        }

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Take over parts that `changes` wrote; others are left alone."""
        for name, data in parts.items():
            if name.startswith(PREFIX) and (chunk := int(name.removeprefix(PREFIX))) < CHUNKS:
                self._chunks[chunk] = _CODEC.decode(data)
        self._chunks = dict(sorted(self._chunks.items()))
        self._count()

    def _by_entity(self) -> dict[str, list[Record]]:
        records: dict[str, list[Record]] = {}
        for waiting in self._chunks.values():
            for parked in waiting:
                records.setdefault(parked.entity, []).append(parked.record)
        return records

    def _keep(self, wanted: Callable[[Parked], bool]) -> list[Parked]:
        """Drop all others and return them, in the order they came in."""
        dropped: list[Parked] = []
        for chunk, waiting in list(self._chunks.items()):
            kept = [parked for parked in waiting if wanted(parked)]
            if len(kept) < len(waiting):
                dropped += [parked for parked in waiting if not wanted(parked)]
                self._dirty.add(chunk)
                self._chunks[chunk] = kept
                if not kept:
                    del self._chunks[chunk]
        self._count()
        return dropped

    def _count(self) -> None:
        self._bytes = {
            chunk: sum(size_of(parked.record) for parked in waiting)
            for chunk, waiting in self._chunks.items()
        }


def size_of(record: Record) -> int:
    """Bytes of key, value and headers."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers
