"""The reference of each segment: how the version did on it, and what it predicted there.

Only values with enough rows that the version was not fitted on are judged apart: a bound on fewer
would certify nothing that is worth its share of the alarm budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from models.features import Row
from models.losses import LOSS_BINS, loss_bin, measures
from models.profile import ReferenceProfile, SegmentProfile, SignalProfile, Validation
from models.profiling import numeric_bins, prediction_signals, rank_scores
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
    found = []
    for name, here in _segments(spec, profile, rows):
        losses = values["loss"][here]
        validation = Validation(
            n=len(losses),
            loss_bins=tuple(np.bincount(bins[here], minlength=LOSS_BINS).tolist()),
            loss_scale=scale,
            metrics={metric: float(column[here].mean()) for metric, column in values.items()},
            deflation=deflation(losses),
        )
        signals = tuple(_within(spec, profile, outputs[here]))
        found.append(SegmentProfile(name=name, signals=signals, validation=validation))
    return tuple(found)


def _segments(
    spec: ModelSpec, profile: ReferenceProfile, rows: Sequence[Row]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    for feature in spec.segments:
        signal, place = profile.signal(feature), spec.feature_names.index(feature)
        column = np.array([row[place] for row in rows], dtype=object)
        for value in signal.categories[:MOST_SEGMENTS] if signal else ():
            here = column == value
            if here.sum() >= FEWEST_ROWS:
                yield f"{feature}={value}", here


def _within(spec: ModelSpec, profile: ReferenceProfile, outputs: Floats) -> Iterator[SignalProfile]:
    """What was predicted in a segment, on the bins of the whole."""
    for name, values in prediction_signals(spec, outputs).items():
        signal = profile.signal(name)
        if signal is not None:
            bins = numeric_bins(np.array(signal.edges), values)
            counts = np.bincount(bins, minlength=len(signal.counts))
            yield structs.replace(
                signal,
                counts=tuple(counts.tolist()),
                deflation=deflation(rank_scores(bins, counts)),
                season="",
                cells=(),
            )
