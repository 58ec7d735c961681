"""One training run as one record, and what differs between two of them."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

Verdict = Literal["running", "accepted", "refused", "failed", "cancelled", "void"]

#: What can change a fit though nothing of ours did.
LIBRARIES: Final = ("driftline", "numpy", "scipy", "scikit-learn", "skops", "river")


class Figure(Struct, frozen=True, omit_defaults=True):
    """A metric on the slice that no candidate has seen, with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Candidate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One learner that was tried."""

    name: str
    metrics: dict[str, Figure] = {}
    segments: dict[str, dict[str, Figure]] = {}  # "<feature>=<value>" -> metrics
    parameters: dict[str, Any] = {}
    fit_seconds: float | None = None
    chosen: bool = False
    problem: str = ""  # why it could not be fitted


class OffsetRange(Struct, frozen=True, kw_only=True):
    """Records `first` to `end - 1` of one partition."""

    topic: str
    partition: int
    first: int
    end: int


class DataRange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Exactly which events a run was given, so that it can be read again.

    Attributes:
        start_ms, end_ms: event time of the oldest and newest example used.
        predictions: predictions in the range; rows: of these, used for training and validation.
        labelled: predictions in the range that have a label; coverage: labelled / predictions.
        erased: labelled predictions that were left out because their data was erased.
        source: file name, where the data did not come from topics.
        digest: sha256 of the examples as they were used.
    """

    ranges: list[OffsetRange] = []
    start_ms: int | None = None
    end_ms: int | None = None
    predictions: int = 0
    labelled: int = 0
    rows: int = 0
    erased: int = 0
    classes: dict[str, int] = {}
    source: str = ""
    digest: str = ""

    @property
    def coverage(self) -> float | None:
        return self.labelled / self.predictions if self.predictions else None


class Run(Struct, frozen=True, kw_only=True):
    """One training attempt, whatever came of it. Its record is kept for ever.

    Attributes:
        cause: what it was for: "harm", "schedule", "request", "first version", ...
        generation: the model's lifecycle generation when it began.
        attempts: how often it was begun: more than once if a trainer died in it.
        version: what it was registered as, if it was.
    """

    run_id: int
    model: str
    cause: str
    command_id: str | None
    alert_id: str | None
    who: str
    evidence: dict[str, Any]
    generation: int
    spec_revision: int
    seed: int
    parameters: dict[str, Any]
    libraries: dict[str, str]
    data: DataRange | None
    candidates: list[Candidate]
    attempts: int
    started_ms: int
    finished_ms: int | None
    verdict: Verdict
    reason: str
    artefact_digest: str
    profile_digest: str
    version: int | None

    @property
    def duration_seconds(self) -> float | None:
        return None if self.finished_ms is None else (self.finished_ms - self.started_ms) / 1000


class Difference(Struct, frozen=True, kw_only=True):
    """One thing that differs; `change` is b - a where both are numbers. Absent is None."""

    section: str
    field: str
    a: Any
    b: Any
    change: float | None = None


class Comparison(Struct, frozen=True, kw_only=True):
    """What differs between two runs, in the order a person asks: outcome, data, settings, code."""

    a: int
    b: int
    differences: list[Difference]
    same: list[str]  # sections that differ in nothing

    def section(self, name: str) -> list[Difference]:
        return [difference for difference in self.differences if difference.section == name]


def compare_runs(a: Run, b: Run) -> Comparison:
    """What differs between two runs, field by field.

    Candidates are matched by name, offsets by topic and partition.
    """
    left, right = dict(_sections(a)), dict(_sections(b))
    differences = [
        Difference(section=section, field=field, a=x, b=y, change=_change(x, y))
        for section in left
        for field in dict.fromkeys([*left[section], *right[section]])
        if (x := left[section].get(field)) != (y := right[section].get(field))
    ]
    differing = {difference.section for difference in differences}
    same = [section for section in left if section not in differing]
    return Comparison(a=a.run_id, b=b.run_id, differences=differences, same=same)


def library_versions() -> dict[str, str]:
    """Versions of everything that a fit's result may depend on, for the run's record."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was never installed
            found[name] = "unknown"
    return found


def _sections(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    yield (
        "outcome",
        _fields(run, "verdict", "reason", "version", "artefact_digest", "profile_digest"),
    )
    metrics: dict[str, Any] = {}
    for candidate in run.candidates:
        metrics |= _flat({candidate.name: msgspec.to_builtins(candidate)})
    yield "candidates", {name: x for name, x in metrics.items() if not name.endswith(".name")}
    yield "data", _data(run.data)
    yield "parameters", _flat(run.parameters) | _fields(run, "seed", "spec_revision")
    yield "libraries", dict(run.libraries)
    yield (
        "cause",
        _fields(run, "model", "cause", "who", "alert_id", "generation")
        | _flat({"evidence": run.evidence}),
    )
    yield "cost", _fields(run, "duration_seconds", "attempts")


def _fields(run: Run, *names: str) -> dict[str, Any]:
    return {name: getattr(run, name) for name in names}


def _data(data: DataRange | None) -> dict[str, Any]:
    if data is None:
        return {}
    flat = _flat(msgspec.to_builtins(data)) | {"coverage": data.coverage}
    flat.pop("ranges", None)
    for part in data.ranges:
        flat[f"{part.topic}[{part.partition}]"] = f"{part.first}..{part.end}"
    return flat


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """
    >>> _flat({"fit": {"rows": 3, "split": {}}, "seed": 1})
    {'fit.rows': 3, 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = item
    return flat


def _change(a: object, b: object) -> float | None:
    numbers = (int, float)
    if isinstance(a, numbers) and isinstance(b, numbers) and not isinstance(a, bool):
        return float(b - a)
    return None
