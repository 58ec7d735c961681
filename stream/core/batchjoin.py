"""The join of many events at once: what `joining.Join` does with each, where nothing is special.

Most predictions are new and most labels meet a prediction that waits, so these are packed and
unpacked as tables, of all kinds that are laid out alike at once. All others go one by one. Events
of different ids do not touch each other, so the outcome is that of each in turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import add, attrgetter
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream.core.grouping import chosen, places_of
from stream.core.joining import Join, Joined
from stream.core.packing import Ints, Label, Packer, Prediction, is_finished, is_late, number_of
from stream.core.rowparts import HEAD, pieces

T = TypeVar("T")
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
        tags = {packer: self._tag(packer.kind.model) for packer in dict.fromkeys(made.packers)}
        keys = _keys(made.ids, made.packers, tags)
        late_ms = np.maximum(made.floors_ms - made.times_ms, 0)
        plain = self._are_new(keys)
        plain &= made.times_ms >= watermark_ms - _of_each(made.packers, _forgotten_ms)
        for places in places_of([packer.layout for packer in made.packers]).values():
            for alike in (late_ms == 0, late_ms > 0):
                mine = places[(plain & alike)[places]]
                if len(mine):
                    self._put_pending(keys, made, late_ms, mine)
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
        tags = {model: self._tag(model) for model in dict.fromkeys(labels.models)}
        keys = _keys(labels.ids, labels.models, tags)
        joined: list[Joined | None] = [None] * len(keys)
        rows = self._rows.get_all(keys)
        numbers = [row[HEAD.size : HEAD.size + 4] for row in rows]
        sorts = {number: self._sort(number) for number in set(numbers)}
        known = {number: self._packers[number_of(number)] for number in sorts if number}
        once = _once(keys)
        for sort, places in places_of([sorts[number] for number in numbers]).items():
            mine = places[once[places]]
            if sort is not None and len(mine):
                packers = list(map(known.__getitem__, chosen(numbers, mine)))
                for place, one in self._first_all(packers, keys, rows, labels, mine):
                    joined[place] = one
        others = [place for place, one in enumerate(joined) if one is None]
        for place in others:
            before = len(self.joined)
            self.label(labels.models[place], labels.at(place))
            if len(self.joined) > before:
                joined[place] = self.joined.pop()
        self.joined += filter(None, joined)

    def _sort(self, number: bytes) -> tuple[object, bool] | None:
        """Which waiting rows are read together, by where a row has its number; None of others."""
        if not number or is_finished(number):
            return None
        return self._packers[number_of(number)].layout, is_late(number)

    def _put_pending(
        self, keys: list[str], made: Predictions, late_ms: Ints, places: Places
    ) -> None:
        """Put in the predictions at these places: of one layout; all are late, or none is."""
        packers = chosen(made.packers, places)
        rows = packers[0].all_pending(
            _of_each(packers, _number),
            chosen(made.offsets, places),
            chosen(made.codes, places),
            chosen(made.values, places),
            late_ms[places],
        )
        dues_ms = made.times_ms[places] + _of_each(packers, _horizon_ms)
        self._rows.put_all(chosen(keys, places), dues_ms, rows, old=())

    def _first_all(
        self,
        packers: Sequence[Packer],
        keys: Sequence[str],
        rows: Sequence[bytes],
        labels: Labels,
        places: Places,
    ) -> Iterable[tuple[int, Joined]]:
        """Join the labels at these places, if their predictions, all waiting, take them.

        Args:
            packers: of the predictions, one for each place.
        """
        first = packers[0]
        table, late_ms = first.read_all_pending(chosen(rows, places))
        said_ms, due_ms = labels.times_ms[places], table["due_ms"]
        made_ms = due_ms - _of_each(packers, _horizon_ms)
        taken = (said_ms <= due_ms) & (made_ms <= said_ms + _of_each(packers, _early_ms))
        if not taken.all():
            packers = chosen(packers, np.flatnonzero(taken))
            places, table = places[taken], table[taken]
            said_ms, made_ms, late_ms = said_ms[taken], made_ms[taken], late_ms[taken]
        arrived_ms = np.maximum(made_ms + late_ms, np.maximum(said_ms, labels.floors_ms[places]))
        said, weights = chosen(labels.labels, places), chosen(labels.weights, places)
        self._rows.put_all(
            chosen(keys, places),
            arrived_ms + _of_each(packers, _correction_ms),
            first.all_finished(_of_each(packers, _number), table, made_ms, said, weights),
            chosen(rows, places),
        )
        joined = map(
            Joined,
            chosen(labels.ids, places),
            [packer.kind for packer in packers],
            table["offset"].tolist(),
            made_ms.tolist(),
            said_ms.tolist(),
            arrived_ms.tolist(),
            pieces(table["codes"].tobytes(), first.kind.codes, len(table)),
            map(tuple, table["values"].tolist()),
            said,
            weights,
        )
        return zip(places.tolist(), joined, strict=True)

    def _are_new(self, keys: list[str]) -> Mask:
        """Whether nothing is known of a key, and it comes once."""
        return _once(keys) & self._rows.are_new(keys) & self._early.are_new(keys)


def _keys(ids: Sequence[str], things: Sequence[T], tags: Mapping[T, str]) -> list[str]:
    """Each id with the tag of its thing."""
    if len(tags) == 1:
        (tag,) = tags.values()
        return [id_ + tag for id_ in ids]
    return list(map(add, ids, map(tags.__getitem__, things)))


def _of_each(packers: Sequence[Packer], field: Callable[[Packer], int]) -> Ints:
    """A number of each packer, shape (n,); few of them differ."""
    if packers and packers.count(packers[0]) == len(packers):
        return np.full(len(packers), field(packers[0]), dtype=np.int64)
    known = {packer: field(packer) for packer in dict.fromkeys(packers)}
    return np.fromiter(map(known.__getitem__, packers), np.int64, len(packers))


def _once(keys: list[str]) -> Mask:
    """Whether each key comes only once."""
    if len(set(keys)) == len(keys):
        return np.ones(len(keys), dtype=np.bool_)
    count = Counter(keys)
    return np.fromiter((count[key] == 1 for key in keys), np.bool_, len(keys))
