"""The join of many events at once: what `joining.Join` does with each, where nothing is special.

Most predictions are new and most labels meet a prediction that waits, so these are packed and
unpacked as tables, of all kinds that are laid out alike at once. All others go one by one. Events
of different ids do not touch each other, so the outcome is that of each in turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from operator import add, attrgetter
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.grouping import among, chosen, distinct, numbered, places_of
from stream.core.joining import Join, Meetings
from stream.core.packing import NO_ROW, NUMBER, Ints, Label, Packer, Prediction, sort_of
from stream.core.rowparts import HEAD, pieces

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]

FEW: Final = 32  # events that are faster joined one by one

_number = attrgetter("number")
_forgotten_ms = attrgetter("forgotten_ms")
_horizon_ms = attrgetter("kind.horizon_ms")
_early_ms = attrgetter("kind.early_ms")
_correction_ms = attrgetter("kind.correction_ms")


class Predictions(NamedTuple):
    """Columns of predictions to join: how their rows are packed, and the fields of `Prediction`."""

    packers: Sequence[Packer]
    ids: Sequence[str]
    times_ms: Ints
    floors_ms: Ints
    offsets: Sequence[int]
    codes: Sequence[bytes]
    values: Sequence[tuple[float, ...]]

    def at(self, place: int) -> Prediction:
        return Prediction(
            self.ids[place],
            int(self.times_ms[place]),
            int(self.floors_ms[place]),
            self.offsets[place],
            self.codes[place],
            self.values[place],
        )


class Labels(NamedTuple):
    """Columns of labels to join: their models, and the fields of `Label`."""

    models: Sequence[str]
    ids: Sequence[str]
    times_ms: Ints
    floors_ms: Ints
    dues_ms: Ints
    labels: Sequence[float]
    weights: Sequence[float]

    def at(self, place: int) -> Label:
        return Label(
            self.ids[place],
            int(self.times_ms[place]),
            int(self.floors_ms[place]),
            int(self.dues_ms[place]),
            self.labels[place],
            self.weights[place],
        )


class BatchJoin(Join):
    """A join that takes events by columns."""

    def predict_all(self, made: Predictions, watermark_ms: int) -> list[bool]:
        """As `predict` of each, in turn; those whose ids are new are put in together."""
        if len(made.ids) < FEW:
            return [
                self.predict(packer, made.at(place), watermark_ms)
                for place, packer in enumerate(made.packers)
            ]
        packers, which = numbered(made.packers)
        keys = _keys(made.ids, which, [self._tag(packer.kind.model) for packer in packers])
        late_ms = np.maximum(made.floors_ms - made.times_ms, 0)
        plain = self._are_new(keys)
        plain &= made.times_ms >= watermark_ms - _each(packers, which, _forgotten_ms)
        is_late = late_ms > 0
        for some in places_of([packer.layout for packer in packers]).values():
            of_layout = plain & among(which, some, len(packers))
            for alike in (of_layout & ~is_late, of_layout & is_late):
                mine = np.flatnonzero(alike)
                if len(mine):
                    self._put_pending(keys, made, packers, which[mine], late_ms, mine)
        if plain.all():
            return [True] * len(keys)
        taken: list[bool] = plain.tolist()
        for place in np.flatnonzero(~plain).tolist():
            taken[place] = self.predict(made.packers[place], made.at(place), watermark_ms)
        return taken

    def label_all(self, labels: Labels) -> None:
        """As `label` of each, in turn; those that meet a waiting prediction are joined together."""
        if len(labels.ids) < FEW:
            for place, model in enumerate(labels.models):
                self.label(model, labels.at(place))
            return
        models, which = numbered(labels.models)
        keys = _keys(labels.ids, which, list(map(self._tag, models)))
        rows = self._rows.get_all(keys)
        numbers, of = distinct(_numbers(rows))
        left = np.ones(len(keys), dtype=np.bool_)
        once = _once(keys)
        sorts = places_of(list(map(self._sort, numbers.tolist())))
        for sort, some in sorts.items():
            mine = np.flatnonzero(once & among(of, some, len(numbers)))
            if sort is not None and len(mine):
                packers = [self._packers[sort_of(number)[0]] for number in numbers[some].tolist()]
                kinds = np.searchsorted(some, of[mine])
                left[self._first_all(packers, kinds, keys, rows, labels, mine)] = False
        for place in np.flatnonzero(left).tolist():
            self.label(labels.models[place], labels.at(place))

    def _sort(self, number: int) -> tuple[object, bool] | None:
        """Which waiting rows are read together, by the number that a row begins with; None of
        others."""
        kind, finished, late = sort_of(number)
        return None if finished or kind == NO_ROW else (self._packers[kind].layout, late)

    def _put_pending(
        self,
        keys: list[str],
        made: Predictions,
        packers: Sequence[Packer],
        which: Places,
        late_ms: Ints,
        places: Places,
    ) -> None:
        """Put in the predictions at these places: of one layout; all are late, or none is.

        Args:
            which: of the packers is that of each place.
        """
        rows = made.packers[places[0]].all_pending(
            _each(packers, which, _number),
            chosen(made.offsets, places),
            chosen(made.codes, places),
            chosen(made.values, places),
            late_ms[places],
        )
        dues_ms = made.times_ms[places] + _each(packers, which, _horizon_ms)
        self._rows.put_all(chosen(keys, places), dues_ms, rows)

    def _first_all(
        self,
        packers: Sequence[Packer],
        which: Places,
        keys: Sequence[str],
        rows: Sequence[bytes],
        labels: Labels,
        places: Places,
    ) -> Places:
        """Join the labels at these places, if their predictions, all waiting, take them.

        Args:
            packers: of the predictions, all of one layout.
            which: of the packers is that of each place.

        Returns:
            the places of those that were taken.
        """
        first = packers[0]
        table, late_ms = first.read_all_pending(chosen(rows, places))
        due_ms: Ints = table["due_ms"]
        said_ms, made_ms = labels.times_ms[places], due_ms - _each(packers, which, _horizon_ms)
        taken = (said_ms <= due_ms) & (made_ms <= said_ms + _each(packers, which, _early_ms))
        if not taken.any():
            return places[:0]
        if not taken.all():
            which, places, table = which[taken], places[taken], table[taken]
            said_ms, made_ms, late_ms = said_ms[taken], made_ms[taken], late_ms[taken]
        floors_ms = np.maximum(said_ms, labels.floors_ms[places])
        arrived_ms: Ints = np.maximum(made_ms + late_ms, floors_ms)
        said, weights = chosen(labels.labels, places), chosen(labels.weights, places)
        self._rows.put_all(
            chosen(keys, places),
            arrived_ms + _each(packers, which, _correction_ms),
            first.all_finished(_each(packers, which, _number), table, made_ms, said, weights),
            table["serial"],
        )
        self.met.append(
            Meetings(
                [packer.kind for packer in packers],
                which,
                chosen(labels.ids, places),
                table["offset"],
                made_ms,
                said_ms,
                arrived_ms,
                pieces(table["codes"].tobytes(), first.kind.codes, len(table)),
                table["values"],
                said,
                weights,
            )
        )
        return places

    def _are_new(self, keys: list[str]) -> Mask:
        """Whether nothing is known of a key, and it comes once."""
        return _once(keys) & self._rows.are_new(keys) & self._early.are_new(keys)


def _numbers(rows: Sequence[bytes]) -> Ints:
    """What each row begins with, shape (n,); `NO_ROW` where there is none."""
    width = len(rows[0])
    if width and list(map(len, rows)).count(width) == len(rows):
        table = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), width)
        heads = np.ascontiguousarray(table[:, HEAD.size : HEAD.size + NUMBER.size])
    else:
        none = NUMBER.pack(NO_ROW)
        some = [row[HEAD.size : HEAD.size + NUMBER.size] or none for row in rows]
        heads = np.frombuffer(b"".join(some), dtype=np.uint8)
    return heads.view("<u4").ravel().astype(np.int64)


def _keys(ids: Sequence[str], which: Places, tags: Sequence[str]) -> list[str]:
    """Each id with its tag. `which`: of the tags."""
    if len(tags) == 1:
        (tag,) = tags
        return [id_ + tag for id_ in ids]
    return list(map(add, ids, map(tags.__getitem__, which.tolist())))


def _each(packers: Sequence[Packer], which: Places, field: Callable[[Packer], int]) -> Ints | int:
    """A number of each one's packer, shape (n,), or of all. `which`: of the packers."""
    if len(packers) == 1:
        return field(packers[0])
    return np.array([field(packer) for packer in packers], dtype=np.int64)[which]


def _once(keys: list[str]) -> Mask:
    """Whether each key comes only once."""
    if len(set(keys)) == len(keys):
        return np.ones(len(keys), dtype=np.bool_)
    count = Counter(keys)
    return np.fromiter((count[key] == 1 for key in keys), np.bool_, len(keys))
