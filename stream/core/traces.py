"""A few traces that stand for many: W3C `traceparent`s of what was counted, from request to alert.

Kept are those with the smallest ids. Ids are random, so that is a fair choice, and the same one
however the events were cut into batches, partitions and ticks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MOST: Final = 3
CHARACTERS: Final = 55
#: Version 00 of W3C Trace Context: version, trace id, span id, flags. All zeros is no id.
_VALID: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def few(*several: Iterable[str]) -> list[str]:
    """The traces that stand for all of these.

    >>> few(["d", "a"], ["c", "b", "a"])
    ['a', 'b', 'c']
    """
    return sorted({one for traces in several for one in traces})[:MOST]


def is_trace(text: str | None) -> bool:
    """Whether it is a `traceparent`; producers may write anything there.

    >>> is_trace("00-" + "a" * 32 + "-" + "b" * 16 + "-01"), is_trace("anything")
    (True, False)
    """
    return text is not None and _VALID.fullmatch(text) is not None
