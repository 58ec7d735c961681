"""A linear pipeline as one matrix product.

Imputing, scaling, one-hot and a linear estimator add up to one term per feature. Computing those
terms directly gives the pipeline's outputs at a fiftieth of its cost for small batches, where
scikit-learn's checks of its inputs are most of the work.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge

from models.features import Coder

Floats = NDArray[np.float64]


class Additive(NamedTuple):
    """score = intercept + the sum of one term per feature.

    Attributes:
        numeric: places of numeric features, i of them.
        weights: shape (i, scores), per unit of the feature.
        nulls: shape (i, scores), the term of a missing value.
        tables: place of a categorical feature -> shape (categories + 2, scores): the term of each
            category, of any other one, of a missing value.
        logistic: whether scores are log-odds.
    """

    intercept: Floats
    numeric: list[int]
    weights: Floats
    nulls: Floats
    tables: dict[int, Floats]
    logistic: bool

    def scores(self, matrix: Floats) -> Floats:
        """Shape (rows, scores) from the matrix of a `Coder`."""
        numbers = matrix[:, self.numeric]
        missing = np.isnan(numbers)
        if missing.any():
            numbers = np.where(missing, 0.0, numbers)
            total = numbers @ self.weights + missing @ self.nulls + self.intercept
        else:
            total = numbers @ self.weights + self.intercept
        for place, table in self.tables.items():
            codes = np.nan_to_num(matrix[:, place], nan=len(table) - 1).astype(np.intp)
            total += table[codes]
        return np.asarray(total)

    def predict(self, matrix: Floats) -> Floats:
        """Values, shape (rows,)."""
        return self.scores(matrix)[:, 0]

    def predict_proba(self, matrix: Floats) -> Floats:
        """Shape (rows, classes), in the order of the estimator's classes."""
        scores = self.scores(matrix)
        if scores.shape[1] == 1:
            positive = expit(scores)
            return np.hstack([1.0 - positive, positive])
        return np.asarray(softmax(scores, axis=1))


def additive(pipeline: Any, coder: Coder) -> Additive | None:
    """The additive form of a pipeline of `models.learners.linear`, None of any other."""
    estimator = pipeline.steps[-1][1]
    if "encode" not in pipeline.named_steps or not isinstance(
        estimator, LogisticRegression | Ridge
    ):
        return None
    coefficients = np.atleast_2d(estimator.coef_).T
    fitted = pipeline.named_steps["encode"].named_transformers_
    places = {"numeric": [], "categorical": []}  # type: dict[str, list[int]]
    for place, known in enumerate(coder.categories):
        places["numeric" if known is None else "categorical"].append(place)
    scores = coefficients.shape[1]
    intercept = np.zeros(scores) + estimator.intercept_
    weights, nulls, used = np.zeros((0, scores)), np.zeros((0, scores)), 0
    if places["numeric"]:
        constant, weights, nulls, used = _numbers(fitted["numbers"], coefficients)
        intercept = intercept + constant
    tables = {}
    if places["categorical"]:
        tables = _tables(fitted["categories"], coefficients[used:], places["categorical"], coder)
    logistic = isinstance(estimator, LogisticRegression)
    return Additive(intercept, places["numeric"], weights, nulls, tables, logistic)


def _numbers(numbers: Any, coefficients: Floats) -> tuple[Floats, Floats, Floats, int]:
    """The constant, the weights, the terms of missing values, and how many columns these took."""
    imputer, scaler = numbers.named_steps["impute"], numbers.named_steps["scale"]
    used = len(scaler.mean_)
    scaled = coefficients[:used] / scaler.scale_[:, None]
    count = len(imputer.statistics_)
    weights = scaled[:count]
    nulls = np.nan_to_num(imputer.statistics_)[:, None] * weights
    nulls[imputer.indicator_.features_] += scaled[count:]
    return -scaler.mean_ @ scaled, weights, nulls, used


def _tables(
    encoder: Any, coefficients: Floats, places: list[int], coder: Coder
) -> dict[int, Floats]:
    tables, start = {}, 0
    for place, codes in zip(places, encoder.categories_, strict=True):
        table = np.zeros((len(coder.categories[place] or ()) + 2, coefficients.shape[1]))
        rows = np.nan_to_num(codes, nan=len(table) - 1).astype(np.intp)
        table[rows] = coefficients[start : start + len(codes)]
        tables[place] = table
        start += len(codes)
    return tables
