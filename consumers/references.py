"""`driftline models reference`: a version that was never trained here gets its reference.

From the predictions and labels of a period on Kafka, or from a file with both. It is recorded as a
run like any other, and the version becomes champion if the model has none.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from consumers import files
from consumers.dataset import Reader
from consumers.first_version import TrainingFailed
from consumers.places import Span
from consumers.publishing import Columns, output_of
from models import profile
from models.artefacts import nothing_of, open_store
from models.erasures import erasure_of
from models.examples import TrainingRefused
from models.features import Row, check_row
from models.losses import encode_label
from models.references import Observed, check_output, reference
from models.registry import Registry
from models.runs import DataRange, OffsetRange
from models.spec import ModelSpec
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import FeedbackReceived, PredictionMade
from stream.settings import Settings


class PeriodReader(Reader, Protocol):
    """What this module needs of `consumers.loop.RangeReader`."""

    def since(self, entity: str, time_ms: int) -> list[Span]: ...


class Said(NamedTuple):
    """One prediction, and its label if there is one. Sorts by event time."""

    time_ms: int
    prediction_id: str
    row: Row
    output: tuple[float, ...]
    label: float | None = None
    weight: float = 1.0


class Seen(NamedTuple):
    """Predictions of one version, and where they came from."""

    version: int
    said: list[Said]
    data: DataRange


def read_period(
    reader: PeriodReader,
    spec: ModelSpec,
    settings: Settings,
    period_ms: tuple[int, int],
    erased: frozenset[str] = frozenset(),
    version: int | None = None,
) -> Seen:
    """The predictions that were written within a period, and the labels they have by now.

    Args:
        period_ms: from, up to; by the time at which the topic's records were stamped.
        erased: predictions to leave out, as `models.erasures` names them.
        version: whose; None: of the newest that made any.

    Raises:
        ConfigurationError, BrokerError: the topics cannot be read.
    """
    starts = reader.since("predictions", period_ms[0])
    ends = {span.partition: span.start for span in reader.since("predictions", period_ms[1])}
    spans = [span._replace(end=ends[span.partition]) for span in starts]
    made = _predictions(reader, spec, spans, settings.max_event_bytes)
    versions = {one.version for one, _, _ in made}
    wanted = max(versions, default=1) if version is None else version
    labels = _labels(reader, spec, reader.since("feedback", period_ms[0]), settings)
    said = []
    for one, time_ms, row in made:
        if one.version == wanted and erasure_of(spec.name, one.prediction_id) not in erased:
            label, weight = labels.get(one.prediction_id, (None, 1.0))
            with contextlib.suppress(ValueError):  # monitor has refused it as well
                output = check_output(spec, one.output)
                said.append(Said(time_ms, one.prediction_id, row, output, label, weight))
    ranges = [
        OffsetRange(
            topic=settings.names.topic("predictions"),
            partition=span.partition,
            first=span.start,
            end=span.end,
        )
        for span in spans
        if span.length
    ]
    return Seen(wanted, *_ordered(spec, said, DataRange(ranges=ranges)))


def read_file(spec: ModelSpec, path: Path, columns: Columns, version: int = 1) -> Seen:
    """Predictions with outputs of a file; a row without a label is one that was never labelled.

    Raises:
        ConfigurationError: a value is missing or does not fit, and in which line.
    """
    said = []
    for row in files.rows(path):
        try:
            said.append(_said(spec, row, columns))
        except ValueError as error:
            raise row.wrong(error) from error
    return Seen(version, *_ordered(spec, said, DataRange(source=path.name)))


def _said(spec: ModelSpec, row: files.FileRow, columns: Columns) -> Said:
    for name in (columns.time, columns.output):
        if row.values.get(name) is None:
            raise ValueError(f"nothing in column {name!r}")
    label = row.values.get(columns.label)
    return Said(
        time_ms=files.time_ms(row.values[columns.time]),
        prediction_id=f"{row.line:012}",
        row=check_row(spec, files.features(spec, row.values)),
        output=check_output(spec, output_of(row.values[columns.output])),
        label=None if label is None else encode_label(spec, files.label(spec, label)),
    )


def make_reference(
    registry: Registry, settings: Settings, spec: ModelSpec, seen: Seen, who: str
) -> int:
    """Register the version with its reference; make it champion where the model has none.

    Raises:
        TrainingFailed: too little was said or labelled, or the version has a reference already.
    """
    run_id = registry.begin_run(spec.name, cause="reference of what was served", who=who)
    try:
        found, candidate = reference(spec, _observed(spec, seen.said))
        if seen.version in [one.version for one in registry.versions(spec.name)]:
            raise TrainingRefused(f"version {seen.version} has its reference already")
    except TrainingRefused as refused:
        registry.finish_run(run_id, "refused", reason=str(refused), data=seen.data)
        raise TrainingFailed(f"run {run_id}: {refused}") from refused
    store = open_store(settings.artefact_url)
    # No worker loads it: the version is served elsewhere, and its bytes are not here.
    nothing = store.put(nothing_of(spec.name, seen.version))
    kept = store.put(profile.encode(found))
    registry.register_version(
        spec.name,
        version=seen.version,
        run_id=run_id,
        artefact_url=store.url(nothing),
        artefact_digest=nothing,
        profile_url=store.url(kept),
        profile_digest=kept,
        metrics={name: figure.value for name, figure in candidate.metrics.items()},
        who=who,
    )
    state = registry.live(spec.name)
    if state is not None and state.champion is None:
        registry.promote(spec.name, seen.version, who=who, reason=f"run {run_id}: it is served")
    registry.finish_run(
        run_id,
        "accepted",
        data=seen.data,
        candidates=[candidate],
        artefact_digest=nothing,
        profile_digest=kept,
    )
    return seen.version


def _predictions(
    reader: PeriodReader, spec: ModelSpec, spans: Sequence[Span], max_bytes: int
) -> list[tuple[PredictionMade, int, Row]]:
    found = []
    for _, record in reader.read("predictions", spans):
        with contextlib.suppress(Refused, ValueError):
            opened = open_record("predictions", record, max_bytes=max_bytes)
            made = read(opened, PredictionMade)
            if made.model == spec.name:
                found.append((made, opened.time_ms, check_row(spec, made.features)))
    return found


def _labels(
    reader: PeriodReader, spec: ModelSpec, spans: Sequence[Span], settings: Settings
) -> Mapping[str, tuple[float, float]]:
    """The last word on each prediction, by its id: the encoded label and its weight.

    From `feedback` itself: monitor joins nothing for a version that it does not know yet.
    """
    latest: dict[str, tuple[int, FeedbackReceived]] = {}
    for _, record in reader.read("feedback", spans):
        with contextlib.suppress(Refused):
            opened = open_record("feedback", record, max_bytes=settings.max_event_bytes)
            told = read(opened, FeedbackReceived)
            known = latest.get(told.prediction_id)
            if told.model == spec.name and (known is None or known[0] <= opened.time_ms):
                latest[told.prediction_id] = (opened.time_ms, told)
    labels = {}
    for prediction_id, (_, told) in latest.items():
        with contextlib.suppress(ValueError):  # no label of this task
            labels[prediction_id] = (encode_label(spec, told.label), told.weight)
    return labels


def _ordered(spec: ModelSpec, said: list[Said], facts: DataRange) -> tuple[list[Said], DataRange]:
    """The newest `maximum_rows` in the order of time; the record of them completed."""
    said.sort(key=lambda one: (one.time_ms, one.prediction_id))
    kept = said[-spec.training.maximum_rows :]
    digest = hashlib.sha256()
    for one in kept:
        digest.update(msgspec.json.encode(one))
    labelled = sum(one.label is not None for one in kept)
    data = msgspec.structs.replace(
        facts,
        predictions=len(kept),
        labelled=labelled,
        rows=len(kept),
        start_ms=kept[0].time_ms if kept else None,
        end_ms=kept[-1].time_ms if kept else None,
        digest=digest.hexdigest(),
    )
    return kept, data


def _observed(spec: ModelSpec, said: Sequence[Said]) -> Observed:
    labelled = [(place, one) for place, one in enumerate(said) if one.label is not None]
    return Observed(
        rows=[one.row for one in said],
        outputs=np.array([one.output for one in said], dtype=float).reshape(-1, spec.outputs),
        times_ms=np.array([one.time_ms for one in said], dtype=np.int64),
        labelled=np.array([place for place, _ in labelled], dtype=np.int64),
        labels=np.array([one.label for _, one in labelled], dtype=float),
        weights=np.array([one.weight for _, one in labelled], dtype=float),
    )
