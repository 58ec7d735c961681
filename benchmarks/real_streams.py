"""Real streams of labelled events, for `benchmarks.streams`: two ship with the demo, two do not."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from msgspec.structs import replace

from consumers.demo.datasets import Happening, bikes, flights
from consumers.demo.scenarios import BIKES, FLIGHTS
from models.examples import Examples
from models.features import Row, check_row
from models.losses import encode_label
from models.spec import (
    DAY_SECONDS,
    Budget,
    CandidateSpec,
    Feature,
    ModelSpec,
    Policy,
    Ticks,
    Training,
    Trial,
)

MINUTE_MS: Final = 60_000
TICK: Final = 100  # events
DRIFT: Final = 14_028  # of INSECTS, gradual and balanced: the published row
LOOKS_BACK: Final = 4  # windows
LINEAR, TREES = ("logistic_regression",), ("hist_gradient_boosting",)


class Stream(NamedTuple):
    """A stream and the model that lives on it.

    Attributes:
        window: newest rows that a fit uses, if nothing else is said; the first so many train
            version 1.
        drift: row of the published drift; None where none is published.
    """

    name: str
    spec: ModelSpec
    examples: Examples
    window: int
    drift: int | None = None


class Missing(Exception):
    """A stream's file is not there."""


def load(name: str, folder: Path | None, most: int | None) -> Stream:
    """
    Raises:
        Missing: it needs a file of `folder` that is not there.
    """
    return _STREAMS[name](folder, most)


def _bikes(_: Path | None, most: int | None) -> Stream:
    spec = _spec("bikes", BIKES.classes, BIKES.features, TREES, window=1344)
    return Stream("bikes", spec, _happened(spec, bikes(), most), 1344)


def _flights(_: Path | None, most: int | None) -> Stream:
    spec = _spec("flights", FLIGHTS.classes, FLIGHTS.features, LINEAR, window=10_000)
    return Stream("flights", spec, _happened(spec, flights(), most), 10_000)


def _elec2(folder: Path | None, most: int | None) -> Stream:
    """Without `date` and `day`, which only count up; a row is half an hour."""
    rows = list(_rows(folder, "elec2.csv.gz", most))
    names = [name for name in rows[0] if name not in ("date", "day", "class")]
    spec = _spec("elec2", ("DOWN", "UP"), _numeric(names), TREES, window=2000)
    return Stream("elec2", spec, _table(spec, rows, 30 * MINUTE_MS), 2000)


def _insects(folder: Path | None, most: int | None) -> Stream:
    """If all is too much: the rows around the drift."""
    start = 0 if most is None or most > DRIFT else DRIFT - 2 * most // 3
    rows = list(_rows(folder, "insects_gradual_balanced.csv.gz", most, start))
    names = [name for name in rows[0] if name != "class"]
    classes = tuple(sorted({row["class"] for row in rows}))
    spec = _spec("insects", classes, _numeric(names), LINEAR, window=2000, cycle_seconds=0.0)
    return Stream("insects", spec, _table(spec, rows, MINUTE_MS), 2000, drift=DRIFT - start)


_STREAMS: Final[dict[str, Callable[[Path | None, int | None], Stream]]] = {
    "elec2": _elec2,
    "insects": _insects,
    "bikes": _bikes,
    "flights": _flights,
}
NAMES: Final = tuple(_STREAMS)


def _spec(
    name: str,
    classes: tuple[str, ...],
    features: tuple[Feature, ...],
    candidates: tuple[str, ...],
    *,
    window: int,
    cycle_seconds: float = Trial().cycle_seconds,
) -> ModelSpec:
    """One false alarm per 100,000 events; a challenger is judged at whole weeks, as by default.

    Args:
        cycle_seconds: 0 where times are made up: then it is judged after any tick.
    """
    return ModelSpec(
        name=name,
        task="binary" if len(classes) == 2 else "multiclass",
        classes=classes,
        features=features,
        ticks=Ticks(seconds=DAY_SECONDS, minimum_events=TICK),  # groups are cut by events here
        budget=Budget(false_alarms_per_million_events=10.0),
        trial=Trial(
            alpha=0.05,
            cycle_seconds=cycle_seconds,
            minimum_pairs=2 * TICK,
            maximum_pairs=window,
            probation_pairs=window,
        ),
        training=Training(
            candidates=candidates, minimum_rows=200, maximum_rows=window, window_seconds=1e9
        ),
        policy=Policy(cooldown_seconds=0.0, rollback_cooloff_seconds=0.0),
    )


def remembering(stream: Stream) -> Stream:
    """The same with a trainer that may look further back, and learns from the newest rows too.

    Each learner is tried with four windows of rows and with the newest quarter of them, and what
    does better on what was held out is fitted again on all (`history`, `refit`).
    """
    training = stream.spec.training
    tried = tuple(
        CandidateSpec(learner=one.learner, history=history)
        for one in training.tried
        for history in (1.0, 1 / LOOKS_BACK)
    )
    more = replace(training, candidates=tried, maximum_rows=LOOKS_BACK * stream.window, refit=True)
    return stream._replace(spec=replace(stream.spec, training=more))


def wanting_newer(stream: Stream) -> Stream:
    """The same where a challenger is to prove only that it is not worse by the margin."""
    trial = replace(stream.spec.trial, to_prove="not worse")
    return stream._replace(spec=replace(stream.spec, trial=trial))


def _numeric(names: list[str]) -> tuple[Feature, ...]:
    return tuple(Feature(name=name) for name in names)


def _rows(
    folder: Path | None, file: str, most: int | None, start: int = 0
) -> Iterator[dict[str, str]]:
    if folder is None or not (folder / file).exists():
        raise Missing(f"{file} is not in {folder or 'a folder that --data names'}")
    with gzip.open(folder / file, "rt") as opened:
        yield from islice(csv.DictReader(opened), start, None if most is None else start + most)


def _table(spec: ModelSpec, rows: list[dict[str, str]], step_ms: int) -> Examples:
    features: list[Row] = [tuple(float(row[n]) for n in spec.feature_names) for row in rows]
    labels = [encode_label(spec, row["class"]) for row in rows]
    return _examples(features, labels, [number * step_ms for number in range(len(rows))])


def _happened(spec: ModelSpec, happenings: list[Happening], most: int | None) -> Examples:
    """In the order in which they were asked; what never got a label is left out."""
    known = [one for one in happenings if one.label is not None][:most]
    rows = [check_row(spec, one.features) for one in known]
    labels = [encode_label(spec, one.label) for one in known if one.label is not None]
    return _examples(rows, labels, [one.asked_ms for one in known])


def _examples(rows: list[Row], labels: list[float], times_ms: list[int]) -> Examples:
    ones = np.ones(len(rows))
    return Examples(rows, np.array(labels), np.array(times_ms, dtype=np.int64), ones)
