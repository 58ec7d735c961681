"""Predictions and labels to counts, many at a time.

Everything here is a sum of integers over events, each of which depends on its own event alone, so
that it does not matter how events are cut into batches or spread over partitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models import losses
from models.features import Row
from stream.core.deltas import Deltas, Place, add_counts, add_named
from stream.core.joining import Joined
from stream.core.sources import OTHER, Source
from stream.events import LOSS_BINS, MICRO, Pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_EXACT = 2.0**53  # sums of integers below it are exact in float64


class Made(NamedTuple):
    """A prediction that counts. `output`: the version's own."""

    time_ms: int
    codes: bytes
    row: Row
    output: tuple[float, ...]


class _Groups(NamedTuple):
    """Events by place: `of[i]` is the index in `places` of event i's place."""

    places: list[Place]
    of: Ints

    def number(self, chosen: NDArray[np.bool_] | None = None) -> list[int]:
        return self.sums(np.ones(len(self.of)) if chosen is None else chosen.astype(np.float64))

    def sums(self, values: Floats) -> list[int]:
        """Sums of whole numbers by place, exact."""
        if np.abs(values).sum() < _EXACT:
            totals = np.bincount(self.of, weights=values, minlength=len(self.places))
            return [int(total) for total in totals]
        exact = [0] * len(self.places)
        for index, value in zip(self.of.tolist(), values.tolist(), strict=True):
            exact[index] += int(value)
        return exact

    def table(self, columns: Ints, width: int) -> list[list[int]]:
        """Counts by place and column. Args: columns: shape (n,) or (n, k), each below `width`."""
        cells = self.of.reshape(-1, *[1] * (columns.ndim - 1)) * width + columns
        counts = np.bincount(cells.ravel(), minlength=len(self.places) * width)
        rows: list[list[int]] = counts.reshape(len(self.places), width).tolist()
        return rows


def fold_predictions(source: Source, made: Sequence[Made], deltas: Deltas) -> None:
    """Count predictions and their signals in the ticks of their event times.

    Segments get the prediction's signals only: inputs are judged for the model as a whole.
    """
    ticks = np.array([m.time_ms for m in made], dtype=np.int64) // source.tick_ms
    codes = _codes(source, [m.codes for m in made])
    binner = source.binner
    bins = np.empty((len(made), 0), dtype=np.int64)
    if binner:
        bins = binner.codes([m.row for m in made], np.array([m.output for m in made]))
    features = len(source.spec.features)
    for segment, groups in enumerate(_groups(source, ticks, codes)):
        for place, count in zip(groups.places, groups.number(), strict=True):
            deltas.at(place).predictions += count
        if binner:
            chosen = bins[:, features:] if segment else bins
            names = binner.names[features:] if segment else binner.names
            rows = groups.table(chosen, binner.size)
            for place, row in zip(groups.places, rows, strict=True):
                signals = deltas.at(place).signals
                split = binner.split(np.array(row))
                for name in names:
                    signals[name] = add_counts(signals.get(name, []), split[name].tolist())


def fold_labels(source: Source, joined: Sequence[Joined], deltas: Deltas) -> None:
    """Count labels: sums in the ticks of the predictions, bets in the ticks of the arrivals."""
    first = [j for j in joined if j.before is None]
    corrected = [j for j in joined if j.before is not None]
    _restate(source, first + corrected, len(first), deltas)
    if first:
        _bet(source, first, deltas)


def _restate(source: Source, joined: Sequence[Joined], first: int, deltas: Deltas) -> None:
    """Add what the labels say and, for corrections (from index `first` on), take away the old."""
    corrected = joined[first:]
    rows = [*joined, *corrected]
    k = source.kind.outputs
    outputs = np.array([j.values[:k] for j in rows], dtype=np.float64)
    labels = np.array([j.label for j in joined] + [j.before for j in corrected], dtype=np.float64)
    signs = np.ones(len(rows))
    signs[len(joined) :] = -1.0
    ticks = np.array([j.predicted_ms for j in rows], dtype=np.int64) // source.tick_ms
    codes = _codes(source, [j.codes for j in rows])
    measures = losses.measures(source.spec, outputs, labels, source.kind.loss_scale)
    for groups in _groups(source, ticks, codes):
        labelled = groups.number(np.arange(len(rows)) < first)
        for place, count in zip(groups.places, labelled, strict=True):
            deltas.at(place).labelled += count
        for name, values in measures.items():
            sums = groups.sums(signs * micro(values))
            squares = groups.sums(signs * micro(values**2))
            for place, total, square in zip(groups.places, sums, squares, strict=True):
                delta = deltas.at(place)
                delta.sums[name] = delta.sums.get(name, 0) + total
                delta.squares[name] = delta.squares.get(name, 0) + square


def _bet(source: Source, first: Sequence[Joined], deltas: Deltas) -> None:
    """Labels that came for the first time: each is judged once, in the tick of its arrival."""
    spec, kind = source.spec, source.kind
    outputs = np.array([j.values for j in first], dtype=np.float64)
    labels = np.array([j.label for j in first], dtype=np.float64)
    ticks = np.array([j.arrived_ms for j in first], dtype=np.int64) // source.tick_ms
    codes = _codes(source, [j.codes for j in first])
    raw = losses.losses(spec, outputs[:, : kind.outputs], labels)
    bounded = losses.bounded(raw, kind.loss_scale)
    bins = losses.loss_bin(bounded, [j.id for j in first])
    delays = delay_bin(np.array([j.labelled_ms - j.predicted_ms for j in first]))
    for segment, groups in enumerate(_groups(source, ticks, codes)):
        for place, row in zip(groups.places, groups.table(bins, LOSS_BINS), strict=True):
            delta = deltas.at(place)
            delta.bets = add_counts(delta.bets, row)
        for place, row in zip(groups.places, groups.table(delays, 64), strict=True):
            for delay, count in enumerate(row):
                add_named(deltas.at(place).delays, str(delay), count)
        if not segment:
            for i, version in enumerate(kind.shadows, start=1):
                theirs = outputs[:, i * kind.outputs : (i + 1) * kind.outputs]
                shadow = losses.losses(spec, theirs, labels)
                difference = bounded - losses.bounded(shadow, kind.loss_scale)
                _pair(groups, str(version), difference, raw, shadow, deltas)


def _pair(
    groups: _Groups, version: str, difference: Floats, raw: Floats, shadow: Floats, deltas: Deltas
) -> None:
    columns = [
        np.ones(len(raw)),
        micro(difference),
        micro(difference**2),
        micro(raw),
        micro(shadow),
    ]
    totals = zip(*[groups.sums(column) for column in columns], strict=True)
    for place, (n, d_sum, d_squares, own, theirs) in zip(groups.places, totals, strict=True):
        pairs = deltas.at(place).pairs
        known = pairs.get(version, Pairs())
        pairs[version] = Pairs(
            n=known.n + n,
            d_sum=known.d_sum + d_sum,
            d_squares=known.d_squares + d_squares,
            losses=known.losses + own,
            shadow_losses=known.shadow_losses + theirs,
        )


def micro(values: Floats) -> Floats:
    """Values in millionths, whole numbers, each rounded by itself."""
    return np.rint(values * MICRO)


def delay_bin(delays_ms: Ints) -> Ints:
    """floor(log2(seconds + 1)) of each delay, 0 for a negative one.

    >>> delay_bin(np.array([-5, 999, 1000, 3_000, 86_400_000]))
    array([ 0,  0,  1,  2, 16])
    """
    seconds = np.maximum(delays_ms, 0) // 1000 + 1
    return np.frexp(seconds.astype(np.float64))[1].astype(np.int64) - 1


def _codes(source: Source, codes: Sequence[bytes]) -> Ints:
    """Shape (n, segments)."""
    flat = np.frombuffer(b"".join(codes), dtype=np.uint8)
    return flat.reshape(len(codes), len(source.segments)).astype(np.int64)


def _groups(source: Source, ticks: Ints, codes: Ints) -> Iterator[_Groups]:
    """Events by tick: first all of them, then by the value of each segment's feature."""
    kind = source.kind
    numbers, of = np.unique(ticks, return_inverse=True)
    yield _Groups([Place(kind.model, kind.version, "", tick) for tick in numbers.tolist()], of)
    for i, segment in enumerate(source.segments):
        cells, of = np.unique(ticks * 256 + codes[:, i], return_inverse=True)
        ticks_and_codes = [divmod(cell, 256) for cell in cells.tolist()]
        other = segment.names[OTHER]
        places = [
            Place(kind.model, kind.version, segment.names.get(code, other), tick)
            for tick, code in ticks_and_codes
        ]
        yield _Groups(places, of)
