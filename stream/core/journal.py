"""What a partition has applied since it last reported, and when it reports: enough to replay it.

Between two reports only records and new fleets change a partition's state; a report is the one
moment at which the clock does. So the runs of records in their order, the lifecycle generations
where they changed, and the clock of each report are all its input.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from stream.core.processor import Fleet
from stream.events import Applied


class Journal(Struct):
    """Plain data, part of the checkpoint."""

    sequence: int = 0  # of the next report
    clock_ms: int = 0  # of the last report
    runs: list[Applied] = []
    generations: dict[str, int] = {}

    def meet(self, fleet: Fleet) -> None:
        """Note the models whose generation is not the one last used."""
        changed = {
            model: live.lifecycle.generation
            for model, live in sorted(fleet.items())  # in what order they were read is chance
            if self.generations.get(model) != live.lifecycle.generation
        }
        if changed:
            self.generations |= changed
            self.runs.append(Applied(entity="", first=0, end=0, generations=changed))

    def applied(self, entity: str, offsets: Sequence[int]) -> None:
        """Note a run of records; one that goes on where the last ended makes it longer."""
        run = Applied(entity=entity, first=offsets[0], end=offsets[-1] + 1)
        last = self.runs[-1] if self.runs else None
        if last and last.entity == entity and last.end <= run.first:
            self.runs[-1] = replace(last, end=run.end)
        elif last and not last.entity:  # a change of generations; it came before these records
            self.runs[-1] = replace(run, generations=last.generations)
        else:
            self.runs.append(run)

    def due(self, clock_ms: int, interval_ms: int, *, certain: bool) -> bool:
        """Whether to report. It waits up to another interval for a clock that is certain: one that
        says how far idle topics are.
        """
        wait_ms = interval_ms if certain else 2 * interval_ms
        return clock_ms - self.clock_ms >= wait_ms or self.clock_ms - clock_ms > interval_ms

    def report(self, clock_ms: int) -> list[Applied]:
        """The runs since the last report, which is now."""
        runs, self.runs = self.runs, []
        self.clock_ms = clock_ms
        self.sequence += 1
        return runs
