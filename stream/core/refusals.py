"""Dead letters as evidence: how many records that name a model were refused, and why.

A broken schema shows nowhere else: what is refused makes no prediction and no count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from stream.core.asides import aside
from stream.core.known import named_in
from stream.core.processor import Fleet, Output, Record
from stream.core.ticks import REFUSED
from stream.errors import Refused
from stream.events import SummaryComputed

SEARCHED: Final = 4096  # bytes of a refused record in which its model's name is looked for


def named_model(record: Record, fleet: Fleet) -> str | None:
    """The live model that a refused record seems to be of; None if it names none.

    >>> named_model(Record(0, 0, None, b'{"model": "churn", "features": 7}'), {"churn": None})
    'churn'
    """
    name = named_in(record.value or b"", SEARCHED)
    return name if name in fleet else None


def counter(entity: str, refused: Refused) -> str:
    """Under which name it is counted in a summary."""
    return f"{REFUSED}{entity}:{refused.reason}"


class Refusals:
    """What one partition of score refused since it last said so.

    It is told before every commit, so none of it is part of a checkpoint.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int, int], dict[str, int]] = {}  # model, version, tick
        self._offsets: dict[tuple[str, int], tuple[int, int]] = {}  # of an entity's partition
        self._newest_ms = 0

    def note(
        self, entity: str, partition: int, record: Record, refused: Refused, fleet: Fleet
    ) -> None:
        """Count a record that was refused, if it names a live model."""
        model = named_model(record, fleet)
        if model is None:
            return
        lifecycle, offset, time_ms = fleet[model].lifecycle, record.offset, record.timestamp_ms
        tick = time_ms // lifecycle.spec.tick_ms
        counts = self._counts.setdefault((model, lifecycle.champion or 1, tick), {})
        name = counter(entity, refused)
        counts[name] = counts.get(name, 0) + 1
        place = entity, partition
        first, end = self._offsets.get(place, (offset, 0))
        if not first <= offset < end:
            self._offsets[place] = min(first, offset), max(end, offset + 1)
        self._newest_ms = max(self._newest_ms, time_ms)

    def told(self, partition: int, partitions: int) -> Iterator[Output]:
        """One summary for each model and tick; nothing is left."""
        counts, newest_ms = self._counts, self._newest_ms
        offsets = {f"{entity}/{n}": spanned for (entity, n), spanned in self._offsets.items()}
        self._counts, self._offsets, self._newest_ms = {}, {}, 0
        for (model, version, tick), counters in sorted(counts.items()):
            delta = SummaryComputed(
                model=model,
                version=version,
                tick=tick,
                partition=partition,
                counters=dict(sorted(counters.items())),
                offsets=offsets,
            )
            yield aside("refused", delta, newest_ms, partitions)
