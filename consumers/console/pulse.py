"""What flows through the stages, from `summaries`: rates, label delays, watermarks; in memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec import Struct

from stream.events import ProgressReported, SummaryComputed

BUCKET_MS: Final = 10_000
BUCKETS: Final = 30  # five minutes
RATE_BUCKETS: Final = 6  # a rate is over the last full minute
FORGET: Final = (
    20_000  # labels after which a delay histogram is halved, so that it follows the times
)
MAX_PARTITIONS: Final = 1024


class Rate(Struct, frozen=True):
    """Events per second over the last minute."""

    predictions: float = 0.0
    labels: float = 0.0


class Progress(Struct, frozen=True):
    """How far one partition of monitor is, and when it said so by the console's clock."""

    heard_ms: int
    partition: int
    watermark_ms: int
    clock_ms: int
    caught_up: bool


@dataclass(slots=True)
class Flow:
    """One model's counts by bucket of the console's clock, newest last."""

    buckets: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=BUCKETS))
    delays: Counter[int] = field(default_factory=Counter)

    def add(self, now_ms: int, predictions: int, labels: int) -> None:
        bucket = now_ms // BUCKET_MS
        if self.buckets and self.buckets[-1][0] == bucket:
            _, p, n = self.buckets.pop()
            predictions, labels = predictions + p, labels + n
        self.buckets.append((bucket, predictions, labels))

    def rate(self, now_ms: int) -> Rate:
        now = now_ms // BUCKET_MS
        full = [b for b in self.buckets if now - RATE_BUCKETS <= b[0] < now]
        seconds = RATE_BUCKETS * BUCKET_MS / 1000
        return Rate(sum(b[1] for b in full) / seconds, sum(b[2] for b in full) / seconds)


class Pulse:
    """Takes what monitor writes; answers for one model, or for all."""

    def __init__(self) -> None:
        self._flows: dict[str, Flow] = {}
        self._progress: dict[int, Progress] = {}

    def take(self, event: Struct, now_ms: int) -> None:
        match event:
            case SummaryComputed(segment=""):
                flow = self._flows.setdefault(event.model, Flow())
                flow.add(now_ms, event.predictions, sum(event.bets))
                for bucket, n in event.delays.items():
                    if bucket.isdecimal() and len(bucket) < 3:
                        flow.delays[int(bucket)] += n
                if flow.delays.total() > FORGET:
                    flow.delays = Counter({b: n // 2 for b, n in flow.delays.items() if n > 1})
            case ProgressReported() if event.partition < MAX_PARTITIONS:
                self._progress[event.partition] = Progress(
                    now_ms, event.partition, event.watermark_ms, event.clock_ms, event.caught_up
                )

    def rate(self, model: str, now_ms: int) -> Rate:
        flow = self._flows.get(model)
        return Rate() if flow is None else flow.rate(now_ms)

    def total(self, now_ms: int) -> Rate:
        rates = [flow.rate(now_ms) for flow in list(self._flows.values())]
        return Rate(sum(r.predictions for r in rates), sum(r.labels for r in rates))

    def delays(self, model: str | None = None) -> Counter[int]:
        """Labels by floor(log2(delay in seconds + 1)), lately."""
        flows = [self._flows.get(model)] if model is not None else list(self._flows.values())
        total: Counter[int] = Counter()
        for flow in flows:
            total += flow.delays if flow is not None else Counter()
        return total

    def progress(self) -> list[Progress]:
        return [self._progress[p] for p in sorted(self._progress)]


def delay_quantile(delays: Mapping[int, int], q: float) -> float | None:
    """Seconds that a share `q` of labels did not exceed: the upper end of its bucket.

    >>> delay_quantile({0: 5, 3: 5}, 0.5), delay_quantile({0: 5, 3: 5}, 0.95)
    (1.0, 15.0)
    """
    total = sum(delays.values())
    seen = 0
    for bucket in sorted(delays):
        seen += delays[bucket]
        if seen >= q * total and total:
            return float(2 ** (bucket + 1) - 1)
    return None
