"""Which models take the time of a partition: how long predicting takes, by model.

An observation: nothing of it is in a checkpoint. Seconds are those of a stopwatch, because a model
that waits for something holds up its partition as much as one that computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

OTHERS: Final = "(others)"  # no model's name
MOST_NAMED: Final = 20
SHARE_NAMED: Final = 0.05  # of the newest time
NEWEST_SECONDS: Final = 60.0  # of predicting; what was before counts half, a quarter, ...
FORGETS: Final = 0.7  # what a call before counts in the time of a row, beside the one after it


class Busy:
    """Seconds of predicting in one partition.

    Args:
        slow_seconds: a row from which on a model is slow; 0: none is.

    Attributes:
        slow: models whose rows took so long of late.
        seconds: since this was made, by model, for metrics. Models that never took a twentieth of
            the time together are `OTHERS`, and so are all beyond twenty that did.
    """

    def __init__(self, slow_seconds: float) -> None:
        self._slow_seconds = slow_seconds
        self._calls: dict[str, tuple[float, float]] = {}  # seconds and rows
        self._newest: dict[str, float] = {}
        self._newest_sum = 0.0
        self._told: dict[str, float] = {OTHERS: 0.0}
        self.slow: set[str] = set()

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._told

    def __len__(self) -> int:
        return len(self._calls)

    def row_seconds(self, model: str) -> float:
        """What a row of it took of late, what a call costs included; 0 if there was none."""
        seconds, rows = self._calls.get(model, (0.0, 1.0))
        return seconds / rows

    def note(self, model: str, rows: int, seconds: float) -> None:
        """It predicted these rows in one call."""
        before_seconds, before_rows = self._calls.get(model, (0.0, 0.0))
        self._calls[model] = (before_seconds * FORGETS + seconds, before_rows * FORGETS + rows)
        if 0 < self._slow_seconds <= self.row_seconds(model):
            self.slow.add(model)
        else:
            self.slow.discard(model)
        self._tell(model, seconds)

    def _tell(self, model: str, seconds: float) -> None:
        newest = self._newest[model] = self._newest.get(model, 0.0) + seconds
        self._newest_sum += seconds
        if model not in self._told:
            large = self._newest_sum >= 1.0 and newest >= SHARE_NAMED * self._newest_sum
            if large and len(self._told) <= MOST_NAMED:
                self._told[model] = 0.0
            else:
                model = OTHERS
        self._told[model] += seconds
        if self._newest_sum > NEWEST_SECONDS:
            self._newest = {name: s / 2 for name, s in self._newest.items() if s > 1e-3}
            self._newest_sum = sum(self._newest.values())
