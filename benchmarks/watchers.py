"""What looks at streams in benchmarks/alarms.py: Driftline, river's detectors, fixed thresholds.

Each by a ladder of settings: the default first, then stricter ones. A watcher yields the number of
events after which it alarms, and goes on from scratch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from river import drift
from river.drift import binary
from scipy.stats import kstwobign

from benchmarks.worlds import TICK, Run, World, table_of
from models.seasons import HOUR_MS, Calendar
from stream.core.capital import Stack
from stream.core.detector import Detector
from stream.core.distances import compare, ks

Watcher = Callable[[Run], Iterator[int]]

THRESHOLD: Final = 1_000  # ticks: at most one false alarm in 100,000 events is guaranteed
WINDOW: Final = 1_000  # events of a fixed threshold


def driftline(ticks: float, events: int = TICK) -> Watcher:
    """At most one false alarm in so many ticks of 100 is guaranteed."""

    def watch(run: Run) -> Iterator[int]:
        if run.signal is not None and run.signal.season:
            yield from _seasonal(run, ticks)
            return
        detector = Detector(run.table)
        for number, counts in enumerate(run.counts(events), 1):
            if detector.update(counts, events / TICK) >= ticks:
                yield number * events
                detector.reset()

    return watch


def _seasonal(run: Run, ticks: float) -> Iterator[int]:
    """Group by group, as the watch does: no group lies in two hours."""
    signal, hours = run.signal, run.times_ms // HOUR_MS
    if signal is None or not signal.season:
        return
    calendar, stack = Calendar("UTC", HOUR_MS), Stack([run.table])
    width, bins = len(signal.counts), run.bins
    cells = {cell: table_of(signal, cell) for cell in range(len(signal.cells))}
    for hour in np.unique(hours).tolist():
        which = np.flatnonzero(hours == hour)
        cell = calendar.cell(signal.season, hour * HOUR_MS)
        stack.turn(0, cells[cell], cell)
        counts = np.bincount(bins[which], minlength=width) / run.table.deflation
        stack.update(counts[None], np.array([[len(which) / TICK]]))
        if stack.evidence[0] >= ticks:
            yield int(which[-1]) + 1
            stack.reset([0])


def river(make: Callable[[], Any]) -> Watcher:
    def watch(run: Run) -> Iterator[int]:
        detector = make()
        kind = int if run.world.of == "errors" else float
        values: Sequence[Any] = run.stream.astype(kind).tolist()
        for number, value in enumerate(values, 1):
            detector.update(value)
            if detector.drift_detected:
                yield number
                detector = make()

    return watch


def fixed_psi(threshold: float) -> Watcher:
    """PSI of every 1,000 events against the reference, as a dashboard's threshold has it."""

    def watch(run: Run) -> Iterator[int]:
        for number, counts in enumerate(run.counts(WINDOW), 1):
            if run.signal and compare(run.signal.counts, counts.tolist()).psi > threshold:
                yield number * WINDOW

    return watch


def fixed_ks(level: float) -> Watcher:
    """The Kolmogorov-Smirnov test of every 1,000 events against the reference."""

    def watch(run: Run) -> Iterator[int]:
        if run.signal is None:
            return
        m = sum(run.signal.counts)
        needed = kstwobign.isf(level) * ((WINDOW + m) / (WINDOW * m)) ** 0.5
        for number, counts in enumerate(run.counts(WINDOW), 1):
            if float(ks(run.signal.counts[:-1], counts[:-1])) > needed:
                yield number * WINDOW

    return watch


def always(run: Run) -> Iterator[int]:
    yield from range(TICK, len(run.stream) + 1, TICK)


LADDERS: Final[Mapping[str, Mapping[str, Watcher]]] = {
    "Driftline": {f"{a:g}": driftline(a) for a in (THRESHOLD, 60, 100, 200, 400, 2000, 4000)},
    "ADWIN": {
        f"{d:g}": river(partial(drift.ADWIN, delta=d)) for d in (2e-3, 1e-3, 5e-4, 2e-4, 5e-5)
    },
    "Page-Hinkley": {
        f"{t:g}/{d:g}": river(partial(drift.PageHinkley, threshold=t, delta=d))
        for t, d in ((50, 0.005), (50, 0.1), (100, 0.1), (150, 0.1), (200, 0.1), (300, 0.1))
    },
    "KSWIN": {f"{a:g}": river(partial(drift.KSWIN, alpha=a, seed=1)) for a in (5e-3, 1e-5, 1e-7)},
    "DDM": {f"{t:g}": river(partial(binary.DDM, drift_threshold=t)) for t in (3, 4, 5, 6, 8)},
    "EDDM": {f"{b:g}": river(partial(binary.EDDM, beta=b)) for b in (0.9, 0.8, 0.7, 0.6, 0.5)},
    "HDDM_A": {
        f"{c:g}": river(partial(binary.HDDMA, drift_confidence=c)) for c in (1e-3, 1e-4, 1e-5, 1e-6)
    },
    "HDDM_W": {
        f"{c:g}": river(partial(binary.HDDMW, drift_confidence=c)) for c in (1e-3, 1e-4, 1e-5, 1e-6)
    },
    "PSI > t": {f"{t:g}": fixed_psi(t) for t in (0.1, 0.05, 0.2)},
    "KS p < a": {f"{a:g}": fixed_ks(a) for a in (0.05, 0.01, 1e-3, 1e-4)},
}
FITS: Final = {
    "KSWIN": {"values"},
    "DDM": {"errors"},
    "EDDM": {"errors"},
    "HDDM_A": {"errors"},
    "HDDM_W": {"errors"},
    "PSI > t": {"values", "categories"},
    "KS p < a": {"values"},
}
#: Of the settings of a ladder from lax to strict, where that is not its order.
LAX_FIRST: Final[Mapping[str, Sequence[str]]] = {
    "Driftline": ("60", "100", "200", "400", "1000", "2000", "4000"),
    "PSI > t": ("0.05", "0.1", "0.2"),
}
SLOW: Final = frozenset({"KSWIN"})  # seconds a stream: seen on fewer of them
SLOW_RUNS: Final = 5


def fits(name: str, world: World) -> bool:
    """Whether a detector is made for such values. Categories are numbers to river's."""
    return world.of in FITS.get(name, {"values", "errors", "categories"})


def columns(*, quick: bool) -> list[str]:
    """The detectors of a round; a quick one leaves the slow out."""
    return [name for name in LADDERS if not (quick and name in SLOW)]


def shown_to(name: str, runs: Sequence[Run]) -> Sequence[Run]:
    return runs[:SLOW_RUNS] if name in SLOW else runs


def lax_first(name: str) -> Sequence[str]:
    return LAX_FIRST.get(name, [*LADDERS[name]])
