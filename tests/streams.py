"""Synthetic examples, and the real ones where ../shared/data lies beside the repository."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from models.examples import Examples
from models.features import Row, check_row
from models.spec import Feature, ModelSpec, Task

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def spec(task: Task = "binary", **more: object) -> ModelSpec:
    """Two numbers and a category; `more` are further fields of the spec."""
    classes = {"binary": ("no", "yes"), "multiclass": ("low", "mid", "high"), "regression": ()}
    features = (Feature(name="a"), Feature(name="kind", type="categorical"), Feature(name="b"))
    return ModelSpec(name="m", task=task, classes=classes[task], features=features, **more)  # type: ignore[arg-type]


def examples(task: Task = "binary", n: int = 600, seed: int = 0) -> Examples:
    """Labels that depend on `a` and `kind`; `b` is noise, and a tenth of it is missing."""
    noise = np.random.default_rng(seed)
    a, b, kind = noise.normal(size=n), noise.normal(size=n), noise.integers(0, 3, n)
    strength = a + (kind - 1) + noise.normal(size=n) / 3
    cuts = {"binary": [0.0], "multiclass": [-0.7, 0.7]}
    labels = strength if task == "regression" else np.digitize(strength, cuts[task])
    rows: list[Row] = [
        (float(a[i]), "uvw"[kind[i]] if i % 20 else None, float(b[i]) if i % 10 else None)
        for i in range(n)
    ]
    times = np.arange(n, dtype=np.int64) * HOUR_MS
    return Examples(rows, labels.astype(np.float64), times, np.ones(n))


def bikes(task: Task = "binary") -> tuple[ModelSpec, Examples]:
    """UCI Bike Sharing, hourly: is the hour busy (more than 150 rides), or how many rides."""
    names = ("hr", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed")
    model = ModelSpec(
        name="bikes",
        task=task,
        classes=("quiet", "busy") if task == "binary" else (),
        features=tuple(Feature(name=name) for name in names),
    )
    lines = _lines("bike_sharing_hour.csv.gz")
    counts = np.array([float(line["cnt"]) for line in lines])
    rows = [check_row(model, {name: float(line[name]) for name in names}) for line in lines]
    times = [_ms(line["dteday"]) + int(line["hr"]) * HOUR_MS for line in lines]
    labels = (counts > 150).astype(np.float64) if task == "binary" else counts
    return model, Examples(rows, labels, np.array(times, dtype=np.int64), np.ones(len(rows)))


def days(of: Examples, first: int, end: int) -> Examples:
    """Those from day `first` up to day `end` of the stream."""
    bounds = of.times_ms[0] + np.array([first, end]) * DAY_MS
    start, stop = np.searchsorted(of.times_ms, bounds)
    return of.part(int(start), int(stop))


def _lines(name: str) -> Sequence[dict[str, str]]:
    path = DATA / name
    if not path.exists():
        sentence = f"{path} is not there"
        if os.environ.get("CI", "").lower() in {"1", "true", "yes"}:
            pytest.fail(sentence)
        pytest.skip(sentence)
    with gzip.open(path, "rt") as file:
        return list(csv.DictReader(file))


def _ms(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
