"""Packed rows by key, kept in memory and written to checkpoints as a log of small deltas.

A row is written once, in the part of the flush after it came, and not again while it waits. Parts
are immutable but for a bitmap of the rows that have gone since. Two rules keep a restore in
proportion to what is live, whatever has passed through (a log-structured merge tree: O'Neil et al.,
1996):

- a part of which less than half is live gives up its survivors to the part being written;
- of eight parts of about the same size, as many are merged as fit a record.

So each row is written a few times at most, and there are a few parts for every power of eight.

Memory for each row: its bytes (33 + 16 + the body), its place in the dict (24 to 64 bytes) and a
pointer in its part (8, for each row that is live and at most one that is gone). Keys come on top.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from struct import Struct as Layout
from typing import Final, NamedTuple

import msgspec

from stream.core.processor import Parts

FAN: Final = 8
MAX_BYTES: Final = 917_504  # at which a part is closed, so that it fits a broker's default of 1 MiB

_HEAD: Final = Layout("<Qq")  # serial number, due time in ms
_SERIAL: Final = Layout("<Q")
_DUE: Final = Layout("<q")
_NEVER: Final = 2**63 - 1
_OVERHEAD: Final = _HEAD.size + 8  # bytes that a part has for a row, beside its key and body


class Row(NamedTuple):
    """A row that has been taken out."""

    key: str
    due_ms: int
    body: bytes


class _Part:
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
        self.due_ms = _NEVER
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
        self._rows: dict[str, bytes] = {}
        self._parts: list[_Part] = []  # by `first`; the last ones may not be written yet
        self._firsts: list[int] = []
        self._tail: _Part | None = None  # the last part, while it takes rows
        self._serial = 0  # where the next part begins
        self._sequence = 0  # of the next part's name
        self._erased: set[str] = set()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: str) -> tuple[int, bytes] | None:
        """When a row is due, and its body."""
        row = self._rows.get(key)
        return None if row is None else (_DUE.unpack_from(row, 8)[0], row[16:])

    def put(self, key: str, due_ms: int, body: bytes) -> None:
        """Add or replace a row."""
        old = self._rows.get(key)
        if old is not None:
            self._drop(old)
        self._append(key, due_ms, body)

    def pop(self, key: str) -> bytes | None:
        """Take a row out and return its body."""
        row = self._rows.pop(key, None)
        if row is None:
            return None
        self._drop(row)
        return row[16:]

    def take_due(self, before_ms: int) -> list[Row]:
        """Take out the rows that are due before a time, in order of that time and the key."""
        due: list[Row] = []
        for part in self._parts:
            if part.due_ms < before_ms:
                due += self._due_of(part, before_ms)
        for row in due:
            self.pop(row.key)
        return sorted(due, key=lambda row: (row.due_ms, row.key))

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
        written: Parts = dict.fromkeys(self._erased)
        self._erased = set()
        for part in self._parts:
            if not part.name:
                written |= self._write(part)
            elif part.stale:
                written[f"{part.name}.gone"] = bytes(part.gone)
                part.stale = False
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
        loaded = [self._read(name, parts[name], parts.get(f"{name}.gone")) for name in names]
        self._hold(sorted(loaded, key=lambda part: part.first))

    def _hold(self, parts: list[_Part]) -> None:
        self._parts = parts
        self._firsts = [part.first for part in parts]

    def _open(self) -> _Part:
        """Begin a part for rows to come."""
        self._tail = _Part(self._serial)
        self._hold([*self._parts, self._tail])
        return self._tail

    def _append(self, key: str, due_ms: int, body: bytes) -> None:
        part = self._tail or self._open()
        slots = part.slots
        self._rows[key] = _HEAD.pack(part.first + len(slots), due_ms) + body
        slots.append(key)
        if due_ms < part.due_ms:
            part.due_ms = due_ms
        part.size += len(key) + len(body) + _OVERHEAD
        if part.size > MAX_BYTES:
            self._close()

    def _close(self) -> None:
        if self._tail:
            self._serial = self._tail.end
            self._tail = None

    def _drop(self, row: bytes) -> None:
        serial: int = _SERIAL.unpack_from(row)[0]
        part = self._parts[-1]
        if serial < part.first:
            part = self._parts[bisect_right(self._firsts, serial) - 1]
        part.drop(serial)

    def _due_of(self, part: _Part, before_ms: int) -> list[Row]:
        due, part.due_ms = [], _NEVER
        for key in part.keys:
            row = self._rows[key]
            due_ms: int = _DUE.unpack_from(row, 8)[0]
            if due_ms < before_ms:
                due.append(Row(key, due_ms, row[16:]))
            elif due_ms < part.due_ms:
                part.due_ms = due_ms
        return due

    def _merge(self) -> None:
        """Move survivors of poor parts, and of parts whose size is common, to the end."""
        self._carry([part for part in self._parts if part.name and 2 * part.live < len(part.slots)])
        levels: dict[int, list[_Part]] = {}
        for part in self._parts:
            levels.setdefault(part.level, []).append(part)
        for _, alike in sorted(levels.items()):
            fitting = _fitting([part for part in alike if part.name])
            if len(alike) >= FAN and len(fitting) >= FAN // 2:
                self._carry(fitting)
                break

    def _carry(self, parts: list[_Part]) -> None:
        gone = set(map(id, parts))
        self._hold([part for part in self._parts if id(part) not in gone])
        for part in parts:
            self._erase(part)
            self._move(part.keys)

    def _move(self, keys: list[str]) -> None:
        """Put rows to the end, whose parts are not held any more."""
        for key in keys:
            row = self._rows[key]
            self._append(key, _DUE.unpack_from(row, 8)[0], row[16:])

    def _tidy(self) -> None:
        """Forget unwritten parts whose rows have all gone again, as if they had never come."""
        if self._tail and not self._tail.live:
            self._tail = None
        self._hold([part for part in self._parts if part.name or part.live])

    def _rebuild(self) -> None:
        for part in self._parts:
            self._erase(part)
        self._hold([])
        self._tail, self._serial, self._sequence = None, 0, 0
        self._move(sorted(self._rows))

    def _erase(self, part: _Part) -> None:
        if part.name:
            self._erased |= {part.name, f"{part.name}.gone"} if any(part.gone) else {part.name}

    def _write(self, part: _Part) -> Parts:
        part.name = f"{self._prefix}.{self._sequence}"
        part.gone = bytearray((len(part.slots) + 7) // 8)
        self._sequence += 1
        rows = [self._rows[key] for key in part.keys]
        return {part.name: msgspec.msgpack.encode([part.first, len(part.slots), part.keys, rows])}

    def _read(self, name: str, data: bytes, gone: bytes | None) -> _Part:
        first, count, keys, rows = _CODEC.decode(data)
        part = _Part(first)
        part.name = name
        part.slots, part.dead = [None] * count, count
        part.gone = bytearray(gone or (count + 7) // 8)
        for key, row in zip(keys, rows, strict=True):
            serial, due_ms = _HEAD.unpack_from(row)
            slot = serial - first
            part.size += len(key) + len(row) - 16 + _OVERHEAD
            if not part.gone[slot >> 3] & 1 << (slot & 7):
                part.slots[slot] = key
                part.dead -= 1
                part.due_ms = min(part.due_ms, due_ms)
                self._rows[key] = row
        return part


def _fitting(parts: list[_Part]) -> list[_Part]:
    """As many of the parts, smallest first, as fit one."""
    total, fitting = 0, []
    for part in sorted(parts, key=lambda part: (part.live_size, part.first)):
        total += part.live_size
        if total > MAX_BYTES:
            break
        fitting.append(part)
    return fitting


_CODEC = msgspec.msgpack.Decoder(tuple[int, int, list[str], list[bytes]])
