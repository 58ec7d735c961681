"""JSON texts that are alike: what is the same in all is encoded once, what differs is set into it.

Encoding a struct for each event costs three times as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw

_ENCODER: Final = msgspec.json.Encoder()
_MARK: Final = b"\0"  # JSON text has none

#: Stands in a frame for a value that differs.
SLOT: Final[Any] = Raw(_MARK)


def slot_after(prefix: str) -> Any:
    """Stands in a frame for a string that begins alike; what differs needs no escapes.

    >>> framed([slot_after("0/"), SLOT], [[b"7", b"8"], texts([1.5, None])])
    [b'["0/7",1.5]', b'["0/8",null]']
    """
    return Raw(b'"%b%b"' % (prefix.encode(), _MARK))


def framed(frame: object, columns: Iterable[Iterable[bytes]]) -> list[bytes]:
    """The frame's text with the slots filled, once for each row of the columns.

    Args:
        frame: anything that msgspec encodes, with slots in it.
        columns: JSON text for each slot, in the order in which the encoded frame has them.
    """
    first, *others = _ENCODER.encode(frame).split(_MARK)
    pieces: list[Iterable[bytes]] = [repeat(first)]
    for column, other in zip(columns, others, strict=True):
        pieces += [column, repeat(other)]
    return list(map(b"".join, zip(*pieces, strict=False)))  # constants have no end


def texts(values: Iterable[object]) -> list[bytes]:
    """Each value as JSON; encoded text has no line breaks."""
    return _ENCODER.encode_lines(values).split(b"\n")[:-1]


def time_texts(times_ms: Sequence[int]) -> list[bytes]:
    """Each time as `stream.envelope.from_ms` of it is encoded.

    >>> time_texts([0, 1500])
    [b'"1970-01-01T00:00:00Z"', b'"1970-01-01T00:00:01.500000Z"']
    """
    naive = np.array(times_ms, dtype="datetime64[ms]").tolist()  # numpy knows no time zones
    return _ENCODER.encode_lines(naive).replace(b'"\n', b'Z"\n').split(b"\n")[:-1]
