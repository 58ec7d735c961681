"""Packed rows by key, kept in memory and written to checkpoints as a log of small deltas.

A row is written once, in the part of the flush after it came, and not again while it waits. Parts
are immutable but for a bitmap of the rows that have gone since. Two rules keep a restore in
proportion to what is live, whatever has passed through (a log-structured merge tree: O'Neil et al.,
1996):

- when more bytes of the parts have gone than are live, the poorest parts give up their survivors to
  the part being written: rows that go in the order in which they came are hardly moved;
- of eight parts of about the same size, as many are merged as fit a record.

So each row is written a few times at most, and there are a few parts for every power of eight.

Rows that are fresh lie in a dict. While there are more than `FRESH`, the oldest parts are packed:
what waits for long costs no object, and lies where the work on each batch does not come by.

Memory for each row: fresh, its bytes (33 + 16 + the body), those of its key (49 + its length), its
place in the dict (24 to 64 bytes), a pointer and a time in its part (16); packed, 16 + the body,
the key, 9 bytes for where these lie and 13 to 27 to find it. As many bytes at most have gone as are
live, where the rows of a part are about as wide; and each row that went before its part was written
has its place there (9 bytes packed, 16 fresh).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from itertools import chain, repeat
from operator import add
from struct import Struct as Layout
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.core.processor import Parts
from stream.core.rowparts import (
    HEAD,
    OVERHEAD,
    SERIAL,
    Part,
    Serials,
    fitting,
    pieces,
    poorest,
    read_part,
)
from stream.core.settled import Settled

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]

FAN: Final = 8
MAX_BYTES: Final = 917_504  # at which a part is closed, so that it fits a broker's default of 1 MiB
FRESH: Final = 65_536  # rows; more are packed, a part at a time
_CHUNK: Final = 16_384  # rows that are put in order at once

_pack = HEAD.pack
_serial = SERIAL.unpack_from
_due = Layout("<q").unpack_from


class Row(NamedTuple):
    """A row that has been taken out."""

    key: str
    due_ms: int
    body: bytes


class RowLog:
    """Rows by key, each with a time at which it is due.

    >>> log = RowLog("join")
    >>> log.put("a", 70, b"body")
    >>> log.get("a")
    (70, b'body')
    >>> parts = log.changes(complete=False)
    >>> again = RowLog("join")
    >>> again.restore(parts)
    >>> again.take_due(71)
    [Row(key='a', due_ms=70, body=b'body')]
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._rows: dict[str, bytes] = {}  # fresh ones
        self._settled = Settled()
        self._parts: list[Part] = []  # by `first`; the last ones may not be written yet
        self._firsts: list[int] = []
        self._tail: Part | None = None  # the last part, while it takes rows
        self._serial = 0  # where the next part begins
        self._sequence = 0  # of the next part's name
        self._erased: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows) + self._settled.live

    def get(self, key: str) -> tuple[int, bytes] | None:
        """When a row is due, and its body."""
        row = self._row(key)
        return None if row is None else (_due(row, 8)[0], row[16:])

    def get_all(self, keys: Sequence[str]) -> list[bytes]:
        """Rows as they are packed: `rowparts.HEAD`, then the body; empty where there is none."""
        rows = list(map(self._rows.get, keys, repeat(b"")))
        if self._settled.live:
            others = [place for place, row in enumerate(rows) if not row]
            for which, row in self._settled.find_all([keys[place] for place in others]):
                rows[others[which]] = row
        return rows

    def are_new(self, keys: Sequence[str]) -> Mask:
        """Whether there is no row of a key."""
        new = np.ones(len(keys), dtype=np.bool_)
        if not self._rows.keys().isdisjoint(keys):
            new = np.fromiter((key not in self._rows for key in keys), np.bool_, len(keys))
        new[[place for place, _ in self._settled.find_all(keys)]] = False
        return new

    def put(self, key: str, due_ms: int, body: bytes, *, new: bool = False) -> None:
        """Add or replace a row. `new`: there is none of the key."""
        old = None if new else self._row(key)
        if old is not None:
            self._drop(old)
        part = self._tail or self._open()
        self._rows[key] = _pack(part.first + len(part.slots), due_ms) + body
        part.append(key, due_ms, len(key) + len(body) + OVERHEAD)
        if part.size > MAX_BYTES:
            self._close()
            self._settle(self._parts)

    def put_all(
        self, keys: Sequence[str], dues_ms: Ints, bodies: Bytes, old: Serials | None = None
    ) -> None:
        """As `put` of each, in turn.

        Args:
            keys: all different.
            dues_ms: shape (n,).
            bodies: shape (n, bytes), all of one length.
            old: serial numbers of the rows that they replace, each once; None if there are none.
        """
        if old is not None:
            self._drop_all(old)
        rows = np.empty((len(keys), HEAD.size + bodies.shape[1]), dtype=np.uint8)
        rows[:, SERIAL.size : HEAD.size] = dues_ms.astype("<i8").view(np.uint8).reshape(-1, 8)
        rows[:, HEAD.size :] = bodies
        self._number(keys, rows, dues_ms)

    def pop(self, key: str) -> bytes | None:
        """Take a row out and return its body."""
        row = self._row(key)
        if row is None:
            return None
        self._drop(row)
        self._rows.pop(key, None)
        return row[16:]

    def take_due(self, before_ms: int) -> list[Row]:
        """Take out the rows that are due before a time, in order of that time and the key."""
        due = list[Row]()
        for part, slots in self._due(before_ms):
            keys = part.keys_at(slots)
            rows = part.packed.rows_at(slots) if part.packed else list(map(self._rows.pop, keys))
            due += [
                Row(key, _due(row, 8)[0], row[16:]) for key, row in zip(keys, rows, strict=True)
            ]
            self._drop_from(part, slots)
        return sorted(due, key=lambda row: (row.due_ms, row.key))

    def drop_due(self, before_ms: int, size: int) -> Bytes:
        """As `take_due`, for whom a few bytes of each body are enough: in any order.

        Returns:
            of each row its head and the first bytes of its body, shape (n, `HEAD.size` + size).
        """
        heads = [np.empty((0, HEAD.size + size), dtype=np.uint8)]
        for part, slots in self._due(before_ms):
            heads.append(self._heads(part, slots, HEAD.size + size))
            self._drop_from(part, slots)
        return np.concatenate(heads)

    def changes(self, *, complete: bool) -> Parts:
        """Parts that differ from the last call.

        `complete`: everything anew, in the order of keys, so that equal rows make equal bytes.
        """
        self._tidy()
        if complete:
            self._rebuild()
        else:
            self._merge()
        self._close()
        written: Parts = dict.fromkeys(sorted(self._erased))
        self._erased = set()
        for part in self._parts:
            if not part.name:
                written |= self._write(part)
            elif part.stale:
                written[f"{part.name}.gone"] = bytes(part.gone)
                part.stale = False
        self._settle(self._parts)
        if written or complete:
            written[f"{self._prefix}.head"] = msgspec.msgpack.encode([self._sequence, self._serial])
        return written

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Take over parts that `changes` wrote; others are left alone."""
        ours = f"{self._prefix}."
        if f"{ours}head" not in parts:
            return
        self._sequence, self._serial = msgspec.msgpack.decode(parts[f"{ours}head"])
        names = [name for name in parts if name.startswith(ours) and name[len(ours) :].isdecimal()]
        loaded: list[Part] = []
        for name in names:
            part, live = read_part(name, parts[name], parts.get(f"{name}.gone"))
            self._rows.update(live)
            loaded.append(part)
            self._settle(loaded)
        self._hold(sorted(loaded, key=lambda part: part.first))

    def _row(self, key: str) -> bytes | None:
        row = self._rows.get(key)
        return self._settled.get(key) if row is None else row

    def _hold(self, parts: list[Part]) -> None:
        self._parts = parts
        self._firsts = [part.first for part in parts]

    def _open(self) -> Part:
        """Begin a part for rows to come."""
        self._tail = Part(self._serial)
        self._hold([*self._parts, self._tail])
        return self._tail

    def _close(self) -> None:
        if self._tail:
            self._serial = self._tail.end
            self._tail = None

    def _settle(self, parts: Iterable[Part]) -> None:
        """Pack the first of the parts that are closed, until few enough rows are fresh."""
        if len(self._rows) <= FRESH:
            return
        for part in parts:
            if part.packed or part is self._tail or not self._settled.takes(part.count):
                continue
            keys = part.keys
            self._settled.add(part.pack(self._rows), keys)
            if len(self._rows) <= FRESH:
                return

    def _drop(self, row: bytes) -> None:
        serial: int = _serial(row)[0]
        part = self._parts[-1]
        if serial < part.first:
            part = self._parts[bisect_right(self._firsts, serial) - 1]
        part.drop(serial)
        if part.packed:
            self._settled.live -= 1

    def _drop_all(self, serials: Serials) -> None:
        places = np.searchsorted(self._firsts, serials, side="right") - 1
        for place in np.unique(places).tolist():
            part = self._parts[place]
            slots = serials[places == place] - np.uint64(part.first)
            self._drop_from(part, slots.astype(np.int64))

    def _drop_from(self, part: Part, slots: Ints) -> None:
        """Rows of a part that are live."""
        part.drop_all(slots)
        if part.packed:
            self._settled.live -= len(slots)

    def _due(self, before_ms: int) -> Iterator[tuple[Part, Ints]]:
        """Parts with slots of rows that are due, which the caller takes out."""
        for part in self._parts:
            if part.due_ms < before_ms:
                slots = part.due(before_ms)
                if len(slots):
                    yield part, slots

    def _heads(self, part: Part, slots: Ints, size: int) -> Bytes:
        """The first bytes of live rows; those that are fresh are taken out."""
        if part.packed:
            return part.packed.heads(slots, size)
        rows = map(self._rows.pop, part.keys_at(slots))
        return np.frombuffer(b"".join([row[:size] for row in rows]), np.uint8).reshape(-1, size)

    def _merge(self) -> None:
        """Move survivors of the poorest parts, and of parts whose size is common, to the end."""
        self._carry(poorest([part for part in self._parts if part.name]))
        levels: dict[int, list[Part]] = {}
        for part in self._parts:
            levels.setdefault(part.level, []).append(part)
        for _, alike in sorted(levels.items()):
            chosen = fitting([part for part in alike if part.name], MAX_BYTES)
            if len(alike) >= FAN and len(chosen) >= FAN // 2:
                self._carry(chosen)
                break

    def _carry(self, parts: list[Part]) -> None:
        gone = set(map(id, parts))
        self._hold([part for part in self._parts if id(part) not in gone])
        for part in parts:
            self._erase(part)
            keys, rows, dues_ms = part.keys, part.rows(self._rows), part.live_dues_ms
            self._release(part)
            self._move(keys, rows, dues_ms)

    def _release(self, part: Part) -> None:
        """A part is not held any more."""
        if part.packed:
            self._settled.release(part.packed)

    def _move(self, keys: Sequence[str], rows: Sequence[bytes], dues_ms: Ints) -> None:
        """Put rows to the end; their parts are not held any more. `dues_ms`: shape (n,)."""
        width = len(rows[0]) if rows else 0
        if width and list(map(len, rows)).count(width) == len(rows):
            table = np.frombuffer(bytearray().join(rows), dtype=np.uint8).reshape(-1, width)
            self._number(keys, table, dues_ms)
            return
        serials = pieces(self._serials(len(keys)).tobytes(), SERIAL.size, len(keys))
        self._append(keys, list(map(add, serials, [row[8:] for row in rows])), dues_ms)

    def _number(self, keys: Sequence[str], rows: Bytes, dues_ms: Ints) -> None:
        """Put rows of one width to the end, with the next serials.

        Args:
            rows: shape (n, bytes), changed in place.
            dues_ms: shape (n,).
        """
        rows[:, : SERIAL.size] = self._serials(len(keys))
        width = rows.shape[1]
        self._append(keys, pieces(rows.tobytes(), width, len(keys)), dues_ms, width)

    def _serials(self, count: int) -> Bytes:
        """Of the next rows, packed: shape (n, 8)."""
        first = self._tail.end if self._tail else self._serial
        return np.arange(first, first + count, dtype="<u8").view(np.uint8).reshape(-1, SERIAL.size)

    def _append(
        self, keys: Sequence[str], rows: Sequence[bytes], dues_ms: Ints, width: int | None = None
    ) -> None:
        """Add rows, with the next serials, to the tail, and to another one when it is full.

        Args:
            dues_ms: shape (n,).
            width: bytes of each row, if all have as many.
        """
        if width is not None and self._tail:
            size = len("".join(keys)) + len(keys) * (width - HEAD.size + OVERHEAD)
            if self._tail.size + size <= MAX_BYTES:
                self._tail.extend(keys, dues_ms, size)
                self._rows.update(zip(keys, rows, strict=True))
                return
        lengths = np.fromiter(map(len, keys), np.int64, len(keys))
        lengths += np.fromiter(map(len, rows), np.int64, len(keys))
        sizes = np.cumsum(lengths + (OVERHEAD - HEAD.size))
        start = before = 0
        while start < len(keys):
            part = self._tail or self._open()
            full = int(np.searchsorted(sizes, before + MAX_BYTES - part.size, side="right"))
            end = min(full + 1, len(keys))
            self._rows.update(zip(keys[start:end], rows[start:end], strict=True))
            part.extend(keys[start:end], dues_ms[start:end], int(sizes[end - 1]) - before)
            if part.size > MAX_BYTES:
                self._close()
                self._settle(self._parts)
            start, before = end, int(sizes[end - 1])

    def _tidy(self) -> None:
        """Forget unwritten parts whose rows have all gone again, as if they had never come."""
        if self._tail and not self._tail.live:
            self._tail = None
        for part in self._parts:
            if not (part.name or part.live):
                self._release(part)
        self._hold([part for part in self._parts if part.name or part.live])

    def _rebuild(self) -> None:
        for part in self._parts:
            self._erase(part)
        before = copy(self)
        self._rows, self._settled = {}, Settled()
        self._hold([])
        self._tail, self._serial, self._sequence = None, 0, 0
        keys = sorted(chain(before._rows, before._settled.keys))  # noqa: SLF001
        for start in range(0, len(keys), _CHUNK):
            some = keys[start : start + _CHUNK]
            rows = before.get_all(some)
            self._move(some, rows, np.array([_due(row, 8)[0] for row in rows], dtype=np.int64))

    def _erase(self, part: Part) -> None:
        if part.name:
            self._erased |= {part.name, f"{part.name}.gone"} if any(part.gone) else {part.name}

    def _write(self, part: Part) -> Parts:
        name = f"{self._prefix}.{self._sequence}"
        self._sequence += 1
        return {name: part.write(name, self._rows)}
