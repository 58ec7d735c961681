"""Where counts came from: ranges of offsets by input partition, coarser the longer ago.

An alert names the records that its figures are of, so that anyone can count them again. A range
holds every record that was counted, and may hold more: which ones count, their event times say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct

from stream.core.traces import few
from stream.events import Applied

MARKS: int = 4  # of each size that are told apart

#: "<entity>/<partition>" -> first offset, offset after the last one.
Offsets = dict[str, tuple[int, int]]


class Mark(Struct, array_like=True):
    """Groups of ticks from `start_ms` to before `end_ms`, `size` of them: offsets, a few traces."""

    start_ms: int
    end_ms: int
    size: int
    offsets: Offsets
    traces: list[str] = []


class Trail(Struct, array_like=True):
    """The marks of one champion's reign, oldest first: about 4 for each doubling of its groups."""

    marks: list[Mark] = []

    def add(self, start_ms: int, end_ms: int, offsets: Offsets, traces: Sequence[str] = ()) -> None:
        """Note where the counts of the next group came from."""
        self.marks.append(Mark(start_ms, end_ms, 1, dict(offsets), list(traces)))
        size = 1
        while sum(mark.size == size for mark in self.marks) > MARKS:
            at = next(i for i, mark in enumerate(self.marks) if mark.size == size)
            one, other = self.marks[at : at + 2]
            joined = Mark(
                one.start_ms,
                other.end_ms,
                2 * size,
                hull(one.offsets, other.offsets),
                few(one.traces, other.traces),
            )
            self.marks[at : at + 2] = [joined]
            size *= 2

    def between(self, since_ms: int, until_ms: int) -> Offsets:
        """Ranges that hold all that was counted from one time to before another.

        >>> trail = Trail()
        >>> trail.add(0, 10, {"predictions/0": (5, 9)})
        >>> trail.add(10, 20, {"predictions/0": (7, 12), "feedback/0": (0, 3)})
        >>> trail.between(10, 20)
        {'predictions/0': (7, 12), 'feedback/0': (0, 3)}
        """
        found: Offsets = {}
        for mark in self._of(since_ms, until_ms):
            found = hull(found, mark.offsets)
        return found

    def traces(self, since_ms: int, until_ms: int) -> list[str]:
        """A few traces of what was counted from one time to before another."""
        return few(*(mark.traces for mark in self._of(since_ms, until_ms)))

    def _of(self, since_ms: int, until_ms: int) -> Iterator[Mark]:
        for mark in self.marks:
            if mark.end_ms > since_ms and mark.start_ms < until_ms:
                yield mark


def hull(one: Mapping[str, tuple[int, int]], other: Mapping[str, tuple[int, int]]) -> Offsets:
    """The smallest ranges that hold both.

    >>> hull({"a/0": (3, 5)}, {"a/0": (9, 10), "a/1": (1, 2)})
    {'a/0': (3, 10), 'a/1': (1, 2)}
    """
    joined = dict(one)
    for place, (first, end) in other.items():
        known = joined.get(place)
        joined[place] = (
            (first, end) if known is None else (min(known[0], first), max(known[1], end))
        )
    return joined


def reached(known: Offsets, runs: Iterable[Applied], partition: int) -> Offsets:
    """The ranges of all that was ever applied, with some runs more."""
    for run in runs:
        if run.entity:
            known = hull(known, {f"{run.entity}/{partition}": (run.first, run.end)})
    return known


def after(reach: Offsets, since: Mapping[str, int]) -> Offsets:
    """The ranges of what was applied after some ends.

    >>> after({"a/0": (3, 9), "b/0": (0, 4)}, {"a/0": 7, "b/0": 4})
    {'a/0': (7, 9)}
    """
    starts = {place: max(first, since.get(place, first)) for place, (first, _) in reach.items()}
    return {place: (starts[place], end) for place, (_, end) in reach.items() if starts[place] < end}
