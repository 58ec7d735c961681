"""Rows that have been there for a while: side by side in a few large texts, no object for each.

Python's dictionary of as many keys and rows takes more than twice the memory, and what is made and
let go of with every batch comes to lie between them, all over it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.core.keytable import KeyTable, hashes_of

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

MAX_SLOTS: Final = 2**16  # of one part
MAX_PARTS: Final = 2**16 - 1  # so that a part's number and a slot make a place of a `KeyTable`
_HEAD: Final = 16  # bytes of `rowparts.HEAD`, the due time last


class Packed:
    """The rows of one part, by slot.

    Attributes:
        number: in `Settled`.
    """

    __slots__ = ("_key_ends", "_keys", "_live", "_row_ends", "_rows", "number")

    def __init__(self, keys: Sequence[str | None], rows: Sequence[bytes]) -> None:
        """Args:
        keys: None where a row has gone; none is empty.
        rows: empty where it has gone.
        """
        self.number = 0
        lengths = np.fromiter(map(len, rows), np.uint32, len(rows))
        live = lengths > 0
        self._keys, self._rows = "".join(filter(None, keys)), b"".join(rows)
        self._row_ends = _ends(lengths)
        lengths[live] = np.fromiter(map(len, filter(None, keys)), np.uint32)
        self._key_ends = _ends(lengths)
        self._live = bytearray(live.tobytes())

    def __len__(self) -> int:
        return len(self._live)

    def __setitem__(self, slot: int, gone: None) -> None:
        self._live[slot] = False

    def drop(self, slots: Ints) -> None:
        """Rows that have gone."""
        np.frombuffer(self._live, dtype=np.uint8)[slots] = False

    @property
    def slots(self) -> Ints:
        """Of the live rows."""
        return np.flatnonzero(np.frombuffer(self._live, dtype=np.uint8))

    @property
    def filled(self) -> Ints:
        """Slots of all rows that were live when they were packed."""
        return np.flatnonzero(np.diff(np.frombuffer(self._row_ends, dtype=np.uint32)))

    def key(self, slot: int) -> str:
        return self._keys[self._key_ends[slot] : self._key_ends[slot + 1]]

    def row(self, slot: int) -> bytes:
        return self._rows[self._row_ends[slot] : self._row_ends[slot + 1]]

    def row_of(self, key: str, slot: int) -> bytes | None:
        """The row in a slot, if it is live and of this key."""
        return self.row(slot) if self._live[slot] and self.key(slot) == key else None

    def keys_at(self, slots: Ints) -> list[str]:
        """Shape (n,)."""
        return list(map(self._keys.__getitem__, _spans(self._key_ends, slots)))

    def rows_at(self, slots: Ints) -> list[bytes]:
        """Shape (n,)."""
        return list(map(self._rows.__getitem__, _spans(self._row_ends, slots)))

    def heads(self, slots: Ints, size: int) -> Bytes:
        """What live rows begin with, so many bytes of each: shape (n, size)."""
        starts = np.frombuffer(self._row_ends, dtype=np.uint32)[slots]
        count = max(0, len(self._rows) - size + 1)
        heads = np.ndarray((count,), f"V{size}", self._rows, strides=(1,))[starts]
        return heads.view(np.uint8).reshape(-1, size)

    def dues_ms(self, slots: Ints) -> Ints:
        """Of live rows: shape (n,)."""
        heads = self.heads(slots, _HEAD)
        return heads.view("<i8")[:, 1].astype(np.int64)


class Settled:
    """Packed parts by number, and where in them which key lies.

    Attributes:
        live: rows that are live; who drops some of them says so.
    """

    def __init__(self) -> None:
        self.live = 0
        self._parts: dict[int, Packed] = {}
        self._free: list[int] = []  # numbers that were in use
        self._known: list[int] = []  # such that the table knows yet
        self._table = KeyTable()

    @property
    def keys(self) -> Iterator[str]:
        """Of the live rows."""
        return chain.from_iterable(part.keys_at(part.slots) for part in self._parts.values())

    def takes(self, count: int) -> bool:
        """Whether there is room for another part of so many slots."""
        return 0 < count <= MAX_SLOTS and len(self._parts) < MAX_PARTS

    def add(self, part: Packed, keys: Sequence[str]) -> None:
        """Take in a part. `keys`: of its live rows, whose hashes Python remembers."""
        if len(self._parts) + len(self._known) == MAX_PARTS or not self._table.takes(len(keys)):
            self._renew(len(keys))
        part.number = self._free.pop() if self._free else 1 + len(self._parts) + len(self._known)
        self._parts[part.number] = part
        self._table.add(hashes_of(keys), part.number * MAX_SLOTS + part.filled)
        self.live += len(keys)

    def _renew(self, count: int) -> None:
        """Make room for so many more keys, and let those go that were dropped."""
        in_use = np.zeros(MAX_PARTS + 1, dtype=np.bool_)
        in_use[list(self._parts)] = True
        held = sum(len(part.filled) for part in self._parts.values())
        self._table.renew(held + count, lambda places: in_use[places // MAX_SLOTS])
        self._free += self._known
        self._known = []

    def get(self, key: str) -> bytes | None:
        """The row of a key."""
        if self.live:
            for place in self._table.find(key):
                part = self._parts.get(place // MAX_SLOTS)
                if part is not None and (row := part.row_of(key, place % MAX_SLOTS)) is not None:
                    return row
        return None

    def find_all(self, keys: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """Indices of the keys that are here, and their rows."""
        if not self.live or not keys:
            return
        of, places = self._table.find_all(hashes_of(keys))
        numbers, slots = (column.tolist() for column in np.divmod(places, MAX_SLOTS))
        for index, number, slot in zip(of.tolist(), numbers, slots, strict=True):
            part = self._parts.get(number)
            if part is not None and (row := part.row_of(keys[index], slot)) is not None:
                yield index, row

    def release(self, part: Packed) -> None:
        """Let go of a part and its live rows."""
        self.live -= len(part.slots)
        del self._parts[part.number]
        self._known.append(part.number)


def _ends(lengths: NDArray[np.uint32]) -> array[int]:
    """Where each piece ends, and before them where the first one begins."""
    return array("I", b"\0" * 4 + np.cumsum(lengths, dtype=np.uint32).tobytes())


def _spans(ends: array[int], slots: Ints) -> Iterator[slice]:
    """Where the pieces of these slots lie."""
    table = np.frombuffer(ends, dtype=np.uint32)
    return map(slice, table[slots].tolist(), table[slots + 1].tolist())
