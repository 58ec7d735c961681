"""Training one version: split by time, try the candidates, keep the best, measure it honestly.

Pure and seeded: the same examples, spec and seed give the same bytes. The newest slice is held out
from every candidate; the version that is kept is the very one that was measured on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models import serving
from models.features import Coder, Row
from models.learners import LEARNERS
from models.losses import LOG_LOSS_SCALE, LOSS_BINS, loss_bin, measures
from models.profile import ReferenceProfile, Validation
from models.profiling import build_profile
from models.rhythms import deflation
from models.serving import ServingModel
from models.spec import ModelSpec
from models.threads import one_thread

Floats = NDArray[np.float64]

FEWEST_HELD_OUT = 30
_Z95 = 1.959964


class TrainingRefused(ValueError):
    """No version can be trained from these examples; the message is the reason."""


class Examples(NamedTuple):
    """Labelled events in event-time order, all of one length n.

    Attributes:
        rows: feature values in the order of the spec, from `features.check_row`.
        labels: shape (n,), from `losses.encode_label`.
        times_ms: shape (n,), ascending.
        weights: shape (n,), positive.
    """

    rows: Sequence[Row]
    labels: Floats
    times_ms: NDArray[np.int64]
    weights: Floats

    def part(self, start: int, end: int | None = None) -> Examples:
        """Those at places `start` to `end`, as by slicing."""
        at = slice(start, end)
        return Examples(self.rows[at], self.labels[at], self.times_ms[at], self.weights[at])


class Figure(Struct, frozen=True):
    """A mean with its 95 % interval, widened by the dependence of neighbouring events."""

    value: float
    low: float
    high: float


class Candidate(Struct, frozen=True):
    """How one algorithm did on the held-out slice."""

    algorithm: str
    metrics: dict[str, Figure]
    notes: tuple[str, ...] = ()  # warnings of the fit, or why it failed


class Trained(Struct, frozen=True):
    """A version, ready to be registered.

    Attributes:
        fitted_rows, held_out_rows: examples in each slice; the held-out one is the newest.
        split_ms: event time of the first held-out example.
    """

    algorithm: str
    artefact: bytes
    profile: ReferenceProfile
    candidates: tuple[Candidate, ...]
    fitted_rows: int
    held_out_rows: int
    first_ms: int
    split_ms: int
    last_ms: int
    parameters: dict[str, object]

    @property
    def metrics(self) -> dict[str, Figure]:
        return next(c.metrics for c in self.candidates if c.algorithm == self.algorithm)


class _Fit(NamedTuple):
    candidate: Candidate
    model: ServingModel
    outputs: Floats  # on the held-out slice


def fit(spec: ModelSpec, examples: Examples, seed: int) -> Trained:
    """Fit the spec's candidates on the older rows and keep the best on the newest.

    Raises:
        TrainingRefused: too few rows, one class only, or every candidate failed.
    """
    examples = examples.part(-spec.training.maximum_rows)
    older, newest = _split(spec, examples)
    scale = loss_scale(spec, older.labels)
    coder = Coder.fit(spec, older.rows)
    one_thread()
    tried = [_try(spec, name, coder, older, newest, scale, seed) for name in _names(spec)]
    fits = [t for t in tried if isinstance(t, _Fit)]
    if not fits:
        raise TrainingRefused("; ".join(f"{c.algorithm}: {c.notes[0]}" for c in tried))  # type: ignore[union-attr]
    best = min(fits, key=lambda f: f.candidate.metrics[_judged_by(spec)].value)
    validation = _validation(spec, best, newest.labels, scale)
    return Trained(
        algorithm=best.candidate.algorithm,
        artefact=serving.dump(best.model),
        profile=build_profile(spec, examples.rows, best.outputs, validation, examples.times_ms),
        candidates=tuple(t.candidate if isinstance(t, _Fit) else t for t in tried),
        fitted_rows=len(older.rows),
        held_out_rows=len(newest.rows),
        first_ms=int(examples.times_ms[0]),
        split_ms=int(newest.times_ms[0]),
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


def _judged_by(spec: ModelSpec) -> str:
    return "absolute_error" if spec.task == "regression" else "log_loss"


def _split(spec: ModelSpec, examples: Examples) -> tuple[Examples, Examples]:
    n = len(examples.rows)
    if n < spec.training.minimum_rows:
        raise TrainingRefused(f"{n} labelled examples, at least {spec.training.minimum_rows}")
    if np.any(np.diff(examples.times_ms) < 0):
        raise ValueError("examples must be in event-time order")
    at = n - round(n * spec.training.holdout_share)
    older, newest = examples.part(0, at), examples.part(at)
    if len(newest.rows) < FEWEST_HELD_OUT or not at:
        raise TrainingRefused(f"{n - at} rows held out, at least {FEWEST_HELD_OUT}")
    if spec.task != "regression" and len(np.unique(older.labels)) < 2:
        raise TrainingRefused("all examples to fit on have the same label")
    return older, newest


def _try(
    spec: ModelSpec,
    name: str,
    coder: Coder,
    older: Examples,
    newest: Examples,
    scale: float,
    seed: int,
) -> _Fit | Candidate:
    pipeline = LEARNERS[name](spec, seed)
    weights = {f"{pipeline.steps[-1][0]}__sample_weight": older.weights}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            pipeline.fit(coder.matrix(older.rows), older.labels, **weights)
            model = ServingModel(spec, coder, pipeline)
            model.warm_up()
            outputs = model.predict(newest.rows)
        except ValueError as error:
            return Candidate(name, {}, (f"{type(error).__name__}: {str(error)[:300]}",))
    values = measures(spec, outputs, newest.labels, scale)
    figures = {metric: _figure(column, newest.weights) for metric, column in values.items()}
    notes = tuple(sorted({f"{w.category.__name__}: {str(w.message)[:200]}" for w in caught}))
    return _Fit(Candidate(name, figures, notes), model, outputs)


def _figure(values: Floats, weights: Floats) -> Figure:
    mean = float(np.average(values, weights=weights))
    spread = float(np.average((values - mean) ** 2, weights=weights))
    effective = float(weights.sum() ** 2 / (weights**2).sum()) / deflation(values)
    half = _Z95 * float(np.sqrt(spread / effective))
    return Figure(mean, mean - half, mean + half)


def _validation(spec: ModelSpec, best: _Fit, labels: Floats, scale: float) -> Validation:
    losses = measures(spec, best.outputs, labels, scale)["loss"]
    bins = loss_bin(losses, [str(i) for i in range(len(losses))])
    return Validation(
        n=len(losses),
        loss_bins=tuple(np.bincount(bins, minlength=LOSS_BINS).tolist()),
        loss_scale=scale,
        metrics={name: figure.value for name, figure in best.candidate.metrics.items()},
        deflation=deflation(losses),
    )
