"""A first reference without training: what a version said and met in a period that was accepted.

For models that are served elsewhere, or whose training data nobody has: the version is not fitted
here, but from then on it is watched, and challenged, like one that was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from models.estimating import fit_estimator
from models.examples import FEWEST_HELD_OUT, Examples, TrainingRefused
from models.features import Row
from models.profile import ReferenceProfile
from models.profiling import build_profile
from models.runs import Candidate
from models.slicing import sliced
from models.spec import ModelSpec
from models.training import loss_scale
from models.validation import constant, kept, validate

Floats = NDArray[np.float64]


class Observed(NamedTuple):
    """Predictions of one version in event-time order, n of them, and the labels they have.

    Attributes:
        outputs: shape (n, spec.outputs).
        times_ms: shape (n,), ascending.
        labelled: places of those that have a label, ascending; shape (m,).
        labels, weights: of these, shape (m,).
    """

    rows: Sequence[Row]
    outputs: Floats
    times_ms: NDArray[np.int64]
    labelled: NDArray[np.int64]
    labels: Floats
    weights: Floats


def reference(spec: ModelSpec, observed: Observed) -> tuple[ReferenceProfile, Candidate]:
    """The profile of all predictions, validated by those that have a label.

    Raises:
        TrainingRefused: too few predictions, or too few of them labelled.
    """
    n, m = len(observed.rows), len(observed.labels)
    if n < spec.training.minimum_rows:
        raise TrainingRefused(f"{n} predictions, at least {spec.training.minimum_rows}")
    if m < FEWEST_HELD_OUT:
        raise TrainingRefused(
            f"{m} of {n} predictions are labelled, at least {FEWEST_HELD_OUT}: without labels "
            "nothing could be said about harm"
        )
    outputs = observed.outputs[observed.labelled]
    seen = Examples(
        [observed.rows[int(i)] for i in observed.labelled],
        observed.labels,
        observed.times_ms[observed.labelled],
        observed.weights,
    )
    scale = loss_scale(spec, observed.labels)
    found = validate(spec, outputs, seen, scale, constant(spec, seen, m))
    validation = kept(spec, outputs, seen.labels, scale, found.metrics)
    profile = build_profile(spec, observed.rows, observed.outputs, validation, observed.times_ms)
    estimator = fit_estimator(spec, profile, seen.rows, outputs, seen.labels)
    candidate = Candidate(name="as it was served", chosen=True, **found._asdict())
    return replace(profile, estimator=estimator, **sliced(spec, profile, seen, outputs)), candidate


def check_output(spec: ModelSpec, output: float | list[float]) -> tuple[float, ...]:
    """An output as floats, spec.outputs of them.

    Raises:
        ValueError: it is none of this task.
    """
    values = output if isinstance(output, list) else [output]
    if len(values) != spec.outputs:
        raise ValueError(f"the output is not {spec.outputs} numbers")
    numbers = tuple(float(value) for value in values)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("the output is not finite")
    if spec.task != "regression" and not all(0 <= number <= 1 for number in numbers):
        raise ValueError("the output is no probability")
    return numbers
