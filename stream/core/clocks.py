"""How far event time has come on one partition, so that ticks can be closed for good.

A record is on time if its event time is at most the allowed lateness behind its own timestamp.
Timestamps of one topic's partition do not go back, so nothing on time can come any more that is
older than the slowest input topic's clock less the allowed lateness: that is the watermark.

Three things would break that promise, and are handled here:

- One record with a far future stamp. A topic's clock follows the smaller of two neighbouring
  stamps, so a single wrong one moves nothing (it costs a lag of one record).
- An idle topic. With the broker's clock, one that was read to its end is as far as the wall clock
  was when its end was looked up. With a replayer's clock only the replayer may say so.
- Records that wait (for an unknown model). They hold the watermark until they are applied or
  refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from msgspec import Struct

from models.spec import ModelSpec

#: How far the broker's clock may be behind ours, where ours speaks for an idle topic.
IDLE_MARGIN_MS = 1_000
FEW = 16  # stamps that are sooner looked at one by one


class TopicClock(Struct):
    """The clock of one topic's partition, in ms; 0 until two records agree.

    >>> clock = TopicClock()
    >>> clock.observe([1_000, 99_000, 1_010, 1_020])
    >>> clock.now_ms
    1010
    >>> clock.reach(5_000)
    >>> clock.now_ms
    5000
    """

    now_ms: int = 0
    last_ms: int = 0

    def observe(self, stamps_ms: Sequence[int]) -> None:
        """Timestamps of records, in offset order. How they are cut into calls does not matter."""
        if len(stamps_ms) > FEW:
            stamps = np.fromiter(stamps_ms, np.int64, len(stamps_ms))
            agreed = int(np.minimum(stamps[1:], stamps[:-1]).max())
            self.now_ms = max(self.now_ms, min(self.last_ms, stamps_ms[0]), agreed)
            self.last_ms = stamps_ms[-1]
            return
        before = self.last_ms
        for stamp in stamps_ms:
            agreed = stamp if stamp < before else before
            if agreed > self.now_ms:
                self.now_ms = agreed
            before = stamp
        self.last_ms = before

    def reach(self, time_ms: int) -> None:
        """Nothing with an earlier stamp comes: told by a replayer, or the topic is idle."""
        self.now_ms = max(self.now_ms, time_ms)


class Clocks(Struct):
    """The clocks of all input topics of one partition, and the watermark, which never goes back."""

    topics: dict[str, TopicClock]
    watermark_ms: int = 0

    @classmethod
    def of(cls, entities: Iterable[str]) -> Clocks:
        return cls({entity: TopicClock() for entity in entities})

    def idle(self, clock_ms: int) -> None:
        """All that lay in the inputs at wall-clock time `clock_ms` has been applied."""
        for clock in self.topics.values():
            clock.reach(clock_ms - IDLE_MARGIN_MS)

    def advance(self, *, lateness_ms: int, held_ms: int | None, ceiling_ms: int | None) -> int:
        """Move the watermark as far as is certain.

        Args:
            lateness_ms: the largest allowed lateness of any model.
            held_ms: the earliest timestamp of a record that is read but not applied.
            ceiling_ms: no clock is trusted beyond this: the wall clock, where the broker stamps.

        Returns:
            The watermark: every event that is on time and still to come is at least this late.
        """
        limits = [clock.now_ms for clock in self.topics.values()]
        limits += [limit for limit in (held_ms, ceiling_ms) if limit is not None]
        self.watermark_ms = max(self.watermark_ms, min(limits) - lateness_ms)
        return self.watermark_ms


def lateness_ms(specs: Iterable[ModelSpec]) -> int:
    """The largest allowed lateness: one watermark serves all models of a partition.

    >>> lateness_ms([])
    0
    """
    return max((round(spec.ticks.allowed_lateness_seconds * 1000) for spec in specs), default=0)
