"""Predictions and labels to counts, many at a time.

Everything here is a sum of integers over events, each of which depends on its own event alone, so
that it does not matter how events are cut into batches or spread over partitions. Models are folded
together, so that many models with few events cost about as much as one with many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct

from models import losses
from models.crowd import Crowd
from models.facets import cells_of
from models.features import Row, numbers
from models.profiling import label_bins
from stream.core.deltas import Delta, Deltas, Place, add_named, add_pairs
from stream.core.grouping import Floats, Groups, Ints, distinct, group, micro, sums_by
from stream.core.joining import Joined
from stream.core.outcomes import count_arrivals, count_judged, count_outcomes, strata_of
from stream.core.packing import Packer
from stream.core.sources import Source
from stream.core.ticks import add_cells
from stream.events import LOSS_BINS, Pairs

FEW: Final = 32  # predictions of one source that are faster counted with those of others
NUMBERS: Final = 2**20  # held at once, about, while predictions are put on their bins


class Made(Struct, frozen=True, gc=False):
    """A prediction that counts. `output`: the version's own."""

    time_ms: int
    codes: bytes
    row: Row
    output: tuple[float, ...]


class Line(NamedTuple):
    """Predictions of one source that are still to be folded, and how their rows are packed."""

    source: Source
    packer: Packer
    made: list[Made]


class Labelled(Struct, frozen=True, gc=False):
    """A label with the source of its prediction."""

    source: Source
    joined: Joined


def fold_predictions(source: Source, made: Sequence[Made], deltas: Deltas) -> None:
    """As `fold_lines`, of one source."""
    fold_lines([(source, made)], deltas)


def fold_lines(lines: Iterable[tuple[Source, Sequence[Made]]], deltas: Deltas) -> None:
    """Count predictions and their signals in the ticks of their event times.

    Segments get the prediction's signals, and those that are judged apart their inputs as well.
    Sources of few predictions are put on their bins together.
    """
    few: dict[object, list[tuple[Source, Sequence[Made]]]] = {}
    for source, made in lines:
        if len(made) > FEW:
            _count_together(source, made, deltas)
        elif made:
            few.setdefault(source.layout, []).append((source, made))
    for alike in few.values():
        sheet = alike[0][0].sheet
        size = max(1, NUMBERS // FEW // sheet.weight) if sheet else len(alike)
        for start in range(0, len(alike), size):
            _count_few(alike[start : start + size], deltas)


def _count_together(source: Source, made: Sequence[Made], deltas: Deltas) -> None:
    times_ms = _ints([m.time_ms for m in made])
    groups = group([source] * len(made), times_ms, [m.codes for m in made])
    for place, count in groups.sums(np.ones(len(made))):
        deltas.at(place).predictions += count
    outputs = numbers([m.output for m in made], source.kind.outputs)
    strata = source.strata.of_outputs(outputs)
    for place, stratum, count in groups.cells(strata, source.strata.size):
        add_named(deltas.at(place).predicted, str(stratum), count)
    if source.binner is None:
        return
    bins = source.binner.codes([m.row for m in made], outputs)
    _estimate(source, bins, strata, groups, deltas)
    for place, counts in groups.whole_counts(bins, source.binner.size):
        deltas.at(place).add_signals(source.binner.split(counts))
    segments = groups.segments
    if not len(segments.of):
        return
    judged = segments.among(source.judged)
    for column in range(source.features + source.spec.outputs):
        for place, cell, count in (judged if column < source.features else segments).cells(
            bins[:, column], source.binner.size
        ):
            deltas.at(place).add_signal(*source.signal(cell), count)


def _estimate(source: Source, bins: Ints, strata: Ints, groups: Groups, deltas: Deltas) -> None:
    """Count predictions by how well the version is expected to do on them."""
    if source.scorecard is None:
        return
    size = source.scorecard.size
    scores, outside = source.scorecard.bins(bins, strata)
    for place, score, count in groups.cells(scores, size):
        deltas.at(place).add_estimate(score, size, count)
    for place, count in groups.sums(outside.astype(np.float64)):
        deltas.at(place).add_estimate(size, size, count)


def _count_few(lines: Sequence[tuple[Source, Sequence[Made]]], deltas: Deltas) -> None:
    """Predictions of sources of one layout, on their bins at once, and counted one by one."""
    sources = [source for source, made in lines for _ in made]
    every = [one for _, made in lines for one in made]
    strata = [s.strata.of_output(m.output) for s, m in zip(sources, every, strict=True)]
    bins: Sequence[Sequence[int]] = [()] * len(every)
    estimates: Sequence[tuple[int, bool] | None] = [None] * len(every)
    sheets = [source.sheet for source, _ in lines if source.sheet]
    if sheets:
        of = np.repeat(np.arange(len(lines)), [len(made) for _, made in lines])
        crowd = Crowd(sheets, of)
        outputs = numbers([m.output for m in every], sources[0].kind.outputs)
        codes = crowd.codes([m.row for m in every], outputs)
        bins = (codes - crowd.starts).tolist()
        if sources[0].scorecard:
            estimates = crowd.estimates(codes, strata)
    for counted in zip(sources, every, strata, bins, estimates, strict=True):
        _count_one(*counted, deltas)


def _count_one(
    source: Source,
    made: Made,
    stratum: int,
    bins: Sequence[int],
    estimate: tuple[int, bool] | None,
    deltas: Deltas,
) -> None:
    """A prediction, in all and in each of its segments."""
    kind, tick, features = source.kind, made.time_ms // source.tick_ms, source.features
    outputs = slice(features, features + source.spec.outputs)
    delta = deltas.at(Place(kind.model, kind.version, "", tick))
    _count(delta, source, stratum, estimate)
    delta.add_each(source.signals, bins)
    for segment, code in enumerate(source.in_segments(made.codes)):
        name = source.segment_name(segment << 8 | code)
        some = slice(outputs.stop) if name in source.judged else outputs
        delta = deltas.at(Place(kind.model, kind.version, name, tick))
        _count(delta, source, stratum, estimate)
        delta.add_each(source.signals[some], bins[some])


def _count(delta: Delta, source: Source, stratum: int, estimate: tuple[int, bool] | None) -> None:
    delta.predictions += 1
    add_named(delta.predicted, str(stratum), 1)
    if estimate is not None and source.scorecard is not None:
        (score, outside), size = estimate, source.scorecard.size
        delta.add_estimate(score, size, 1)
        delta.add_estimate(size, size, int(outside))


def fold_labels(labelled: Sequence[Labelled], deltas: Deltas) -> None:
    """Count labels: sums in the ticks of the predictions, bets in the ticks of the arrivals."""
    for some in _alike(labelled):
        first = [one for one in some if one.joined.before is None]
        corrected = [one for one in some if one.joined.before is not None]
        rows = [*first, *corrected, *corrected]
        labels = [one.joined.label for one in rows[: len(some)]]
        judged = _judged(rows, [*labels, *(one.joined.before or 0.0 for one in corrected)])
        signs = np.ones(len(rows))
        signs[len(some) :] = -1.0
        _restate(rows, judged, signs, first, deltas)
        if first:
            _bet(first, judged.only(len(first)), deltas)


def fold_pairs(labelled: Sequence[Labelled], deltas: Deltas) -> None:
    """Count versions against their shadows, where the labels themselves are counted already."""
    for some in _alike(labelled) if labelled else ():
        judged = _judged(some, [one.joined.label for one in some])
        _pair(some, judged, _grouped(some, [one.joined.arrived_ms for one in some]), deltas)


def _alike(labelled: Sequence[Labelled]) -> Iterable[Sequence[Labelled]]:
    """Labels by task and outputs, which are what must not differ among those judged together."""
    kinds = {one: (one.spec.task, one.kind.outputs) for one in {one.source for one in labelled}}
    if len(set(kinds.values())) == 1:
        return [labelled]
    alike: dict[tuple[str, int], list[Labelled]] = {}
    for one in labelled:
        alike.setdefault(kinds[one.source], []).append(one)
    return alike.values()


class _Judged(NamedTuple):
    """Outputs of versions (n, k), with the labels (n,), the losses (n,) and their scales (n,)."""

    outputs: Floats
    labels: Floats
    losses: Floats
    scales: Floats

    @property
    def bounded(self) -> Floats:
        return _bounded(self.losses, self.scales)

    def only(self, count: int) -> _Judged:
        """The first `count`."""
        return _Judged(*(column[:count] for column in self))


def _restate(
    rows: Sequence[Labelled],
    judged: _Judged,
    signs: Floats,
    first: Sequence[Labelled],
    deltas: Deltas,
) -> None:
    """Add what the labels say; where they are corrections, take away what the old ones said.

    Args:
        rows: first labels, corrections, and these once more with what they corrected.
        signs: -1 for the last of these, else 1.
    """
    measures = losses.measures(rows[0].source.spec, judged.outputs, judged.labels, 1.0)
    measures["loss"] = judged.bounded
    groups = _grouped(rows, [one.joined.predicted_ms for one in rows])
    for place, count in groups.sums((np.arange(len(rows)) < len(first)).astype(np.float64)):
        deltas.at(place).labelled += count
    strata = strata_of([one.source for one in rows], judged.outputs, judged.labels)
    count_outcomes(strata, signs, measures, groups, deltas)
    count_arrivals(
        strata, [(one.source, one.joined) for one in first], groups.only(len(first)), deltas
    )


def _bet(first: Sequence[Labelled], judged: _Judged, deltas: Deltas) -> None:
    """Labels that came for the first time: each is judged once, in the tick of its arrival."""
    joined = [one.joined for one in first]
    groups = _grouped(first, [j.arrived_ms for j in joined])
    bins = losses.loss_bin(judged.bounded, [j.id for j in joined])
    if any(source.judging_bin is not None for source in {one.source for one in first}):
        strata = strata_of([one.source for one in first], judged.outputs, judged.labels)
        count_judged(strata, bins, [(one.source, one.joined) for one in first], deltas)
    for place, column, count in groups.cells(bins, LOSS_BINS):
        delta = deltas.at(place)
        delta.bets = delta.bets or [0] * LOSS_BINS
        delta.bets[column] += count
    _count_labels(first, judged.labels, groups, deltas)
    delays = delay_bin(_ints([j.labelled_ms - j.predicted_ms for j in joined]))
    for place, column, count in groups.cells(delays, 64):
        add_named(deltas.at(place).delays, str(column), count)
    _slice(first, judged.bounded, groups, deltas)
    _pair(first, judged, groups, deltas)


def _slice(first: Sequence[Labelled], bounded: Floats, groups: Groups, deltas: Deltas) -> None:
    """Losses by the cells of each version's facets, in places that are all."""
    by_facets: dict[int, list[int]] = {}
    for i, one in enumerate(first):
        if one.source.grid is not None:
            by_facets.setdefault(one.source.kind.facets, []).append(i)
    for facets, who in by_facets.items():
        grids = [grid for i in who if (grid := first[i].source.grid) is not None]
        codes = b"".join(first[i].joined.codes[-facets:] for i in who)
        cells = cells_of(grids, np.frombuffer(codes, dtype=np.uint8).reshape(-1, facets))
        size = max(grid.size for grid in set(grids))
        keys = (groups.whole[who][:, None] * size + cells).ravel()
        found, of = np.arange(len(groups.places) * size), keys
        if len(found) > len(keys):  # many models with few labels each
            found, of = np.unique(keys, return_inverse=True)
        columns = [
            sums_by(of, np.repeat(column, cells.shape[1]), len(found))
            for column in (np.ones(len(who)), micro(bounded[who]), micro(bounded[who] ** 2))
        ]
        by_place: dict[int, dict[str, tuple[int, int, int]]] = {}
        for key, n, lost, squares in zip(found.tolist(), *columns, strict=True):
            if n:
                by_place.setdefault(key // size, {})[str(key % size)] = (n, lost, squares)
        for place, counts in by_place.items():
            add_cells(deltas.at(groups.places[place]).slices, counts)


def _count_labels(
    first: Sequence[Labelled], labels: Floats, groups: Groups, deltas: Deltas
) -> None:
    """What turned out, on the bins of the versions' references, in places that are all."""
    sources = [one.source for one in first]
    known = {source: source.labels for source in dict.fromkeys(sources)}
    if not any(known.values()):
        return
    who = np.flatnonzero([known[source] is not None for source in sources])
    counted = [sources[i] for i in who.tolist()]
    signals = dict(zip(groups.whole[who].tolist(), map(known.__getitem__, counted), strict=True))
    width = max(len(signal.counts) for signal in signals.values() if signal)
    bins = _label_bins(counted, labels[who])
    counts = np.bincount(groups.whole[who] * width + bins)
    for cell in np.flatnonzero(counts).tolist():
        place, column = divmod(cell, width)
        if signal := signals[place]:
            delta = deltas.at(groups.places[place])
            delta.add_signal(signal.name, column, len(signal.counts), int(counts[cell]))


def _label_bins(sources: Sequence[Source], labels: Floats) -> Ints:
    """As `models.profiling.label_bins`, of labels of several sources that have the signal."""
    edges = {one: one.labels and one.labels.edges for one in dict.fromkeys(sources)}
    alike: dict[object, list[int]] = {}
    for i, source in enumerate(sources if len(set(edges.values())) > 1 else sources[:1]):
        alike.setdefault(edges[source], []).append(i)
    bins = np.empty(len(labels), dtype=np.int64)
    for some in alike.values():
        source, places = sources[some[0]], some if len(alike) > 1 else slice(None)
        if source.labels:
            bins[places] = label_bins(source.spec, source.labels, labels[places])
    return bins


def _pair(first: Sequence[Labelled], judged: _Judged, groups: Groups, deltas: Deltas) -> None:
    """The version against each of its shadows, in all and in each segment."""
    beside = [
        (i, version, at)
        for i, one in enumerate(first)
        for at, version in enumerate(one.source.kind.shadows, start=1)
    ]
    if not beside:
        return
    spec, k = first[0].source.spec, judged.outputs.shape[1]
    who = np.array([i for i, _, _ in beside])
    outputs = np.array([first[i].joined.values[at * k : (at + 1) * k] for i, _, at in beside])
    own, labels, scales = judged.losses[who], judged.labels[who], judged.scales[who]
    shadow = losses.losses(spec, outputs, labels)
    difference = _bounded(own, scales) - _bounded(shadow, scales)
    mine = losses.off(spec, judged.outputs[who], labels, scales)
    theirs = losses.off(spec, outputs, labels, scales)
    columns = {
        "d_sum": difference,
        "d_squares": difference**2,
        "losses": own,
        "shadow_losses": shadow,
        "off": mine,
        "off_squares": mine**2,
        "shadow_off": theirs,
        "shadow_off_squares": theirs**2,
    }
    versions, which = distinct(_ints([version for _, version, _ in beside]))
    places, rows = _repeated(groups, who)
    found, of = distinct(places * len(versions) + which[rows])
    sums = [sums_by(of, micro(column)[rows], len(found)) for column in columns.values()]
    totals = zip(np.bincount(of).tolist(), *sums, strict=True)
    for cell, total in zip(found.tolist(), totals, strict=True):
        place, version = divmod(cell, len(versions))
        pairs = Pairs(**dict(zip(("n", *columns), total, strict=True)))
        add_pairs(deltas.at(groups.places[place]).pairs, str(versions[version]), pairs)


def _repeated(groups: Groups, events: Ints) -> tuple[Ints, Ints]:
    """Rows, each of one of the groups' events, in all places of their events.

    Args:
        events: of the rows, ascending.

    Returns:
        indices of places, and of the row that belongs there.
    """
    starts = np.searchsorted(events, groups.who, side="left")
    counts = np.searchsorted(events, groups.who, side="right") - starts
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    rows = np.arange(counts.sum()) - firsts + np.repeat(starts, counts)
    return np.repeat(groups.of, counts), rows


def delay_bin(delays_ms: Ints) -> Ints:
    """floor(log2(seconds + 1)) of each delay, 0 for a negative one.

    >>> delay_bin(np.array([-5, 999, 1000, 3_000, 86_400_000]))
    array([ 0,  0,  1,  2, 16])
    """
    seconds = np.maximum(delays_ms, 0) // 1000 + 1
    return np.frexp(seconds.astype(np.float64))[1].astype(np.int64) - 1


def _judged(rows: Sequence[Labelled], labels: Sequence[float]) -> _Judged:
    spec, k = rows[0].source.spec, rows[0].source.kind.outputs
    outputs = numbers([one.joined.values[:k] for one in rows], k)
    encoded = np.array(labels, dtype=np.float64)
    return _Judged(
        outputs,
        encoded,
        losses.losses(spec, outputs, encoded),
        np.array([one.source.kind.loss_scale for one in rows], dtype=np.float64),
    )


def _grouped(rows: Sequence[Labelled], times_ms: Sequence[int]) -> Groups:
    return group([one.source for one in rows], _ints(times_ms), [one.joined.codes for one in rows])


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _bounded(values: Floats, scales: Floats) -> Floats:
    """As `losses.bounded`, each by its own scale."""
    return np.minimum(values, scales) / scales
