"""Series, markers and histograms as columns that a chart can draw: pure, and bounded in size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from consumers.console.history import Drifted
from consumers.console.views import point
from models.profile import SignalProfile
from models.state import Entry
from stream.events import AccuracyMeasured, Alert, Command, DriftMeasured, RetrainHeld

MAX_POINTS: Final = 600  # of one line: more than a screen has columns to tell apart
MAX_MARKERS: Final = 200
SPARK_POINTS: Final = 40
MAX_SPARKS: Final = 100  # signals whose past is drawn; the rest are found by name


class Line(Struct, frozen=True, kw_only=True):
    """A version that was measured beside the champion, on the same times."""

    version: int
    value: list[float | None]


class Series(Struct, frozen=True, kw_only=True):
    """One metric over time as columns of equal length, by `t` (ms, event time).

    Attributes:
        value, low, high: of the version that was champion then, with its interval.
        points: windows there are; more than are drawn where they were thinned out.
    """

    t: list[int]
    version: list[int]
    value: list[float | None]
    low: list[float | None]
    high: list[float | None]
    baseline: list[float | None]
    coverage: list[float | None]
    labelled: list[int]
    predictions: list[int]
    shadows: list[Line]
    points: int


class Marker(Struct, frozen=True, kw_only=True):
    """Something that happened: a version went live, a command was given, an alert opened."""

    t: int
    kind: Literal["version", "command", "alert", "held"]
    text: str


def series(measured: Sequence[AccuracyMeasured], metric: str) -> Series:
    """The champions' line and those beside it; `measured` is in order of time."""
    live = {m.end_ms: m for m in measured if m.champion}
    if not live:  # a version that nobody made live is drawn all the same
        live = {m.end_ms: m for m in measured}
    times = thinned(sorted(live))
    champions = [live[t] for t in times]
    points = [point(m.metrics.get(metric)) for m in champions]
    return Series(
        t=times,
        version=[m.version for m in champions],
        value=[p[0] for p in points],
        low=[p[1] for p in points],
        high=[p[2] for p in points],
        baseline=[m.baseline.get(metric) for m in champions],
        coverage=[m.coverage for m in champions],
        labelled=[m.labelled for m in champions],
        predictions=[m.predictions for m in champions],
        shadows=_shadows(measured, metric, times),
        points=len(live),
    )


def _shadows(measured: Sequence[AccuracyMeasured], metric: str, times: list[int]) -> list[Line]:
    beside: dict[int, dict[int, float]] = {}
    for m in measured:
        found = m.metrics.get(metric)
        if not m.champion and found is not None:
            beside.setdefault(m.version, {})[m.end_ms] = found.value
    lines = [
        Line(version=version, value=[values.get(t) for t in times])
        for version, values in sorted(beside.items())
    ]
    return [line for line in lines if any(value is not None for value in line.value)]


def thinned(times: list[int], most: int = MAX_POINTS) -> list[int]:
    """At most `most` of them, evenly, the newest always among them.

    >>> thinned([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(times) <= most:
        return times
    step = (len(times) - 1) / (most - 1)
    return [times[round(i * step)] for i in range(most)]


def markers(
    measured: Sequence[AccuracyMeasured],
    commands: Sequence[Command],
    alerts: Sequence[Alert],
    held: Sequence[RetrainHeld],
    start_ms: int,
    end_ms: int,
) -> list[Marker]:
    """What happened between two times, in order.

    A change of version stands where the measurements show it, for the registry's clock is not the
    events' in a replay.
    """
    found: list[Marker] = []
    before: int | None = None
    for m in measured:
        if m.champion and m.version != before:
            if before is not None:
                found.append(Marker(t=m.end_ms, kind="version", text=f"v{before} → v{m.version}"))
            before = m.version
    found += [
        Marker(t=c.issued_ms, kind="command", text=f"{_named(c)}: {c.reason}") for c in commands
    ]
    found += [
        Marker(t=a.opened_ms, kind="alert", text=f"{a.verdict}: {a.sentence}") for a in alerts
    ]
    found += [Marker(t=h.held_ms, kind="held", text=f"{h.cause}: {h.reason}") for h in held]
    within = [marker for marker in found if start_ms <= marker.t <= end_ms]
    return sorted(within, key=lambda marker: marker.t)[-MAX_MARKERS:]


def _named(command: Command) -> str:
    return command.kind if command.version is None else f"{command.kind} v{command.version}"


class DriftRow(Struct, frozen=True, kw_only=True):
    """One signal in one line; `level` says how much of an alarm its evidence amounts to."""

    signal: str
    kind: Literal["feature", "prediction"]
    level: Literal["alarm", "rising", "quiet"]
    psi: float
    psi_noise: float
    psi_low: float
    psi_high: float
    js: float
    evidence: float
    n: int
    null_rate: float
    unseen_rate: float
    as_of_ms: int
    spark: list[float]


def drift_rows(
    newest: Sequence[DriftMeasured], past: Sequence[Drifted], features: Sequence[str]
) -> list[DriftRow]:
    """Signals, the most suspicious first."""
    sparks: dict[str, list[float]] = {}
    for drifted in past:
        sparks.setdefault(drifted.signal, []).append(drifted.psi)
    rows = [
        DriftRow(
            signal=m.signal,
            kind="feature" if m.signal in features else "prediction",
            level=_level(m.evidence),
            psi=m.psi,
            psi_noise=m.psi_noise,
            psi_low=m.psi_low,
            psi_high=m.psi_high,
            js=m.js,
            evidence=m.evidence,
            n=m.n,
            null_rate=m.null_rate,
            unseen_rate=m.unseen_rate,
            as_of_ms=m.end_ms,
            spark=sparks.get(m.signal, [])[-SPARK_POINTS:],
        )
        for m in newest
    ]
    return sorted(rows, key=lambda row: (-row.evidence, -row.psi, row.signal))


def _level(evidence: float) -> Literal["alarm", "rising", "quiet"]:
    if evidence >= 1:
        return "alarm"
    return "rising" if evidence >= 0.1 else "quiet"


class Bin(Struct, frozen=True, kw_only=True):
    """One bin of a signal: counts, and shares of all, then and now."""

    label: str
    reference: int
    live: int
    reference_share: float
    live_share: float


def histogram(profile: SignalProfile, counts: Sequence[int]) -> list[Bin]:
    """Reference against live on the reference's bins. The bins at the edges (below, above, unseen,
    no value) are left out where both are empty.

    Raises:
        ValueError: the counts are on other bins.
    """
    labels = bin_labels(profile)
    if len(labels) != len(counts):
        raise ValueError(f"{len(counts)} counts on {len(labels)} bins of {profile.name!r}")
    before, now = max(1, sum(profile.counts)), max(1, sum(counts))
    last = len(labels) - 1
    edges = {last - 1, last} if profile.kind == "categorical" else {0, last - 1, last}
    return [
        Bin(
            label=label,
            reference=reference,
            live=live,
            reference_share=reference / before,
            live_share=live / now,
        )
        for i, (label, reference, live) in enumerate(
            zip(labels, profile.counts, counts, strict=True)
        )
        if reference or live or i not in edges
    ]


def bin_labels(profile: SignalProfile) -> list[str]:
    """What each count of a signal stands for.

    >>> bin_labels(SignalProfile(name="age", kind="numeric", counts=(0,) * 5, edges=(1, 2.5, 9)))
    ['below 1', '1 to 2.5', '2.5 to 9', 'above 9', 'no value']
    """
    if profile.kind == "categorical":
        return [*profile.categories, "never seen before", "no value"]
    edges = [f"{edge:.4g}" for edge in profile.edges]
    between = [f"{a} to {b}" for a, b in pairwise(edges)]
    return [f"below {edges[0]}", *between, f"above {edges[-1]}", "no value"]


class Reign(Struct, frozen=True, kw_only=True):
    """One stretch of time in which a version was live; `end_ms` None: it still is."""

    version: int
    start_ms: int
    end_ms: int | None
    generation: int
    who: str
    reason: str


def reigns(entries: Sequence[Entry]) -> list[Reign]:
    """Who was live when, oldest first, from a history of generations."""
    found: list[Reign] = []
    for entry in entries:
        if entry.champion is None or (found and found[-1].version == entry.champion):
            continue
        if found:
            found[-1] = replace(found[-1], end_ms=entry.changed_ms)
        found.append(
            Reign(
                version=entry.champion,
                start_ms=entry.changed_ms,
                end_ms=None,
                generation=entry.generation,
                who=entry.who,
                reason=entry.reason,
            )
        )
    return found
