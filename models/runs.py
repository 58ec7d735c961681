"""One training run as one record."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct

Verdict = Literal["running", "accepted", "refused", "failed", "cancelled", "void"]

#: What can change a fit though nothing of ours did.
LIBRARIES: Final = ("driftline", "numpy", "scipy", "scikit-learn", "skops", "river")


class Figure(Struct, frozen=True, omit_defaults=True):
    """A metric on the slice that no candidate has seen, with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Calibration(Struct, frozen=True, omit_defaults=True):
    """Held-out events of about the same output: how many, what was said, what came true.

    Binary: the probability, and the share of the positive class; multiclass: the probability of the
    likeliest class, and how often it was right; regression: the value, and the mean label.
    """

    n: int
    said: float
    found: Figure


class Stretch(Struct, frozen=True, omit_defaults=True):
    """Consecutive held-out events, from `start_ms` (event time) on, and their mean loss."""

    start_ms: int
    n: int
    loss: Figure


class Candidate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One learner that was tried, as it did on the slice that it had not seen.

    Attributes:
        segments: "<feature>=<value>" -> metrics.
        notes: warnings of its fit.
        latency_ms: what predicting took, by batch; of the chosen one only.
        problem: why it could not be fitted; empty where it was.
    """

    name: str
    metrics: dict[str, Figure] = {}
    segments: dict[str, dict[str, Figure]] = {}
    calibration: list[Calibration] = []
    course: list[Stretch] = []
    parameters: dict[str, Any] = {}
    notes: list[str] = []
    fit_seconds: float | None = None
    latency_ms: dict[str, float] = {}
    chosen: bool = False
    problem: str = ""

    @property
    def calibration_error(self) -> float | None:
        """How far what was said lies from what came true, on average over events."""
        n = sum(group.n for group in self.calibration)
        off = sum(group.n * abs(group.said - group.found.value) for group in self.calibration)
        return off / n if n else None


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
        reason: why this verdict; of a running one, what it is doing.
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
    def chosen(self) -> Candidate | None:
        return next((candidate for candidate in self.candidates if candidate.chosen), None)

    @property
    def duration_seconds(self) -> float | None:
        return None if self.finished_ms is None else (self.finished_ms - self.started_ms) / 1000


@functools.cache
def code_digest() -> str:
    """Sha256 of the sources that a fit's result depends on; 12 hex digits tell them apart."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def library_versions() -> dict[str, str]:
    """Versions of everything that a fit's result may depend on, for the run's record."""
    found = {"python": platform.python_version(), "code": code_digest()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a checkout that was never installed
            found[name] = "unknown"
    return found
