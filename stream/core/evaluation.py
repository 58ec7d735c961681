"""One model under evaluation: its state, and the fold over its closed ticks."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct, field

from stream.core import judging, measuring, trials
from stream.core.advisors import readings
from stream.core.delays import Ages, Curve, ages
from stream.core.judging import Case, Fact, Verdicts
from stream.core.processor import LiveModel
from stream.core.staleness import Staleness
from stream.core.ticks import Pending, Tick
from stream.core.timely import Weights, weights
from stream.core.trails import Offsets, hull
from stream.core.watching import Kit
from stream.core.windows import Plan, Published, Series, plans
from stream.events import AccuracyMeasured, AlertHandled, LifecycleChanged, SummaryComputed

Known = dict[tuple[str, int], measuring.Late]  # by segment and number of the cohort

MAX_HELD = 10_000  # deltas of a model that lifecycle does not know yet


class VersionState(Struct, omit_defaults=True):
    """Counts of one version: open ticks for the tests, cells by segment and window for display."""

    pending: Pending = field(default_factory=Pending)
    windows: dict[str, list[Series]] = {}

    def add(self, delta: SummaryComputed, cuts: list[Plan], closed: int) -> int | None:
        """Take a delta in; the number of the open tick that it counts in, if in one."""
        overall = delta.segment == ""
        number = self.pending.add(delta, closed)
        series = self.windows.setdefault(delta.segment, [Series() for _ in cuts])
        for place, (plan, cells) in enumerate(zip(cuts, series, strict=True)):
            # Distributions are most of a cell's weight: they are shown over the first window only.
            cells.add(delta, plan, closed, signals=overall and place == 0)
        return number if overall else None


class ModelState(Struct, omit_defaults=True):
    """All that is kept of one model; what its profiles and spec determine is not."""

    generation: int = 0  # of lifecycle, that was adopted
    tick_ms: int = 0
    cuts: list[Plan] = []
    closed: int = 0  # ticks below this number are closed
    versions: dict[int, VersionState] = {}
    ages: Ages | None = None
    delays: dict[str, Curve] = {}  # by segment; of all versions
    verdicts: Verdicts = field(default_factory=Verdicts)
    staleness: Staleness = field(default_factory=Staleness)
    held: list[SummaryComputed] = []
    touched: dict[int, list[tuple[int, int]]] = {}  # by partition: versions and ticks, since
    held_offsets: Offsets = {}  # where what is held came from, as far as it was reported

    def take(self, delta: SummaryComputed, offsets: Offsets | None = None) -> bool:
        """Take a delta in; False if it had to be dropped.

        Args:
            offsets: where the delta lies. What its partition applied to make it is told later.
        """
        if self.cuts:
            version = self.versions.setdefault(delta.version, VersionState())
            number = version.add(delta, self.cuts, self.closed)
            if self.ages:
                curve = self.delays.setdefault(delta.segment, Curve())
                curve.add(delta, self.ages, self.closed)
            if number is not None:
                version.pending.trace(number, offsets or {})
                self._touch(delta, number)
        elif len(self.held) < MAX_HELD:
            self.held_offsets = hull(self.held_offsets, offsets or {})
            self.held.append(delta)
        else:
            return False
        return True

    def trace(self, partition: int, applied: Offsets) -> None:
        """A partition reports what it applied to make the deltas it sent since its last report."""
        for number, tick in self.touched.pop(partition, []):
            version = self.versions.get(number)
            if version is not None:
                version.pending.trace(tick, applied)
        if self.held:
            self.held_offsets = hull(self.held_offsets, applied)

    def handle(self, said: AlertHandled) -> Fact | None:
        """Do what a person says about an alert; None if it is not open."""
        now_ms = self.closed * self.tick_ms
        problem = self.staleness.book.problem_of(said.alert_id)
        if problem is not None:
            return self.staleness.book.handle(problem, said, now_ms)
        return judging.handle(self.verdicts, said, now_ms)

    def adopt(self, lifecycle: LifecycleChanged) -> list[Fact]:
        """Follow lifecycle to a newer generation."""
        if lifecycle.generation <= self.generation:
            return []
        self.generation = lifecycle.generation
        self._cut(lifecycle)
        held, self.held = self.held, []
        offsets, self.held_offsets = self.held_offsets, {}
        for delta in held:
            self.take(delta, offsets)
        return [*judging.adopt(self.verdicts, lifecycle, self.closed * self.tick_ms)]

    def close(self, until: int, live: LiveModel, kit: Kit | None) -> Iterator[Fact]:
        """Close ticks below number `until`, one by one: measurements, alerts and commands.

        Args:
            kit: of the champion; without one its ticks are not judged.
        """
        self._age(live.lifecycle)
        numbers = {n for version in self.versions.values() for n in version.pending.open}
        for number in sorted(n for n in numbers if n < until):
            yield from self._publish(number, live)
            yield from self._see(number, live.lifecycle)
            self.closed = number + 1
            yield from self._judge(live.lifecycle, kit)
        yield from self._publish(until, live)
        self.closed = until
        yield from self._pass_time(until, live.lifecycle)
        self._forget(live.lifecycle)

    def _see(self, number: int, lifecycle: LifecycleChanged) -> Iterator[Fact]:
        """What was missing before this tick, and what it holds."""
        yield from self._pass_time(number, lifecycle)
        pending = [version.pending.open for version in self.versions.values()]
        ticks = [open_[number] for open_ in pending if number in open_]
        came = Tick(
            predictions=sum(tick.predictions for tick in ticks),
            bets=[sum(tick.labels for tick in ticks)],
        )
        yield from self.staleness.see(came, number * self.tick_ms, (number + 1) * self.tick_ms)

    def _pass_time(self, number: int, lifecycle: LifecycleChanged) -> Iterator[Fact]:
        now_ms = number * self.tick_ms
        yield from self.staleness.pass_time(lifecycle.spec, lifecycle.champion, now_ms)
        yield from self.staleness.book.wake(now_ms)
        yield from self.verdicts.book.wake(now_ms)

    def _touch(self, delta: SummaryComputed, number: int) -> None:
        """Score's own deltas say themselves where their records lie."""
        if not delta.offsets:
            touched = self.touched.setdefault(delta.partition, [])
            if (place := (delta.version, number)) not in touched:
                touched.append(place)

    def _cut(self, lifecycle: LifecycleChanged) -> None:
        """Counts of another tick length or other windows cannot go on."""
        cuts, tick_ms = list(plans(lifecycle.spec)), lifecycle.spec.tick_ms
        if self.tick_ms and tick_ms != self.tick_ms:
            self.closed = self.closed * self.tick_ms // tick_ms
            self.versions = {}
        if cuts != self.cuts:
            for version in self.versions.values():
                version.windows = {}
        self.cuts, self.tick_ms = cuts, tick_ms
        self._age(lifecycle)

    def _age(self, lifecycle: LifecycleChanged) -> None:
        """Cohorts that were cut otherwise cannot go on."""
        now = ages(lifecycle.spec, self.cuts)
        if now != self.ages:
            self.ages, self.delays = now, {}

    def _judge(self, lifecycle: LifecycleChanged, kit: Kit | None) -> Iterator[Fact]:
        """The champion's ticks are judged, and the canary's are kept for that; those of others were
        only for display."""
        watch = self.verdicts.watch
        for number, version in sorted(self.versions.items()):
            least = lifecycle.spec.ticks.minimum_events
            if watch is not None and number == lifecycle.canary:
                for group in version.pending.close(
                    self.closed, tick_ms=self.tick_ms, minimum_events=least
                ):
                    canaries = self.verdicts.canaries
                    trials.observe_canary(canaries, number, watch.version, group)
                continue
            if kit is None or watch is None or number != watch.version:
                version.pending.discard(self.closed)
                continue
            for group in version.pending.close(
                self.closed, tick_ms=self.tick_ms, minimum_events=least, cell=kit.cell
            ):
                case = Case(self.verdicts, watch, kit, lifecycle, group.end_ms)
                yield from judging.judge(
                    case, group._replace(weights=self._weights(lifecycle, kit))
                )
                for shadow, trial in sorted(self.verdicts.trials.items()):
                    if trial.ended_ms == group.end_ms:  # else it was told of before
                        yield from measuring.paired(lifecycle.spec, number, shadow, trial)

    def _weights(self, lifecycle: LifecycleChanged, kit: Kit) -> dict[str, Weights]:
        """Of labels that are judged at an age, as of the ticks that are closed; by segment."""
        seconds, found = lifecycle.spec.labels.judged_after_seconds, {}
        if seconds is None or self.ages is None:
            return {}
        for segment in ("", *(part.name for part in kit.profile.segments)):
            curve = self.delays.get(segment)
            known = curve and weights(curve.known(self.ages, self.closed), seconds)
            if known:
                found[segment] = known
        return found

    def _publish(self, closed: int, live: LiveModel) -> Iterator[Fact]:
        known: Known = {}
        for number, version in sorted(self.versions.items()):
            for segment, series in sorted(version.windows.items()):
                for place, (plan, cells) in enumerate(zip(self.cuts, series, strict=True)):
                    for window in cells.due(closed, plan):
                        yield from self._measure(
                            live,
                            number,
                            segment,
                            plan,
                            window,
                            known,
                            drift=not place and not segment,
                        )

    def _measure(
        self,
        live: LiveModel,
        number: int,
        segment: str,
        plan: Plan,
        window: Published,
        known: Known,
        *,
        drift: bool,
    ) -> Iterator[AccuracyMeasured | Fact]:
        spec, watch = live.lifecycle.spec, self.verdicts.watch
        curve = self.delays.get(segment)
        champion = watch is not None and watch.version == number
        profile = live.profile(number)
        measured = measuring.accuracy(
            spec, profile, plan, window, version=number, segment=segment, champion=champion
        )
        if measured is not None and champion and watch is not None and not segment:
            read = readings(spec.detectors, watch.memory)
            measured = msgspec.structs.replace(measured, detectors=read)
        if measured is not None and curve and self.ages and window.total.latest is not None:
            as_of = (segment, window.total.latest // self.ages.cohort)
            if as_of not in known:
                known[as_of] = measuring.known(curve, self.ages, window.total.latest, spec.classes)
            measured = measuring.late(measured, window, known[as_of], self.ages)
        if measured is not None:
            yield measured
        if drift and champion and watch is not None and profile is not None:
            yield from measuring.drift(spec, profile, plan, window, watch)

    def _forget(self, lifecycle: LifecycleChanged) -> None:
        """Versions that are not live go when labels can no longer restate them."""
        alive = {lifecycle.champion, *lifecycle.shadows}
        self.versions = {
            number: version
            for number, version in self.versions.items()
            if number in alive or not self._is_over(version)
        }
        if self.ages:
            for curve in self.delays.values():
                curve.forget(self.closed, self.ages)

    def _is_over(self, version: VersionState) -> bool:
        return not version.pending.open and all(
            cells.is_over(self.closed, plan)
            for series in version.windows.values()
            for plan, cells in zip(self.cuts, series, strict=True)
        )
