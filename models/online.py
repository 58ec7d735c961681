"""Learners that are taught one event at a time, in the order in which labels came, by river.

A version is a snapshot: an ordinary linear pipeline with the weights as they were, plain numbers.
The next version of the same learner goes on from it with what was labelled since, so it never
forgets by the edge of a window. Inputs keep the scale and the categories of the first lesson.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from river import linear_model, optim
from river.utils import VectorDict
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline

from models.examples import Examples
from models.features import Coder
from models.learners import encoder
from models.serving import ServingModel, Taught
from models.spec import ModelSpec

Floats = NDArray[np.float64]

ONE: Final = -1  # the input that is always 1: several classes have no intercept of their own


def teach(
    spec: ModelSpec,
    coder: Coder,
    older: Examples,
    before: ServingModel | None = None,
    *,
    learning_rate: float = 0.01,
    l2: float = 0.0,
    passes: int = 3,
) -> ServingModel:
    """Teach what was labelled since `before`, or everything from the beginning.

    Args:
        older: the examples that may be learnt from.
        before: a version of this learner; one from before the spec gained a feature is none to go
            on from.
        passes: how often the first lesson is gone through; later ones are gone through once.

    Raises:
        ValueError: nothing was labelled since, or several classes come with weights.
    """
    known_ms = older.times_ms if older.known_ms is None else older.known_ms
    if before is None or before.taught is None or before.coder.width < coder.width:
        start, so_far = _beginning(spec, coder, older)
        rounds = passes
    else:
        start, so_far, rounds = before, before.taught, 1
        older, known_ms = _since(older, known_ms, so_far.until_ms)
    pupil = _Pupil(start, so_far, learning_rate, l2)
    order = np.argsort(known_ms, kind="stable")
    inputs = start.pipeline.named_steps["encode"].transform(start.coder.matrix(older.rows))
    for _ in range(rounds):
        pupil.learn(inputs[order], older.labels[order], older.weights[order])
    taught = replace(so_far, until_ms=int(known_ms.max()), events=so_far.events + len(older.rows))
    return ServingModel(spec, start.coder, pupil.pipeline(), taught)


class _Pupil:
    """River's linear model for the task, set to the weights of a snapshot."""

    def __init__(
        self, start: ServingModel, so_far: Taught, learning_rate: float, l2: float
    ) -> None:
        self._start = start
        self._several = start.spec.task == "multiclass"
        estimator = start.pipeline.named_steps["estimate"]
        weights = np.atleast_2d(estimator.coef_)
        intercepts = np.atleast_1d(estimator.intercept_)
        if self._several:
            self._model = linear_model.SoftmaxRegression(optim.SGD(learning_rate), l2=l2)
            for label, (row, first) in enumerate(zip(weights, intercepts, strict=True)):
                self._model.weights[label] = {ONE: float(first), **_numbered(row)}
            return
        kind = (
            linear_model.LinearRegression
            if start.spec.task == "regression"
            else linear_model.LogisticRegression
        )
        self._mean, self._scale = so_far.mean, so_far.scale
        first = (float(intercepts[0]) - self._mean) / self._scale
        self._model = kind(
            optimizer=optim.SGD(learning_rate),
            l2=l2,
            intercept_init=first,
            intercept_lr=learning_rate,
        )
        # River has no public way to begin from weights; its minor version is pinned.
        self._model._weights = VectorDict(_numbered(weights[0] / self._scale))  # noqa: SLF001

    def learn(self, inputs: Floats, labels: Floats, weights: Floats) -> None:
        if self._several:
            if not np.allclose(weights, weights[0]):
                raise ValueError(
                    "the online learner takes no weights where there are several classes"
                )
            for x, label in zip(_rows(inputs), labels, strict=True):
                self._model.learn_one({ONE: 1.0, **x}, int(label))
            return
        scaled = (labels - self._mean) / self._scale
        for x, y, w in zip(_rows(inputs), scaled, weights, strict=True):
            self._model.learn_one(x, float(y), w=float(w))

    def pipeline(self) -> Pipeline:
        """The weights as scikit-learn's, which workers know how to load and to compute fast."""
        encode = self._start.pipeline.named_steps["encode"]
        width = self._start.pipeline.named_steps["estimate"].n_features_in_
        if self._several:
            found = [self._model.weights[label] for label in range(len(self._model.weights))]
            coefficients = np.array([[row[i] for i in range(width)] for row in found])
            intercepts = np.array([row[ONE] for row in found])
        else:
            row = self._model.weights
            coefficients = np.array([[row[i] for i in range(width)]]) * self._scale
            intercepts = np.array([self._model.intercept * self._scale + self._mean])
        kind = type(self._start.pipeline.named_steps["estimate"])
        return _pipeline(encode, kind(), coefficients, intercepts)


def _beginning(spec: ModelSpec, coder: Coder, older: Examples) -> tuple[ServingModel, Taught]:
    """Weights of zero on inputs scaled by the first lesson."""
    encode = encoder(spec).fit(coder.matrix(older.rows))
    width = len(encode.get_feature_names_out())
    outputs = spec.outputs
    mean, scale = 0.0, 1.0
    estimator: Any = LogisticRegression()
    if spec.task == "regression":
        estimator = Ridge()
        mean, scale = float(older.labels.mean()), float(older.labels.std()) or 1.0
    pipeline = _pipeline(encode, estimator, np.zeros((outputs, width)), np.full(outputs, mean))
    taught = Taught(until_ms=0, events=0, mean=mean, scale=scale)
    return ServingModel(spec, coder, pipeline, taught), taught


def _pipeline(encode: Any, estimator: Any, coefficients: Floats, intercepts: Floats) -> Pipeline:
    estimator.n_features_in_ = coefficients.shape[1]
    estimator.coef_, estimator.intercept_ = coefficients, intercepts
    if isinstance(estimator, Ridge):
        estimator.coef_, estimator.intercept_ = coefficients[0], float(intercepts[0])
    else:
        estimator.classes_ = np.arange(float(max(2, len(coefficients))))
    return Pipeline([("encode", encode), ("estimate", estimator)])


def _since(
    older: Examples, known_ms: NDArray[np.int64], time_ms: int
) -> tuple[Examples, NDArray[np.int64]]:
    at = np.flatnonzero(known_ms > time_ms)
    if not len(at):
        raise ValueError(
            "nothing was labelled since the champion, which is of this learner, learnt"
        )
    rows = [older.rows[int(i)] for i in at]
    part = Examples(rows, older.labels[at], older.times_ms[at], older.weights[at], known_ms[at])
    return part, known_ms[at]


def _numbered(row: Floats) -> dict[int, float]:
    return dict(enumerate(row.tolist()))


def _rows(inputs: Floats) -> Iterator[dict[int, float]]:
    return (_numbered(row) for row in inputs)
