"""How far each owned input partition is, and what stands between it and us."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from stream.ends import End, Place

if TYPE_CHECKING:
    from stream.runtime import Keeper


class Input(NamedTuple):
    """One input partition as of the last look.

    Attributes:
        lag: offsets that could be applied by now.
        held_up: offsets that open transactions hold back, and for how long the oldest has.
        headroom: offsets between the log's beginning and our position: what retention may still
            take before it takes what was not applied.
        lost: offsets that it took from us.
    """

    lag: int
    held_up: int
    held_up_seconds: float
    headroom: int
    lost: int


class Measures:
    """Made of one look after another; a held-up reader shows in two of them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stable: dict[Place, tuple[int, float]] = {}  # last stable end, and since when

    def of(
        self, keepers: Iterable[Keeper], ends: Mapping[Place, End]
    ) -> dict[tuple[int, str], Input]:
        """By partition and entity; what is not known, or went elsewhere, is left out."""
        now, before = self._clock(), self._stable
        self._stable = {}
        measured = {}
        for keeper in keepers:
            partition = keeper.partition
            places = {} if partition is None else partition.world.inputs(keeper.number)
            for entity, place in places.items():
                if partition is None or place not in ends:
                    continue
                first, stable, end = ends[place]
                held = before.get(place, (-1, now))
                since = held[1] if held[0] == stable and end > stable else now
                self._stable[place] = (stable, since)
                at = partition.positions[entity]
                measured[keeper.number, entity] = Input(
                    lag=max(0, stable - at),
                    held_up=end - stable,
                    held_up_seconds=now - since,
                    headroom=max(0, at - first),
                    lost=max(0, first - at),
                )
        return measured
