"""One part of a `RowLog`: rows that are written together, and which of them have gone since."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct as Layout
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Serials = NDArray[np.uint64]
NEVER: Final = 2**63 - 1
SERIAL: Final = Layout("<Q")
HEAD: Final = Layout("<Qq")  # serial number, due time in ms
HEAD_FIELDS: Final = [("serial", "<u8"), ("due_ms", "<i8")]  # the same, of many at once
OVERHEAD: Final = HEAD.size + 8  # bytes that a part has for a row, beside its key and body
_CODEC: Final = msgspec.msgpack.Decoder(tuple[int, int, list[str], list[bytes]])


class Part:
    """Rows with serial numbers from `first` on, one slot each.

    Attributes:
        slots: keys of live rows; None where the row has gone.
        size: bytes of all rows, gone ones included.
        due_ms: no row is due before.
        name: empty until it is written.
        gone: bitmap of the slots that were written and have gone since.
        stale: the bitmap differs from the written one.
    """

    __slots__ = ("dead", "due_ms", "first", "gone", "name", "size", "slots", "stale")

    def __init__(self, first: int) -> None:
        self.first = first
        self.slots: list[str | None] = []
        self.dead = 0
        self.size = 0
        self.due_ms = NEVER
        self.name = ""
        self.gone = bytearray()
        self.stale = False

    def drop(self, serial: int) -> None:
        slot = serial - self.first
        self.slots[slot] = None
        self.dead += 1
        if self.name:
            self.gone[slot >> 3] |= 1 << (slot & 7)
            self.stale = True

    def drop_all(self, serials: Serials) -> None:
        """Shape (n,)."""
        slots = (serials - np.uint64(self.first)).astype(np.int64)
        for slot in slots.tolist():
            self.slots[slot] = None
        self.dead += len(slots)
        if self.name:
            gone = np.frombuffer(self.gone, dtype=np.uint8)
            np.bitwise_or.at(gone, slots >> 3, (1 << (slots & 7)).astype(np.uint8))
            self.stale = True

    @property
    def keys(self) -> list[str]:
        """Of the live rows."""
        return [key for key in self.slots if key is not None]

    @property
    def live(self) -> int:
        return len(self.slots) - self.dead

    @property
    def end(self) -> int:
        return self.first + len(self.slots)

    @property
    def level(self) -> int:
        """0 for up to 3 rows, then one more for every factor of eight."""
        return self.live.bit_length() // 3

    @property
    def live_size(self) -> int:
        """Bytes of the live rows, estimated."""
        return self.size * self.live // max(1, len(self.slots))

    def encode(self, rows: Mapping[str, bytes]) -> bytes:
        """The part as it is written for good. `rows`: its own among others, by key."""
        keys = self.keys
        live = [rows[key] for key in keys]
        return msgspec.msgpack.encode([self.first, len(self.slots), keys, live])


def read_part(name: str, data: bytes, gone: bytes | None) -> tuple[Part, list[tuple[str, bytes]]]:
    """A part as it was written, less the rows that a bitmap says have gone; keys and rows left."""
    first, count, keys, rows = _CODEC.decode(data)
    part = Part(first)
    part.name = name
    part.slots, part.dead = [None] * count, count
    part.gone = bytearray(gone or (count + 7) // 8)
    live = []
    for key, row in zip(keys, rows, strict=True):
        serial, due_ms = HEAD.unpack_from(row)
        slot = serial - first
        part.size += len(key) + len(row) - HEAD.size + OVERHEAD
        if not part.gone[slot >> 3] & 1 << (slot & 7):
            part.slots[slot] = key
            part.dead -= 1
            part.due_ms = min(part.due_ms, due_ms)
            live.append((key, row))
    return part, live


def fitting(parts: list[Part], max_bytes: int) -> list[Part]:
    """As many of the parts, smallest first, as fit one."""
    total, fitting = 0, []
    for part in sorted(parts, key=lambda part: (part.live_size, part.first)):
        total += part.live_size
        if total > max_bytes:
            break
        fitting.append(part)
    return fitting


def pieces(data: bytes, length: int, count: int) -> list[bytes]:
    """Data cut into as many pieces of one length; numpy does it in a seventh of the time.

    >>> pieces(b"ab\\0\\0", 2, 2), pieces(b"", 0, 2)
    ([b'ab', b'\\x00\\x00'], [b'', b''])
    """
    if not length:
        return [b""] * count
    cut: list[bytes] = np.frombuffer(data, dtype=f"V{length}").tolist()
    return cut
