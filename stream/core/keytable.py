"""Where millions of keys may lie, by their hashes, in one array: many are looked up at once.

A cell holds the upper half of a key's hash and a number that says where the key lies, so a key that
is found is only likely to be there. The leading bits of the hash name a bucket of eight cells, one
line of the processor's cache; what finds it full goes to the next one (W. W. Peterson, 1957). So a
search ends at the first bucket that is not full. All cells of a larger table lie in the order of
the smaller one's, so that it is filled from front to back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct as Layout
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Mask = NDArray[np.bool_]

PLACES: Final = 2**32  # a place is below it
_WIDTH: Final = 8  # cells of a bucket
_FULL: Final = 0.6  # of all cells: beyond it, too many buckets are full
_ROOMY: Final = 0.4  # of a table that was made anew, at most
_FIRST_BITS: Final = 4  # of buckets
_SLICE: Final = 4_096  # buckets that are moved at once
_EMPTY: Final = 0  # a place that no key has
_HALF: Final = PLACES - 1
_PLACE: Final = np.uint64(_HALF)  # the bits of a cell that are its place
_BUCKET: Final = Layout(f"<{2 * _WIDTH}I")  # a cell's place, then its part of a hash


class KeyTable:
    """Places by hash; a hash may have several. Where nothing lies any more is known until the table
    is made anew.

    >>> table = KeyTable()
    >>> table.takes(2)
    True
    >>> table.add(hashes_of(["a", "b"]), np.array([7, 9]))
    >>> list(table.find("b")), list(table.find("c"))
    ([9], [])
    """

    def __init__(self, bits: int = _FIRST_BITS) -> None:
        self._shift = 64 - bits
        self._cells = _cells(bits)
        self._taken = np.zeros(len(self._cells), dtype=np.uint8)  # cells of each bucket
        self._filled = 0

    def takes(self, count: int) -> bool:
        """Whether there is room for so many more."""
        return self._filled + count <= _FULL * self._cells.size

    def add(self, hashes: Hashes, places: Ints) -> None:
        """Shapes (n,), for which there is room; places are above 0 and below `PLACES`."""
        self._fill(_upper(hashes) | places.astype(np.uint64))

    def renew(self, count: int, are_held: Callable[[Ints], Mask]) -> None:
        """Make it anew, with some more room than for so many, of the places that are held yet."""
        old, bits = self._cells, _FIRST_BITS
        while count > _ROOMY * (_WIDTH << bits):
            bits += 1
        self._shift, self._cells = 64 - bits, _cells(bits)
        self._taken = np.zeros(len(self._cells), dtype=np.uint8)
        self._filled = 0
        for start in range(0, len(old), _SLICE):
            cells = old[start : start + _SLICE].ravel()
            places = (cells & _PLACE).astype(np.int64)
            self._fill(cells[(places != _EMPTY) & are_held(places)])

    def find(self, key: str) -> list[int]:
        """Where a key may lie."""
        wanted = hash(key) >> 32 & _HALF
        bucket = wanted << 32 >> self._shift
        found: list[int] = []
        while True:
            halves = _BUCKET.unpack_from(self._cells.data, bucket * _BUCKET.size)
            places, uppers = halves[::2], halves[1::2]
            column = -1
            for _ in range(uppers.count(wanted)):
                column = uppers.index(wanted, column + 1)
                if places[column] != _EMPTY:
                    found.append(places[column])
            if not places[-1]:
                return found
            bucket = (bucket + 1) % len(self._cells)

    def find_all(self, hashes: Hashes) -> tuple[Ints, Ints]:
        """Where keys may lie: indices of `hashes`, and a place for each, both of shape (found,)."""
        wanted = _upper(hashes)
        of, buckets = np.arange(len(wanted)), self._buckets(wanted)
        hits: list[tuple[Ints, Ints]] = []
        while len(of):
            cells = self._cells[buckets]
            same = np.flatnonzero((cells | _PLACE) == (wanted[of] | _PLACE)[:, None])
            hits.append((of[same // _WIDTH], (cells.ravel()[same] & _PLACE).astype(np.int64)))
            full = cells[:, -1] != _EMPTY
            of, buckets = of[full], (buckets[full] + 1) % len(self._cells)
        if not hits:
            return of, of
        whose, places = (np.concatenate(part) for part in zip(*hits, strict=True))
        known = places != _EMPTY
        return whose[known], places[known]

    def _fill(self, cells: Hashes) -> None:
        self._filled += len(cells)
        cells = np.sort(cells)
        buckets = self._buckets(cells)
        while len(cells):
            columns = self._taken[buckets] + _nth(buckets)
            fits = columns < _WIDTH
            self._cells[buckets[fits], columns[fits]] = cells[fits]
            self._taken[buckets[fits]] = columns[fits] + 1  # of equal ones the last one stays
            cells, buckets = cells[~fits], (buckets[~fits] + 1) % len(self._cells)
            order = np.argsort(buckets, kind="stable")
            cells, buckets = cells[order], buckets[order]

    def _buckets(self, cells: Hashes) -> Ints:
        return (cells >> np.uint64(self._shift)).astype(np.int64)


def hashes_of(keys: Sequence[str]) -> Hashes:
    """Python's own, which differ from process to process."""
    return np.fromiter(map(hash, keys), np.int64, len(keys)).view(np.uint64)


def _nth(ordered: Ints) -> Ints:
    """How many equal ones come before each."""
    firsts = np.flatnonzero(np.diff(ordered, prepend=-1))
    return np.arange(len(ordered)) - np.repeat(firsts, np.diff(firsts, append=len(ordered)))


def _upper(hashes: Hashes) -> Hashes:
    return hashes & ~_PLACE


def _cells(bits: int) -> Hashes:
    """Empty ones. Written here and now, as zeros of `numpy.zeros` come in pages of 4 KiB."""
    cells = np.empty((1 << bits, _WIDTH), dtype="<u8")
    cells.fill(_EMPTY)
    return cells
