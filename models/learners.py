"""The algorithms a model may be trained with, by the names that specs use.

To add one: write a factory `(spec, seed, **parameters) -> pipeline` and name it in `LEARNERS`. The
pipeline gets the matrix of `models.features.Coder` (NaN is missing, categories are codes);
classifiers need `predict_proba`, and the last step should take `sample_weight`. Types that its
artefacts hold beyond scikit-learn's own must be named in `models.serving.ALLOWED`.
Learners that are taught event by event are in `models.online`; `models.candidates` finds either,
and a user's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from models.spec import ModelSpec

Factory = Callable[..., Any]  # (spec, seed, **parameters) -> a scikit-learn estimator


def encoder(spec: ModelSpec) -> ColumnTransformer:
    """What linear learners need first: numbers of about the same size, one input per category.

    Missing numbers become the median, and that they were missing is an input of its own. Categories
    are one-hot, missing among them; one that training did not see has no effect.
    """
    numbers = Pipeline(
        [
            (
                "impute",
                SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
            ),
            ("scale", StandardScaler()),
        ]
    )
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = [
        ("numbers", numbers, _places(spec, "numeric")),
        ("categories", categories, _places(spec, "categorical")),
    ]
    return ColumnTransformer([column for column in columns if column[2]])


def linear(spec: ModelSpec, seed: int, *, penalty: float = 1.0, max_iter: int = 1000) -> Pipeline:
    """Logistic regression; for a regression task ridge regression.

    Args:
        penalty: on the squares of the weights; more makes them smaller.
    """
    estimator: Any = (
        Ridge(alpha=penalty, random_state=seed)
        if spec.task == "regression"
        else LogisticRegression(C=1 / penalty, max_iter=max_iter, random_state=seed)
    )
    return Pipeline([("encode", encoder(spec)), ("estimate", estimator)])


def boosted(
    spec: ModelSpec,
    seed: int,
    *,
    max_iter: int = 60,
    max_leaf_nodes: int = 8,
    learning_rate: float = 0.1,
    min_samples_leaf: int = 20,
    l2_regularization: float = 1.0,
) -> Pipeline:
    """Histogram gradient boosting, which takes missing values and categories as they are.

    Small trees and few: a version is trained on weeks of data. On eight weeks of hourly bike
    rentals scikit-learn's defaults are far too sure of themselves a month later (log loss 0.41,
    here 0.23), on 14,000 flights slightly (0.54, here 0.53), at twice the cost of predicting.
    """
    kind = (
        HistGradientBoostingRegressor
        if spec.task == "regression"
        else HistGradientBoostingClassifier
    )
    estimator = kind(
        categorical_features=_places(spec, "categorical") or None,
        max_iter=max_iter,
        max_leaf_nodes=max_leaf_nodes,
        learning_rate=learning_rate,
        min_samples_leaf=min_samples_leaf,
        l2_regularization=l2_regularization,
        early_stopping=False,  # it would hold out rows at random, not the newest
        random_state=seed,
    )
    return Pipeline([("estimate", estimator)])


LEARNERS: Final[dict[str, Factory]] = {
    "logistic_regression": linear,
    "linear": linear,
    "hist_gradient_boosting": boosted,
}


def _places(spec: ModelSpec, kind: str) -> list[int]:
    return [place for place, feature in enumerate(spec.features) if feature.type == kind]
