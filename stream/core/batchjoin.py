"""The join of many events at once: what `joining.Join` does with each, where nothing is special.

Most predictions are new and most labels meet a prediction that waits, so these are packed and
unpacked as tables, of all kinds that are laid out alike at once. All others go one by one. Events
of different ids do not touch each other, so the outcome is that of each in turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import add, attrgetter
from typing import Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream.core.grouping import chosen, distinct, numbered
from stream.core.joining import Join, Meetings
from stream.core.packing import NO_ROW, NUMBER, Ints, Label, Packer, Prediction, sort_of
from stream.core.rowparts import HEAD, pieces

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]

FEW: Final = 32  # events that are faster joined one by one

T = TypeVar("T")
_number = attrgetter("number")


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


class Terms(NamedTuple):
    """What batches must know of kinds, by their numbers: shape (kinds,) each.

    Attributes:
        layout: equal for kinds whose rows can be packed together.
        horizon_ms, early_ms, correction_ms: of the kind.
        forgotten_ms: of its packer.
    """

    layout: Ints
    horizon_ms: Ints
    early_ms: Ints
    correction_ms: Ints
    forgotten_ms: Ints

    @classmethod
    def of(cls, packers: Sequence[Packer]) -> Terms:
        _, which = numbered([packer.layout for packer in packers])
        kinds = [packer.kind for packer in packers]
        columns = (
            [kind.horizon_ms for kind in kinds],
            [kind.early_ms for kind in kinds],
            [kind.correction_ms for kind in kinds],
            [packer.forgotten_ms for packer in packers],
        )
        return cls(which, *(np.array(column, dtype=np.int64) for column in columns))


class BatchJoin(Join):
    """A join that takes events by columns."""

    def __init__(self) -> None:
        super().__init__()
        self._known = Terms(*[np.empty(0, dtype=np.int64)] * 5)

    def predict_all(self, made: Predictions, watermark_ms: int) -> list[bool]:
        """As `predict` of each, in turn; those whose ids are new are put in together."""
        if len(made.ids) < FEW:
            return [
                self.predict(packer, made.at(place), watermark_ms)
                for place, packer in enumerate(made.packers)
            ]
        kinds = _kinds(made.packers)
        keys = self._keys(made.ids, kinds)
        late_ms = np.maximum(made.floors_ms - made.times_ms, 0)
        plain = self._are_new(keys)
        plain &= made.times_ms >= watermark_ms - self._terms.forgotten_ms[kinds]
        sorts = self._terms.layout[kinds] << 1 | (late_ms > 0)
        for mine in _alike(sorts, plain):
            self._put_pending(keys, made, kinds, late_ms, mine)
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
        tags = {model: self._tag(model) for model in dict.fromkeys(labels.models)}
        keys = _tagged(labels.ids, labels.models, tags)
        rows = self._rows.get_all(keys)
        kinds, finished, late = sort_of(_numbers(rows))
        waits = _once(keys) & ~finished & (kinds != NO_ROW)
        left = np.ones(len(keys), dtype=np.bool_)
        sorts = self._terms.layout[np.where(waits, kinds, 0)] << 1 | late if waits.any() else kinds
        for mine in _alike(sorts, waits):
            left[self._first_all(kinds, keys, rows, labels, mine)] = False
        for place in np.flatnonzero(left).tolist():
            self.label(labels.models[place], labels.at(place))

    @property
    def _terms(self) -> Terms:
        if len(self._known.layout) < len(self._packers):
            self._known = Terms.of(self._packers)
        return self._known

    def _keys(self, ids: Sequence[str], kinds: Ints) -> list[str]:
        """Each id with the tag of its model. `kinds`: numbers of them, shape (n,)."""
        found, _ = distinct(kinds)
        tags = {number: self._tag(self._packers[number].kind.model) for number in found.tolist()}
        return _tagged(ids, kinds.tolist() if len(tags) > 1 else (), tags)

    def _put_pending(
        self, keys: list[str], made: Predictions, kinds: Ints, late_ms: Ints, places: Places
    ) -> None:
        """Put in the predictions at these places: of one layout; all are late, or none is."""
        rows = made.packers[places[0]].all_pending(
            kinds[places],
            chosen(made.offsets, places),
            chosen(made.codes, places),
            chosen(made.values, places),
            late_ms[places],
        )
        dues_ms = made.times_ms[places] + self._terms.horizon_ms[kinds[places]]
        self._rows.put_all(chosen(keys, places), dues_ms, rows)

    def _first_all(
        self,
        kinds: Ints,
        keys: Sequence[str],
        rows: Sequence[bytes],
        labels: Labels,
        places: Places,
    ) -> Places:
        """Join the labels at these places, if their predictions, all waiting and of one layout,
        take them.

        Args:
            kinds: numbers of the predictions' kinds.

        Returns:
            the places of those that were taken.
        """
        first, terms, mine = self._packers[kinds[places[0]]], self._terms, kinds[places]
        table, late_ms = first.read_all_pending(chosen(rows, places))
        due_ms: Ints = table["due_ms"]
        said_ms, made_ms = labels.times_ms[places], due_ms - terms.horizon_ms[mine]
        taken = (said_ms <= due_ms) & (made_ms <= said_ms + terms.early_ms[mine])
        if not taken.any():
            return places[:0]
        if not taken.all():
            mine, places, table = mine[taken], places[taken], table[taken]
            said_ms, made_ms, late_ms = said_ms[taken], made_ms[taken], late_ms[taken]
        floors_ms = np.maximum(said_ms, labels.floors_ms[places])
        arrived_ms: Ints = np.maximum(made_ms + late_ms, floors_ms)
        said, weights = chosen(labels.labels, places), chosen(labels.weights, places)
        self._rows.put_all(
            chosen(keys, places),
            arrived_ms + terms.correction_ms[mine],
            first.all_finished(mine, table, made_ms, said, weights),
            table["serial"],
        )
        found, of = distinct(mine)
        met = Meetings(
            [self._packers[number].kind for number in found.tolist()],
            of,
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
        self.met.append(met)
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


def _kinds(packers: Sequence[Packer]) -> Ints:
    """The numbers of their kinds, shape (n,)."""
    if packers.count(packers[0]) == len(packers):
        return np.full(len(packers), packers[0].number)
    return np.fromiter(map(_number, packers), np.int64, len(packers))


def _alike(sorts: Ints, some: Mask) -> Iterator[Places]:
    """The places of each sort among some."""
    for sort in distinct(sorts[some])[0].tolist() if some.any() else ():
        yield np.flatnonzero(some & (sorts == sort))


def _tagged(ids: Sequence[str], of: Sequence[T], tags: Mapping[T, str]) -> list[str]:
    """Each id with its tag."""
    if len(tags) == 1:
        (tag,) = tags.values()
        return [id_ + tag for id_ in ids]
    return list(map(add, ids, map(tags.__getitem__, of)))


def _once(keys: list[str]) -> Mask:
    """Whether each key comes only once."""
    if len(set(keys)) == len(keys):
        return np.ones(len(keys), dtype=np.bool_)
    count = Counter(keys)
    return np.fromiter((count[key] == 1 for key in keys), np.bool_, len(keys))
