"""From a dataset to bytes in the store: what a retrain and `models add --data` have in common."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace

from consumers.costs import Stopwatch, Tell, latency_ms, silent
from consumers.dataset import Dataset, load
from consumers.fitting import Fitted, Job
from consumers.loop import RangeReader
from models import profile, serving, training
from models.artefacts import ArtefactError, fetch, open_store
from models.examples import Examples, TrainingRefused
from models.losses import encode_label
from models.runs import Candidate
from models.serving import BadArtefact, ServingModel
from models.spec import ModelSpec
from models.training import Trained
from stream.settings import Settings


def train_from_topics(job: Job, settings: Settings, tell: Tell = silent) -> Fitted:
    """Read the newest labelled examples that a job may use, and fit."""
    watch = Stopwatch(job.spec.training.timeout_seconds, tell)
    watch.tell("reading labelled examples")
    with RangeReader(settings) as reader:
        dataset = load(reader, job.spec, job.examples, settings, frozenset(job.erased))
    return train(job.spec, settings, dataset, watch, champion_of(job, settings))


def champion_of(job: Job, settings: Settings) -> ServingModel | None:
    """The live version; one that can't be loaded any more is none to go on from."""
    card = job.champion
    if card is None:
        return None
    try:
        data = fetch(card.artefact_url, card.artefact_digest, settings.max_artefact_bytes)
        return serving.load(data, job.spec)
    except (ArtefactError, BadArtefact):
        return None


def train(
    spec: ModelSpec,
    settings: Settings,
    dataset: Dataset,
    watch: Stopwatch | None = None,
    champion: ServingModel | None = None,
) -> Fitted:
    """Fit the spec's candidates; artefact and profile of the best are in the store afterwards.

    Args:
        watch: what the fit may cost, and who is told of its steps.
        champion: the live version, from which an online learner goes on.

    Raises:
        ValueError: a label is none of the task.
    """
    watch = watch or Stopwatch(spec.training.timeout_seconds)
    try:
        trained = training.fit(
            spec,
            _examples(spec, dataset),
            spec.training.seed,
            watch=watch,
            champion=champion,
            modules=settings.learner_modules,
        )
    except TrainingRefused as refused:
        return Fitted(
            verdict="refused",
            reason=_explained(str(refused), dataset),
            candidates=list(refused.candidates),
            data=dataset.data,
        )
    watch.tell("measuring and storing")
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
        candidates=_candidates(spec, trained, dataset, watch),
        parameters=_parameters(trained),
        data=dataset.data,
    )


def _examples(spec: ModelSpec, dataset: Dataset) -> Examples:
    return Examples(
        rows=dataset.rows,
        labels=np.array([encode_label(spec, label) for label in dataset.labels], dtype=float),
        times_ms=np.array(dataset.times_ms, dtype=np.int64),
        weights=np.array(dataset.weights, dtype=float),
        known_ms=np.array(dataset.known_ms, dtype=np.int64),
    )


def _explained(reason: str, dataset: Dataset) -> str:
    lost = [
        f"{dataset.gone} more are labelled, but their predictions are no longer in the log"
        if dataset.gone
        else "",
        f"{dataset.unfit} more have features that do not fit the spec" if dataset.unfit else "",
    ]
    return "; ".join([reason, *filter(None, lost)])


def _candidates(
    spec: ModelSpec, trained: Trained, dataset: Dataset, watch: Stopwatch
) -> list[Candidate]:
    """As they were tried, with what they cost; of the chosen one also what predicting costs."""
    latency = latency_ms(serving.load(trained.artefact, spec), dataset.rows)
    return [
        replace(
            tried,
            fit_seconds=watch.seconds.get(tried.name),
            latency_ms=latency if tried.chosen else {},
        )
        for tried in trained.candidates
    ]


def _parameters(trained: Trained) -> dict[str, object]:
    return trained.parameters | {
        "fitted_rows": trained.fitted_rows,
        "held_out_rows": trained.held_out_rows,
        "late_rows": trained.late_rows,
        "split_ms": trained.split_ms,
    }
