"""How cost grows in the core of monitor and evaluate, with no broker: flat where it should be?

    python -m benchmarks.scale [--quick] [--json] [--only models]

At one rate of events: more models (with ticks of ten seconds, and with default ones), more features
of a model, more segments. And more events of one model, with a checkpoint after every thousand:
rows are let go of two minutes later, a window is ten minutes long, and the clock begins once both
have filled, as until then there is less to do. And more predictions that wait for their label, and
go on waiting. Every point is a process of its own, with the collector of a worker, round by round:
microseconds of CPU an event (a prediction and its label; of `pending`, a prediction), and memory
that the work added.
The points of what grows go on in turn, a part of their work at a time, so that a machine that is
busy with other things for a while makes all of them dearer, not one. An exponent is the slope of
the logarithms by least squares: 0 is flat, 1 is proportional.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice, pairwise
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.bad_input import resident_mib
from benchmarks.core_work import Stages
from benchmarks.reporting import parser, report, say, spread
from models.profile import Validation
from models.profiling import build_profile
from models.spec import Feature, Labels, ModelSpec, Ticks, Window, check
from stream import collector
from stream.core.processor import Batch, Fleet, Record
from tests.monitoring import Live

EVENTS: Final = 40_000
EACH: Final = 120  # of a model, at least: its tests see a full group of ticks
TURNS: Final = 20  # in which a point does its work
BATCH: Final = 1_000
TURN: Final = (
    37  # by which the rows of a batch are turned against those before: it divides no batch
)
STEP_MS: Final = 1  # between two events: a thousand a second, told of once a second
START_MS: Final = 10**12
REFERENCE_ROWS: Final = 500
VALUES: Final = 50  # of a segment's feature, all that are told apart
MILLION: Final = 1_000_000

#: What grows, by how much: a full round's points.
AXES: Final[dict[str, tuple[int, ...]]] = {
    "models": (1, 10, 100, 1_000),
    "default_ticks": (1, 1_000),
    "features": (10, 100, 1_000),
    "segments": (1, 10, 50, 250, 2_500, 10_000),
    "events": (MILLION, 3 * MILLION, 10 * MILLION),
    "pending": (MILLION, 3 * MILLION, 10 * MILLION),
}
QUICK: Final[dict[str, tuple[int, ...]]] = {
    "models": (1, 30, 300),
    "default_ticks": (1, 300),
    "features": (10, 100),
    "segments": (1, 50),
    "events": (50_000, 200_000),
    "pending": (50_000, 200_000),
}
#: Measured once, as they take minutes each and are steady by their length; the exponent is of the
#: CPU of all events together.
LONG: Final = frozenset({"events", "pending"})
#: The largest exponent that is wanted of the CPU of all events together, or of one.
GOALS: Final = {"models": 0.3, "default_ticks": 0.3, "events": 1.0, "pending": 1.05}


class Shape(NamedTuple):
    """What the events are of.

    Attributes:
        segments: how many, of up to 50 in a feature.
        before: events that come before the clock begins, beside the first batch.
    """

    models: int = 1
    features: int = 4
    segments: int = 0
    events: int = EVENTS
    labelled: bool = True
    tick_seconds: float = 10
    horizon_seconds: float = 30 * 86_400
    window_seconds: float = 86_400
    checkpoints: bool = False
    before: int = 0


class Point(NamedTuple):
    micros: float
    mib: float


def shape_of(axis: str, size: int) -> Shape:
    if axis == "pending":
        return Shape(events=size, labelled=False)
    if axis == "events":
        base = Shape(horizon_seconds=120, window_seconds=600, checkpoints=True, before=800_000)
        return base._replace(events=size)
    if axis == "features":  # as many values, not as many events
        return Shape(features=size, events=max(2 * BATCH, EVENTS * 10 // size))
    if axis == "segments":  # an event lies in one of each feature's
        return Shape(segments=size, events=max(4 * BATCH, min(EVENTS, EVENTS * 250 // size)))
    events = max(EVENTS, EACH * size)
    if axis == "default_ticks":
        return Shape(models=size, events=max(events, 3 * EVENTS), tick_seconds=Ticks().seconds)
    return Shape(models=size, events=events)


def specs_of(shape: Shape) -> list[ModelSpec]:
    categorical = -(-shape.segments // VALUES)
    features = (
        *(Feature(name=f"c{number}", type="categorical") for number in range(categorical)),
        *(Feature(name=f"x{number}") for number in range(shape.features)),
    )
    return [
        check(
            ModelSpec(
                name=f"m{number}",
                task="binary",
                classes=("no", "yes"),
                features=features,
                segments=tuple(f.name for f in features[:categorical]),
                windows=(Window(seconds=shape.window_seconds), Window(labels=1000)),
                labels=Labels(
                    horizon_seconds=shape.horizon_seconds,
                    correction_horizon_seconds=min(7 * 86_400, shape.horizon_seconds),
                    early_seconds=min(86_400, shape.horizon_seconds),
                ),
                ticks=Ticks(seconds=shape.tick_seconds, allowed_lateness_seconds=0),
            )
        )
        for number in range(shape.models)
    ]


def rows_of(shape: Shape, count: int) -> list[dict[str, float | str]]:
    """Features by name; every segment comes up."""
    random = np.random.default_rng(7)
    numbers = random.normal(size=(count, shape.features)).round(4).tolist()
    rows: list[dict[str, float | str]] = [
        {f"x{i}": value for i, value in enumerate(row)} for row in numbers
    ]
    for first in range(0, shape.segments, VALUES):
        values = min(VALUES, shape.segments - first)
        for place, row in enumerate(rows):
            row[f"c{first // VALUES}"] = f"v{place % values}"
    return rows


def fleet_of(shape: Shape, specs: Sequence[ModelSpec]) -> Fleet:
    """All models have one reference, so that its making is not what grows."""
    spec = specs[0]
    rows = [
        tuple(row[name] for name in spec.feature_names) for row in rows_of(shape, REFERENCE_ROWS)
    ]
    outputs = np.linspace(0.01, 0.99, len(rows)).reshape(-1, 1)
    validation = Validation(n=len(rows), loss_bins=(25,) * 20, loss_scale=4.0, metrics={})
    profile = build_profile(spec, rows, outputs, validation, labels=labels_of(outputs[:, 0]))
    return {
        one.name: Live(one, known=msgspec.structs.replace(profile, model=one.name)) for one in specs
    }


def labels_of(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """What turned out, as likely as it was said to be."""
    return (outputs > np.random.default_rng(11).uniform(size=len(outputs))).astype(np.float64)


def batches_of(shape: Shape, specs: Sequence[ModelSpec]) -> Iterator[list[Batch]]:
    """Predictions of the models in turn, a thousand at a time, and their labels: every model sees
    every row, distributed as in the reference, so that none has anything to alarm about."""
    bodies = [msgspec.json.encode(row) for row in rows_of(shape, BATCH)]
    outputs = np.linspace(0.01, 0.99, BATCH)
    turned_out = np.where(labels_of(outputs), "yes", "no").tolist()
    pairs = zip(outputs.tolist(), bodies, strict=True)
    said = [b'"version":1,"output":%.4f,"features":%b' % pair for pair in pairs]
    names = cycle([spec.name.encode() for spec in specs])
    for number, first in enumerate(range(0, shape.events, BATCH)):
        made, told = list[Record](), list[Record]()
        for place, name in enumerate(islice(names, BATCH), start=first):
            row = (place + TURN * number) % BATCH
            key, now_ms = b"p-%010d" % place, START_MS + place * STEP_MS
            head = b'{"prediction_id":"%s","model":"%s"' % (key, name)
            made.append(Record(place, now_ms, key, b"%b,%b}" % (head, said[row])))
            label = turned_out[row].encode()
            told.append(Record(place, now_ms, key, b'%b,"label":"%b"}' % (head, label)))
        yield [
            Batch("predictions", 0, made),
            *([Batch("feedback", 0, told)] if shape.labelled else []),
        ]


def measure(shape: Shape, turn: Callable[[], object]) -> Point:
    """CPU an event, and what memory the work added; in this process, once.

    Args:
        turn: returns when the next part of the work may be done.
    """
    specs = specs_of(shape)
    stages = Stages(fleet_of(shape, specs))
    collector.calm()
    several = batches_of(shape._replace(events=BATCH + shape.before + shape.events), specs)
    stages.take(next(several))  # warm-up: sources and tables are made
    memory, spent = resident_mib(), 0.0
    for batches in islice(several, shape.before // BATCH):
        _take(stages, batches, shape)
    count = shape.events // BATCH
    for begin, end in pairwise(count * part // TURNS for part in range(TURNS + 1)):
        turn()
        for batches in islice(several, end - begin):
            began = time.process_time()
            _take(stages, batches, shape)
            spent += time.process_time() - began
    return Point(spent / shape.events * 1e6, resident_mib() - memory)


def _take(stages: Stages, batches: Sequence[Batch], shape: Shape) -> None:
    stages.take(batches)
    if shape.checkpoints:
        stages.checkpoint()


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Slope of the logarithms, by least squares.

    >>> round(exponent([1, 10, 100], [2.0, 20.0, 200.0]), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def in_turn(axis: str, sizes: Sequence[int]) -> list[Point]:
    """`measure` of each, turn by turn, in processes of their own, so that memory is its own."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    for size in sizes:
        here, there = context.Pipe()
        context.Process(target=_apart, args=(there, axis, size), daemon=True).start()
        there.close()  # so that the other end's is noticed
        here.recv()
        pipes.append(here)
    points: list[Point] = []
    for _ in range(TURNS):
        points = [_gone_on(pipe) for pipe in pipes]
    return points


def _gone_on(pipe: Connection) -> Any:
    pipe.send(None)
    return pipe.recv()


def _apart(pipe: Connection, axis: str, size: int) -> None:
    """One point; says when it waits for its turn, then what it is."""

    def turn() -> None:
        pipe.send(None)
        pipe.recv()

    pipe.send(measure(shape_of(axis, size), turn))


def main() -> None:
    one = parser(__doc__ or "")
    one.add_argument("--only", choices=AXES, help="one of what grows")
    one.add_argument("--rounds", type=int, default=3)
    options = one.parse_args()
    axes = QUICK if options.quick else AXES
    rounds = 1 if options.quick else options.rounds
    chosen = [options.only] if options.only else list(axes)
    points: dict[tuple[str, int], list[Point]] = {}
    for number in range(rounds):
        for axis in chosen:
            if axis in LONG and number and not options.quick:
                continue
            for size, point in zip(axes[axis], in_turn(axis, axes[axis]), strict=True):
                points.setdefault((axis, size), []).append(point)
                say(f"round {number + 1}: {size:,} {axis}, {point}")
    rows: list[list[str]] = []
    figures: dict[str, object] = {"rounds": rounds}
    for axis in chosen:
        medians = []
        for size in axes[axis]:
            micros = spread([point.micros for point in points[axis, size]])
            mib = spread([point.mib for point in points[axis, size]])
            medians.append(micros.median)
            rows.append([f"{size:,} {axis}", f"{micros:.1f}", f"{mib:,.0f}"])
            figures[f"{size} {axis}"] = {"microseconds": micros._asdict(), "mib": mib._asdict()}
        whole = [m * size for m, size in zip(medians, axes[axis], strict=True)]
        grown = exponent(axes[axis], whole if axis in LONG else medians)
        figures[f"exponent of {axis}"] = grown
        figures[f"{axis}, last to first"] = medians[-1] / medians[0]
        goal = f"wanted: at most {GOALS[axis]}" if axis in GOALS else ""
        rows.append([f"exponent of {axis}", f"{grown:.2f}", goal])
    title = f"CPU an event of monitor and evaluate, {rounds} rounds"
    report(title, ("what", "us", "MiB added"), rows, figures, as_json=options.json)


if __name__ == "__main__":
    main()
