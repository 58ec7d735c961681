"""From a candidate of a spec to what fits it: a known learner, an online one, or a user's own.

A user's own is a factory `(spec, seed, **parameters)` by import path, of a package that the
operator has allowed (setting `learner_modules`). It returns a scikit-learn estimator or pipeline
like those of `models.learners`, made of types that artefacts may hold.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from models.examples import Examples
from models.features import Coder
from models.learners import LEARNERS, Factory
from models.serving import ServingModel
from models.spec import CandidateSpec, ModelSpec

ONLINE: Final = "online_linear"


class Unusable(ValueError):
    """A candidate that can't be tried; the message says why."""


class Lesson(NamedTuple):
    """What a candidate may see.

    Attributes:
        older: the examples before the held-out slice.
        coder: fitted on them.
        champion: the live version, from which an online learner of its kind goes on.
    """

    spec: ModelSpec
    coder: Coder
    older: Examples
    seed: int
    champion: ServingModel | None = None


class Learner(NamedTuple):
    """A candidate, ready to be fitted.

    Attributes:
        record: what the run's record says of it beside its name.
    """

    fit: Callable[[Lesson], ServingModel]
    record: dict[str, Any]


def learner(candidate: CandidateSpec, allowed: Sequence[str] = ()) -> Learner:
    """
    Args:
        allowed: packages that learners may be imported from.

    Raises:
        Unusable: no such learner, or it may not be imported, or cannot.
    """
    record: dict[str, Any] = dict(candidate.parameters)
    if candidate.name:
        record["learner"] = candidate.learner
    if candidate.history < 1:
        record["history"] = candidate.history
    if candidate.learner == ONLINE:
        return Learner(lambda lesson: _taught(candidate, lesson), record)
    if ":" in candidate.learner:
        factory, source = _imported(candidate.learner, allowed)
        record["source"] = source
    elif candidate.learner in LEARNERS:
        factory = LEARNERS[candidate.learner]
    else:
        known = ", ".join([*LEARNERS, ONLINE])
        raise Unusable(f"no learner {candidate.learner}; there are {known}")
    return Learner(lambda lesson: _fitted(factory, candidate, lesson), record)


def _fitted(factory: Factory, candidate: CandidateSpec, lesson: Lesson) -> ServingModel:
    spec, coder, older = lesson.spec, lesson.coder, lesson.older
    pipeline = factory(spec, lesson.seed, **candidate.parameters)
    if not isinstance(pipeline, Pipeline):
        pipeline = Pipeline([("estimate", pipeline)])
    name, estimator = pipeline.steps[-1]
    weights = {f"{name}__sample_weight": older.weights}
    if not has_fit_parameter(estimator, "sample_weight"):
        if not np.allclose(older.weights, older.weights[0]):
            raise Unusable("it takes no sample_weight, and the examples differ in weight")
        weights = {}
    matrix = coder.matrix(older.rows)
    # Nobody has seen it yet. As a constant it teaches nothing; boosting can't bin a column of NaN.
    matrix[:, np.isnan(matrix).all(axis=0)] = 0.0
    pipeline.fit(matrix, older.labels, **weights)
    return ServingModel(spec, coder, pipeline)


def _taught(candidate: CandidateSpec, lesson: Lesson) -> ServingModel:
    from models.online import teach  # river takes a while to import, and workers need none of it

    parameters: dict[str, Any] = dict(candidate.parameters)
    return teach(lesson.spec, lesson.coder, lesson.older, lesson.champion, **parameters)


def _imported(path: str, allowed: Sequence[str]) -> tuple[Factory, str]:
    """The factory at an import path, and 12 hex digits of its source's sha256."""
    module_name, _, name = path.partition(":")
    if not any(module_name == one or module_name.startswith(f"{one}.") for one in allowed):
        raise Unusable(
            f"{module_name} is not in the setting learner_modules, which says what may be imported"
        )
    try:
        module = importlib.import_module(module_name)
        factory: Factory = getattr(module, name)
    except Exception as error:  # anything may happen while a user's module is imported
        raise Unusable(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    source = Path(module.__file__).read_bytes() if module.__file__ else b""
    return factory, hashlib.sha256(source).hexdigest()[:12]
