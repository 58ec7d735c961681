"""Whose requests are predicted at once, and whose wait, so that a slow model holds up itself.

A batch that would take longer than a turn is predicted without the rows of its slow models: these
get in a line of their model (`lines`), which is worked off piece by piece, in turn with the others
that have one. While more waits in the partition, the models in line get as much time each as one of
those that were predicted at once had on the average; else what is left of a turn, and all there is
where nothing comes. Nothing is left undone for good: the lines are bounded, and over their bound
they are worked off whatever it takes, so that the partition falls behind as it would without them.

How long rows take is measured, so which requests wait is no function of the log alone. But what is
predicted of them is, whenever it is, and nobody replays score. Where a replayer is the clock,
nothing waits: its predictions carry the times of their requests, and these must not go back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from stream.core.accepted import Events
from stream.core.busy import Busy
from stream.core.lines import Lines
from stream.core.processor import Context, Record

TURN_SECONDS: Final = 0.05  # half of what keepers wait for one another (`stream.turns`)
PIECE_SECONDS: Final = TURN_SECONDS / 4  # of one model, however many have a line: small calls cost


class Shares:
    """Of one partition of score.

    Attributes:
        busy: how long its models took.
        lines: what waits.
    """

    def __init__(self, context: Context, entity: str) -> None:
        settings = context.settings
        self._stopwatch = context.stopwatch
        is_on = self._stopwatch is not None and settings.clock == "append"
        self.busy = Busy(settings.slow_model_ms / 1000 if is_on else 0.0)
        self.lines = Lines(entity)
        self._begun = 0.0
        self._at_once: set[str] = set()
        self._credit = 0.0  # seconds that the lines may take; negative: that they took too many

    def now(self) -> float:
        """Seconds by the stopwatch; without one no time passes."""
        return 0.0 if self._stopwatch is None else self._stopwatch()

    def begin(self) -> None:
        """A batch begins, or a piece of time in which none came."""
        self._begun, self._at_once = self.now(), set()

    def admitted(self, events: Events) -> Events:
        """The events to be predicted now; the others stand in line from now on."""
        slow = self.busy.slow if len(self.busy) > 1 else set[str]()  # alone it holds up nobody
        if not (slow or self.lines):
            return events
        rows = Counter(one.model for one in events.data)
        seconds = sum(count * self.busy.row_seconds(model) for model, count in rows.items())
        late = slow if seconds > TURN_SECONDS else set[str]()
        waiting = {model for model in rows if model in self.lines or model in late}
        self._at_once |= rows.keys() - waiting
        return self._parted(events, waiting) if waiting else events

    def due(self, ahead: int) -> Iterator[list[Record]]:
        """What stands in line and is to be predicted now, in pieces of one model each.

        Args:
            ahead: records that wait in the partition.
        """
        since = self.now()
        self._allow(since - self._begun, ahead)
        while self.lines and (self._credit > 0 or self.lines.full):
            yield self._piece()
            now = self.now()
            self._credit -= now - since
            since = now

    def _allow(self, spent_seconds: float, ahead: int) -> None:
        """Time for those in line, by what the others took."""
        count = len(self.lines.lengths)
        if not count or not self._at_once:
            self._credit = TURN_SECONDS if count else 0.0
            return
        share = spent_seconds / len(self._at_once) * count
        left = 0.0 if ahead else TURN_SECONDS - spent_seconds
        self._credit = min(TURN_SECONDS, self._credit + max(share, left))

    def _piece(self) -> list[Record]:
        """The model whose turn it is, and as many of its rows as fit."""
        model, length = next(iter(self.lines.lengths.items()))
        row_seconds = self.busy.row_seconds(model)
        rows = int(PIECE_SECONDS / row_seconds) if row_seconds else 1
        return self.lines.take(model, min(length, max(1, rows)))

    def _parted(self, events: Events, waiting: set[str]) -> Events:
        places: dict[str, list[int]] = {model: [] for model in sorted(waiting)}
        now: list[int] = []
        for place, one in enumerate(events.data):
            places.get(one.model, now).append(place)
        for model, standing in places.items():
            self.lines.stand(model, list(events.records.take(standing)))
        return events.take(now)
