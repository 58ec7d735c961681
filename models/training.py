"""Training one version: split by time, try the candidates, keep the best, measure it honestly.

Pure and seeded: the same examples, spec and seed give the same bytes. The newest slice is held out
from every candidate; the version that is kept is the very one that was measured on it.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Final, NamedTuple, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from models import serving
from models.examples import Examples, Split, TrainingRefused, split
from models.features import Coder
from models.learners import LEARNERS
from models.losses import LOG_LOSS_SCALE, LOSS_BINS, loss_bin, measures
from models.profile import ReferenceProfile, Validation
from models.profiling import build_profile
from models.rhythms import deflation
from models.runs import Candidate, Figure
from models.serving import ServingModel
from models.spec import ModelSpec
from models.threads import one_thread
from models.validation import constant, judged_by, validate

Floats = NDArray[np.float64]

#: Tried in every run and never chosen: what is no better than this has learnt nothing.
BASELINE: Final = "constant"


class TooCostly(Exception):
    """A candidate took more time than it may; the others stay in the race."""


class Watch(Protocol):
    """Is told what is being fitted, and may end it by raising `TooCostly` within the context."""

    def trying(self, name: str, place: int, of: int) -> AbstractContextManager[None]: ...


class Trained(Struct, frozen=True):
    """A version, ready to be registered.

    Attributes:
        fitted_rows, held_out_rows: examples in each slice; the held-out one is the newest.
        late_rows: older examples that were left out because their label came in the newest slice.
        split_ms: event time of the first held-out example.
    """

    algorithm: str
    artefact: bytes
    profile: ReferenceProfile
    candidates: tuple[Candidate, ...]
    fitted_rows: int
    held_out_rows: int
    late_rows: int
    first_ms: int
    split_ms: int
    last_ms: int
    parameters: dict[str, object]

    @property
    def metrics(self) -> dict[str, Figure]:
        return next(c.metrics for c in self.candidates if c.chosen)


class _Fit(NamedTuple):
    candidate: Candidate
    artefact: bytes
    outputs: Floats  # on the held-out slice


class _Judge:
    """Measures every candidate on the held-out slice, in the same way."""

    def __init__(self, spec: ModelSpec, slices: Split, scale: float) -> None:
        self.newest = slices.newest
        self._spec = spec
        self._scale = scale
        self._constant = constant(spec, slices.older, len(slices.newest.rows))

    def candidate(self, name: str, outputs: Floats) -> Candidate:
        found = validate(self._spec, outputs, self.newest, self._scale, self._constant)
        return Candidate(name=name, **found._asdict())

    def baseline(self) -> Candidate:
        found = validate(self._spec, self._constant, self.newest, self._scale)
        return Candidate(name=BASELINE, metrics=found.metrics)

    def validation(self, best: _Fit) -> Validation:
        """What the profile keeps: exactly the measures that the stream computes too."""
        labels = self.newest.labels
        values = measures(self._spec, best.outputs, labels, self._scale)
        bins = loss_bin(values["loss"], [str(i) for i in range(len(labels))])
        return Validation(
            n=len(labels),
            loss_bins=tuple(np.bincount(bins, minlength=LOSS_BINS).tolist()),
            loss_scale=self._scale,
            metrics={name: best.candidate.metrics[name].value for name in values},
            deflation=deflation(values["loss"]),
        )


def fit(spec: ModelSpec, examples: Examples, seed: int, watch: Watch | None = None) -> Trained:
    """Fit the spec's candidates on the older rows and keep the best on the newest.

    Raises:
        TrainingRefused: too few rows, one class only, or every candidate failed.
    """
    examples = examples.part(-spec.training.maximum_rows)
    slices = split(spec, examples)
    judge = _Judge(spec, slices, loss_scale(spec, slices.older.labels))
    coder = Coder.fit(spec, slices.older.rows)
    one_thread()
    names = _names(spec)
    tried = []
    for place, name in enumerate(names, start=1):
        watching = watch.trying(name, place, len(names)) if watch is not None else nullcontext()
        tried.append(_try(spec, name, coder, slices.older, judge, seed, watching))
    fits = [t for t in tried if isinstance(t, _Fit)]
    if not fits:
        raise TrainingRefused("; ".join(f"{c.name}: {c.problem}" for c in tried))  # type: ignore[union-attr]
    best = min(fits, key=lambda f: f.candidate.metrics[judged_by(spec)].value)
    return Trained(
        algorithm=best.candidate.name,
        artefact=best.artefact,
        profile=build_profile(
            spec, examples.rows, best.outputs, judge.validation(best), examples.times_ms
        ),
        candidates=(
            *(_record(t, chosen=t is best) for t in tried),
            judge.baseline(),
        ),
        fitted_rows=len(slices.older.rows),
        held_out_rows=len(slices.newest.rows),
        late_rows=slices.late,
        first_ms=int(examples.times_ms[0]),
        split_ms=slices.start_ms,
        last_ms=int(examples.times_ms[-1]),
        parameters={"seed": seed, "holdout_share": spec.training.holdout_share},
    )


def loss_scale(spec: ModelSpec, labels: Floats) -> float:
    """The loss that counts as wholly wrong: 4 nats, or the range of all but 2 % of the labels."""
    if spec.task != "regression":
        return LOG_LOSS_SCALE
    low, high = np.quantile(labels, [0.01, 0.99])
    return float(high - low) or max(1.0, abs(float(high)))


def _names(spec: ModelSpec) -> tuple[str, ...]:
    unknown = set(spec.training.candidates) - set(LEARNERS)
    if unknown:
        raise TrainingRefused(f"no learner {', '.join(sorted(unknown))}; there are {[*LEARNERS]}")
    return spec.training.candidates


def _try(
    spec: ModelSpec,
    name: str,
    coder: Coder,
    older: Examples,
    judge: _Judge,
    seed: int,
    watching: AbstractContextManager[None],
) -> _Fit | Candidate:
    pipeline = LEARNERS[name](spec, seed)
    weights = {f"{pipeline.steps[-1][0]}__sample_weight": older.weights}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with watching:
                pipeline.fit(coder.matrix(older.rows), older.labels, **weights)
                artefact = serving.dump(ServingModel(spec, coder, pipeline))
                model = serving.load(artefact, spec)  # measured is what will serve
                model.warm_up()
                outputs = model.predict(judge.newest.rows)
        except (ValueError, MemoryError, TooCostly) as error:
            return Candidate(name=name, problem=_sentence(error))
    notes = sorted({f"{w.category.__name__}: {str(w.message)[:200]}" for w in caught})
    return _Fit(replace(judge.candidate(name, outputs), notes=notes), artefact, outputs)


def _record(tried: _Fit | Candidate, *, chosen: bool) -> Candidate:
    return replace(tried.candidate, chosen=chosen) if isinstance(tried, _Fit) else tried


def _sentence(error: Exception) -> str:
    if isinstance(error, TooCostly):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
