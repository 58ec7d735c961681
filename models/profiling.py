"""Reference profiles from examples, and live rows onto their bins.

Bins are deciles of the reference (or its values, where they are few); see `models.profile` for the
layout of the counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from models import joint
from models.features import Inputs, Row, columns_of, frequent, numbers
from models.profile import ReferenceProfile, SignalProfile, Validation
from models.rhythms import Rhythm
from models.spec import ModelSpec

BINS = 10
LABELS = "labels"  # the signal of what turned out
FEWEST_ROWS = 200  # of an optional feature that came while the rows did
FEW_VALUES = 12  # a numeric signal with no more distinct values gets a bin for each
AT_ONCE = 32_768  # values that are put on their bins at once: what a core's cache holds
SHORTEST = 512  # events at once, however many signals: shorter rows cost more an event
# Values in one of NumPy's buffers. Where something differs by row, it copies rows there before it
# works on them, unless one fills more than half a buffer; that takes twice as long as the work.
BUFFER = 128

Bins = TypeVar("Bins", bound=np.integer)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def build_profile(
    spec: ModelSpec,
    rows: Sequence[Row],
    outputs: Floats,
    validation: Validation,
    times_ms: Ints | None = None,
    labels: Floats | None = None,
) -> ReferenceProfile:
    """The reference of a version.

    An optional feature counts from the row on that was the first to bring it. Where that leaves too
    few rows it has no signal: what of it is to be expected is not known yet.

    Args:
        rows: in event-time order, else the deflation estimate sees no dependence.
        outputs: shape (m, spec.outputs), of the newest rows, that the version was not fitted on.
        times_ms: of the rows, shape (len(rows),); without them no season is looked for.
        labels: of the rows, from `losses.encode_label`.
    """

    @cache
    def since(first: int) -> Rhythm:
        return Rhythm(spec, None if times_ms is None else times_ms[first:])

    columns: dict[str, tuple[object, ...]] = dict(
        zip(spec.feature_names, zip(*rows, strict=True), strict=True)
    )
    firsts = _firsts(spec, columns)
    kinds = {feature.name: feature.type for feature in spec.features}
    features = [
        _categorical(name, columns[name][first:], since(first))
        if kinds[name] == "categorical"
        else _numeric(name, _numbers(columns[name][first:]), since(first))
        for name, first in firsts.items()
    ]
    whole, newest = since(0), since(len(rows) - len(outputs))
    signals = [*features]
    signals += [_numeric(n, v, newest) for n, v in prediction_signals(spec, outputs).items()]
    if labels is not None and LABELS not in spec.feature_names:
        signals.append(_labels(spec, labels, whole))
    latest = max(firsts.values())
    bins = np.column_stack([_bins(signal, columns[signal.name][latest:]) for signal in features])
    together = None if joint.NAME in columns else _joint(features, bins, outputs[-len(bins) :])
    if together is not None:
        signals.append(_distances(together, bins, since(latest)))
    return ReferenceProfile(
        model=spec.name,
        rows=len(rows),
        signals=tuple(signals),
        validation=validation,
        time_zone=spec.time_zone,
        joint=together,
    )


def _firsts(spec: ModelSpec, columns: Mapping[str, Sequence[object]]) -> dict[str, int]:
    """The row from which on each feature counts; those are left out that too few rows bring."""
    firsts = {}
    for feature in spec.features:
        column, first = columns[feature.name], 0
        if feature.optional:
            found = (i for i, value in enumerate(column) if value is not None)
            first = next(found, len(column))
        if not first or len(column) - first >= FEWEST_ROWS:
            firsts[feature.name] = first
    return firsts


def prediction_signals(spec: ModelSpec, outputs: Floats) -> dict[str, Floats]:
    """Outputs as signals: "prediction", or "prediction:<class>" for each class."""
    if spec.task != "multiclass":
        return {"prediction": outputs[:, 0]}
    return {f"prediction:{name}": outputs[:, i] for i, name in enumerate(spec.classes)}


def label_bins(spec: ModelSpec, signal: SignalProfile, labels: Floats) -> Ints:
    """Labels (from `losses.encode_label`) on the bins of the signal "labels"."""
    if spec.task == "regression":
        return numeric_bins(np.array(signal.edges), labels)
    return labels.astype(np.int64)


class Binner:
    """Puts events on the bins of one version's profile.

    All signals' bins lie side by side in one vector, so that one `bincount` counts any group of
    events: `codes` once per batch, then `count` per group.

    Attributes:
        places: in a row, of the features that have a signal: of the optional ones some may not.
        names: of the signals, features in the order of the spec first, how they go together last.
        size: bins of all signals together.
        starts: where each signal's bins begin in the vector, and at last its size.
        edges, categories: of each signal; empty where it is of the other kind.
        distance: how the features go together; None where the profile does not say.

    Raises:
        KeyError: the profile is not of this spec.
    """

    def __init__(self, profile: ReferenceProfile, spec: ModelSpec) -> None:
        signals = {signal.name: signal for signal in profile.signals}
        self.places = tuple(
            place
            for place, feature in enumerate(spec.features)
            if feature.name in signals or not feature.optional
        )
        known = (spec.feature_names[place] for place in self.places)
        names = (*known, *prediction_signals(spec, np.empty((0, spec.outputs))))
        self.distance = None if profile.joint is None else joint.Distance(profile.joint)
        names += () if profile.joint is None else (joint.NAME,)
        self._spec = spec
        self._signals = [signals[name] for name in names]
        self._width = 1 + max(self.places, default=-1)
        self._has_categories = any(f.type == "categorical" for f in spec.features[: self._width])
        self.categories = [
            {} if signal.kind == "numeric" else _places(signal) for signal in self._signals
        ]
        self.edges = [np.array(signal.edges) for signal in self._signals]
        # How the inputs go together is no value of a row: it follows from the others' bins.
        said = range(len(self.places) + spec.outputs)
        numeric = [i for i in said if self._signals[i].kind == "numeric"]
        self._numeric = slice(len(said)) if len(numeric) == len(said) else numeric
        self._rulers, self._far = Edges([self.edges[i] for i in numeric]), Edges(self.edges[-1:])
        self.names = names
        ends = np.cumsum([len(signal.counts) for signal in self._signals])
        self.starts = [0, *(int(end) for end in ends)]
        self.size = self.starts[-1]
        self._starts = np.array(self.starts[:-1])[:, None]

    def codes(self, inputs: Inputs, outputs: Floats) -> Ints:
        """Shape (n, signals): the place of each event's value in the vector of all bins.

        Args:
            inputs: feature values in the order of the spec.
            outputs: shape (n, spec.outputs).
        """
        table = np.empty((len(self.names), len(outputs)), dtype=np.int64)
        if self._has_categories and not isinstance(inputs, np.ndarray):
            columns = [*zip(*inputs, strict=True)]
            known = []
            for i, place in enumerate(self.places):
                if self.categories[i]:
                    table[i] = category_bins(self.categories[i], columns[place])
                else:
                    known.append(columns[place])
            values = numbers(known, len(inputs))
        else:
            values = columns_of(inputs, self._width)
            values = values if len(values) == len(self.places) else values[list(self.places)]
        values = np.concatenate([values, outputs.T])
        step = max(SHORTEST, AT_ONCE // len(table))
        with np.errstate():  # it puts the size of before back
            np.setbufsize(BUFFER)
            for cut in range(0, len(outputs), step):
                self._fill(table[:, cut : cut + step], values[:, cut : cut + step])
        return table.T

    def _fill(self, table: Ints, values: Floats) -> None:
        """Put numbers on their bins; categories are there already."""
        table[self._numeric] = self._rulers.bins(values)
        if self.distance is not None:
            table[-1] = self.joint_bins(table[: len(self.places)].T)
        table += self._starts

    def bins(self, inputs: Inputs, outputs: Floats) -> dict[str, Ints]:
        """By signal, the bin of each event's value; arguments as of `codes`."""
        codes = self.codes(inputs, outputs) - np.array(self.starts[:-1])
        return dict(zip(self.names, codes.T, strict=True))

    def joint_bins(self, bins: Ints) -> NDArray[np.unsignedinteger]:
        """Of the signal `joint.NAME`, by the bins of the features, shape (n, features)."""
        if self.distance is None:
            raise ValueError("the profile does not say how inputs go together")
        found: NDArray[np.unsignedinteger] = self._far.bins(self.distance.of(bins)[None])[0]
        return found

    def count(self, codes: Ints) -> Ints:
        """Counts of all signals of a group of events, shape (size,)."""
        return np.bincount(codes.ravel(order="K"), minlength=self.size)

    def split(self, counts: Ints) -> dict[str, Ints]:
        """A vector of all counts, by signal."""
        bounds = zip(self.names, self.starts, self.starts[1:], strict=False)
        return {name: counts[start:end] for name, start, end in bounds}

    def counts(self, inputs: Inputs, outputs: Floats) -> dict[str, Ints]:
        """Counts by signal, each as long as the profile's."""
        return self.split(self.count(self.codes(inputs, outputs)))


class Edges:
    """Edges of the bins of numeric signals, so that values of all are put on bins at once.

    A value's bin is the number of edges that it has reached: to compare it with each costs less
    than to search among a dozen.

    Args:
        edges: of each signal; none of one that is not numeric, whose values then mean nothing.
        at_least: edges that there is room for in each signal.

    Attributes:
        inner: all edges but the last, shape (edges, signals).
        last, null: the last edge, and the bin of what is missing; shape (signals,).

    >>> edges = Edges([(1.0, 2.0, 3.0), (0.0, 0.0)])
    >>> edges.bins(np.array([[0.0, 1.0, 2.0, 3.0, 9.0, np.nan], [-1.0, 0.0, 1.0, 0.0, 0.0, 0.0]]))
    array([[0, 1, 2, 2, 3, 4],
           [0, 1, 2, 1, 1, 1]], dtype=uint8)
    """

    def __init__(self, edges: Sequence[Sequence[float] | Floats], at_least: int = 1) -> None:
        most = max([at_least, *map(len, edges)])
        self.inner = np.full((most - 1, len(edges)), np.nan)  # no value reaches NaN
        for column, some in zip(self.inner.T, edges, strict=True):
            column[: max(0, len(some) - 1)] = some[:-1]
        self.last = np.array([some[-1] if len(some) else np.nan for some in edges])
        self.null = np.array([len(some) + 1 for some in edges], np.min_scalar_type(most + 1))
        self._columns = self.inner[..., None], self.last[:, None], self.null[:, None]

    def bins(self, values: Floats) -> NDArray[np.unsignedinteger]:
        """under 0, bins 1..k, over k+1, null (NaN) k+2; shape (signals, n) of such values."""
        return on_bins(values, *self._columns)


def on_bins(values: Floats, inner: Floats, last: Floats, null: NDArray[Bins]) -> NDArray[Bins]:
    """The rule of `Edges.bins`, in the shape of the values and the type of `null`.

    Args:
        inner: all edges but the last, shape (edges, ...); NaN where a signal has no more.
        last: the last edge of each; null: the bin of what is missing. All fit the values' shape.
    """
    reached, over = values >= inner, values > last  # the last bin is closed
    bins: NDArray[Bins] = np.add.reduce(reached.view(np.uint8), axis=0, dtype=null.dtype)
    bins += over.view(np.uint8)
    missing = np.isnan(values)
    return np.where(missing, null, bins) if missing.any() else bins


def numeric_bins(edges: Floats, values: Floats) -> Ints:
    """As `Edges.bins`, of one signal.

    >>> numeric_bins(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0, 3.0, 9.0, np.nan]))
    array([0, 1, 2, 2, 3, 4])
    """
    (bins,) = Edges([edges]).bins(values.reshape(1, -1))
    return np.asarray(bins, dtype=np.int64)


def category_bins(places: Mapping[object, int], values: Sequence[object] | Floats) -> Ints:
    """The categories 0..c-1, unseen c, null c+1."""
    unseen = len(places) - 1
    return np.fromiter((places.get(v, unseen) for v in values), np.int64, count=len(values))


def _places(signal: SignalProfile) -> dict[object, int]:
    known: dict[object, int] = {category: i for i, category in enumerate(signal.categories)}
    return known | {None: len(known) + 1}


def _labels(spec: ModelSpec, labels: Floats, rhythm: Rhythm) -> SignalProfile:
    if spec.task == "regression":
        return _numeric(LABELS, labels, rhythm)
    bins = labels.astype(np.int64)
    width = len(spec.classes) + 2
    signal = SignalProfile(
        name=LABELS, kind="categorical", categories=spec.classes, counts=(0,) * width
    )
    return rhythm.found(signal, bins, np.eye(width)[bins])


def _joint(features: Sequence[SignalProfile], bins: Ints, outputs: Floats) -> joint.Joint | None:
    """Every other row defines it; categories lie where the version's mean output for them is."""
    newest = bins[len(bins) - len(outputs) :]
    places = []
    for i, signal in enumerate(features):
        width = len(signal.counts)
        line = np.append(np.arange(width - 1.0), np.nan)
        if signal.kind == "categorical":
            rows = np.bincount(newest[:, i], minlength=width)
            sums = np.bincount(newest[:, i], weights=outputs[:, 0], minlength=width)
            line = np.where(rows > 0, sums / np.maximum(rows, 1), outputs[:, 0].mean())
            line[-2:] = np.nan
        places.append(line)
    return joint.joint(bins[::2], places)


def _distances(together: joint.Joint, bins: Ints, rhythm: Rhythm) -> SignalProfile:
    """Only the rows that did not define the distance count: to the others it fits too well."""
    values = joint.Distance(together).of(bins)
    edges = _edges(values[1::2])
    found = numeric_bins(edges, values)
    counts = np.bincount(found, minlength=len(edges) + 2)
    signal = SignalProfile(
        name=joint.NAME,
        kind="numeric",
        edges=tuple(edges.tolist()),
        counts=tuple(counts.tolist()),
    )
    return rhythm.found(signal, found, _rank_scores(found, counts), counted=slice(1, None, 2))


def _bins(signal: SignalProfile, column: Sequence[object]) -> Ints:
    if signal.kind == "numeric":
        return numeric_bins(np.array(signal.edges), _numbers(column))
    return category_bins(_places(signal), column)


def _numbers(column: Sequence[object] | Floats) -> Floats:
    return np.array(column, dtype=np.float64)  # None becomes NaN


def _numeric(name: str, values: Floats, rhythm: Rhythm) -> SignalProfile:
    edges = _edges(values[~np.isnan(values)])
    bins = numeric_bins(edges, values)
    counts = np.bincount(bins, minlength=len(edges) + 2)
    return rhythm.found(
        SignalProfile(
            name=name,
            kind="numeric",
            edges=tuple(edges.tolist()),
            counts=tuple(counts.tolist()),
        ),
        bins,
        _rank_scores(bins, counts),
    )


def _edges(values: Floats) -> Floats:
    if not len(values):
        return np.zeros(2)  # never seen: anything but 0 will be under or over
    distinct = np.unique(values)
    if len(distinct) <= FEW_VALUES:
        return np.append(distinct, distinct[-1])
    return np.unique(np.quantile(values, np.linspace(0.0, 1.0, BINS + 1)))


def _categorical(name: str, column: Sequence[object], rhythm: Rhythm) -> SignalProfile:
    categories = frequent(v if isinstance(v, str) else None for v in column)
    places: dict[object, int] = {category: i for i, category in enumerate(categories)}
    bins = category_bins(places | {None: len(categories) + 1}, column)
    counts = np.bincount(bins, minlength=len(categories) + 2)
    signal = SignalProfile(
        name=name, kind="categorical", categories=categories, counts=tuple(counts.tolist())
    )
    return rhythm.found(signal, bins, scores_of(signal, bins))


def scores_of(signal: SignalProfile, bins: Ints) -> Floats:
    """What is likely to move of a signal, for its dependence; shape (m, columns) of bins (m,)."""
    if signal.kind == "numeric":
        return _rank_scores(bins, np.bincount(bins, minlength=len(signal.counts)))
    indicators: Floats = (bins[:, None] == np.arange(min(len(signal.categories), BINS))) * 1.0
    return indicators


def _rank_scores(bins: Ints, counts: Ints) -> Floats:
    """Location and scale scores, shape (m, 2): normal quantiles of mid-ranks, and their squares."""
    shares = counts / counts.sum()
    middle = np.clip(np.cumsum(shares) - shares / 2, 1e-9, 1 - 1e-9)
    z = ndtri(middle)
    mean = shares @ z
    z = (z - mean) / max(float(np.sqrt(shares @ (z - mean) ** 2)), 1e-12)
    return np.column_stack([z, z**2])[bins]
