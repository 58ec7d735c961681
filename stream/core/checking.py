"""What decoders cannot say about an event: each check passes, or raises `Refused`."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NoReturn

import msgspec

from models.losses import encode_label
from stream.core.processor import LiveModel
from stream.errors import Refused
from stream.events import FeedbackReceived, Output

MAX_ID_BYTES = 256
MAX_WEIGHT = 1e6
REMEMBERED = 500  # characters of a decoder's message; one that quotes a record may be any length
SUM_SLACK = 0.01  # how far a multiclass output's probabilities may be from adding up to 1
_PATH = re.compile(r"`\$\.(\w+)")  # of the field, in the decoder's messages
_EXTRA = "Object contains unknown field"  # how such a message begins
_BLAME = {
    "prediction_id": "bad-id",
    "features": "bad-features",
    "output": "bad-output",
    "shadow": "bad-output",
    "label": "bad-label",
}


def refuse_time(ahead_ms: int) -> NoReturn:
    """Refuse an event that happened too far from its record's own time."""
    side = f"{ahead_ms} ms ahead of" if ahead_ms > 0 else f"{-ahead_ms} ms behind"
    raise Refused("bad-time", f"the event is {side} its record's own time")


def check_id(text: str) -> None:
    """Refuse ids that would not show as what they are. Decoders limit the characters already."""
    if not text.isprintable():
        raise Refused("bad-id", "control or unprintable characters in prediction_id")
    if not text.isascii() and len(text.encode()) > MAX_ID_BYTES:
        raise Refused("bad-id", f"prediction_id has more than {MAX_ID_BYTES} bytes")


def floats(output: Output, what: str) -> tuple[float, ...]:
    """An output of the right length, which decoders see to, as floats."""
    if isinstance(output, list):
        if not math.isclose(sum(output), 1.0, abs_tol=SUM_SLACK):
            raise Refused("bad-output", f"{what}: the probabilities add up to {sum(output):g}")
        return tuple(output)
    return (output,)


def label_of(data: FeedbackReceived, live: LiveModel) -> tuple[float]:
    """The encoded label."""
    if data.weight > MAX_WEIGHT:
        raise Refused("bad-data", f"weight {data.weight:g} is beyond {MAX_WEIGHT:g}")
    try:
        return (encode_label(live.lifecycle.spec, data.label),)
    except ValueError as error:
        raise Refused("bad-label", str(error)) from error


def blamed(error: Exception) -> Refused:
    """What a decoder could not read, with a reason by the path in its message."""
    deep = isinstance(error, RecursionError)
    said = "nested too deeply" if deep else str(error)
    blame = _blamed if len(said) <= REMEMBERED else _blamed.__wrapped__
    return blame(said, isinstance(error, msgspec.ValidationError))


@lru_cache(maxsize=1024)  # what is wrong with one is wrong with many
def _blamed(said: str, is_json: bool) -> Refused:
    if not is_json:
        return Refused("bad-json", said)
    path = _PATH.search(said)
    if path and path[1] == "features" and said.startswith(_EXTRA):
        return Refused("unknown-feature", f"{said}; `driftline models add` revises a spec")
    return Refused(_BLAME.get(path[1] if path else "", "bad-data"), said)
