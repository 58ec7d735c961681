"""False alarms and delays of Driftline's tests beside river's detectors and fixed thresholds.

    python -m benchmarks.alarms [--quick] [--json] [--runs N]

Every run has a reference of 5,000 rows and a stream of 20,000 events of its own. The first table
counts alarms on streams on which nothing happens; the second tells how long after event 10,000 a
change is found. Detectors run at their defaults and at the laxest setting of a ladder at which at
most 2 % of the quiet streams alarm. Driftline looks at ticks of 100 events, the others at each one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from river import drift
from river.drift import binary

from benchmarks.reporting import parser, report, say
from models.profile import SignalProfile, Validation
from models.profiling import build_profile, numeric_bins
from models.spec import Feature, ModelSpec
from stream.core.bets import BetTable, distribution_table, loss_table
from stream.core.detector import Detector
from stream.core.distances import compare
from stream.events import LOSS_BINS

Array = NDArray[np.float64]

SPEC: Final = ModelSpec(
    name="alarms", task="binary", classes=("no", "yes"), features=(Feature(name="x"),)
)
SEED: Final = 11
ROWS: Final = 5_000  # of a reference
LABELS: Final = 10_000  # of a validation
EVENTS: Final = 20_000
CHANGE: Final = 10_000
TICK: Final = 100
FALSE_SHARE: Final = 0.02  # of quiet streams that may alarm at a matched setting
THRESHOLD: Final = 1_000  # ticks: at most one false alarm in 100,000 events is guaranteed
DELTA: Final = 0.01 / 20  # of one of twenty signals


class World(NamedTuple):
    """What streams are made of: values or 0/1 errors, and how they are after the change."""

    errors: bool
    draw: Callable[[np.random.Generator, int], Array]
    change: Callable[[Array, np.random.Generator], Array] = lambda x, _: x


def _ar(phi: float) -> Callable[[np.random.Generator, int], Array]:
    def draw(rng: np.random.Generator, n: int) -> Array:
        noise = rng.standard_normal(n) * (1 - phi**2) ** 0.5
        x = np.empty(n)
        last = rng.standard_normal()
        for i in range(n):
            last = x[i] = phi * last + noise[i]
        return x

    return draw


def _seasonal(rng: np.random.Generator, n: int) -> Array:
    """A cycle of half a standard deviation, 2,000 events long."""
    x: Array = rng.standard_normal(n) + 0.5 * np.sin(np.arange(n) * 2 * np.pi / 2_000)
    return x


def _plain(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_normal(n)


def _bursts(rng: np.random.Generator, n: int) -> Array:
    """The same value ten times in a row, as one user's clicks would be."""
    return np.repeat(rng.standard_normal(n // 10), 10)


def _wrong(rate: float) -> Callable[[np.random.Generator, int], Array]:
    return lambda rng, n: (rng.random(n) < rate).astype(float)


def _shift(by: float) -> World:
    return World(False, _plain, lambda x, _: x + by)


def _error(rate: float) -> World:
    return World(True, _wrong(0.1), lambda x, rng: _wrong(rate)(rng, len(x)))


QUIET: Final = {
    "independent": World(False, _plain),
    "errors at 0.10": World(True, _wrong(0.1)),
    "AR(1) 0.6": World(False, _ar(0.6)),
    "AR(1) 0.9": World(False, _ar(0.9)),
    "cycle of 0.5 sd": World(False, _seasonal),
    "bursts of 10": World(False, _bursts),
}
CHANGES: Final = {
    "mean + 0.1 sd": _shift(0.1),
    "mean + 0.2 sd": _shift(0.2),
    "mean + 0.3 sd": _shift(0.3),
    "mean + 0.5 sd": _shift(0.5),
    "mean + 1 sd": _shift(1.0),
    "sd x 1.5": World(False, _plain, lambda x, _: x * 1.5),
    "gradual, to + 1 sd": World(False, _plain, lambda x, _: x + np.arange(len(x)) / len(x)),
    "1 % outliers": World(False, _plain, lambda x, rng: np.where(rng.random(len(x)) < 0.01, 8, x)),
    "error 0.10 to 0.15": _error(0.15),
    "error 0.10 to 0.20": _error(0.20),
}

Alarm = int | None  # the event after which a detector first alarmed
Watcher = Callable[["Run"], Iterator[int]]  # every alarm of a stream


class Run(NamedTuple):
    """One stream with the tables that its own reference allows."""

    world: World
    stream: Array
    signal: SignalProfile | None
    table: BetTable

    def counts(self, events: int) -> NDArray[np.int64]:
        """By ticks of so many events, on the reference's bins."""
        if self.signal is None:
            bins = np.where(self.stream > 0, LOSS_BINS - 1, 0)
        else:
            bins = numeric_bins(np.asarray(self.signal.edges), self.stream)
        width = self.table.log_bets.shape[1]
        return np.stack([np.bincount(t, minlength=width) for t in bins.reshape(-1, events)])


def run_of(world: World, seed: int, *, changed: bool, deflated: bool = True) -> Run:
    rng = np.random.default_rng([SEED, seed])
    if world.errors:
        wrong = int(world.draw(rng, LABELS).sum())
        loss_bins = (LABELS - wrong, *([0] * (LOSS_BINS - 2)), wrong)
        validation = Validation(n=LABELS, loss_bins=loss_bins, loss_scale=4.0, metrics={})
        signal, table = None, loss_table(validation, tolerance=0.0, delta=0.005)
    else:
        signal = _profile(world.draw(rng, ROWS), deflated=deflated)
        table = distribution_table(signal, tolerance_psi=0.0, delta=DELTA)
    stream = world.draw(rng, EVENTS)
    if changed:
        stream[CHANGE:] = world.change(stream[CHANGE:], rng)
    return Run(world, stream, signal, table)


def _profile(rows: Array, *, deflated: bool) -> SignalProfile:
    """As a version's reference has it."""
    outputs = np.full((len(rows), 1), 0.5)
    values = [(value,) for value in rows.tolist()]
    validation = Validation(n=1, loss_bins=(1,) * LOSS_BINS, loss_scale=4.0, metrics={})
    signal = build_profile(SPEC, values, outputs, validation).signals[0]
    return signal if deflated else structs.replace(signal, deflation=1.0)


def driftline(ticks: float) -> Watcher:
    """At most one false alarm in so many ticks is guaranteed."""

    def watch(run: Run) -> Iterator[int]:
        detector = Detector(run.table)
        for number, counts in enumerate(run.counts(TICK), 1):
            if detector.update(counts, 1.0) >= ticks:
                yield number * TICK
                detector.reset()

    return watch


def river(make: Callable[[], Any]) -> Watcher:
    def watch(run: Run) -> Iterator[int]:
        detector = make()
        values: Sequence[Any] = run.stream.astype(int if run.world.errors else float).tolist()
        for number, value in enumerate(values, 1):
            detector.update(value)
            if detector.drift_detected:
                yield number
                detector = make()

    return watch


def fixed_psi(threshold: float) -> Watcher:
    """PSI of every 1,000 events against the reference, as a dashboard's threshold has it."""

    def watch(run: Run) -> Iterator[int]:
        if run.signal is None:
            return
        for number, counts in enumerate(run.counts(1_000), 1):
            if compare(run.signal.counts, counts.tolist()).psi > threshold:
                yield number * 1_000

    return watch


def always(run: Run) -> Iterator[int]:
    yield from range(TICK, len(run.stream) + 1, TICK)


#: By name: the default first, then stricter ones.
LADDERS: Final[Mapping[str, Mapping[str, Watcher]]] = {
    "Driftline": {f"{a:g}": driftline(a) for a in (THRESHOLD, 30, 60, 100, 200)},
    "ADWIN": {
        f"{d:g}": river(partial(drift.ADWIN, delta=d)) for d in (2e-3, 1e-3, 5e-4, 2e-4, 5e-5)
    },
    "Page-Hinkley": {
        f"{t:g}/{d:g}": river(partial(drift.PageHinkley, threshold=t, delta=d))
        for t, d in ((50, 0.005), (50, 0.1), (100, 0.1), (150, 0.1), (200, 0.1), (300, 0.1))
    },
    "DDM": {f"{t:g}": river(partial(binary.DDM, drift_threshold=t)) for t in (3, 4, 5, 6, 8)},
    "EDDM": {f"{b:g}": river(partial(binary.EDDM, beta=b)) for b in (0.9, 0.8, 0.7, 0.6)},
    "HDDM_A": {
        f"{c:g}": river(partial(binary.HDDMA, drift_confidence=c)) for c in (1e-3, 1e-4, 1e-5, 1e-6)
    },
    "HDDM_W": {
        f"{c:g}": river(partial(binary.HDDMW, drift_confidence=c)) for c in (1e-3, 1e-4, 1e-5)
    },
    "PSI > t": {f"{t:g}": fixed_psi(t) for t in (0.1, 0.2)},
}
ERRORS_ONLY: Final = frozenset({"DDM", "EDDM", "HDDM_A", "HDDM_W"})
VALUES_ONLY: Final = frozenset({"PSI > t"})


def fits(name: str, world: World) -> bool:
    return name not in (VALUES_ONLY if world.errors else ERRORS_ONLY)


def matched(runs: int) -> dict[tuple[str, bool], str | None]:
    """By detector and kind of stream, the laxest setting that is quiet on quiet streams."""
    found: dict[tuple[str, bool], str | None] = {}
    for kind in ("independent", "errors at 0.10"):
        world = QUIET[kind]
        quiet = [run_of(world, 10_000 + i, changed=False) for i in range(runs)]
        for name, ladder in LADDERS.items():
            if fits(name, world):
                lax = sorted(ladder, key=lambda s: float(s) if name == "Driftline" else 0)
                found[name, world.errors] = next(
                    (s for s in lax if _alarming(ladder[s], quiet) <= FALSE_SHARE), None
                )
    return found


def _alarming(watch: Watcher, runs: Sequence[Run]) -> float:
    return sum(next(watch(run), None) is not None for run in runs) / len(runs)


def false_alarms(runs: int) -> tuple[list[list[str]], dict[str, object]]:
    """Alarms per 100,000 quiet events, at the defaults."""
    rows: list[list[str]] = []
    figures: dict[str, object] = {}
    for kind, world in QUIET.items():
        made = [run_of(world, i, changed=False) for i in range(runs)]
        row = [kind]
        for name, ladder in LADDERS.items():
            if not fits(name, world):
                row.append("-")
                continue
            watch = next(iter(ladder.values()))
            rate = sum(sum(1 for _ in watch(run)) for run in made) / (runs * EVENTS / 100_000)
            row.append(f"{rate:.1f}")
            figures[f"false_{_plainly(name)}_{_plainly(kind)}"] = round(rate, 2)
        bare = [run_of(world, i, changed=False, deflated=False) for i in range(runs)]
        rate = sum(sum(1 for _ in driftline(THRESHOLD)(run)) for run in bare) * 5 / runs
        row.append(f"{rate:.1f}")
        figures[f"false_driftline_undeflated_{_plainly(kind)}"] = round(rate, 2)
        rows.append([*row, f"{100_000 / TICK:.0f}"])
        say(f"quiet: {kind}")
    return rows, figures


def delays(
    runs: int, settings: Mapping[tuple[str, bool], str | None]
) -> tuple[list[list[str]], dict[str, object], int]:
    """Median events until a change is found, and in how many runs; where Driftline is not beaten
    at matched settings."""
    rows: list[list[str]] = []
    figures: dict[str, object] = {}
    ahead = 0
    for kind, world in CHANGES.items():
        made = [run_of(world, i, changed=True) for i in range(runs)]
        row, medians = [kind, _told(driftline(THRESHOLD), made)[1]], {}
        figures[f"delay_guaranteed_{_plainly(kind)}"] = _told(driftline(THRESHOLD), made)[0]
        for name, ladder in LADDERS.items():
            setting = settings.get((name, world.errors))
            if not fits(name, world) or setting is None:
                row.append("-")
                continue
            median, told = _told(ladder[setting], made)
            medians[name] = median
            row.append(told)
            figures[f"delay_{_plainly(name)}_{_plainly(kind)}"] = median
        best = min(medians.values())
        ahead += medians["Driftline"] <= best < EVENTS
        rows.append(row)
        say(f"change: {kind}")
    return rows, figures, ahead


def _told(watch: Watcher, runs: Sequence[Run]) -> tuple[float, str]:
    """The median delay, `EVENTS` where less than half were found, and it in words."""
    first = [next(iter(watch(run)), None) for run in runs]
    fair = [alarm for alarm in first if alarm is None or alarm > CHANGE]
    waited = [EVENTS if alarm is None else alarm - CHANGE for alarm in fair]
    found = sum(wait < EVENTS for wait in waited)
    median = float(np.median(waited)) if waited else float(EVENTS)
    shown = f"{median:,.0f}" if median < EVENTS else "not found"
    return median, shown if found == len(runs) else f"{shown} ({found}/{len(runs)})"


def _plainly(name: str) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in name.lower()).split()
    return "_".join(words)


def main() -> None:
    one = parser("False alarms on quiet streams, and delays until a change is found.")
    one.add_argument("--runs", type=int)
    given = one.parse_args()
    runs = given.runs or (10 if given.quick else 100)
    settings = matched(runs)
    quiet, figures = false_alarms(runs)
    late, more, ahead = delays(runs, settings)
    names = list(LADDERS)
    report(
        f"Alarms per 100,000 quiet events at defaults ({runs} streams of {EVENTS:,})",
        ["", *names, "Driftline, undeflated", "always"],
        quiet,
        {},
        as_json=False,
    )
    columns = [
        f"{name} {settings.get((name, False)) or ''}|{settings.get((name, True)) or ''}"
        for name in names
    ]
    figures |= more | {"runs": runs, "changes": len(CHANGES), "not_beaten_at_matched": ahead}
    report(
        f"Events until found, at matched false alarms; Driftline not beaten in {ahead} of "
        f"{len(CHANGES)}",
        ["", "Driftline, guaranteed", *columns],
        late,
        figures,
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
