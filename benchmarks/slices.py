"""Does the search for the worst slice name the right one, and what does it cost?

    python -m benchmarks.slices [--quick] [--json]

Six features of four groups each: 264 slices of one value or two. Losses are bad (0.85) or good
(0.05); the reference has 2,500 rows. Where harm is spread evenly every slice that is named is one
by chance. Cost: one core of `monitor` on made-up predictions and labels, with and without slices.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.reporting import parser, report, say
from benchmarks.workload import SPEC
from models.examples import Examples
from models.facets import Facet, Grid, Slices
from models.spec import ModelSpec
from models.training import fit
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Record
from stream.core.slices import search
from tests.monitoring import Live

FACETS: Final = tuple(Facet(feature=f"x{i}", cuts=(-0.67, 0.0, 0.67)) for i in range(6))
GRID: Final = Grid(FACETS)
REFERENCE_ROWS: Final = 2_500
LABELS: Final = (150, 300, 600, 1_500)  # on which the alarm was raised
EVENTS: Final = 20_000  # of the cost
BATCH: Final = 1_000

Law = Callable[[NDArray[np.int64]], NDArray[np.float64]]  # chance of a bad prediction, by groups
LAWS: Final[dict[str, tuple[Law, str]]] = {  # and the slice that is to be named
    "spread evenly, 10 % bad to 30 %": (lambda g: np.full(len(g), 0.3), ""),
    "in one value (a quarter), to 40 %": (
        lambda g: np.where(g[:, 1] == 2, 0.4, 0.1),
        "0 <= x1 < 0.67",
    ),
    "in a pair (a sixteenth), to 70 %": (
        lambda g: np.where((g[:, 1] == 2) & (g[:, 4] == 0), 0.7, 0.1),
        "0 <= x1 < 0.67 and x4 < -0.67",
    ),
}


def cells(law: Law, n: int, draw: np.random.Generator) -> NDArray[np.int64]:
    """Labels, losses and squares (micro) of n events by cell, shape (3, size)."""
    groups = draw.integers(0, 4, (n, len(FACETS)))
    lost = np.where(draw.random(n) < law(groups), 0.85, 0.05)
    at = GRID.cells(groups)
    columns = (np.ones(n), 1e6 * lost, 1e6 * lost**2)
    totals = [np.bincount(at.ravel(), np.repeat(c, at.shape[1]), GRID.size) for c in columns]
    return np.rint(totals).astype(np.int64)


def named(law: Law, labels: int, draw: np.random.Generator) -> str:
    """The slice that one alert names; "" for none."""
    calm = cells(lambda g: np.full(len(g), 0.1), REFERENCE_ROWS, draw)
    n, sums, squares = (tuple(row.tolist()) for row in calm)
    now = cells(law, labels, draw)
    live = {str(cell): now[:, cell].tolist() for cell in np.flatnonzero(now[0])}
    found = search(Slices(facets=FACETS, n=n, sums=sums, squares=squares), live)["found"]
    return str(found[0]["slice"]) if found else ""


def micros(spec: ModelSpec, events: int) -> float:
    """CPU of the monitor for a prediction and its label, in microseconds."""
    draw = np.random.default_rng(1)
    rows = draw.normal(size=(4_000, len(spec.features)))
    labels = (draw.random(4_000) < 1 / (1 + np.exp(-rows[:, 0]))).astype(float)
    known = [tuple(map(float, row)) for row in rows]
    profile = fit(spec, Examples(known, labels, np.arange(4_000) * 1000, np.ones(4_000)), 1).profile
    fleet: Fleet = {spec.name: Live(spec, known=profile)}
    features = draw.normal(size=(events, len(spec.features))).round(4).tolist()
    names, keys = spec.feature_names, [f"r-{i:08d}" for i in range(events)]
    made = [
        {
            "prediction_id": key,
            "model": spec.name,
            "version": 1,
            "output": 0.3,
            "features": dict(zip(names, row, strict=True)),
        }
        for key, row in zip(keys, features, strict=True)
    ]
    told = [{"prediction_id": key, "model": spec.name, "label": "yes"} for key in keys]
    counts = dict.fromkeys(("predictions", "feedback", "examples", "summaries"), 1)
    monitor = MonitorProcessor(Context(0, counts, CoreSettings()))
    batches = [
        (_batch("predictions", made, at), _batch("feedback", told, at), at)
        for at in range(0, events, BATCH)
    ]
    began = time.process_time()
    for predictions, feedback, at in batches:
        monitor.apply(predictions, fleet)
        monitor.apply(feedback, fleet)
        monitor.advance(10**12 + at + BATCH, True, fleet)
    return (time.process_time() - began) / events * 1e6


def _batch(entity: Any, data: list[dict[str, Any]], at: int) -> Batch:
    return Batch(
        entity,
        0,
        [
            Record(i, 10**12 + i, str(one["prediction_id"]).encode(), msgspec.json.encode(one))
            for i, one in enumerate(data[at : at + BATCH], start=at)
        ],
    )


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    alerts, repeats = (40, 1) if options.quick else (400, 5)
    rows: list[list[str]] = []
    figures: dict[str, object] = {}
    for harm, (law, right) in LAWS.items():
        row = [harm]
        for labels in LABELS:
            draw = np.random.default_rng(labels)
            told = [named(law, labels, draw) for _ in range(alerts)]
            any_, exact = np.mean([bool(one) for one in told]), np.mean([t == right for t in told])
            row.append(f"{any_:.1%}" if not right else f"{exact:.0%} ({any_:.0%})")
            figures[f"{harm}, {labels} labels"] = {"named": float(any_), "right": float(exact)}
        rows.append(row)
        say(harm)
    spent: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(repeats):  # in turn, so that whatever else runs hits both
        spent["with"].append(micros(SPEC, EVENTS))
        spent["without"].append(micros(msgspec.structs.replace(SPEC, searched=()), EVENTS))
    for name, values in spent.items():
        what = f"us of CPU a labelled prediction, {name} slices"
        rows.append([what, f"{min(values):.1f}", *[""] * (len(LABELS) - 1)])
    figures |= {f"microseconds {name}": min(values) for name, values in spent.items()}
    columns = ("harm", *(f"{n} labels" for n in LABELS))
    title = f"{alerts} alerts each: the right slice named (any named)"
    report(title, columns, rows, figures, as_json=options.json)


if __name__ == "__main__":
    main()
