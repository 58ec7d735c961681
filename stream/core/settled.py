"""Rows that have been there for a while: side by side in a few large texts, no object for each.

Python's dictionary of as many keys and rows takes more than twice the memory, and what is made and
let go of with every batch comes to lie between them, all over it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.core.keytable import KeyTable, hashes_of

Ints = NDArray[np.int64]

MAX_SLOTS: Final = 2**16  # of one part
MAX_PARTS: Final = 2**16 - 2  # so that a part's number and a slot make a place of a `KeyTable`
_DUE: Final = np.arange(8, 16)  # bytes of `rowparts.HEAD`


class Packed:
    """The rows of one part, by slot.

    Attributes:
        number: in `Settled`.
    """

    __slots__ = ("_key_ends", "_keys", "_live", "_row_ends", "_rows", "number")

    def __init__(self, keys: Sequence[str | None], rows: Sequence[bytes]) -> None:
        """Args:
        keys: None where a row has gone.
        rows: empty where it has gone.
        """
        self.number = 0
        texts = [key or "" for key in keys]
        self._keys, self._rows = "".join(texts), b"".join(rows)
        self._key_ends = array("I", accumulate(map(len, texts), initial=0))
        self._row_ends = array("I", accumulate(map(len, rows), initial=0))
        self._live = bytearray(key is not None for key in keys)

    def __len__(self) -> int:
        return len(self._live)

    def __setitem__(self, slot: int, gone: None) -> None:
        self._live[slot] = False

    def __iter__(self) -> Iterator[str | None]:
        return (self.key(slot) if live else None for slot, live in enumerate(self._live))

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

    def dues_ms(self, slots: Ints) -> Ints:
        """Of live rows: shape (n,)."""
        starts = np.frombuffer(self._row_ends, dtype=np.uint32)[slots]
        heads = np.frombuffer(self._rows, dtype=np.uint8)[starts[:, None] + _DUE]
        dues_ms: Ints = heads.view("<i8").ravel()
        return dues_ms


class Settled:
    """Packed parts by number, and where in them which key lies.

    Attributes:
        live: rows that are live; who drops some of them says so.
    """

    def __init__(self) -> None:
        self.live = 0
        self._parts: dict[int, Packed] = {}
        self._free: list[int] = []  # numbers that were in use
        self._table = KeyTable()

    @property
    def keys(self) -> Iterator[str]:
        """Of the live rows."""
        return (key for part in self._parts.values() for key in part if key is not None)

    def takes(self, count: int) -> bool:
        """Whether there is room for another part of so many slots."""
        return 0 < count <= MAX_SLOTS and len(self._parts) < MAX_PARTS

    def add(self, part: Packed, keys: Sequence[str]) -> None:
        """Take in a part. `keys`: of its live rows, whose hashes Python remembers."""
        part.number = self._free.pop() if self._free else len(self._parts) + 1
        self._parts[part.number] = part
        self._table.add(hashes_of(keys), part.number * MAX_SLOTS + part.filled)
        self.live += len(keys)

    def get(self, key: str) -> bytes | None:
        """The row of a key."""
        if self.live:
            for place in self._table.find(key):
                row = self._parts[place // MAX_SLOTS].row_of(key, place % MAX_SLOTS)
                if row is not None:
                    return row
        return None

    def find_all(self, keys: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """Indices of the keys that are here, and their rows."""
        if not self.live or not keys:
            return
        of, places = self._table.find_all(hashes_of(keys))
        numbers, slots = (column.tolist() for column in np.divmod(places, MAX_SLOTS))
        for index, number, slot in zip(of.tolist(), numbers, slots, strict=True):
            row = self._parts[number].row_of(keys[index], slot)
            if row is not None:
                yield index, row

    def release(self, part: Packed) -> None:
        """Let go of a part and its live rows. The table still knows those that were dropped."""
        keys = list(map(part.key, part.filled.tolist()))
        self._table.remove(hashes_of(keys), part.number * MAX_SLOTS + part.filled)
        self.live -= len(part.slots)
        del self._parts[part.number]
        self._free.append(part.number)
