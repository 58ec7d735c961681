"""How outputs did on held-out events: figures with intervals, by segment, calibration, over time.

Intervals are of 95 % and allow for the dependence of neighbouring events: the number of events is
divided by the inflation of block means (`rhythms.deflation`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from models.examples import Examples
from models.losses import LOSS_BINS, loss_bin, losses, measures
from models.profile import Validation
from models.rhythms import deflation
from models.runs import Calibration, Figure, Stretch
from models.spec import ModelSpec

Floats = NDArray[np.float64]

FEWEST_ROWS: Final = 30  # of a segment or stretch: fewer say nothing
MOST_VALUES: Final = 20  # of a segment's feature, the most frequent ones
GROUPS: Final = 10  # of the calibration, about the same number of events in each
STRETCHES: Final = 12
#: Metrics that are shares of events, so that their interval stays within 0 and 1.
SHARES: Final = frozenset({"correct"})
_Z95 = float(norm.ppf(0.975))


class Validated(NamedTuple):
    """What `models.runs.Candidate` keeps under the same names."""

    metrics: dict[str, Figure]
    segments: dict[str, dict[str, Figure]]
    calibration: list[Calibration]
    course: list[Stretch]


def judged_by(spec: ModelSpec) -> str:
    """The metric that candidates are chosen by; the lower the better."""
    return "absolute_error" if spec.task == "regression" else "log_loss"


def validate(
    spec: ModelSpec, outputs: Floats, held_out: Examples, scale: float, base: Floats | None = None
) -> Validated:
    """
    Args:
        outputs: shape (n, spec.outputs), of the held-out events.
        scale: the loss that counts as wholly wrong.
        base: what `constant` says of the same events; `gain` is how much less is lost than by it.
    """
    values = measures(spec, outputs, held_out.labels, scale) | _more(spec, outputs, held_out.labels)
    if base is not None:
        lost = losses(spec, base, held_out.labels)
        values["gain"] = lost - values[judged_by(spec)]
    metrics = _means(values, held_out.weights)
    if spec.task == "binary" and len(np.unique(held_out.labels)) == 2:
        metrics["roc_auc"] = _auc(outputs[:, 0], held_out, deflation(values["log_loss"]))
    return Validated(
        metrics=metrics,
        segments=dict(_segments(spec, values, held_out)),
        calibration=list(_calibration(spec, outputs, held_out)),
        course=list(_course(values[judged_by(spec)], held_out)),
    )


def kept(
    spec: ModelSpec, outputs: Floats, labels: Floats, scale: float, metrics: Mapping[str, Figure]
) -> Validation:
    """What a profile keeps of a validation: exactly the measures that the stream computes too."""
    values = measures(spec, outputs, labels, scale)
    bins = loss_bin(values["loss"], [str(i) for i in range(len(labels))])
    return Validation(
        n=len(labels),
        loss_bins=tuple(np.bincount(bins, minlength=LOSS_BINS).tolist()),
        loss_scale=scale,
        metrics={name: metrics[name].value for name in values},
        deflation=deflation(values["loss"]),
    )


def mean(values: Floats, weights: Floats) -> Figure:
    """A weighted mean with its normal interval."""
    average = float(np.average(values, weights=weights))
    spread = float(np.average((values - average) ** 2, weights=weights))
    half = _Z95 * float(np.sqrt(spread / _effective(values, weights)))
    return Figure(average, average - half, average + half)


def share(values: Floats, weights: Floats) -> Figure:
    """A weighted share of ones with its score interval (Wilson, 1927)."""
    p, n = float(np.average(values, weights=weights)), _effective(values, weights)
    z2 = _Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * float(np.sqrt(p * (1 - p) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Figure(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))


def _effective(values: Floats, weights: Floats) -> float:
    """How many independent, equal events carry as much (Kish, 1965, for the weights)."""
    return float(weights.sum() ** 2 / (weights**2).sum()) / deflation(values)


def _means(values: dict[str, Floats], weights: Floats) -> dict[str, Figure]:
    return {
        name: (share if name in SHARES else mean)(column, weights)
        for name, column in values.items()
    }


def _more(spec: ModelSpec, outputs: Floats, labels: Floats) -> dict[str, Floats]:
    """Figures for people, beside those that the stream computes too."""
    if spec.task == "regression":
        return {"bias": outputs[:, 0] - labels}
    if spec.task == "binary":
        return {"brier": (outputs[:, 0] - labels) ** 2}
    said = np.eye(spec.outputs)[labels.astype(np.intp)]
    return {"brier": ((outputs - said) ** 2).sum(axis=1)}


def _auc(scores: Floats, held_out: Examples, inflation: float) -> Figure:
    """The area under the ROC curve, with the interval of Hanley and McNeil (1982)."""
    area = float(roc_auc_score(held_out.labels, scores, sample_weight=held_out.weights))
    positive = float((held_out.labels == 1.0).sum()) / inflation
    negative = float((held_out.labels == 0.0).sum()) / inflation
    one = area / (2 - area) - area**2
    other = 2 * area**2 / (1 + area) - area**2
    rest = max(positive - 1, 0) * one + max(negative - 1, 0) * other
    half = _Z95 * float(np.sqrt((area * (1 - area) + rest) / (positive * negative)))
    return Figure(area, max(0.0, area - half), min(1.0, area + half))


def _segments(
    spec: ModelSpec, values: dict[str, Floats], held_out: Examples
) -> Iterator[tuple[str, dict[str, Figure]]]:
    for feature in spec.segments:
        place = spec.feature_names.index(feature)
        column = np.array([row[place] for row in held_out.rows], dtype=object)
        for value, n in Counter(column.tolist()).most_common(MOST_VALUES):
            if n >= FEWEST_ROWS:
                at = np.flatnonzero(column == value)
                named = "(missing)" if value is None else value
                part = {name: every[at] for name, every in values.items()}
                yield f"{feature}={named}", _means(part, held_out.weights[at])


def _calibration(spec: ModelSpec, outputs: Floats, held_out: Examples) -> Iterator[Calibration]:
    said, found = outputs[:, 0], held_out.labels
    if spec.task == "multiclass":
        said = outputs.max(axis=1)
        found = (outputs.argmax(axis=1) == held_out.labels).astype(np.float64)
    order = np.argsort(said, kind="stable")
    for at in np.array_split(order, min(GROUPS, len(order))):
        at.sort()  # in time order again, for the dependence of neighbours
        weights = held_out.weights[at]
        figure = (mean if spec.task == "regression" else share)(found[at], weights)
        yield Calibration(len(at), float(np.average(said[at], weights=weights)), figure)


def _course(values: Floats, held_out: Examples) -> Iterator[Stretch]:
    parts = max(1, min(STRETCHES, len(values) // FEWEST_ROWS))
    for at in np.array_split(np.arange(len(values)), parts):
        figure = mean(values[at], held_out.weights[at])
        yield Stretch(int(held_out.times_ms[at[0]]), len(at), figure)


def constant(spec: ModelSpec, older: Examples, n: int) -> Floats:
    """What a model that knows no features would say: class shares (Laplace, 1814), or the median.

    Returns:
        shape (n, spec.outputs).
    """
    if spec.task == "regression":
        return np.full((n, 1), _median(older.labels, older.weights))
    counts = np.bincount(
        older.labels.astype(np.intp), weights=older.weights, minlength=len(spec.classes)
    )
    shares = (counts + 1) / (counts.sum() + len(counts))
    return np.tile(shares[1:] if spec.task == "binary" else shares, (n, 1))


def _median(values: Floats, weights: Floats) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])
