"""Predictions meet their labels: by model and id, in any order, late, twice, corrected, or never.

What decides is event time, never the order in which two topics happen to be read:

- A label is taken if its time is at most the label horizon after its prediction's, and at most
  `early_seconds` before it. A further, different label of the same prediction is a correction if it
  comes at most the correction horizon after the first one arrived; an equal one is a duplicate.
- A label that no prediction takes waits for one until the watermark is `early_seconds` past it,
  then it is an orphan. A prediction without a label when the watermark is past its horizon has
  expired. Each is certain by then: nothing on time can still come that would have changed it.
- The first prediction of an id counts. Another one is a duplicate, or a conflict if it says
  something else. An id must not be used again within its horizons.

What is counted by arrival (bets, counters) gets a time that is never before the watermark, so it
falls in a tick that is still open: the event time, or, where that came later than allowed, the
earliest time at which it would have been on time, the floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from stream.core.grouping import chosen
from stream.core.packing import (
    NUMBER,
    Finished,
    Ints,
    Kind,
    Label,
    Packer,
    Prediction,
    is_finished,
    number_of,
    pack_labels,
    pending_of,
    unpack_labels,
)
from stream.core.processor import Parts
from stream.core.rowlog import RowLog

MAX_WAITING: Final = 32  # labels that wait for one prediction; more are orphans at once
_TAG: Final = "\x1f"  # between an id, which has no control characters, and its model's number
_NAMES: Final = msgspec.msgpack.Decoder(tuple[list[Kind], list[str]])


class Joined(Struct, frozen=True, gc=False):
    """A prediction and its label, or the correction of that label.

    Attributes:
        values: outputs of the version, then of the shadows; without these if it is a correction.
        arrived_ms: when both were there, in event time.
        before: the label that this one corrects.
    """

    id: str
    kind: Kind
    offset: int
    predicted_ms: int
    labelled_ms: int
    arrived_ms: int
    codes: bytes
    values: tuple[float, ...]
    label: float
    weight: float
    revision: int = 0
    before: float | None = None


class Meetings(NamedTuple):
    """Predictions and their first labels: columns of `Joined`.

    Attributes:
        kinds: the different ones, all with as many codes and values.
        of: which of them each is of, shape (n,).
        offsets, predicted_ms, labelled_ms, arrived_ms: shape (n,).
        values: shape (n, outputs of the version and of the shadows).
    """

    kinds: Sequence[Kind]
    of: Ints
    ids: Sequence[str]
    offsets: Ints
    predicted_ms: Ints
    labelled_ms: Ints
    arrived_ms: Ints
    codes: Sequence[bytes]
    values: NDArray[np.float64]
    labels: Sequence[float]
    weights: Sequence[float]

    def take(self, places: Ints) -> Meetings:
        """Those at these places; as many places as there are must be all, in order."""
        if len(places) == len(self.ids):
            return self
        return Meetings(
            self.kinds,
            self.of[places],
            chosen(self.ids, places),
            self.offsets[places],
            self.predicted_ms[places],
            self.labelled_ms[places],
            self.arrived_ms[places],
            chosen(self.codes, places),
            self.values[places],
            chosen(self.labels, places),
            chosen(self.weights, places),
        )

    def rows(self) -> list[Joined]:
        """One by one."""
        kinds = map(self.kinds.__getitem__, self.of.tolist())
        offsets, *times_ms = (column.tolist() for column in self[3:7])
        values = map(tuple, self.values.tolist())
        said = (self.codes, values, self.labels, self.weights)
        return list(map(Joined, self.ids, kinds, offsets, *times_ms, *said))


class Beside(Struct, frozen=True, gc=False):
    """What shadows would have said where another version predicted.

    Attributes:
        version: that predicted.
        shadows: versions; `values` are the outputs of each, one after the other.
        floor_ms: as of a prediction.
    """

    id: str
    version: int
    shadows: tuple[int, ...]
    values: tuple[float, ...]
    floor_ms: int


class Counted(NamedTuple):
    """Something to count. `version` is None where no prediction says which."""

    model: str
    version: int | None
    name: str
    time_ms: int
    n: int = 1


class Join:
    """The joins of one partition.

    Attributes:
        joined, met, paired, counted: what happened, for the caller to take and clear. Met: what was
            joined many at once. Paired: what shadows would have said where the label was there
            before it.
    """

    def __init__(self) -> None:
        self.joined: list[Joined] = []
        self.met: list[Meetings] = []
        self.paired: list[Joined] = []
        self.counted: list[Counted] = []
        self._rows = RowLog("join")
        self._early = RowLog("early")
        self._packers: list[Packer] = []  # by number of the kind
        self._numbers: dict[Kind, int] = {}
        self._tags: dict[str, str] = {}  # by model, in the order of the models' numbers
        self._names_changed = False

    @property
    def held(self) -> int:
        """Predictions that wait for a label, and those whose label may yet be corrected."""
        return len(self._rows)

    @property
    def early(self) -> int:
        """Ids of labels that wait for their prediction."""
        return len(self._early)

    def packer(self, kind: Kind) -> Packer:
        """How rows of this kind are packed: the same for as long as this state lives."""
        number = self._numbers.get(kind)
        if number is None:
            number = self._numbers[kind] = len(self._packers)
            self._packers.append(Packer(kind, number))
            self._names_changed = True
        return self._packers[number]

    def predict(self, packer: Packer, made: Prediction, watermark_ms: int) -> bool:
        """Take a prediction in; False if it must not be counted."""
        kind = packer.kind
        key = made.id + (self._tags.get(kind.model) or self._tag(kind.model))
        found = self._rows.get(key)
        if found is not None:
            name = "duplicates" if self._says(found[1], kind, made) else "conflicts"
            self._count(kind, name, max(made.time_ms, made.floor_ms))
            return False
        if made.time_ms < watermark_ms - packer.forgotten_ms:
            # So old that its like may have come and been forgotten: it could be counted twice.
            self._count(kind, "too_late", made.floor_ms)
            return False
        self._rows.put(key, made.time_ms + kind.horizon_ms, packer.pending(made), new=True)
        if len(self._early):
            for label in unpack_labels(made.id, self._early.pop(key) or b""):
                floor_ms = max(label.floor_ms, made.floor_ms)
                self.label(kind.model, replace(label, floor_ms=floor_ms))
        return True

    def label(self, model: str, label: Label) -> None:
        """Take a label of a model in."""
        key = label.id + (self._tags.get(model) or self._tag(model))
        found = self._rows.get(key)
        if found is None or not self._taken(key, *found, label):
            self._wait(key, model, label)

    def shadow(self, model: str, beside: Beside) -> bool:
        """Put what shadows say beside their prediction, once; False if it has no use.

        It meets its label whichever comes first; one that was corrected already, as it is now.
        """
        key = beside.id + (self._tags.get(model) or self._tag(model))
        found = self._rows.get(key)
        if found is None:
            return False
        due_ms, body = found
        packer = self._packers[number_of(body)]
        kind = packer.kind
        if kind.shadows or kind.version != beside.version:
            return False
        wider = self.packer(replace(kind, shadows=beside.shadows))
        if is_finished(body):
            row = packer.read_finished(body)
            self._rows.put(key, due_ms, wider.finished(row))
            arrived_ms = max(due_ms - kind.correction_ms, beside.floor_ms)
            place = (beside.id, wider.kind, row.offset, row.predicted_ms, row.predicted_ms)
            said = (*row.values, *beside.values)
            self.paired.append(Joined(*place, arrived_ms, row.codes, said, row.label, row.weight))
        else:
            made = packer.read_pending(beside.id, body, due_ms)
            floor_ms = max(made.floor_ms, beside.floor_ms)
            both = replace(made, floor_ms=floor_ms, values=(*made.values, *beside.values))
            self._rows.put(key, due_ms, wider.pending(both))
        return True

    def expire(self, watermark_ms: int, before_ms: int) -> None:
        """Let go of what the watermark has passed on its way from `before_ms`."""
        for due_ms, number in pending_of(self._rows.drop_due(watermark_ms, NUMBER.size)):
            self._count(self._packers[number].kind, "expired", due_ms)
        models = list(self._tags)
        for row in self._early.take_due(watermark_ms):
            id_, _, place = row.key.rpartition(_TAG)
            labels = unpack_labels(id_, row.body)
            for label in labels:
                if label.due_ms < watermark_ms:
                    self._orphan(models[int(place)], max(label.due_ms, before_ms))
            self._put_waiting(row.key, [label for label in labels if label.due_ms >= watermark_ms])

    def changes(self, *, complete: bool) -> Parts:
        """Parts `join.*` and `early.*` that differ from the last call."""
        parts = self._rows.changes(complete=complete) | self._early.changes(complete=complete)
        if self._names_changed or complete:
            parts["join.names"] = msgspec.msgpack.encode((list(self._numbers), list(self._tags)))
            self._names_changed = False
        return parts

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Take over parts that `changes` wrote; others are left alone."""
        self._rows.restore(parts)
        self._early.restore(parts)
        if "join.names" in parts:
            kinds, models = _NAMES.decode(parts["join.names"])
            for kind in kinds:
                self.packer(kind)
            for model in models:
                self._tag(model)
            self._names_changed = False

    def _taken(self, key: str, due_ms: int, body: bytes, label: Label) -> bool:
        """Whether the prediction in this row takes the label."""
        if label.time_ms > due_ms:
            return False
        packer = self._packers[number_of(body)]
        latest_ms = label.time_ms + packer.kind.early_ms  # of its prediction
        if is_finished(body):
            row = packer.read_finished(body)
            taken = row.predicted_ms <= latest_ms
            if taken:
                self._again(key, due_ms, packer, row, label)
        else:
            made = packer.read_pending(label.id, body, due_ms)
            taken = made.time_ms <= latest_ms
            if taken:
                self._first(key, packer, made, label)
        return taken

    def _first(self, key: str, packer: Packer, made: Prediction, label: Label) -> None:
        kind, offset, made_ms, codes = packer.kind, made.offset, made.time_ms, made.codes
        said, said_ms, weight, values = label.label, label.time_ms, label.weight, made.values
        arrived_ms = max(made_ms, made.floor_ms, said_ms, label.floor_ms)
        due_ms = arrived_ms + kind.correction_ms
        self._rows.put(key, due_ms, packer.finish(made, said, weight))
        self.joined.append(
            Joined(
                label.id, kind, offset, made_ms, said_ms, arrived_ms, codes, values, said, weight
            )
        )

    def _again(self, key: str, due_ms: int, packer: Packer, row: Finished, label: Label) -> None:
        kind = packer.kind
        arrived_ms = max(row.predicted_ms, label.time_ms, label.floor_ms)
        if (label.label, label.weight) == (row.label, row.weight):
            self._count(kind, "duplicates", arrived_ms)
            return
        self._count(kind, "corrections", arrived_ms)
        revision = row.revision + 1
        corrected = replace(row, revision=revision, label=label.label, weight=label.weight)
        self._rows.put(key, due_ms, packer.finished(corrected))
        place = (label.id, kind, row.offset, row.predicted_ms, label.time_ms, arrived_ms)
        said = (label.label, label.weight, revision, row.label)
        self.joined.append(Joined(*place, row.codes, row.values, *said))

    def _wait(self, key: str, model: str, label: Label) -> None:
        found = self._early.get(key)
        labels = unpack_labels(label.id, found[1]) if found else []
        if len(labels) < MAX_WAITING:
            self._put_waiting(key, [*labels, label])
        else:
            self._orphan(model, max(label.time_ms, label.floor_ms))

    def _put_waiting(self, key: str, labels: list[Label]) -> None:
        if labels:
            self._early.put(key, min(label.due_ms for label in labels), pack_labels(labels))

    def _says(self, body: bytes, kind: Kind, made: Prediction) -> bool:
        """Whether a row is of the same version and output."""
        packer = self._packers[number_of(body)]
        same_version = packer.kind.version == kind.version
        return same_version and packer.output(body) == made.values[: kind.outputs]

    def _tag(self, model: str) -> str:
        tag = self._tags.get(model)
        if tag is None:
            tag = self._tags[model] = f"{_TAG}{len(self._tags)}"
            self._names_changed = True
        return tag

    def _count(self, kind: Kind, name: str, time_ms: int) -> None:
        self.counted.append(Counted(kind.model, kind.version, name, time_ms))

    def _orphan(self, model: str, time_ms: int) -> None:
        self.counted.append(Counted(model, None, "orphans", time_ms))
