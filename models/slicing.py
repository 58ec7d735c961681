"""The reference of each segment: how the version did on it, its inputs and its predictions.

Only values with enough rows that the version was not fitted on are judged apart: a bound on fewer
would certify nothing that is worth its share of the alarm budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from models.features import Row
from models.joint import NAME as JOINT
from models.losses import LOSS_BINS, loss_bin, measures
from models.profile import ReferenceProfile, SegmentProfile, SignalProfile, Validation
from models.profiling import Binner
from models.rhythms import deflation
from models.spec import ModelSpec

Floats = NDArray[np.float64]

FEWEST_ROWS: Final = 200  # labelled, that the version was not fitted on
MOST_SEGMENTS: Final = 20  # of a feature: its most frequent values


def segment_profiles(
    spec: ModelSpec,
    profile: ReferenceProfile,
    rows: Sequence[Row],
    outputs: Floats,
    labels: Floats,
) -> tuple[SegmentProfile, ...]:
    """References of the segments that the spec declares, named as their counts are.

    Args:
        rows, outputs, labels: of the events that the version was not fitted on, in time order.
    """
    scale = profile.validation.loss_scale
    values = measures(spec, outputs, labels, scale)
    bins = loss_bin(values["loss"], [str(i) for i in range(len(labels))])
    binner, found = Binner(profile, spec), []
    for feature, value, here in _segments(spec, profile, rows):
        losses = values["loss"][here]
        validation = Validation(
            n=len(losses),
            loss_bins=tuple(np.bincount(bins[here], minlength=LOSS_BINS).tolist()),
            loss_scale=scale,
            metrics={metric: float(column[here].mean()) for metric, column in values.items()},
            deflation=deflation(losses),
        )
        inside = [row for row, is_inside in zip(rows, here.tolist(), strict=True) if is_inside]
        counts = binner.counts(inside, outputs[here])
        for nothing_new in (feature, JOINT):
            counts.pop(nothing_new, None)
        signals = tuple(_within(profile, counts))
        name = f"{feature}={value}"
        found.append(SegmentProfile(name=name, signals=signals, validation=validation))
    return tuple(found)


def _segments(
    spec: ModelSpec, profile: ReferenceProfile, rows: Sequence[Row]
) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    for feature in spec.segments:
        signal, place = profile.signal(feature), spec.feature_names.index(feature)
        column = np.array([row[place] for row in rows], dtype=object)
        for value in signal.categories[:MOST_SEGMENTS] if signal else ():
            here = column == value
            if here.sum() >= FEWEST_ROWS:
                yield feature, value, here


def _within(
    profile: ReferenceProfile, counts: Mapping[str, NDArray[np.int64]]
) -> Iterator[SignalProfile]:
    """Inputs and predictions of a segment, on the bins of the whole and with its dependence."""
    for name, here in counts.items():
        signal = profile.signal(name)
        if signal is not None:
            yield structs.replace(signal, counts=tuple(here.tolist()), season="", cells=())
