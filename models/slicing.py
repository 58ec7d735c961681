"""The reference of each segment: how the version did on it, its inputs and its predictions.

Only values with enough rows that the version was not fitted on are judged apart: a bound on fewer
would certify nothing that is worth its share of the alarm budget. Slices that nobody declared are
searched when harm is found, and have their losses alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.examples import Examples
from models.facets import GROUPS, Coder, Facet, Grid, Slices
from models.features import Row
from models.joint import NAME as JOINT
from models.losses import LOSS_BINS, loss_bin, measures
from models.profile import ReferenceProfile, SegmentProfile, Validation
from models.profiling import Binner, scores_of
from models.rhythms import deflation, part
from models.spec import ModelSpec

Floats = NDArray[np.float64]

MICRO: Final = 1_000_000
FEWEST_ROWS: Final = 200  # labelled, that the version was not fitted on
MOST_SEGMENTS: Final = 20  # of a feature: its most frequent values


def sliced(
    spec: ModelSpec, profile: ReferenceProfile, held_out: Examples, outputs: Floats
) -> dict[str, Any]:
    """The fields `segments` and `slices` of a profile.

    Args:
        held_out: events that the version was not fitted on; outputs: what it said of them.
    """
    seen = (held_out.rows, outputs, held_out.labels)
    return {
        "segments": segment_profiles(spec, profile, *seen, held_out.times_ms),
        "slices": slices(spec, profile, *seen),
    }


def segment_profiles(
    spec: ModelSpec,
    profile: ReferenceProfile,
    rows: Sequence[Row],
    outputs: Floats,
    labels: Floats,
    times_ms: NDArray[np.int64] | None = None,
) -> tuple[SegmentProfile, ...]:
    """References of the segments that the spec declares, named as their counts are.

    Args:
        rows, outputs, labels: of the events that the version was not fitted on, in time order.
        times_ms: of these; without them a segment has no season.
    """
    scale = profile.validation.loss_scale
    values = measures(spec, outputs, labels, scale)
    bins = loss_bin(values["loss"], [str(i) for i in range(len(labels))])
    columns, found = Binner(profile, spec).bins(rows, outputs), []
    for feature, value, here in _segments(spec, profile, rows):
        losses = values["loss"][here]
        validation = Validation(
            n=len(losses),
            loss_bins=tuple(np.bincount(bins[here], minlength=LOSS_BINS).tolist()),
            loss_scale=scale,
            metrics={metric: float(column[here].mean()) for metric, column in values.items()},
            deflation=deflation(losses),
        )
        signals = tuple(
            part(spec, signal, bins, scores_of(signal, bins), here, times_ms)
            for name, bins in columns.items()
            if name not in (feature, JOINT) and (signal := profile.signal(name)) is not None
        )
        name = f"{feature}={value}"
        found.append(SegmentProfile(name=name, signals=signals, validation=validation))
    return tuple(found)


def slices(
    spec: ModelSpec,
    profile: ReferenceProfile,
    rows: Sequence[Row],
    outputs: Floats,
    labels: Floats,
) -> Slices | None:
    """How the version did by the values of the features that are searched; None if none are.

    Args:
        rows, outputs, labels: as for `segment_profiles`.
    """
    facets = [facet for name in spec.facets if (facet := _facet(profile, name)) is not None]
    if len(rows) < FEWEST_ROWS or not facets:
        return None
    grid, coder = Grid(facets), Coder(facets, spec.feature_names)
    cells = grid.cells(np.array([[*coder.code(row)] for row in rows], dtype=np.int64))
    lost = measures(spec, outputs, labels, profile.validation.loss_scale)["loss"]

    def totals(values: Floats) -> tuple[int, ...]:
        column = np.repeat(np.rint(values), cells.shape[1])
        total = np.bincount(cells.ravel(), weights=column, minlength=grid.size)
        return tuple(total.astype(np.int64).tolist())

    return Slices(
        facets=tuple(facets),
        n=totals(np.ones(len(rows))),
        sums=totals(MICRO * lost),
        squares=totals(MICRO * lost**2),
    )


def _facet(profile: ReferenceProfile, name: str) -> Facet | None:
    """A feature's most frequent values, or about equal shares of the reference."""
    signal = profile.signal(name)
    if signal is None:
        return None
    if signal.kind == "categorical":
        return Facet(feature=name, values=signal.categories[:GROUPS]) if signal.categories else None
    below, inner = np.cumsum(signal.counts[1:-2])[:-1], signal.edges[1:-1]
    if not inner:
        return None
    shares = below / max(1, sum(signal.counts[1:-2]))
    nearest = {int(np.abs(shares - i / GROUPS).argmin()) for i in range(1, GROUPS)}
    return Facet(feature=name, cuts=tuple(inner[at] for at in sorted(nearest)))


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
