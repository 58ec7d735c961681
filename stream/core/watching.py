"""The champion under watch: its loss, its data, its predictions and its inputs, one alarm budget.

Every signal is a detector of one bank. One that has alarmed leaves the bank while its alert is
open; then bets run the other way, against "it is still as bad as at the alarm", and when those have
won it returns to the bank without evidence (hysteresis: statistics of both are in `bets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from msgspec import Struct, field

from models.joint import NAME as JOINT
from models.profile import ReferenceProfile, SegmentProfile, SignalProfile, Validation
from models.profiling import LABELS
from models.seasons import Calendar
from models.spec import DAY_SECONDS, ModelSpec
from stream.core import risks
from stream.core.advisors import Advisors, Memory
from stream.core.bets import (
    BetTable,
    HarmBound,
    broken_table,
    distribution_table,
    harm_bound,
    signal_recovery_table,
)
from stream.core.detector import Bank, Detector
from stream.core.guards import guarded
from stream.core.intervals import REFERENCE_RISK
from stream.core.promises import allowance, promise
from stream.core.risks import Counts, Risk
from stream.core.ticks import Group, Tick, add_cells, add_counts, added
from stream.core.trails import Trail

Kind = Literal["harm", "estimate", "broken", "schema", "prediction", "feature"]

SEASONAL: Final = frozenset({"feature", "prediction"})
MONTH_MS: Final = 30 * DAY_SECONDS * 1000
MILLION: Final = 1_000_000
RECOVERY_EVIDENCE: Final = 1000.0  # a false "recovered" at most once in so many groups of ticks
MINIMUM_OPEN_GROUPS: Final = 3
LOW: Final = 0.01  # of an alarm's evidence: below it nothing has begun
LOSS: Final = "loss"  # the signal of harm
RECORDS: Final = "records"  # the signal of what was accepted and what was refused


class Signal(NamedTuple):
    """One line of the budget: `name` of the profile (or "loss", "records"), under a `kind`.

    In a segment its name ends with that: "loss in plan=gold".
    """

    kind: Kind
    name: str

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"


HARM: Final = Signal("harm", "loss")
EXPECTED: Final = Signal("estimate", "loss")


class Sighting(Struct, omit_defaults=True):
    """What was seen of a signal since its evidence was last low; frozen while its alert is open."""

    since_ms: int
    counts: list[int] = []
    level: float = 0.0  # share of the alarm threshold reached
    opened_ms: int | None = None
    groups: int = 0  # seen since it opened
    recovery: list[float] = []
    cells: dict[int, int] = {}  # of the counts, by cell of the signal's season
    reached: float = 0.0  # share of its own threshold at the alarm; below 1 if a group alarmed
    refused: dict[str, int] = {}  # of the signal of records: dead letters by "<entity>:<reason>"
    # Of the signal of harm: see `SummaryComputed.slices`.
    slices: dict[str, tuple[int, int, int]] = {}


class Watch(Struct, omit_defaults=True):
    """State of the detectors of one champion's reign: plain data, tables come from its profile."""

    version: int
    began_ms: int = 0  # start of the first group seen
    until_ms: int = 0  # end of the last
    bank: dict[str, bytes | list[float] | None] = {}
    sightings: dict[str, Sighting] = {}
    trail: Trail = field(default_factory=Trail)
    memory: Memory = field(default_factory=Memory)

    def open(self, kind: Kind) -> dict[str, Sighting]:
        """Alarmed signals of a kind, by name."""
        return {
            key.partition("/")[2]: sighting
            for key, sighting in sorted(self.sightings.items())
            if sighting.opened_ms is not None and key.startswith(f"{kind}/")
        }

    def close(self, kind: Kind) -> None:
        """Watch all signals of a kind again, from no evidence."""
        for name in self.open(kind):
            key = Signal(kind, name).key
            del self.sightings[key]
            self.bank.pop(key, None)

    def level(self, key: str) -> float:
        return self.sightings[key].level if key in self.sightings else 0.0


class Kit:
    """What a profile and a spec determine: signals, bet tables, the bank. No part of the state."""

    def __init__(self, spec: ModelSpec, profile: ReferenceProfile) -> None:
        self.spec = spec
        self.profile = profile
        self._places = places(spec, profile)
        self.signals = tuple(self._places)
        self._shares = _shares(spec, self._places)
        self.promise = promise(spec, profile, signals=len(self.signals))
        self.expected = risks.expected(spec, profile)
        self.guarded = guarded(spec, profile)
        self._risks = self._losses()
        self.advisors = Advisors(spec.detectors)
        self._recoveries: dict[str, tuple[object, Detector]] = {}
        self._calendar = Calendar(profile.time_zone, spec.tick_ms)
        self._seasons = {
            signal: reference.season
            for signal in self.signals
            if signal.kind in SEASONAL
            and (reference := self.reference(signal)).season
            and self._calendar.fits(reference.season)
        }
        self._turned: dict[Signal, int] = dict.fromkeys(self._seasons, 0)
        self._tables: dict[tuple[Signal, int], BetTable] = {}
        self.bank = Bank(
            [self._table(signal) for signal in self.signals],
            self._shares,
            alarms=allowance(spec.budget)[0],
            groups={signal.key: signal.kind for signal in self.signals},
        )

    def harm_bound(self, signal: Signal) -> HarmBound:
        """What the validated loss allows to certify, of the whole or of a segment."""
        return harm_bound(self.validation(signal), **risks.against(self.spec))

    def validation(self, signal: Signal) -> Validation:
        """How the version did on the whole, or on the segment that a signal of harm is of."""
        segment = self._places[signal].segment
        return segment.validation if segment else self.profile.validation

    def _losses(self) -> dict[Signal, Risk]:
        found: dict[Signal, Risk] = {
            signal: risks.measured(self.spec, self.validation(signal), place.segment)
            for signal, place in self._places.items()
            if place.kind == "harm"
        }
        return found if self.expected is None else {**found, EXPECTED: self.expected}

    def cell(self, start_ms: int) -> tuple[int, ...]:
        """Where a tick lies in each season that a signal has."""
        seasons = sorted(set(self._seasons.values()))
        return tuple(self._calendar.cell(season, start_ms) for season in seasons)

    def turn(self, start_ms: int) -> dict[Signal, int]:
        """Go over to the tables of a group's cells; returns the cell of each seasonal signal."""
        cells = {s: self._calendar.cell(season, start_ms) for s, season in self._seasons.items()}
        for signal, cell in cells.items():
            if self._turned[signal] != cell:
                self._turned[signal] = cell
                self.bank.turn(signal.key, self._table(signal, cell), cell)
        return cells

    def counts(self, group: Group) -> dict[Signal, Counts]:
        """What a group holds of each signal; nothing of one that is not on the reference's bins."""
        found = {
            signal: self._risks[signal].counts(group)
            if signal in self._risks
            else _counts(group.counts, place)
            for signal, place in self._places.items()
        }
        return {
            signal: counts
            for signal, counts in found.items()
            if len(counts) == self.bank.tables[signal.key].log_bets.shape[1] and sum(counts) > 0
        }

    def shown(self, signal: Signal, group: Group, counts: Counts) -> list[int]:
        """What of its counts is shown to a person."""
        risk = self._risks.get(signal)
        return risk.shown(group, counts) if risk else _counts(group.counts, self._places[signal])

    def recovery_counts(
        self, signal: Signal, sighting: Sighting, group: Group, counts: Counts
    ) -> Counts:
        """What `recovery` bets on."""
        risk = self._risks.get(signal)
        return risk.recovery_counts(sighting.counts, group, counts) if risk else counts

    def periods(self, group: Group, since_ms: int) -> float:
        """Budget periods that passed with a group: months, or millions of events."""
        if self.spec.budget.false_alarms_per_million_events is not None:
            return group.counts.events / MILLION
        return (group.end_ms - since_ms) / MONTH_MS

    def recovery(self, signal: Signal, sighting: Sighting, cell: int | None) -> Detector:
        """Bets against "still as bad as at the alarm" of a signal, in a cell of its season; their
        capital is that of whoever asked last."""
        seen = (sighting.counts, cell)
        known = self._recoveries.get(signal.key)
        if known is None or known[0] != seen:
            known = (seen, Detector(self._recovery_table(signal, sighting, cell)))
            self._recoveries[signal.key] = known
        return known[1]

    def _table(self, signal: Signal, cell: int | None = None) -> BetTable:
        known = self._tables.get((signal, cell or 0))
        if known is None:
            known = self._new_table(signal, cell or 0)._replace(name=signal.key)
            self._tables[signal, cell or 0] = known
        return known

    def _new_table(self, signal: Signal, cell: int) -> BetTable:
        if signal in self._risks:
            return self._risks[signal].table()
        delta = REFERENCE_RISK / len(self.profile.signals)
        reference = self.reference(signal)
        if signal.kind in ("broken", "schema"):
            return broken_table(reference, delta=delta)
        tolerance_psi = self.spec.tolerances.psi
        if signal not in self._seasons:
            return distribution_table(reference, tolerance_psi=tolerance_psi, delta=delta)
        return distribution_table(
            reference.in_cell(cell), tolerance_psi=tolerance_psi, delta=delta, cell_of=reference
        )

    def _recovery_table(self, signal: Signal, sighting: Sighting, cell: int | None) -> BetTable:
        if signal in self._risks:
            return self._risks[signal].recovery_table(sighting.counts)
        reference = self.reference(signal)
        if cell is None:
            return signal_recovery_table(reference, sighting.counts)
        counts = expected_after(reference, sighting.counts, sighting.cells, cell)
        return signal_recovery_table(reference.in_cell(cell), counts)

    def threshold(self, signal: Signal) -> float:
        """The evidence at which a signal alarms by itself."""
        return 1 / (allowance(self.spec.budget)[0] * self._shares[signal.key])

    def reference(self, signal: Signal) -> SignalProfile:
        """What a signal (not of harm) is compared with."""
        reference = self._places[signal].reference
        if reference is None:
            raise KeyError(f"the profile of model {self.spec.name!r} has no signal {signal.name!r}")
        return reference


def observe(watch: Watch, kit: Kit, group: Group) -> None:
    """Take one group in: signals of the watch open and recover."""
    growth = kit.periods(group, watch.until_ms or group.start_ms)
    watch.began_ms = watch.began_ms or group.start_ms
    watch.until_ms = group.end_ms
    kit.advisors.take(watch.memory, group.counts.bets, group.end_ms)
    watch.trail.add(group.start_ms, group.end_ms, group.counts.offsets, group.counts.traces)
    kit.bank.restore(watch.bank)
    cells, seen = kit.turn(group.start_ms), kit.counts(group)
    for signal, counts in seen.items():
        sighting = _see(watch, kit, signal, counts, group, cells.get(signal))
        if signal.kind == "schema" and sighting is not None:
            add_counts(sighting.refused, group.counts.refused)
        if signal == HARM and sighting is not None:
            add_cells(sighting.slices, group.counts.slices)
    alarmed = kit.bank.update({signal.key: counts for signal, counts in seen.items()}, growth)
    levels = kit.bank.levels() if alarmed else kit.bank.reached
    for key, level in levels.items():
        sighting = watch.sightings.get(key)
        if sighting is not None and sighting.opened_ms is None:
            sighting.level = level
    for key in alarmed:
        kit.bank.suspend(key)
        watch.sightings[key].level = 1.0
        watch.sightings[key].reached = kit.bank.reached[key]
        watch.sightings[key].opened_ms = group.end_ms
    watch.bank = kit.bank.snapshot()


def _see(
    watch: Watch, kit: Kit, signal: Signal, counts: Counts, group: Group, cell: int | None
) -> Sighting | None:
    """Before the bank bets: note what is there, and let an open signal recover.

    Returns:
        what the counts were added to; None while an alert is open.
    """
    sighting = watch.sightings.get(signal.key)
    if sighting is not None and sighting.opened_ms is not None:
        now = kit.recovery_counts(signal, sighting, group, counts)
        if not _recovers(sighting, kit.recovery(signal, sighting, cell), now):
            return None
        kit.bank.resume(signal.key)
        sighting = None
    if sighting is None or sighting.level < LOW:
        sighting = watch.sightings[signal.key] = Sighting(since_ms=group.start_ms)
    shown = kit.shown(signal, group, counts)
    sighting.counts = added(sighting.counts, shown)
    if cell is not None:
        sighting.cells[cell] = sighting.cells.get(cell, 0) + sum(shown)
    return sighting


def _recovers(sighting: Sighting, detector: Detector, counts: Counts) -> bool:
    if len(sighting.recovery) == len(detector.table.weights):
        detector.restore(sighting.recovery)
    else:
        detector.reset()
    evidence = detector.update(counts, growth=1.0)
    sighting.recovery = detector.snapshot()
    sighting.groups += 1
    return evidence >= RECOVERY_EVIDENCE and sighting.groups >= MINIMUM_OPEN_GROUPS


def expected_after(
    reference: SignalProfile, counts: list[int], cells: Mapping[int, int], cell: int
) -> list[float]:
    """What the change that shows in `counts`, collected over `cells`, would look like in `cell`.

    Every bin grows by the factor by which it grew over what the reference had in those cells.
    """
    usual = [0.0] * len(counts)
    for other, n in cells.items():
        total = sum(reference.cells[other]) or 1
        usual = [u + n * r / total for u, r in zip(usual, reference.cells[other], strict=True)]
    factors = [(after + 1) / (before + 1) for after, before in zip(counts, usual, strict=True)]
    shape = [f * (r + 0.5) for f, r in zip(factors, reference.cells[cell], strict=True)]
    return [sum(counts) * share / sum(shape) for share in shape]


def records_profile(profile: ReferenceProfile) -> SignalProfile:
    """What came of the records of the reference: as many as its rows were accepted, none refused.

    The layout is that of a categorical signal, so that refused records are one unseen category.
    """
    return SignalProfile(
        name=RECORDS, kind="categorical", categories=("accepted",), counts=(profile.rows, 0, 0)
    )


class Place(NamedTuple):
    """Where a signal's counts and its reference are."""

    kind: Kind
    name: str  # without the segment
    segment: SegmentProfile | None = None
    reference: SignalProfile | None = None


def _counts(tick: Tick, place: Place) -> list[int]:
    if place.segment is not None:
        tick = tick.segments.get(place.segment.name) or Tick()
    if place.kind == "schema":
        return [tick.predictions, sum(tick.refused.values()), 0]
    return tick.signals.get(place.name, [])


def places(spec: ModelSpec, profile: ReferenceProfile) -> dict[Signal, Place]:
    """Every line of the budget: of the model as a whole, and of its segments."""
    features = set(spec.feature_names)
    found = [Place("harm", LOSS)]
    found += [Place("estimate", LOSS)] if profile.estimator else []
    found.append(Place("schema", RECORDS, None, records_profile(profile)))
    for reference in profile.signals:
        if reference.name in (JOINT, LABELS):
            found.append(Place("feature", reference.name, None, reference))
        elif reference.name in features:
            kinds: tuple[Kind, ...] = ("broken", "feature")
            found += [Place(kind, reference.name, None, reference) for kind in kinds]
        else:
            found.append(Place("prediction", reference.name, None, reference))
    for segment in profile.segments:
        found.append(Place("harm", LOSS, segment))
        found += [
            Place(
                "feature" if signal.name in features else "prediction", signal.name, segment, signal
            )
            for signal in segment.signals
        ]
    return {_signal(place): place for place in found}


def _signal(place: Place) -> Signal:
    of = f" in {place.segment.name}" if place.segment else ""
    return Signal(place.kind, place.name + of)


def _shares(spec: ModelSpec, places: Mapping[Signal, Place]) -> dict[str, float]:
    """Each kind's share of the budget, split evenly over its signals; of a kind that looks at
    segments, too, half of it goes to the model as a whole.

    What is expected of predictions is read off them, so it has half of their share.
    """
    budget = spec.budget
    lines = [(_line(place.kind), place.segment is None) for place in places.values()]
    kinds = {kind for kind, _ in lines}
    said = budget.prediction_share / (2 if "estimate" in kinds else 1)
    share = {
        "harm": budget.harm_share,
        "broken": budget.data_share,
        "estimate": said,
        "prediction": said,
        "feature": budget.feature_share,
    }
    total = max(1.0, sum(share[kind] for kind in kinds))  # 1, give or take rounding
    return {
        signal.key: share[kind]
        / total
        / lines.count((kind, whole))
        / (2 if (kind, not whole) in lines else 1)
        for signal, (kind, whole) in zip(places, lines, strict=True)
    }


def _line(kind: Kind) -> Kind:
    """Refused records are broken data, too."""
    return "broken" if kind == "schema" else kind
