"""Reference profiles: what a version saw when it was validated, as integer counts on fixed bins.

Bins are defined by the reference and never move. Bin layout of every signal, in order:
numeric: under, the quantile bins, over, null; categorical: the categories, unseen, null.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from models.facets import Slices
from models.joint import Joint
from models.seasons import Season


class SignalProfile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counts of one signal: a feature, "prediction" (multiclass: "prediction:<class>"), "labels",
    or "inputs together" (`models.joint`).

    Attributes:
        edges: numeric only; k+1 ascending edges of k bins. A value v falls in under if
            v < edges[0], in over if v > edges[-1]; bin i holds edges[i] <= v < edges[i+1], the last
            one closed.
        categories: categorical only; values as text, most frequent first.
        counts: reference counts; numeric k+3 (under, k bins, over, null), categorical c+2
            (c categories, unseen, null).
        deflation: variance inflation of block means of the time-ordered reference, at least 1;
            within the cells of the season, where there is one.
        season: the cycle that the reference goes through, "" if none.
        cells: counts of each cell of the season; they add up to `counts`.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    counts: tuple[int, ...]
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    deflation: float = 1.0
    season: Season | Literal[""] = ""
    cells: tuple[tuple[int, ...], ...] = ()

    def in_cell(self, cell: int) -> SignalProfile:
        """The reference of one cell of the season."""
        return msgspec.structs.replace(self, counts=self.cells[cell], season="", cells=())


class Validation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the version did on the newest slice, that no candidate had seen."""

    n: int
    loss_bins: tuple[int, ...]  # bounded loss, counts on equal bins of [0, 1]
    loss_scale: float  # bounded loss = min(loss, loss_scale) / loss_scale
    metrics: dict[str, float]
    deflation: float = 1.0


class Estimator(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How well the version does, told without labels: a scorecard of a prediction's expected error.

    A prediction's score is the sum of the points of the bins that its signals fall in and of its
    stratum. Predictions are counted by bin of the score, and for each bin the reference says what
    the measures were there. See `models.estimating`.

    Attributes:
        points: by signal, for each of its bins; signals without points are left out.
        stratum_points: by `strata.Strata` of the output.
        cuts: ascending scores between the bins; bin i holds cuts[i-1] <= score < cuts[i].
        rare: by signal, the bins that held next to nothing of the reference: a prediction with a
            value in one of them lies outside of what the estimate was learnt on.
        counts: reference predictions in each bin, then how many of all were outside.
        sums, squares: of each measure in each bin, in millionths.
        wander: by measure, how far the estimate was off the truth on whole stretches of the
            reference that it had not seen, beyond what chance explains (root mean square).
    """

    points: dict[str, tuple[int, ...]]
    stratum_points: tuple[int, ...]
    cuts: tuple[int, ...]
    rare: dict[str, tuple[int, ...]]
    counts: tuple[int, ...]
    sums: dict[str, tuple[int, ...]]
    squares: dict[str, tuple[int, ...]]
    wander: dict[str, float] = {}


class SegmentProfile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One segment ("plan=gold"): its inputs and predictions, and how the version did there."""

    name: str
    signals: tuple[SignalProfile, ...]
    validation: Validation


class ReferenceProfile(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that a monitor must know of a version: plain data, stored by its JSON's digest."""

    model: str
    rows: int
    signals: tuple[SignalProfile, ...]
    validation: Validation
    time_zone: str = "UTC"  # of the seasons
    estimator: Estimator | None = None  # None: too few rows, or made before there were any
    joint: Joint | None = None  # of the signal `models.joint.NAME`
    segments: tuple[SegmentProfile, ...] = ()  # that have enough rows to be judged apart
    slices: Slices | None = None  # searched for the worst, where harm is found

    def signal(self, name: str) -> SignalProfile | None:
        return next((signal for signal in self.signals if signal.name == name), None)


def encode(profile: ReferenceProfile) -> bytes:
    return msgspec.json.encode(profile, order="deterministic")


def decode(data: bytes) -> ReferenceProfile:
    """Raises:
    ValueError: the bytes are not a profile.
    """
    try:
        return msgspec.json.decode(data, type=ReferenceProfile)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
