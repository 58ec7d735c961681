"""How trials end: shares promoted, and how soon, of challengers whose worth is known.

    python -m benchmarks.trials [--quick] [--json] [--runs N]

Each run is a trial by the default spec, as evaluate holds it: ticks of 100 labelled events, up to
20,000 of them, of a model with four guarded segments. On a share of the events exactly one of the
two versions is right, which is the noisiest that a difference of bounded losses can be. "Points"
are hundredths of the mean bounded loss.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from benchmarks.pages import Rows, Table, write_page
from benchmarks.reporting import parser, report, say
from models.spec import Feature, ModelSpec, Trial
from stream.core.guards import Guarded
from stream.core.ticks import Group, Tick, added_pairs
from stream.core.trials import TrialState, judge_challenger, observe
from stream.events import MICRO, LifecycleChanged, Pairs

TICK: Final = 100  # labelled events
TICK_MS: Final = 60_000
EVENTS: Final = 20_000
SEED: Final = 20_261
SHARES: Final[Guarded] = {"plan=a": 0.4, "plan=b": 0.3, "plan=c": 0.2, "plan=d": 0.1}
TRIAL: Final = Trial(cycle_seconds=0.0)  # asked after every tick, which is the hardest to withstand
NOT_WORSE: Final = replace(TRIAL, to_prove="not worse")
CYCLE: Final = 7  # ticks in one cycle of the world that goes up and down
SPEC: Final = ModelSpec(
    name="simulated",
    task="binary",
    classes=("no", "yes"),
    features=(Feature(name="plan", type="categorical"),),
    segments=("plan",),
    trial=TRIAL,
)
CHALLENGER: Final = 2
RIGHT: Final = 0.7  # share of events on which a version holds likeliest what comes true
RUNS: Final = 500
PROMOTED: Final = 0.95  # of the challengers that are to be
COLUMNS: Final = ["challenger", "promoted: allowed", "promoted", "rejected", "median events"]


class World(NamedTuple):
    """What is true of a challenger.

    Attributes:
        points: by how much it is better, in each of the segments, hundredths of the loss.
        discordance: share of events on which exactly one of the two is right.
        swing: points that it is better on the first five ticks of a cycle, and worse on average
            over the rest, so that nothing is left over a whole cycle.
        off: how far its certainty is off; that of the champion is not.
        expected: "promoted": of nearly all; "not": of at most the spec's share.
    """

    name: str
    points: tuple[float, float, float, float]
    discordance: float = 0.1
    swing: float = 0.0
    off: float = 0.0
    harmed: bool = False
    segments: Guarded = SHARES
    trial: Trial = TRIAL
    expected: str = "not"


WORLDS: Final = (
    World("worse by 2 points", (-2, -2, -2, -2)),
    World("worse by 2 points, they differ on 4 %", (-2, -2, -2, -2), 0.04),
    World("worse by 2 points, champion harmed", (-2, -2, -2, -2), harmed=True),
    World("equal", (0, 0, 0, 0)),
    World("better by 2 points", (2, 2, 2, 2), expected="promoted"),
    World("better by 2 points, they differ on 4 %", (2, 2, 2, 2), 0.04, expected="promoted"),
    World(
        "equal, champion harmed, no segments",
        (0, 0, 0, 0),
        harmed=True,
        segments={},
        expected="promoted",
    ),
    World("worse by 2 points, not worse is enough", (-2, -2, -2, -2), trial=NOT_WORSE),
    World(
        "equal, not worse is enough, no segments",
        (0, 0, 0, 0),
        segments={},
        trial=NOT_WORSE,
        expected="promoted",
    ),
    World("better by 2 points, worse by 2 in a segment of 20 %", (3, 3, -2, 3)),
    World("better by 2 points, worse by 2 in a segment of 10 %", (2.44, 2.44, 2.44, -2)),
    World("better by 2 points, worse by 5 in a segment of 10 %", (2.78, 2.78, 2.78, -5)),
    World(
        "up and down within a cycle, judged at whole ones",
        (0, 0, 0, 0),
        swing=5.0,
        trial=replace(TRIAL, cycle_seconds=CYCLE * TICK_MS / 1000),
    ),
    World("better by 2 points, its certainty off by 0.2", (2, 2, 2, 2), off=0.2),
)


class Ended(NamedTuple):
    """How one trial ended, and after how many labelled events."""

    kind: str
    events: int


def run(world: World, seed: int) -> Ended:
    """One trial, from its first labelled event on."""
    draw = np.random.default_rng(seed)
    spec = replace(SPEC, trial=world.trial)
    lifecycle = LifecycleChanged(
        model=SPEC.name,
        generation=1,
        spec=spec,
        spec_revision=1,
        champion=1,
        challengers=[CHALLENGER],
        changed_ms=0,
    )
    states: dict[int, TrialState] = {}
    for number in range(EVENTS // TICK):
        group = Group(number * TICK_MS, (number + 1) * TICK_MS, _tick(world, number, draw))
        observe(states, lifecycle, group)
        judgement = judge_challenger(
            CHALLENGER,
            states[CHALLENGER],
            world.trial,
            harmed=world.harmed,
            segments=world.segments,
        )
        if judgement is not None:
            return Ended(judgement.kind, states[CHALLENGER].totals.n)
    return Ended("undecided", EVENTS)


def _tick(world: World, number: int, draw: np.random.Generator) -> Tick:
    """A tick of labelled events, in the segments as they come."""
    swing = world.swing if number % CYCLE < 5 else -world.swing * 5 / (CYCLE - 5)
    whole, segments = Pairs(), {}
    sizes = draw.multinomial(TICK, list(SHARES.values()))
    for (name, n), points in zip(zip(SHARES, sizes, strict=True), world.points, strict=True):
        pairs = _pairs(world, int(n), (points + swing) / 100, draw)
        whole = added_pairs(whole, pairs)
        segments[name] = Tick(pairs={str(CHALLENGER): pairs})
    return Tick(pairs={str(CHALLENGER): whole}, segments=segments)


def _pairs(world: World, n: int, better: float, draw: np.random.Generator) -> Pairs:
    """Events on which the champion is as sure as it is right, and the challenger surer by `off`."""
    differ = max(world.discordance, abs(better))
    won, lost, _ = draw.multinomial(n, [(differ + better) / 2, (differ - better) / 2, 1 - differ])
    right = int(draw.binomial(n, RIGHT))
    mine, theirs = _off(n, right, RIGHT), _off(n, right, RIGHT + world.off)
    return Pairs(
        n=n,
        d_sum=int(won - lost) * MICRO,
        d_squares=int(won + lost) * MICRO,
        off=mine[0],
        off_squares=mine[1],
        shadow_off=theirs[0],
        shadow_off_squares=theirs[1],
    )


def _off(n: int, right: int, certainty: float) -> tuple[int, int]:
    """Sum and squares of certainty - being right."""
    when_right, when_wrong = certainty - 1, certainty
    total = right * when_right + (n - right) * when_wrong
    squares = right * when_right**2 + (n - right) * when_wrong**2
    return round(total * MICRO), round(squares * MICRO)


class Result(NamedTuple):
    """What came of the trials of one world."""

    world: World
    runs: int
    kinds: Counter[str]
    median_events: float  # until a trial ended

    @property
    def promoted(self) -> float:
        return self.kinds["promote"] / self.runs

    @property
    def as_expected(self) -> bool:
        if self.world.expected == "promoted":
            return self.promoted >= PROMOTED
        return self.promoted <= self.world.trial.alpha


def simulated(world: World, runs: int) -> Result:
    """Trials of one world, each with a seed of its own."""
    ended = [run(world, SEED + number) for number in range(runs)]
    kinds = Counter(one.kind for one in ended)
    return Result(world, runs, kinds, float(np.median([one.events for one in ended])))


def main() -> None:
    one = parser("Shares of trials that promote a challenger whose worth is known.")
    one.add_argument("--runs", type=int, help="trials of each world")
    one.add_argument("--page", type=Path, help="write the table into this page, too")
    given = one.parse_args()
    runs = given.runs or (25 if given.quick else RUNS)
    started, results = time.monotonic(), []
    for world in WORLDS:
        results.append(simulated(world, runs))
        say(f"{world.name}: {results[-1].promoted:.3f} promoted")
    say(f"{time.monotonic() - started:.0f} s")
    table = Table(f"How {runs} trials of each challenger end", COLUMNS, _rows(results))
    report(*table, _figures(results), as_json=given.json)
    if given.page:
        options = f" --runs {runs}" if runs != RUNS else ""
        write_page(given.page, [table], f"python -m benchmarks.trials{options}")
    raise SystemExit(0 if all(result.as_expected for result in results) else 1)


def _rows(results: Sequence[Result]) -> Rows:
    return [
        [
            one.world.name,
            f">= {PROMOTED}" if one.world.expected == "promoted" else f"<= {one.world.trial.alpha}",
            f"{one.promoted:.3f}",
            f"{one.kinds['reject'] / one.runs:.3f}",
            f"{one.median_events:,.0f}",
        ]
        for one in results
    ]


def _figures(results: Sequence[Result]) -> dict[str, object]:
    figures: dict[str, object] = {"runs": results[0].runs}
    for one in results:
        name = "_".join("".join(c if c.isalnum() else " " for c in one.world.name).split())
        figures[f"promoted_{name}"] = one.promoted
        figures[f"median_events_{name}"] = one.median_events
    return figures


if __name__ == "__main__":
    main()
