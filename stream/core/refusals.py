"""Dead letters as evidence: how many records that name a model were refused, and why.

A broken schema shows nowhere else: what is refused makes no prediction and no count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby
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


def counter(entity: str, reason: str) -> str:
    """Under which name a refusal is counted in a summary."""
    return f"{REFUSED}{entity}:{reason}"


class Refusals:
    """What one partition of score refused since it last said so.

    It is told before every commit, so none of it is part of a checkpoint.
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int, int, str]] = Counter()  # model, version, tick, name
        self._offsets: dict[tuple[str, int], tuple[int, int]] = {}  # of an entity's partition
        self._newest_ms = 0

    def note(
        self, entity: str, partition: int, unfit: Iterable[tuple[Record, Refused]], fleet: Fleet
    ) -> None:
        """Count records that were refused, as far as they name a live model."""
        offsets: list[int] = []
        named: list[tuple[str, int, str]] = []
        for record, refused in unfit:
            model = named_model(record, fleet)
            if model is not None:
                offsets.append(record.offset)
                named.append((model, record.timestamp_ms, refused.reason))
        if not named:
            return
        for (model, time_ms, reason), count in Counter(named).items():  # few of a batch differ
            lifecycle = fleet[model].lifecycle
            tick = time_ms // lifecycle.spec.tick_ms
            self._counts[model, lifecycle.champion or 1, tick, counter(entity, reason)] += count
            self._newest_ms = max(self._newest_ms, time_ms)
        first, end = self._offsets.get((entity, partition), (offsets[0], 0))
        self._offsets[entity, partition] = min(first, *offsets), max(end, max(offsets) + 1)

    def told(self, partition: int, partitions: int) -> Iterator[Output]:
        """One summary for each model and tick; nothing is left."""
        counts, newest_ms = sorted(self._counts.items()), self._newest_ms
        offsets = {f"{entity}/{n}": spanned for (entity, n), spanned in self._offsets.items()}
        self._counts, self._offsets, self._newest_ms = Counter(), {}, 0
        for (model, version, tick), some in groupby(counts, lambda one: one[0][:3]):
            delta = SummaryComputed(
                model=model,
                version=version,
                tick=tick,
                partition=partition,
                counters={name: count for (*_, name), count in some},
                offsets=offsets,
            )
            yield aside("refused", delta, newest_ms, partitions)
