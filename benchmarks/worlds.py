"""Streams for benchmarks/alarms.py: what they are made of, and how they are after the change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from scipy.signal import lfilter

from models.profile import SignalProfile, Validation
from models.profiling import build_profile, numeric_bins
from models.spec import Feature, ModelSpec, Ticks
from stream.core.bets import BetTable, distribution_table, loss_table
from stream.events import LOSS_BINS

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

SEED: Final = 11
ROWS: Final = 5_000  # of a reference
LABELS: Final = 10_000  # of a validation
EVENTS: Final = 20_000
CHANGE: Final = 10_000
TICK: Final = 100
DAY: Final = 2_000  # events
STEP_MS: Final = 86_400_000 // DAY
MONDAY_MS: Final = 1_767_571_200_000
DELTA: Final = 0.01 / 20  # of one of twenty signals
NEVER_SEEN: Final = "new"

SPEC: Final = ModelSpec(
    name="alarms",
    task="binary",
    classes=("no", "yes"),
    features=(Feature(name="x"),),
    ticks=Ticks(seconds=TICK * STEP_MS / 10_000),
)
CATEGORIES: Final = structs.replace(SPEC, features=(Feature(name="x", type="categorical"),))
NO_VALIDATION: Final = Validation(n=1, loss_bins=(1,) * LOSS_BINS, loss_scale=4.0, metrics={})

Draw = Callable[[np.random.Generator, int, int], Array]  # first event, how many


class World(NamedTuple):
    """Values, 0/1 errors, or categories by number; and what becomes of them at the change."""

    of: Literal["values", "errors", "categories"]
    draw: Draw
    change: Callable[[Array, np.random.Generator], Array] = lambda x, _: x


class Run(NamedTuple):
    """One stream with what its own reference allows."""

    world: World
    stream: Array
    signal: SignalProfile | None
    table: BetTable

    @property
    def bins(self) -> Ints:
        """Of each event, on the reference's bins."""
        if self.signal is None:
            return np.where(self.stream > 0, LOSS_BINS - 1, 0)
        if self.world.of == "values":
            return numeric_bins(np.asarray(self.signal.edges), self.stream)
        places = {name: i for i, name in enumerate(self.signal.categories)}
        codes = [places.get(_name(value), len(places)) for value in self.stream.tolist()]
        return np.array(codes)

    def counts(self, events: int) -> Ints:
        """By ticks of so many events."""
        width = self.table.log_bets.shape[1]
        return np.stack([np.bincount(t, minlength=width) for t in self.bins.reshape(-1, events)])

    @property
    def times_ms(self) -> Ints:
        return times_ms(ROWS, len(self.stream))


def times_ms(first: int, n: int) -> Ints:
    return MONDAY_MS + STEP_MS * np.arange(first, first + n)


def run_of(world: World, seed: int, *, changed: bool, remedies: bool = True) -> Run:
    """A reference, and the stream that follows it."""
    rng = np.random.default_rng([SEED, seed])
    signal, table = _reference(world, rng, remedies=remedies)
    stream = world.draw(rng, ROWS, EVENTS)
    if changed:
        stream[CHANGE:] = world.change(stream[CHANGE:], rng)
    return Run(world, stream, signal, table)


def _reference(
    world: World, rng: np.random.Generator, *, remedies: bool
) -> tuple[SignalProfile | None, BetTable]:
    if world.of == "errors":
        wrong = int(world.draw(rng, 0, LABELS).sum())
        loss_bins = (LABELS - wrong, *([0] * (LOSS_BINS - 2)), wrong)
        validation = Validation(n=LABELS, loss_bins=loss_bins, loss_scale=4.0, metrics={})
        return None, loss_table(validation, tolerance=0.0, delta=0.005)
    signal = profiled(world, world.draw(rng, 0, ROWS))
    if not remedies:
        signal = structs.replace(signal, deflation=1.0, season="", cells=())
    return signal, table_of(signal)


def profiled(world: World, values: Array) -> SignalProfile:
    """As a version's reference has it."""
    told = map(_name, values.tolist()) if world.of == "categories" else values.tolist()
    spec = CATEGORIES if world.of == "categories" else SPEC
    rows = [(value,) for value in told]
    outputs = np.full((len(rows), 1), 0.5)
    return build_profile(spec, rows, outputs, NO_VALIDATION, times_ms(0, len(rows))).signals[0]


def table_of(signal: SignalProfile, cell: int = 0) -> BetTable:
    if not signal.season:
        return distribution_table(signal, tolerance_psi=0.0, delta=DELTA)
    here = signal.in_cell(cell)
    return distribution_table(here, tolerance_psi=0.0, delta=DELTA, cell_of=signal)


def _name(code: float) -> str:
    return NEVER_SEEN if code < 0 else f"c{code:.0f}"


def _plain(rng: np.random.Generator, first: int, n: int) -> Array:
    return rng.standard_normal(n)


def _ar(phi: float) -> Draw:
    def draw(rng: np.random.Generator, first: int, n: int) -> Array:
        noise = rng.standard_normal(n) * (1 - phi**2) ** 0.5
        x, _ = lfilter([1.0], [1.0, -phi], noise, zi=[phi * rng.standard_normal()])
        return np.asarray(x)

    return draw


def _daily(by: float) -> Draw:
    def draw(rng: np.random.Generator, first: int, n: int) -> Array:
        x: Array = by * np.sin(np.arange(first, first + n) * 2 * np.pi / DAY)
        return x + rng.standard_normal(n)

    return draw


def _bursts(rng: np.random.Generator, first: int, n: int) -> Array:
    """The same value ten times in a row, as one user's clicks would be."""
    return np.repeat(rng.standard_normal(n // 10), 10)


def _wrong(rate: float) -> Draw:
    return lambda rng, first, n: (rng.random(n) < rate).astype(float)


def _shares(*p: float) -> Draw:
    return lambda rng, first, n: rng.choice(len(p), n, p=p).astype(float)


FOUR: Final = _shares(0.35, 0.30, 0.20, 0.15)


def _shift(by: float) -> World:
    return World("values", _plain, lambda x, _: x + by)


def _error(rate: float) -> World:
    return World("errors", _wrong(0.1), lambda x, rng: _wrong(rate)(rng, 0, len(x)))


#: Nothing happens on these.
QUIET: Final = {
    "independent": World("values", _plain),
    "four categories": World("categories", FOUR),
    "errors at 0.10": World("errors", _wrong(0.1)),
    "AR(1) 0.6": World("values", _ar(0.6)),
    "AR(1) 0.9": World("values", _ar(0.9)),
    "daily cycle of 0.3 sd": World("values", _daily(0.3)),
    "daily cycle of 0.5 sd": World("values", _daily(0.5)),
    "bursts of 10": World("values", _bursts),
}
CHANGES: Final = {
    "mean + 0.1 sd": _shift(0.1),
    "mean + 0.2 sd": _shift(0.2),
    "mean + 0.3 sd": _shift(0.3),
    "mean + 0.5 sd": _shift(0.5),
    "mean + 1 sd": _shift(1.0),
    "sd x 1.5": World("values", _plain, lambda x, _: x * 1.5),
    "gradual, to + 1 sd": World(
        "values", _plain, lambda x, _: x + np.arange(len(x)) / max(1, len(x))
    ),
    "category 0.35 to 0.45": World(
        "categories", FOUR, lambda x, rng: _shares(0.45, 0.25, 0.17, 0.13)(rng, 0, len(x))
    ),
    "error 0.10 to 0.15": _error(0.15),
    "error 0.10 to 0.20": _error(0.20),
    "error 0.10 to 0.12": _error(0.12),
    "1 % outliers": World(
        "values", _plain, lambda x, rng: np.where(rng.random(len(x)) < 0.01, 8.0, x)
    ),
    "new category at 1 %": World(
        "categories", FOUR, lambda x, rng: np.where(rng.random(len(x)) < 0.01, -1.0, x)
    ),
}
#: The comparison that is counted; the rest is told as well.
COUNTED: Final = (
    "mean + 0.2 sd",
    "mean + 0.3 sd",
    "mean + 0.5 sd",
    "mean + 1 sd",
    "sd x 1.5",
    "gradual, to + 1 sd",
    "category 0.35 to 0.45",
    "error 0.10 to 0.15",
    "error 0.10 to 0.20",
)
