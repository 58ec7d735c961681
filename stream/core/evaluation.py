"""One model under evaluation: its state, and the fold over its closed ticks."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from models.profile import ReferenceProfile
from stream.core import judging, measuring
from stream.core.delays import Ages, Curve, ages
from stream.core.judging import Case, Fact, Verdicts
from stream.core.processor import LiveModel
from stream.core.ticks import Pending
from stream.core.watching import Kit
from stream.core.windows import Plan, Series, plans
from stream.events import AccuracyMeasured, LifecycleChanged, SummaryComputed

MAX_HELD = 10_000  # deltas of a model that lifecycle does not know yet


class VersionState(Struct, omit_defaults=True):
    """Counts of one version: open ticks for the tests, cells by segment and window for display."""

    pending: Pending = field(default_factory=Pending)
    windows: dict[str, list[Series]] = {}

    def add(self, delta: SummaryComputed, cuts: list[Plan], closed: int) -> None:
        overall = delta.segment == ""
        if overall:
            self.pending.add(delta, closed)
        series = self.windows.setdefault(delta.segment, [Series() for _ in cuts])
        for place, (plan, cells) in enumerate(zip(cuts, series, strict=True)):
            # Distributions are most of a cell's weight: they are shown over the first window only.
            cells.add(delta, plan, closed, signals=overall and place == 0)


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
    held: list[SummaryComputed] = []

    def take(self, delta: SummaryComputed) -> bool:
        """Take a delta in; False if it had to be dropped."""
        if self.cuts:
            version = self.versions.setdefault(delta.version, VersionState())
            version.add(delta, self.cuts, self.closed)
            if self.ages:
                curve = self.delays.setdefault(delta.segment, Curve())
                curve.add(delta, self.ages, self.closed)
        elif len(self.held) < MAX_HELD:
            self.held.append(delta)
        else:
            return False
        return True

    def adopt(self, lifecycle: LifecycleChanged) -> list[Fact]:
        """Follow lifecycle to a newer generation."""
        if lifecycle.generation <= self.generation:
            return []
        self.generation = lifecycle.generation
        self._cut(lifecycle)
        held, self.held = self.held, []
        for delta in held:
            self.take(delta)
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
            self.closed = number + 1
            yield from self._judge(live.lifecycle, kit)
        yield from self._publish(until, live)
        self.closed = until
        self._forget(live.lifecycle)

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
        """The champion's ticks are judged; those of others were only for display."""
        watch = self.verdicts.watch
        for number, version in sorted(self.versions.items()):
            if kit is None or watch is None or number != watch.version:
                version.pending.discard(self.closed)
                continue
            least = lifecycle.spec.ticks.minimum_events
            for group in version.pending.close(
                self.closed, tick_ms=self.tick_ms, minimum_events=least, cell=kit.cell
            ):
                case = Case(self.verdicts, watch, kit, lifecycle, group.end_ms)
                yield from judging.judge(case, group)
                for shadow, trial in sorted(self.verdicts.trials.items()):
                    if trial.ended_ms == group.end_ms:  # else it was told of before
                        yield from measuring.paired(lifecycle.spec, number, shadow, trial)

    def _publish(self, closed: int, live: LiveModel) -> Iterator[Fact]:
        for number, version in sorted(self.versions.items()):
            for segment, series in sorted(version.windows.items()):
                for place, (plan, cells) in enumerate(zip(self.cuts, series, strict=True)):
                    yield from self._measure(
                        live, number, segment, plan, cells, closed, drift=not place and not segment
                    )

    def _measure(
        self,
        live: LiveModel,
        number: int,
        segment: str,
        plan: Plan,
        cells: Series,
        closed: int,
        *,
        drift: bool,
    ) -> Iterator[AccuracyMeasured | Fact]:
        spec, watch = live.lifecycle.spec, self.verdicts.watch
        curve = self.delays.get(segment)
        champion = watch is not None and watch.version == number
        profile: ReferenceProfile | None = None
        known: dict[int, measuring.Late] = {}  # by number of the cohort
        for window in cells.due(closed, plan):
            profile = profile or live.profile(number)
            measured = measuring.accuracy(
                spec, profile, plan, window, version=number, segment=segment, champion=champion
            )
            if measured is not None and curve and self.ages and window.total.latest is not None:
                as_of = window.total.latest // self.ages.cohort
                if as_of not in known:
                    known[as_of] = measuring.known(curve, self.ages, window.total.latest)
                measured = measuring.late(spec, measured, window, known[as_of], self.ages)
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
