"""What the monitor must know of the version that made a prediction, looked up once per fleet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from operator import add, itemgetter
from typing import Final

import numpy as np

from models.crowd import Sheet
from models.facets import Coder, Facet, Grid
from models.features import Inputs, Row, columns_of
from models.losses import LOG_LOSS_SCALE
from models.profile import ReferenceProfile
from models.profiling import LABELS, Binner
from models.scorecard import Scorecard
from models.spec import ModelSpec
from models.strata import Strata
from stream.core.clocks import lateness_ms
from stream.core.deltas import Place
from stream.core.lateness import judging_bin
from stream.core.packing import Kind, early_ms, kind_of
from stream.core.processor import Fleet

MAX_VALUES: Final = 50  # of a segment's feature that are told apart
OTHER: Final = 254
NULL: Final = 255


class Segment:
    """Codes for the values of one feature, after the version's reference profile.

    The profile decides which values are told apart, so that it does not depend on what this
    partition happens to see first.

    >>> colours = Segment("colour", 0, ("red", "blue"))
    >>> [colours.names[colours.code(value)] for value in ("blue", "mauve", None)]
    ['colour=blue', 'colour=(other)', 'colour=(null)']
    """

    def __init__(self, feature: str, place: int, categories: Sequence[str]) -> None:
        self.place = place
        told_apart = categories[:MAX_VALUES]
        self._codes: dict[object, int] = {value: code for code, value in enumerate(told_apart)}
        self._codes[None] = NULL
        self.names = {code: f"{feature}={value}" for code, value in enumerate(told_apart)}
        self.names |= {OTHER: f"{feature}=(other)", NULL: f"{feature}=(null)"}

    def code(self, value: object) -> int:
        return self._codes.get(value, OTHER)


class Source:
    """One version of a model with its spec, profile and shadows.

    Attributes:
        binner: None where the profile is not known any more, or is not of the spec's features.
        judging_bin: of delays, the first that is too late for a label to be judged at the judging
            age; None where labels are judged as they come.
        features: that have a signal; their bins come first.
        signals: names, and how many bins each has; none where there is no binner.
        scorecard: None where there is no binner, or the profile has no estimator.
        labels: the signal of what turned out; None where the profile has none.
        judged: names of the segments that are judged apart.
        grid: of the slices that are searched; None where none are.
        is_coded: whether a prediction has any codes.
    """

    def __init__(self, kind: Kind, spec: ModelSpec, profile: ReferenceProfile | None) -> None:
        self.kind = kind
        self.spec = spec
        self.tick_ms = spec.tick_ms
        self.segments = tuple(_segment(name, spec, profile) for name in kind.segments)
        self.strata = Strata(spec, profile)
        age = spec.labels.judged_after_seconds
        self.judging_bin = judging_bin(age) if age is not None else None
        self.binner = _binner(spec, profile)
        self.features = len(self.binner.places) if self.binner else 0
        self.scorecard = _scorecard(self.binner, profile)
        self.signals = _signals(self.binner)
        self._cells = [(name, i, size) for name, size in self.signals for i in range(size)]
        self.labels = profile.signal(LABELS) if profile and self.binner else None
        self.judged = frozenset(part.name for part in profile.segments) if profile else frozenset()
        self.grid = _grid(kind, spec, profile)
        self.is_coded = kind.codes > 0
        self._is_numeric = all(feature.type == "numeric" for feature in spec.features)
        self._coder = Coder(self.grid.facets if self.grid else (), spec.feature_names)

    def inputs(self, rows: Sequence[Row]) -> Inputs:
        """Rows as they are counted soonest, if there are many of them."""
        return columns_of(rows, len(self.spec.features)) if self._is_numeric else rows

    def codes(self, row: Row) -> bytes:
        """The codes of a prediction's segments, then its groups of the facets."""
        return self.all_codes((row,))[0]

    def all_codes(self, rows: Sequence[Row], inputs: Inputs | None = None) -> list[bytes]:
        """As `codes` of each, but a column at a time. `inputs`: the same, from `inputs`."""
        found = self._coder.codes(rows if inputs is None else inputs) if self.grid else []
        if not self.segments:
            return found or [b""] * len(rows)
        columns = [[*map(part.code, map(itemgetter(part.place), rows))] for part in self.segments]
        codes = map(bytes, zip(*columns, strict=True))
        return [*map(add, codes, found)] if self.grid else [*codes]

    def in_segments(self, codes: bytes) -> bytes:
        """The codes of the segments alone."""
        return codes[: len(self.segments)]

    def segment_name(self, which: int) -> str:
        """`which`: place of the segment * 256 + code of the value; -1 is all."""
        if which < 0:
            return ""
        names = self.segments[which >> 8].names
        return names.get(which & 255, names[OTHER])

    def apart(self, codes: bytes) -> list[str]:
        """The segments that a prediction with these codes lies in, of those judged apart."""
        places = enumerate(self.in_segments(codes))
        names = (self.segment_name(place << 8 | code) for place, code in places)
        return [name for name in names if name in self.judged]

    @cached_property
    def sheet(self) -> Sheet | None:
        """How its predictions are put on their bins with those of others; None: on no bins."""
        return Sheet(self.binner, self.scorecard) if self.binner else None

    @property
    def layout(self) -> object:
        """Equal for sources whose predictions can be counted together, few of each."""
        return self.sheet and self.sheet.layout

    def signal(self, cell: int) -> tuple[str, int, int]:
        """Of a bin among all signals' bins: the signal's name, the bin in it, and its bins."""
        return self._cells[cell]


class Sources:
    """The sources of one fleet.

    Attributes:
        lateness_ms: the largest allowed lateness of any model.
        early_ms: by model, how long a label waits for its prediction.
        classes: by model, as labels are spelt.
        ticks_ms: by model, how long a tick is.
    """

    def __init__(self, fleet: Fleet) -> None:
        specs = [live.lifecycle.spec for live in fleet.values()]
        self.lateness_ms = lateness_ms(specs)
        self.early_ms = {spec.name: early_ms(spec) for spec in specs}
        self.classes = {spec.name: spec.classes for spec in specs}
        self.ticks_ms = {spec.name: spec.tick_ms for spec in specs}
        self._allowed_ms = {spec.name: lateness_ms([spec]) for spec in specs}
        self._fleet = fleet
        self._again: dict[Kind, Source] = {}

    def of(self, model: str, version: int, shadows: tuple[str, ...]) -> Source:
        """The source of predictions that come now."""
        live = self._fleet[model]
        spec, profile = live.lifecycle.spec, live.profile(version)
        scale = profile.validation.loss_scale if profile else LOG_LOSS_SCALE
        facets = len(facets_of(spec, profile))
        kind = kind_of(spec, version, tuple(map(int, shadows)), scale, facets)
        return Source(kind, spec, profile)

    def again(self, kind: Kind) -> Source:
        """The source of a prediction that came earlier; what has been forgotten is left out."""
        source = self._again.get(kind)
        if source is None:
            live = self._fleet[kind.model]
            profile = live.profile(kind.version)
            source = self._again[kind] = Source(kind, live.lifecycle.spec, profile)
        return source

    def is_late(self, model: str, time_ms: int, stamp_ms: int) -> bool:
        """Whether an event is further behind its record's timestamp than its model allows."""
        return time_ms < stamp_ms - self._allowed_ms[model]

    def place(self, model: str, version: int | None, time_ms: int) -> Place:
        """Where something that happened at a time is counted; without a version, the champion's."""
        lifecycle = self._fleet[model].lifecycle
        tick = time_ms // lifecycle.spec.tick_ms
        return Place(model, version or lifecycle.champion or 1, "", tick)


def _binner(spec: ModelSpec, profile: ReferenceProfile | None) -> Binner | None:
    if profile is None:
        return None
    try:
        return Binner(profile, spec)
    except KeyError:  # the version was fitted to other features
        return None


def facets_of(spec: ModelSpec, profile: ReferenceProfile | None) -> tuple[Facet, ...]:
    """The features of a version that are searched: none where labels are judged at an age."""
    if profile is None or profile.slices is None or spec.labels.judged_after_seconds is not None:
        return ()
    facets = profile.slices.facets
    return facets if {facet.feature for facet in facets} <= set(spec.feature_names) else ()


def _grid(kind: Kind, spec: ModelSpec, profile: ReferenceProfile | None) -> Grid | None:
    """None also for predictions that were made before there were slices."""
    facets = facets_of(spec, profile)
    return Grid(facets) if facets and len(facets) == kind.facets else None


def _signals(binner: Binner | None) -> tuple[tuple[str, int], ...]:
    sizes = np.diff(binner.starts).tolist() if binner else ()
    return tuple(zip(binner.names, sizes, strict=True)) if binner else ()


def _scorecard(binner: Binner | None, profile: ReferenceProfile | None) -> Scorecard | None:
    estimator = profile.estimator if profile else None
    return Scorecard(estimator, binner) if binner and estimator else None


def _segment(name: str, spec: ModelSpec, profile: ReferenceProfile | None) -> Segment:
    signal = profile.signal(name) if profile else None
    names = spec.feature_names
    place = names.index(name) if name in names else 0
    return Segment(name, place, signal.categories if signal else ())
