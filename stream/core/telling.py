"""Which counts a partition tells of now, and which may wait until a tick is over.

Evaluate can do nothing with counts before a tick of their model is over. So where counts have
gathered in very many places, as those of many models do, the ones of few events wait for that
moment: such models cost as many summaries as they have ticks, not as many as there are reports.
Whatever is on time is told before its tick is closed, exactly as if nothing had waited.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from stream.core.deltas import Delta, Place

CROWD: Final = 64  # places that could wait, but are not worth it: all is told at once
MUCH: Final = 100  # events of a place that does not wait
MOST: Final = 2_000  # places that wait: their counts are one part of the checkpoint


def due(deltas: Mapping[Place, Delta], below: Mapping[str, int]) -> list[Place]:
    """The places to tell of now.

    Args:
        below: by model the ticks to tell of, from `over`; all of a model that is not in it.
    """
    now = [
        place
        for place, delta in deltas.items()
        if place.tick < below.get(place.model, place.tick + 1) or delta.events >= MUCH
    ]
    return now if CROWD < len(deltas) - len(now) <= MOST else list(deltas)


def over(ticks_ms: Mapping[str, int], before_ms: int, after_ms: int) -> dict[str, int]:
    """By model, the tick before which all are over; 0 if none has ended as the watermark moved.

    Args:
        ticks_ms: length of a tick by model.

    >>> over({"a": 10, "b": 30}, 12, 21)
    {'a': 2, 'b': 0}
    """
    lengths = {*ticks_ms.values()}
    ended = {one: after_ms // one if before_ms // one < after_ms // one else 0 for one in lengths}
    return {model: ended[length] for model, length in ticks_ms.items()}
