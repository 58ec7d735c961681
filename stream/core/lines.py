"""Records that wait for their turn, a line for each model.

A line is first in, first out. What stands in it is written to checkpoints as parked records are, in
chunks of the same form under numbers of their own, so that a program that knows no lines takes them
for parked ones and predicts them. The lines are bounded together; see `full`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from stream.core.parking import CHUNKS, PREFIX, Parked, size_of
from stream.core.processor import Parts, Record

CHUNK_BYTES: Final = 65_536  # the first and the last chunk of a line are written anew each time
_REASON: Final = "put-off"
_CODEC = msgspec.msgpack.Decoder(list[Parked])


class Lines:
    """Waiting records of one entity, by model.

    Attributes:
        max_records, max_bytes: over these they are `full` (keys, values and headers counted).
    """

    def __init__(
        self, entity: str, *, max_records: int = 10_000, max_bytes: int = 8_388_608
    ) -> None:
        self.max_records = max_records
        self.max_bytes = max_bytes
        self._entity = entity
        self._lines: dict[str, deque[int]] = {}  # chunks, the oldest first
        self._chunks: dict[int, list[Record]] = {}
        self._models: dict[int, str] = {}  # of chunks
        self._bytes: dict[int, int] = {}
        self._lengths: dict[str, int] = {}
        self._dirty: set[int] = set()

    def __len__(self) -> int:
        return sum(self._lengths.values())

    def __contains__(self, model: str) -> bool:
        return model in self._lines

    @property
    def full(self) -> bool:
        return len(self) > self.max_records or sum(self._bytes.values()) > self.max_bytes

    @property
    def lengths(self) -> Mapping[str, int]:
        """Records by model; the models in the order in which it is their turn."""
        return self._lengths

    def stand(self, model: str, records: Sequence[Record]) -> None:
        """Put records at the end of a model's line, in their order. Nothing is refused."""
        line = self._lines.setdefault(model, deque())
        for record in records:
            if not line or self._bytes[line[-1]] >= CHUNK_BYTES:
                line.append(self._new_chunk(model))
            self._chunks[line[-1]].append(record)
            self._bytes[line[-1]] += size_of(record)
            self._dirty.add(line[-1])
        self._lengths[model] = self._lengths.get(model, 0) + len(records)

    def take(self, model: str, most: int) -> list[Record]:
        """The first of a model's line, which then goes behind those of the other models."""
        line, taken = self._lines.pop(model), list[Record]()
        left = self._lengths.pop(model)
        while line and len(taken) < most:
            taken += self._from_chunk(line[0], most - len(taken))
            if line[0] not in self._chunks:
                line.popleft()
        if line:
            self._lines[model], self._lengths[model] = line, left - len(taken)
        return taken

    def changes(self, *, complete: bool) -> Parts:
        """Chunks that differ from the last call; None for those that are gone."""
        wanted = self._dirty | set(self._chunks) if complete else self._dirty
        self._dirty = set()
        return {f"{PREFIX}{n}": self._written(n) for n in sorted(wanted)}

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Take over parts that `changes` wrote; others are left alone."""
        numbers = sorted(int(p.removeprefix(PREFIX)) for p in parts if p.startswith(PREFIX))
        for number in filter(CHUNKS.__le__, numbers):
            waiting = _CODEC.decode(parts[f"{PREFIX}{number}"])
            model = waiting[0].detail
            self._chunks[number] = [parked.record for parked in waiting]
            self._bytes[number] = sum(map(size_of, self._chunks[number]))
            self._models[number] = model
            self._lines.setdefault(model, deque()).append(number)
            self._lengths[model] = self._lengths.get(model, 0) + len(waiting)

    def _new_chunk(self, model: str) -> int:
        number = max(self._chunks, default=CHUNKS - 1) + 1
        self._chunks[number], self._bytes[number], self._models[number] = [], 0, model
        return number

    def _from_chunk(self, number: int, most: int) -> list[Record]:
        taken, kept = self._chunks[number][:most], self._chunks[number][most:]
        self._dirty.add(number)
        if kept:
            self._chunks[number] = kept
            self._bytes[number] -= sum(map(size_of, taken))
        else:
            del self._chunks[number], self._bytes[number], self._models[number]
        return taken

    def _written(self, number: int) -> bytes | None:
        if number not in self._chunks:
            return None
        model = self._models[number]
        waiting = [Parked(self._entity, one, _REASON, model) for one in self._chunks[number]]
        return msgspec.msgpack.encode(waiting)
