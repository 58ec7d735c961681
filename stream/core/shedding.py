"""What score leaves out when it falls behind: shadows, for whole batches, never a prediction.

Whether a batch goes without its shadows is decided by how many records lie behind it, before
anything of it is predicted: neither what a version would have said nor how it turns out has a part
in that, so the pairs that are left are as good for the paired tests, and fewer. How many are
missing is told as an event. Like timings it is no part of a checkpoint: some of it may be lost.
"""

from __future__ import annotations

from collections.abc import Iterator

from stream.core.accepted import Events
from stream.core.asides import Asides
from stream.core.processor import Batch, Context, Output
from stream.events import LifecycleChanged


class Shedding:
    """What one partition of score left out since it last said so."""

    def __init__(self, context: Context) -> None:
        self._limit = context.settings.shed_shadows_lag
        self._is_on = False
        self._asides = Asides(context, "shed", "shed")

    def begin(self, batch: Batch) -> None:
        """Decide about this batch."""
        self._is_on = 0 < self._limit < batch.ahead

    def left(self, lifecycle: LifecycleChanged) -> tuple[int, ...]:
        """The shadows that predict now. A canary does in any case: it answers some requests."""
        if not self._is_on:
            return lifecycle.shadows
        return tuple(v for v in lifecycle.shadows if v == lifecycle.canary)

    def note(self, lifecycle: LifecycleChanged, events: Events, missing: set[int]) -> None:
        """These shadows have not predicted these events."""
        counts = self._asides.counts(self._asides.note(lifecycle, events))
        for version in map(str, sorted(missing)):
            counts[version] = counts.get(version, 0) + len(events)

    def told(self, clock_ms: int) -> Iterator[Output]:
        """Requests by the shadow that did not see them: see `Asides`."""
        return self._asides.told(clock_ms)
