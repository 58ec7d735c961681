"""Version 1 from a file: labelled history, through the same run record as every retrain."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from consumers import files
from consumers.costs import Stopwatch, Tell, silent
from consumers.dataset import Dataset, Labelled, assemble
from consumers.fitting import Fitted
from consumers.training import train
from models.features import check_row
from models.losses import encode_label
from models.registry import Registry
from models.runs import DataRange, Verdict
from models.spec import ModelSpec
from stream.errors import DriftlineError
from stream.settings import Settings


class TrainingFailed(DriftlineError):
    """No version came of it; the message says why, and the run is in the registry."""


class Columns(NamedTuple):
    """Names of the columns that are no features."""

    time: str = "time"
    label: str = "label"
    labelled: str | None = None  # when the label came; none: at once


def train_first(
    registry: Registry,
    settings: Settings,
    spec: ModelSpec,
    dataset: Dataset,
    who: str,
    tell: Tell = silent,
) -> int:
    """Train a version on a dataset and make it champion; returns it.

    Args:
        tell: is called with a sentence whenever a step begins.

    Raises:
        TrainingFailed: too few rows, one class, or a rule of the registry.
    """
    run_id = registry.begin_run(
        spec.name, cause="history from a file", who=who, seed=spec.training.seed
    )
    watch = Stopwatch(spec.training.timeout_seconds, tell)
    fitted = train(spec, settings, dataset, watch)
    if fitted.verdict != "accepted":
        _finish(registry, run_id, fitted.verdict, fitted)
        raise TrainingFailed(f"run {run_id}: {fitted.reason}")
    version = registry.register_version(
        spec.name,
        run_id=run_id,
        artefact_url=fitted.artefact_url,
        artefact_digest=fitted.artefact_digest,
        profile_url=fitted.profile_url,
        profile_digest=fitted.profile_digest,
        metrics=fitted.metrics,
        who=who,
    )
    reason = f"run {run_id}: trained on {dataset.data.source}"
    outcome = registry.promote(spec.name, version, who=who, reason=reason)
    _finish(registry, run_id, "accepted", fitted)
    if not outcome.applied:
        raise TrainingFailed(f"version {version} is registered, but not live: {outcome.reason}")
    return version


def read_history(spec: ModelSpec, path: Path, columns: Columns) -> Dataset:
    """The labelled rows of a file, the newest `maximum_rows` of them.

    Raises:
        ConfigurationError: a column is missing or a value does not fit the spec, and in which line.
    """
    found = [_labelled(spec, row, columns) for row in files.rows(path)]
    found.sort(key=lambda item: (item.time_ms, item.prediction_id))
    facts = DataRange(source=path.name, predictions=len(found), labelled=len(found))
    return assemble(spec, found[-spec.training.maximum_rows :], facts)


def _labelled(spec: ModelSpec, row: files.FileRow, columns: Columns) -> Labelled:
    for name, flag in (
        (columns.time, "--time-column"),
        (columns.label, "--label-column"),
        (columns.labelled or columns.time, "--labelled-column"),
    ):
        if row.values.get(name) is None:
            raise row.wrong(f"nothing in column {name!r}; another one is named by {flag}")
    try:
        label = files.label(spec, row.values[columns.label])
        encode_label(spec, label)
        return Labelled(
            time_ms=files.time_ms(row.values[columns.time]),
            known_ms=files.time_ms(row.values[columns.labelled or columns.time]),
            prediction_id=f"{row.line:012}",
            row=check_row(spec, files.features(spec, row.values)),
            label=label,
            weight=1.0,
        )
    except ValueError as error:
        raise row.wrong(error) from error


def _finish(registry: Registry, run_id: int, verdict: Verdict, fitted: Fitted) -> None:
    registry.finish_run(
        run_id,
        verdict,
        reason=fitted.reason,
        data=fitted.data,
        parameters=fitted.parameters,
        candidates=fitted.candidates,
        artefact_digest=fitted.artefact_digest,
        profile_digest=fitted.profile_digest,
    )
