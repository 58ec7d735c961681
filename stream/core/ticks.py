"""Ticks of one version, added up from all partitions, closed in order, grouped for the tests.

A tick holds only what arrives in it, so it does not change once it is closed. What comes for a
closed tick all the same (it was later than allowed) is judged in the first tick that is still open:
each label is bet on once, and no verdict is un-made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import add
from typing import Final, NamedTuple

from msgspec import Struct

from stream.core.traces import few
from stream.core.trails import Offsets, hull
from stream.events import Outcomes, Pairs, SummaryComputed

REFUSED: Final = "refused:"  # counters of a summary: "refused:<entity>:<reason>"


class Tick(Struct, omit_defaults=True):
    """What arrived in one tick, or in several that were merged: counts that add up in any order."""

    predictions: int = 0
    signals: dict[str, list[int]] = {}
    bets: list[int] = []  # labels by bin of the bounded loss
    pairs: dict[str, Pairs] = {}  # by shadow version
    # Labels, losses and squares, by cell of the profile's slices.
    slices: dict[str, tuple[int, int, int]] = {}
    judged: dict[str, list[int]] = {}  # as bets, of what is judged at its age, by strata
    estimates: list[int] = []  # predictions by bin of the estimator; last: outside
    refused: dict[str, int] = {}  # dead letters by "<entity>:<reason>"
    offsets: Offsets = {}  # where all this came from
    segments: dict[str, Tick] = {}  # predictions, bets and pairs of each
    latencies: dict[str, dict[str, int]] = {}  # as in `SummaryComputed`
    shed: dict[str, int] = {}  # as in `SummaryComputed`
    traces: list[str] = []  # as in `SummaryComputed`

    @property
    def labels(self) -> int:
        return sum(self.bets)

    @property
    def events(self) -> int:
        """Predictions or labels, whichever are more: labels may come long after traffic ended."""
        came = self.predictions + sum(self.refused.values())
        return max(came, self.labels, sum(map(sum, self.judged.values())))

    def add(self, more: Tick | SummaryComputed) -> None:
        self.predictions += more.predictions
        add_up(self.signals, more.signals)
        self.estimates = added(self.estimates, more.estimates)
        self.add_arrivals(more)
        if isinstance(more, Tick):
            for name, part in more.segments.items():
                self.segments.setdefault(name, Tick()).add(part)

    def add_arrivals(self, more: Tick | SummaryComputed) -> None:
        """What counts in the tick in which it comes."""
        self.bets = added(self.bets, more.bets)
        add_up(self.judged, more.judged)
        add_cells(self.slices, more.slices)
        for version, pairs in more.pairs.items():
            self.pairs[version] = added_pairs(self.pairs.get(version, Pairs()), pairs)
        for version, counts in more.latencies.items():
            add_counts(self.latencies.setdefault(version, {}), counts)
        add_counts(self.shed, more.shed)
        add_counts(self.refused, refused_in(more))
        if more.offsets:
            self.offsets = hull(self.offsets, more.offsets)
        if more.traces:
            self.traces = few(self.traces, more.traces)


class Group(NamedTuple):
    """Whole closed ticks that the tests see as one: at least `ticks.minimum_events` events.

    Attributes:
        weights: of labels that are judged at an age, by segment ("" is all), then by strata; left
            out where they are not known.
    """

    start_ms: int
    end_ms: int
    counts: Tick
    weights: Mapping[str, Mapping[str, float]] = {}

    def part(self, segment: str) -> Tick:
        """What a segment holds; "" is all."""
        return self.counts.segments.get(segment, Tick()) if segment else self.counts


class Pending(Struct, omit_defaults=True):
    """Open ticks of one version by number, and the closed ones that wait for more company."""

    open: dict[int, Tick] = {}
    waiting: Tick | None = None
    waiting_since: int = 0  # number of its first tick

    def add(self, delta: SummaryComputed, closed: int) -> int | None:
        """Take a delta in; ticks below number `closed` are closed.

        A segment's counts lie within the tick, beside those of the whole.

        Returns:
            the number of the tick that it counts in; None if in none.
        """
        late = delta.tick < closed
        arrived = delta.bets or delta.judged or delta.pairs or refused_in(delta)
        aside = delta.latencies or delta.shed
        if not (arrived or aside or (delta.predictions and not late)):
            return None
        number = max(delta.tick, closed)
        tick = self.open.setdefault(number, Tick())
        if delta.segment:
            tick = tick.segments.setdefault(delta.segment, Tick())
        if late:
            tick.add_arrivals(delta)
        else:
            tick.add(delta)
        return number

    def trace(self, number: int, offsets: Offsets) -> None:
        """Note where counts of an open tick came from."""
        tick = self.open.get(number)
        if tick is not None:
            tick.offsets = hull(tick.offsets, offsets)

    def close(
        self,
        until: int,
        *,
        tick_ms: int,
        minimum_events: int,
        cell: Callable[[int], object] = lambda start_ms: None,
    ) -> Iterator[Group]:
        """Close ticks below number `until`, oldest first; yield the groups that become full.

        Args:
            cell: of the seasons, by the start of a tick: no group lies in two of them, however
                few its events are.

        >>> pending = Pending(open={7: Tick(predictions=60), 9: Tick(predictions=60)})
        >>> [(g.start_ms, g.end_ms) for g in pending.close(10, tick_ms=10, minimum_events=100)]
        [(70, 100)]
        """
        for number in sorted(tick for tick in self.open if tick < until):
            tick, here = self.open.pop(number), cell(number * tick_ms)
            if self.waiting is not None and cell(self.waiting_since * tick_ms) != here:
                yield self._group(self.waiting, number, tick_ms)
            if self.waiting is None:
                self.waiting, self.waiting_since = tick, number
            else:
                self.waiting.add(tick)
            if self.waiting.events >= minimum_events:
                yield self._group(self.waiting, number + 1, tick_ms)

    def _group(self, waiting: Tick, end: int, tick_ms: int) -> Group:
        self.waiting = None
        return Group(self.waiting_since * tick_ms, end * tick_ms, waiting)

    def discard(self, until: int) -> None:
        """Forget ticks below number `until`: nobody judges this version."""
        self.open = {number: tick for number, tick in self.open.items() if number >= until}
        self.waiting = None


def refused_in(more: Tick | SummaryComputed) -> dict[str, int]:
    """Dead letters by "<entity>:<reason>"."""
    if isinstance(more, Tick):
        return more.refused
    return {
        name.removeprefix(REFUSED): count
        for name, count in more.counters.items()
        if count and name.startswith(REFUSED)
    }


def added(counts: list[int], more: Sequence[int]) -> list[int]:
    """
    >>> added([], [1, 2]), added([1, 2], [1, 1])
    ([1, 2], [2, 3])
    """
    if not more:
        return counts
    if not counts:
        return [*more]
    if len(counts) == len(more):
        return list(map(add, counts, more))
    if len(counts) < len(more):
        counts = [*counts, *[0] * (len(more) - len(counts))]
    return [a + b for a, b in zip(counts, [*more, *[0] * (len(counts) - len(more))], strict=True)]


def add_counts(into: dict[str, int], more: Mapping[str, int]) -> None:
    """Add single counts by name."""
    if not into:
        into.update(more)
        return
    for name, count in more.items():
        into[name] = into.get(name, 0) + count


def add_up(into: dict[str, list[int]], more: Mapping[str, list[int]]) -> None:
    """Add counts by name. Lists are never changed in place, so `into` may keep those of `more`."""
    if not into:
        into.update(more)
        return
    for name, counts in more.items():
        known = into.get(name, [])
        same = len(known) == len(counts)
        into[name] = list(map(add, known, counts)) if same else added(known, counts)


def add_cells(
    into: dict[str, tuple[int, int, int]], more: Mapping[str, tuple[int, int, int]]
) -> None:
    """Add labels, losses and squares by cell; there are many."""
    if not into:
        into.update(more)
        return
    for cell, (n, losses, squares) in more.items():
        known = into.get(cell, (0, 0, 0))
        into[cell] = (known[0] + n, known[1] + losses, known[2] + squares)


def added_pairs(one: Pairs, other: Pairs) -> Pairs:
    return Pairs(
        n=one.n + other.n,
        d_sum=one.d_sum + other.d_sum,
        d_squares=one.d_squares + other.d_squares,
        losses=one.losses + other.losses,
        shadow_losses=one.shadow_losses + other.shadow_losses,
        off=one.off + other.off,
        off_squares=one.off_squares + other.off_squares,
        shadow_off=one.shadow_off + other.shadow_off,
        shadow_off_squares=one.shadow_off_squares + other.shadow_off_squares,
    )


def added_outcomes(one: Outcomes, other: Outcomes) -> Outcomes:
    return Outcomes(
        n=one.n + other.n,
        sums=added_by_name(one.sums, other.sums),
        squares=added_by_name(one.squares, other.squares),
    )


def added_by_name(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """
    >>> added_by_name({"a": 1}, {"a": 1, "b": 2})
    {'a': 2, 'b': 2}
    """
    return {**one, **{name: one.get(name, 0) + value for name, value in other.items()}}
