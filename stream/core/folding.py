"""Predictions and labels to counts, many at a time.

Everything here is a sum of integers over events, each of which depends on its own event alone, so
that it does not matter how events are cut into batches or spread over partitions. Models are folded
together, so that many models with few events cost about as much as one with many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain, pairwise
from operator import attrgetter
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models import losses
from models.crowd import Crowd
from models.facets import cells_of
from models.features import Inputs, Row, numbers
from models.profiling import label_bins
from models.strata import MAX_STRATA
from stream.core.deltas import Delta, Deltas, add_named, add_pairs
from stream.core.grouping import (
    Floats,
    Groups,
    Ints,
    cells_in,
    chosen,
    crowds,
    distinct,
    group,
    micro,
    numbered,
    others,
    places_of,
    sums_by,
)
from stream.core.labelled import Labelled
from stream.core.outcomes import count_arrivals, count_judged, count_outcomes, strata_of
from stream.core.packing import Packer
from stream.core.sources import Source
from stream.core.ticks import add_cells
from stream.events import LOSS_BINS, Pairs

FEW: Final = 32  # predictions of one source that are faster counted with those of others
ALONE: Final = 2  # of these, in one place, are sooner counted one by one
NUMBERS: Final = 2**20  # held at once, about, while predictions are put on their bins
Flags = NDArray[np.bool_]
_loss_scale = attrgetter("kind.loss_scale")


class Block(NamedTuple):
    """Many predictions of one source, as columns.

    Attributes:
        times_ms: shape (n,).
        inputs: from `Source.inputs`.
        outputs: the version's own, shape (n, k).
    """

    times_ms: Ints
    codes: Sequence[bytes]
    inputs: Inputs
    outputs: Floats


class Made(Struct):
    """Predictions that count: those that came many at once of a source, and the others as columns.

    It is all the same to counts in which of them a prediction lies. `outputs`: the version's own.
    """

    sources: list[Source] = []
    times_ms: list[int] = []
    codes: list[bytes] = []
    rows: list[Row] = []
    outputs: list[tuple[float, ...]] = []
    blocks: list[tuple[Source, Block]] = []

    def __len__(self) -> int:
        """Those in columns."""
        return len(self.sources)

    def add(
        self,
        sources: Iterable[Source],
        times_ms: Iterable[int],
        codes: Iterable[bytes],
        rows: Iterable[Row],
        outputs: Iterable[tuple[float, ...]],
    ) -> None:
        self.sources += sources
        self.times_ms += times_ms
        self.codes += codes
        self.rows += rows
        self.outputs += outputs

    def add_many(
        self,
        source: Source,
        times_ms: Sequence[int],
        codes: Sequence[bytes],
        inputs: Inputs,
        outputs: Sequence[tuple[float, ...]],
    ) -> None:
        """Add those of one source, if any."""
        if times_ms:
            self.blocks.append((source, block(source, times_ms, codes, inputs, outputs)))

    def take(self, places: Ints) -> Made:
        """Those at these places in the columns."""
        return Made(
            [*chosen(self.sources, places)],
            [*chosen(self.times_ms, places)],
            [*chosen(self.codes, places)],
            [*chosen(self.rows, places)],
            [*chosen(self.outputs, places)],
        )

    def clear(self) -> None:
        for column in (self.sources, self.times_ms, self.codes, self.rows, self.outputs):
            column.clear()
        self.blocks.clear()


class Line(NamedTuple):
    """Where predictions of one version beside its shadows go: to be counted, and into the join."""

    source: Source
    packer: Packer


def fold_predictions(made: Made, deltas: Deltas) -> None:
    """Count predictions and their signals in the ticks of their event times.

    Segments get the prediction's signals, and those that are judged apart their inputs as well.
    Sources of few predictions are put on their bins together.
    """
    many = crowds(made.sources, FEW)
    blocks: dict[Source, list[Block]] = {}
    for source, one in made.blocks:
        blocks.setdefault(source, []).append(one)
    for source, places in many.items():
        some = made.take(places)
        inputs = source.inputs(some.rows)
        one = block(source, some.times_ms, some.codes, inputs, some.outputs)
        blocks.setdefault(source, []).append(one)
    for source, ones in blocks.items():
        _count_together(source, _joined(ones), deltas)
    few = made if not many else made.take(others(many, len(made)))
    for places in places_of([source.layout for source in few.sources]).values():
        sheet = few.sources[places[0]].sheet
        size = max(1, NUMBERS // sheet.weight) if sheet else len(places)
        for start in range(0, len(places), size):
            _count_few(few.take(places[start : start + size]), deltas)


def block(
    source: Source,
    times_ms: Sequence[int],
    codes: Sequence[bytes],
    inputs: Inputs,
    outputs: Sequence[tuple[float, ...]],
) -> Block:
    """Predictions of a source. `inputs`: from `Source.inputs`."""
    times = np.fromiter(times_ms, np.int64, len(times_ms))
    return Block(times, codes, inputs, numbers(outputs, source.kind.outputs))


def _joined(blocks: Sequence[Block]) -> Block:
    """All of them as one."""
    if len(blocks) == 1:
        return blocks[0]
    times_ms, codes, inputs, outputs = zip(*blocks, strict=True)
    return Block(
        np.concatenate(times_ms),
        list(chain.from_iterable(codes)),
        np.concatenate(inputs, axis=1)
        if isinstance(inputs[0], np.ndarray)
        else list(chain.from_iterable(inputs)),
        np.concatenate(outputs),
    )


def _count_together(source: Source, block: Block, deltas: Deltas) -> None:
    one = np.zeros(len(block.codes), dtype=np.int64)
    groups = group([source], one, block.times_ms, block.codes)
    here = deltas.all_at(groups.places)
    outputs = block.outputs
    strata = source.strata.of_outputs(outputs)
    _count_strata(strata, source.strata.size, groups, here)
    if source.binner is None:
        return
    bins = source.binner.codes(block.inputs, outputs)
    if source.scorecard is not None:
        scores = source.scorecard.bins(bins, strata)
        _estimate(scores, [source.scorecard.size] * len(here), groups, here)
    for place, counts in groups.whole_counts(bins, source.binner.size):
        here[place].add_signals(source.signals, counts.tolist())
    segments = groups.segments
    if not len(segments.of):
        return
    judged = segments.among(source.judged)
    for column in range(source.features + source.spec.outputs):
        for place, cell, count in (judged if column < source.features else segments).cells(
            bins[:, column], source.binner.size
        ):
            here[place].add_signal(*source.signal(cell), count)


def _count_strata(strata: Ints, size: int, groups: Groups, here: Sequence[Delta]) -> None:
    """Count predictions, in all and by stratum.

    Args:
        strata: of each, below `size`, shape (n,).
        here: the deltas of the groups' places.
    """
    for delta, count in zip(here, groups.sums(np.ones(len(strata))), strict=True):
        delta.predictions += count
    for place, stratum, count in groups.cells(strata, size):
        add_named(here[place].predicted, str(stratum), count)


def _estimate(
    scores: tuple[Ints, Flags], sizes: Sequence[int], groups: Groups, here: Sequence[Delta]
) -> None:
    """Count predictions by how well their versions are expected to do on them.

    Args:
        scores: bin of each one's score, and whether it lies outside of the reference.
        sizes: how many bins, by place.
        here: the deltas of the groups' places.
    """
    bins, outside = scores
    for place, score, count in groups.cells(bins, max(sizes)):
        here[place].add_estimate(score, sizes[place], count)
    strange = groups.sums(outside.astype(np.float64))
    for delta, size, count in zip(here, sizes, strange, strict=True):
        delta.add_estimate(size, size, count)


def _count_few(made: Made, deltas: Deltas) -> None:
    """Predictions of sources of one layout, on their bins at once."""
    sources, of = numbered(made.sources)
    groups = group(sources, of, np.array(made.times_ms, np.int64), made.codes)
    here = deltas.all_at(groups.places)
    pairs = zip(made.sources, made.outputs, strict=True)
    strata = np.array([source.strata.of_output(output) for source, output in pairs], np.int64)
    _count_strata(strata, MAX_STRATA, groups, here)
    sheets = [source.sheet for source in sources if source.sheet]
    if not sheets:
        return
    crowd = Crowd(sheets, of)
    codes = crowd.codes(made.rows, numbers(made.outputs, sources[0].kind.outputs))
    whose = np.empty(len(here), dtype=np.int64)
    whose[groups.of] = of[groups.who]
    owners = list(map(sources.__getitem__, whose.tolist()))
    if cards := [source.scorecard for source in owners if source.scorecard]:
        _estimate(crowd.estimates(codes, strata), [card.size for card in cards], groups, here)
    _count_signals(codes, codes - crowd.starts, owners, groups, here)


def _count_signals(
    codes: Ints, bins: Ints, owners: Sequence[Source], groups: Groups, here: Sequence[Delta]
) -> None:
    """Count values of each signal: where several of a source come together by columns.

    Args:
        codes: of the values among all bins of their version, shape (n, signals).
        bins: the same, in their signals.
        owners: the sources of the groups' places.
    """
    several = np.bincount(groups.whole)[groups.whole] > ALONE
    if several.any():
        width = max(source.binner.size for source in owners if source.binner)
        together = groups._replace(whole=groups.whole[several])
        for place, counts in together.whole_counts(codes[several], width):
            here[place].add_signals(owners[place].signals, counts.tolist())
    rows, alone = bins.tolist(), np.flatnonzero(~several)
    for place, event in zip(groups.whole[alone].tolist(), alone.tolist(), strict=True):
        here[place].add_each(owners[place].signals, rows[event])
    segments = groups.segments
    for place, event in zip(segments.of.tolist(), segments.who.tolist(), strict=True):
        source = owners[place]
        is_judged = groups.places[place].segment in source.judged
        some = slice(0 if is_judged else source.features, source.features + source.spec.outputs)
        here[place].add_each(source.signals[some], rows[event][some])


def fold_labels(labelled: Iterable[Labelled], deltas: Deltas) -> None:
    """Count labels: sums in the ticks of the predictions, bets in the ticks of the arrivals.

    Args:
        labelled: each of one task, with as many outputs.
    """
    for some in labelled:
        is_first = np.isnan(some.before)
        first, corrected = np.flatnonzero(is_first), np.flatnonzero(~is_first)
        rows = some.take(np.concatenate([first, corrected, corrected]))
        signs = np.ones(len(rows))
        signs[len(some) :] = -1.0
        judged = _judged(rows, np.where(signs > 0, rows.labels, rows.before))
        _restate(rows, judged, signs, len(first), deltas)
        if len(first):
            _bet(some.take(first), judged.only(len(first)), deltas)


def fold_pairs(labelled: Iterable[Labelled], deltas: Deltas) -> None:
    """Count versions against their shadows, where the labels themselves are counted already."""
    for some in labelled:
        _pair(some, _judged(some, some.labels), some.grouped(some.arrived_ms), deltas)


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


def _restate(rows: Labelled, judged: _Judged, signs: Floats, first: int, deltas: Deltas) -> None:
    """Add what the labels say; where they are corrections, take away what the old ones said.

    Args:
        rows: first labels, corrections, and these once more with what they corrected.
        signs: -1 for the last of these, else 1.
        first: how many first labels there are.
    """
    measures = losses.measures(rows.sources[0].spec, judged.outputs, judged.labels, 1.0)
    measures["loss"] = judged.bounded
    groups = rows.grouped(rows.predicted_ms)
    here, is_first = deltas.all_at(groups.places), np.arange(len(rows)) < first
    for delta, count in zip(here, groups.sums(is_first.astype(np.float64)), strict=True):
        delta.labelled += count
    strata = strata_of(rows, judged.outputs, judged.labels)
    count_outcomes(strata, signs, measures, groups, here)
    count_arrivals(strata, rows.take(np.arange(first)), groups.only(first), here)


def _bet(first: Labelled, judged: _Judged, deltas: Deltas) -> None:
    """Labels that came for the first time: each is judged once, in the tick of its arrival."""
    groups = first.grouped(first.arrived_ms)
    bins = losses.loss_bin(judged.bounded, first.ids)
    if any(source.judging_bin is not None for source in first.sources):
        count_judged(strata_of(first, judged.outputs, judged.labels), bins, first, deltas)
    here = deltas.all_at(groups.places)
    for place, column, count in groups.cells(bins, LOSS_BINS):
        here[place].bets = here[place].bets or [0] * LOSS_BINS
        here[place].bets[column] += count
    _count_labels(first, judged.labels, groups, here)
    delays = delay_bin(first.labelled_ms - first.predicted_ms)
    for place, column, count in groups.cells(delays, 64):
        add_named(here[place].delays, str(column), count)
    _slice(first, judged.bounded, groups, here)
    _pair(first, judged, groups, deltas)


def _slice(first: Labelled, bounded: Floats, groups: Groups, here: Sequence[Delta]) -> None:
    """Losses by the cells of each version's facets, in places that are all."""
    for facets in {len(source.grid.facets) for source in first.sources if source.grid}:
        grids = [s.grid if s.grid and len(s.grid.facets) == facets else None for s in first.sources]
        who = np.flatnonzero(np.array([grid is not None for grid in grids])[first.of])
        if not len(who):  # of these versions all labels are corrections
            continue
        codes = chosen(first.codes, who)
        if max(source.kind.codes for source in first.sources) > facets:
            codes = [code[-facets:] for code in codes]
        coded = np.frombuffer(b"".join(codes), dtype=np.uint8).reshape(-1, facets)
        cells = cells_of(grids, first.of[who], coded)
        size = max(grid.size for grid in grids if grid)
        for place, counts in _by_cell(groups.whole[who], cells, size, bounded[who]):
            add_cells(here[place].slices, counts)


def _by_cell(
    places: Ints, cells: Ints, size: int, bounded: Floats
) -> Iterable[tuple[int, dict[str, tuple[int, int, int]]]]:
    """By index of a place, counts, losses and their squares by cell.

    Args:
        places: of each event, shape (n,).
        cells: of each event, each below `size`, shape (n, lines).
        bounded: losses, shape (n,). In millionths they stay far from where floats are not exact.
    """
    lines = cells.shape[1]
    keys = (cells.T + places * size).ravel()
    count = (int(places.max()) + 1) * size
    found, of = np.arange(count), keys
    if count > len(keys):  # many models with few labels each
        found, of = np.unique(keys, return_inverse=True)
    n = np.bincount(of, minlength=len(found))
    there = np.flatnonzero(n)
    sums = [
        np.bincount(of, np.tile(micro(column), lines), len(found))[there].astype(np.int64).tolist()
        for column in (bounded, bounded**2)
    ]
    at, cell = np.divmod(found[there], size)
    names = list(map(_cell_names(size).__getitem__, cell.tolist()))
    counts = list(zip(n[there].tolist(), *sums, strict=True))
    cuts = [*np.flatnonzero(np.diff(at, prepend=-1)).tolist(), len(names)]
    for start, end in pairwise(cuts):
        yield int(at[start]), dict(zip(names[start:end], counts[start:end], strict=True))


@cache
def _cell_names(size: int) -> Sequence[str]:
    return list(map(str, range(size)))


def _count_labels(first: Labelled, labels: Floats, groups: Groups, here: Sequence[Delta]) -> None:
    """What turned out, on the bins of the versions' references, in places that are all."""
    known = [source.labels for source in first.sources]
    who = np.flatnonzero(np.array([signal is not None for signal in known])[first.of])
    if not len(who):
        return
    some, whole = first.take(who), groups.whole[who]
    signals = dict(zip(whole.tolist(), map(known.__getitem__, some.of.tolist()), strict=True))
    width = max(len(signal.counts) for signal in signals.values() if signal)
    for place, column, count in cells_in(whole * width + _label_bins(some, labels[who]), width):
        if signal := signals[place]:
            here[place].add_signal(signal.name, column, len(signal.counts), count)


def _label_bins(labelled: Labelled, labels: Floats) -> Ints:
    """As `models.profiling.label_bins`, of labels whose sources have the signal."""
    bins = np.empty(len(labels), dtype=np.int64)
    like = places_of([source.labels and source.labels.edges for source in labelled.sources])
    for some in like.values():
        mine = np.isin(labelled.of, some) if len(like) > 1 else np.full(len(bins), True)
        source = labelled.sources[some[0]]
        if source.labels:
            bins[mine] = label_bins(source.spec, source.labels, labels[mine])
    return bins


def _pair(first: Labelled, judged: _Judged, groups: Groups, deltas: Deltas) -> None:
    """The version against each of its shadows, in all and in each segment."""
    shadows = [source.kind.shadows for source in first.sources]
    if not any(shadows):
        return
    beside = [
        (i, version, at)
        for i, of in enumerate(first.of.tolist())
        for at, version in enumerate(shadows[of], start=1)
    ]
    if not beside:
        return
    spec, k = first.sources[0].spec, judged.outputs.shape[1]
    who = np.array([i for i, _, _ in beside])
    outputs = np.array([first.values[i, at * k : (at + 1) * k] for i, _, at in beside])
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
    versions, which = distinct(np.array([version for _, version, _ in beside], np.int64))
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


def _judged(rows: Labelled, labels: Floats) -> _Judged:
    spec, k = rows.sources[0].spec, rows.sources[0].kind.outputs
    outputs = rows.values[:, :k]
    scales = rows.each(_loss_scale).astype(np.float64)
    return _Judged(outputs, labels, losses.losses(spec, outputs, labels), scales)


def _bounded(values: Floats, scales: Floats) -> Floats:
    """As `losses.bounded`, each by its own scale."""
    return np.minimum(values, scales) / scales
