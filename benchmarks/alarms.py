"""False alarms and delays of Driftline's tests beside river's detectors and fixed thresholds.

    python -m benchmarks.alarms [--quick] [--json] [--runs N] [--models N] [--page docs/alarms.md]

Every run has a reference of 5,000 rows and a stream of 20,000 events of its own. Tables: whole
models of 20 features on which nothing happens, and how much of the bound is used at the very edge
of the null; alarms of single signals on quiet streams of several kinds; how long after event 10,000
a change is found, at defaults and at the laxest setting of a ladder at which at most 2 % of the
quiet streams alarm. Driftline looks at ticks of 100 events, the others at each one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.pages import Rows, Table, write_page
from benchmarks.reporting import parser, report, say
from benchmarks.watchers import (
    LADDERS,
    THRESHOLD,
    Watcher,
    always,
    columns,
    driftline,
    fits,
    lax_first,
    shown_to,
)
from benchmarks.worlds import (
    CHANGE,
    CHANGES,
    COUNTED,
    EVENTS,
    QUIET,
    ROWS,
    SEED,
    TICK,
    Run,
    World,
    profiled,
    run_of,
    table_of,
)
from stream.core.bets import LOSS_STAKES, BetTable, mean_bets
from stream.core.capital import Stack
from stream.core.detector import Bank

FALSE_SHARE: Final = 0.02  # of quiet streams that may alarm at a matched setting
FEATURES: Final = 20
CORRELATED: Final = 8
CATEGORICAL: Final = 4
BARE: Final = "Driftline without remedies"
KINDS: Final = ("values", "categories", "errors")
Figures = dict[str, Any]
Settings = Mapping[tuple[str, str], str | None]


# --- whole models ---------------------------------------------------------------------------------


def whole_models(models: int) -> tuple[Rows, Figures]:
    """Alarms on models of 20 features: 8 correlated at 0.8, 8 independent, 4 categorical."""
    alone, together = 0, 0
    for number in range(models):
        tables, counts = _model(number)
        names = [table.name for table in tables]
        # Of 20 features, each 1 false alarm in 100,000 events; and 1 over all of them.
        for allowed, group in ((0.2 * FEATURES, ""), (0.2, "all")):
            watch = Bank(
                tables,
                dict.fromkeys(names, 1 / FEATURES),
                alarms=allowed,
                groups={name: group or name for name in names},
            )
            found = sum(
                len(watch.update(dict(zip(names, tick, strict=True)), TICK / EVENTS))
                for tick in zip(*counts, strict=True)
            )
            if group:
                together += found
            else:
                alone += found
        if number % 50 == 49:
            say(f"models: {number + 1}")
    bounds = (0.2 * FEATURES * models, 0.2 * models)
    rows = [
        [told, f"{found}", f"{bound:.0f}", f"{bound + 3 * bound**0.5:.0f}", f"{found / bound:.3f}"]
        for told, found, bound in (
            ("every feature alone: 1 in 100,000 events each", alone, bounds[0]),
            ("the model: 1 in 100,000 events over all", together, bounds[1]),
        )
    ]
    return rows, {
        "models": models,
        "alarms_alone": alone,
        "bound_alone": bounds[0],
        "alarms_together": together,
        "bound_together": bounds[1],
    }


def _model(number: int) -> tuple[list[BetTable], list[Any]]:
    rng = np.random.default_rng([SEED, 7, number])
    numeric = FEATURES - CATEGORICAL
    x = rng.standard_normal((numeric, ROWS + EVENTS))
    x[:CORRELATED] = 0.8**0.5 * rng.standard_normal(ROWS + EVENTS) + 0.2**0.5 * x[:CORRELATED]
    levels = (x[:CATEGORICAL] > 0.4).astype(float) + (x[:CATEGORICAL] > -0.3)
    tables, counts = [], []
    for i, values in enumerate([*x, *levels]):
        world = World("values" if i < numeric else "categories", QUIET["independent"].draw)
        signal = profiled(world, values[:ROWS])
        run = Run(world, values[ROWS:], signal, table_of(signal))
        tables.append(run.table._replace(name=str(i)))
        counts.append(run.counts(TICK))
    return tables, counts


def edge_of_the_null(runs: int) -> Figures:
    """Share of the bound that is used where the error rate is exactly the promised one."""
    ticks, threshold = 2_000, 100.0
    bets = mean_bets(np.array([0.0, 1.0]), 0.1, LOSS_STAKES / 0.1)
    table = BetTable("edge", bets, np.full(len(bets), 1 / len(bets)))
    stack, growth, alarms = Stack([table] * runs), np.ones((runs, 1)), 0
    wrong = np.random.default_rng([SEED, 3]).binomial(TICK, 0.1, (ticks, runs))
    for row in wrong:
        stack.update(np.column_stack([TICK - row, row]).astype(float), growth)
        hit = np.flatnonzero(stack.evidence >= threshold)
        alarms += len(hit)
        stack.reset(hit.tolist())
    return {"edge_share_of_bound": round(alarms / (runs * ticks / threshold), 3)}


def cost(signals: int = 1_000, ticks: int = 100) -> Figures:
    """CPU of one signal and tick, in a bank of a thousand, state saved after every tick."""
    rng = np.random.default_rng([SEED, 5])
    made = [run_of(QUIET["independent"], i, changed=False) for i in range(20)]
    names = [str(i) for i in range(signals)]
    tables = [made[i % 20].table._replace(name=name) for i, name in enumerate(names)]
    watch = Bank(tables, dict.fromkeys(names, 1 / signals), alarms=1e-9)
    rows = [run.counts(TICK) for run in made]
    started = time.process_time()
    for tick in range(ticks):
        at = int(rng.integers(len(rows[0])))
        watch.restore(watch.snapshot() if tick else {})
        watch.update({name: rows[i % 20][at] for i, name in enumerate(names)}, 1e-6)
    spent = time.process_time() - started
    return {"microseconds_per_signal_and_tick": round(spent / ticks / signals * 1e6, 2)}


# --- single signals -------------------------------------------------------------------------------


def matched(names: Sequence[str], runs: int) -> Settings:
    """By detector and kind of stream, the laxest setting that is quiet on quiet streams."""
    found: dict[tuple[str, str], str | None] = {}
    for kind in ("independent", "four categories", "errors at 0.10"):
        world = QUIET[kind]
        quiet = [run_of(world, 10_000 + i, changed=False) for i in range(runs)]
        for name in names:
            ladder = LADDERS[name]
            if fits(name, world):
                found[name, world.of] = next(
                    (
                        setting
                        for setting in lax_first(name)
                        if _alarming(ladder[setting], shown_to(name, quiet)) <= FALSE_SHARE
                    ),
                    None,
                )
    return found


def _alarming(watch: Watcher, runs: Sequence[Run]) -> float:
    return sum(next(watch(run), None) is not None for run in runs) / len(runs)


def false_alarms(names: Sequence[str], runs: int) -> tuple[Rows, Figures]:
    """Alarms per 100,000 quiet events, at the defaults."""
    rows: Rows = []
    figures: Figures = {}
    for kind, world in QUIET.items():
        made = [run_of(world, i, changed=False) for i in range(runs)]
        bare = [run_of(world, i, changed=False, remedies=False) for i in range(runs)]
        row = [kind]
        for name in (BARE, *names):
            ladder = LADDERS.get(name, {"": driftline(THRESHOLD)})
            if not fits(name, world):
                row.append("-")
                continue
            seen = bare if name == BARE else shown_to(name, made)
            watch = next(iter(ladder.values()))
            rate = sum(sum(1 for _ in watch(run)) for run in seen) * 100_000 / EVENTS / len(seen)
            row.append(f"{rate:.2f}")
            figures[f"false_{_plainly(name)}_{_plainly(kind)}"] = round(rate, 3)
        always_rate = sum(1 for _ in always(made[0])) * 100_000 / EVENTS
        rows.append([*row, f"{always_rate:.0f}"])
        say(f"quiet: {kind}")
    return rows, figures


def delays(names: Sequence[str], runs: int, settings: Settings) -> tuple[Rows, Figures]:
    """Median events until a change is found, and in how many runs; in how many of the counted
    changes Driftline is at or below the best of river's, all at matched settings."""
    rows: Rows = []
    figures: Figures = {}
    ahead = []
    for kind, world in CHANGES.items():
        made = [run_of(world, i, changed=True) for i in range(runs)]
        sure, told = _told(driftline(THRESHOLD), made)
        row, medians = [kind, told], {}
        figures[f"delay_guaranteed_{_plainly(kind)}"] = sure
        for name in names:
            ladder, setting = LADDERS[name], settings.get((name, world.of))
            if not fits(name, world) or setting is None:
                row.append("-")
                continue
            medians[name], told = _told(ladder[setting], shown_to(name, made))
            row.append(told)
            figures[f"delay_{_plainly(name)}_{_plainly(kind)}"] = medians[name]
        if kind in COUNTED and medians["Driftline"] <= _best_of_river(medians):
            ahead.append(kind)
        rows.append(row)
        say(f"change: {kind}")
    return rows, figures | {"counted": len(COUNTED), "at_or_below_river": len(ahead)}


def _best_of_river(medians: Mapping[str, float]) -> float:
    others = {"Driftline", "PSI > t", "KS p < a"}
    return min((m for name, m in medians.items() if name not in others), default=float(EVENTS))


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


def _tables(
    figures: Figures, whole: Rows, quiet: Rows, late: Rows, heads: list[str]
) -> list[Table]:
    names = [head.split(" [")[0] for head in heads]
    return [
        Table(
            f"{figures['models']} models of {FEATURES} features, {EVENTS:,} events each, nothing "
            f"happens. At the edge of the null {figures['edge_share_of_bound']:.2f} of the bound "
            f"is used; a signal and tick costs {figures['microseconds_per_signal_and_tick']} us",
            ["", "alarms", "bound", "bound + 3 SE", "share of the bound"],
            whole,
        ),
        Table(
            f"Alarms per 100,000 quiet events at defaults ({figures['runs']} streams of "
            f"{EVENTS:,}); Driftline's bound is 1",
            ["", BARE, *names, "always"],
            quiet,
        ),
        Table(
            "Events until found (of all streams; where less, in how many), at matched false "
            f"alarms; Driftline at or below the best of river in {figures['at_or_below_river']} of "
            f"{figures['counted']}",
            ["", "Driftline, guaranteed", *heads],
            late,
        ),
    ]


def main() -> None:
    one = parser("False alarms on quiet streams, and delays until a change is found.")
    one.add_argument("--runs", type=int, help="streams of each kind")
    one.add_argument("--models", type=int, help="whole models")
    one.add_argument("--page", type=Path, help="write the tables into this page, too")
    given = one.parse_args()
    runs = given.runs or (6 if given.quick else 100)
    models = given.models or (4 if given.quick else 500)
    figures: Figures = {"runs": runs, **edge_of_the_null(400), **cost()}
    whole, more = whole_models(models)
    figures |= more
    names = columns(quick=given.quick)
    settings = matched(names, runs)
    quiet, more = false_alarms(names, runs)
    figures |= more
    late, more = delays(names, runs, settings)
    figures |= more
    heads = [f"{name} [{'/'.join(_setting(settings, name))}]" for name in names]
    tables = _tables(figures, whole, quiet, late, heads)
    for number, table in enumerate(tables):
        last = number == len(tables) - 1
        report(*table, figures if last else {}, as_json=given.json and last)
    if given.page:
        options = f" --quick --runs {runs} --models {models}" if given.quick else ""
        write_page(given.page, tables, f"python -m benchmarks.alarms{options}")


def _setting(settings: Settings, name: str) -> list[str]:
    """By kind of stream that the detector is made for: the matched setting, or "none"."""
    return [settings[name, of] or "none" for of in KINDS if (name, of) in settings]


if __name__ == "__main__":
    main()
