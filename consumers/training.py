"""From a dataset to bytes in the store: what a retrain and `models add --data` have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from consumers.dataset import Dataset, load
from consumers.fitting import Fitted
from consumers.loop import RangeReader
from consumers.places import Span
from models import profile, training
from models.artefacts import open_store
from models.losses import encode_label
from models.runs import Candidate, Figure
from models.spec import ModelSpec
from models.training import Examples, Trained, TrainingRefused
from stream.settings import Settings


def train_from_topics(
    spec: ModelSpec, settings: Settings, examples: Sequence[Span], erased: frozenset[str]
) -> Fitted:
    """Read the newest labelled examples within these spans but the erased ones, and fit."""
    with RangeReader(settings) as reader:
        dataset = load(reader, spec, examples, settings, erased)
    return train(spec, settings, dataset)


def train(spec: ModelSpec, settings: Settings, dataset: Dataset) -> Fitted:
    """Fit the spec's candidates; artefact and profile of the best are in the store afterwards.

    Raises:
        ValueError: a label is none of the task.
    """
    try:
        trained = training.fit(spec, _examples(spec, dataset), spec.training.seed)
    except TrainingRefused as refused:
        return Fitted(
            verdict="refused", reason=_explained(str(refused), dataset), data=dataset.data
        )
    store = open_store(settings.artefact_url)
    artefact = store.put(trained.artefact)
    reference = store.put(profile.encode(trained.profile))
    return Fitted(
        verdict="accepted",
        artefact_digest=artefact,
        artefact_url=store.url(artefact),
        profile_digest=reference,
        profile_url=store.url(reference),
        metrics={name: figure.value for name, figure in trained.metrics.items()},
        candidates=list(_candidates(trained)),
        parameters=_parameters(trained),
        data=dataset.data,
    )


def _examples(spec: ModelSpec, dataset: Dataset) -> Examples:
    return Examples(
        rows=dataset.rows,
        labels=np.array([encode_label(spec, label) for label in dataset.labels], dtype=float),
        times_ms=np.array(dataset.times_ms, dtype=np.int64),
        weights=np.array(dataset.weights, dtype=float),
    )


def _explained(reason: str, dataset: Dataset) -> str:
    lost = [
        f"{dataset.gone} more are labelled, but their predictions are no longer in the log"
        if dataset.gone
        else "",
        f"{dataset.unfit} more have features that do not fit the spec" if dataset.unfit else "",
    ]
    return "; ".join([reason, *filter(None, lost)])


def _candidates(trained: Trained) -> Iterator[Candidate]:
    for tried in trained.candidates:
        yield Candidate(
            name=tried.algorithm,
            metrics={n: Figure(f.value, f.low, f.high) for n, f in tried.metrics.items()},
            parameters={"notes": list(tried.notes)} if tried.metrics and tried.notes else {},
            chosen=tried.algorithm == trained.algorithm,
            problem="" if tried.metrics else "; ".join(tried.notes),
        )


def _parameters(trained: Trained) -> dict[str, object]:
    return trained.parameters | {
        "fitted_rows": trained.fitted_rows,
        "held_out_rows": trained.held_out_rows,
        "split_ms": trained.split_ms,
    }
