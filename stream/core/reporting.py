"""The records that one partition of monitor writes about what it has seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final, NamedTuple

import numpy as np

from stream.core.framing import SLOT, framed, texts, time_texts
from stream.core.grouping import Ints, chosen, numbered
from stream.core.joining import Joined, Meetings
from stream.core.packing import Kind
from stream.core.partitioning import partition_of
from stream.core.processor import Output
from stream.envelope import SPEC_VERSION, derived_id, hashed, write
from stream.events import ExamplesLabelled, Label, ProgressReported, SummaryComputed

SOURCE: Final = "driftline/monitor"
EXAMPLES: Final = "driftline.example.labelled.v2"
MOST: Final = 1_000  # examples of one record: with the longest ids it takes 0.6 MB
FEW: Final = 4  # examples of a kind that are sooner written alone, among those of others


class _Columns(NamedTuple):
    """Labels as `ExamplesLabelled` has them, but for their spelling.

    Attributes:
        kinds: the different ones.
        of: which of them each is of, shape (n,).
    """

    kinds: Sequence[Kind]
    of: Ints
    prediction_ids: Sequence[str]
    offsets: Sequence[int]
    predicted_ms: Sequence[int]
    labelled_ms: Sequence[int]
    labels: Sequence[float]
    weights: Sequence[float]
    revisions: Sequence[int]

    @classmethod
    def joined(cls, some: Sequence[Joined]) -> _Columns:
        return cls(
            *numbered([one.kind for one in some]),
            [one.id for one in some],
            [one.offset for one in some],
            [one.predicted_ms for one in some],
            [one.labelled_ms for one in some],
            [one.label for one in some],
            [one.weight for one in some],
            [one.revision for one in some],
        )

    @classmethod
    def met(cls, one: Meetings) -> _Columns:
        offsets, predicted_ms, labelled_ms = (
            column.tolist() for column in (one.offsets, one.predicted_ms, one.labelled_ms)
        )
        said = (one.labels, one.weights, [0] * len(one.ids))
        return cls(one.kinds, one.of, one.ids, offsets, predicted_ms, labelled_ms, *said)

    def take(self, places: Ints) -> _Columns:
        """Those at these places; as many places as there are must be all, in order."""
        columns: Iterable[Any] = (chosen(column, places) for column in self[2:])
        return _Columns(self.kinds, self.of[places], *columns)

    def records(self) -> tuple[list[_Columns], _Columns]:
        """What is to share a record, all of one kind, and those that are sooner written `_alone`:
        few of a kind, first labels of weight 1."""
        counts = np.bincount(self.of, minlength=len(self.kinds))
        few = counts[self.of] <= FEW
        special = np.zeros(len(few), dtype=np.bool_)
        if few.any():
            special = few & ((np.array(self.weights) != 1.0) | (np.array(self.revisions) > 0))
        order = np.argsort(self.of, kind="stable")
        ends = np.cumsum(counts)
        many = [
            order[at : min(at + MOST, int(ends[number]))]
            for number in np.flatnonzero(counts > FEW).tolist()
            for at in range(int(ends[number] - counts[number]), int(ends[number]), MOST)
        ]
        single = np.flatnonzero(special)[:, None]
        together = [self.take(places) for places in (*many, *single)]
        return together, self.take(np.flatnonzero(few & ~special))


def examples(
    joined: Sequence[Joined],
    classes: Mapping[str, Sequence[str]],
    partition: int,
    met: Iterable[Meetings] = (),
) -> list[Output]:
    """Predictions and their labels, those made alike together; a label in one spelling, however it
    came, and before its corrections.

    Args:
        classes: by model, as labels are spelt; none for numbers.
        met: more of them, in columns.
    """
    outputs: list[Output] = []
    for one in (*map(_Columns.met, met), *([_Columns.joined(joined)] if joined else [])):
        together, alone = one.records()
        outputs += _alone(alone, classes, partition)
        outputs += [_together(some, classes, partition) for some in together]
    return outputs


def _together(some: _Columns, classes: Mapping[str, Sequence[str]], partition: int) -> Output:
    """Some of one kind, in one record."""
    kinds, of, ids, offsets, predicted_ms, labelled_ms, labels, weights, revisions = some
    kind = kinds[of[0]]
    names = classes[kind.model]
    told = ExamplesLabelled(
        model=kind.model,
        version=kind.version,
        partition=partition,
        prediction_ids=[*ids],
        offsets=[*offsets],
        predicted_ms=[*predicted_ms],
        labelled_ms=[*labelled_ms],
        labels=[names[int(label)] for label in labels] if names else [*labels],
        weights=[*weights] if weights.count(1.0) < len(weights) else [],
        revisions=[*revisions] if any(revisions) else [],
    )
    id_ = _id(kind.model, len(ids), ids[0], ids[-1], sum(offsets), sum(revisions))
    value = write(EXAMPLES, told, id=id_, source=SOURCE, time_ms=max(labelled_ms))
    return Output("examples", kind.model.encode(), value, partition)


def _alone(some: _Columns, classes: Mapping[str, Sequence[str]], partition: int) -> list[Output]:
    """First labels of weight 1, of any models: as each by itself `_together`, for a quarter."""
    ids = some.prediction_ids
    if not ids:
        return []
    frame = {
        "specversion": SPEC_VERSION,
        "id": SLOT,
        "source": SOURCE,
        "type": EXAMPLES,
        "time": SLOT,
        "datacontenttype": "application/json",
        "data": {
            "model": SLOT,
            "version": SLOT,
            "partition": partition,
            "prediction_ids": [SLOT],
            "offsets": [SLOT],
            "predicted_ms": [SLOT],
            "labelled_ms": [SLOT],
            "labels": [SLOT],
        },
    }
    kinds = list(map(some.kinds.__getitem__, some.of.tolist()))
    models = [kind.model for kind in kinds]
    labels: list[Label] = [
        names[int(label)] if names else label
        for label, names in zip(some.labels, map(classes.__getitem__, models), strict=True)
    ]
    places = zip(models, ids, some.offsets, strict=True)
    values = framed(
        frame,
        [
            texts([_id(model, 1, id_, id_, offset, 0) for model, id_, offset in places]),
            time_texts(some.labelled_ms),
            texts(models),
            texts([kind.version for kind in kinds]),
            texts(ids),
            texts(some.offsets),
            texts(some.predicted_ms),
            texts(some.labelled_ms),
            texts(labels),
        ],
    )
    keys = [model.encode() for model in models]
    return list(map(Output, repeat("examples"), keys, values, repeat(partition)))


def _id(model: str, count: int, first: str, last: str, offsets: int, revisions: int) -> str:
    """Of the examples from one prediction id to another, told by their sums from others between."""
    return hashed(
        f"examples\x1f{model}\x1f{count}\x1f{first}\x1f{last}\x1f{offsets}\x1f{revisions}"
    )


def summaries(
    deltas: Sequence[SummaryComputed], partitions: int, *, sequence: int, clock_ms: int
) -> Iterator[Output]:
    """Deltas, each to the partition of its model. `sequence`: of the report they are part of."""
    for delta in deltas:
        key, partition = _keyed(delta.model, partitions)
        place = (delta.model, delta.version, delta.segment, delta.tick)
        value = write(
            "driftline.summary.computed.v1",
            delta,
            id=derived_id("summary", delta.partition, sequence, *place),
            source=SOURCE,
            time_ms=clock_ms,
        )
        yield Output("summaries", key, value, partition)


@lru_cache(maxsize=4096)
def _keyed(model: str, partitions: int) -> tuple[bytes, int]:
    """The key of a model's records, and where they lie."""
    key = model.encode()
    return key, partition_of(key, partitions, "murmur2")


def progress(report: ProgressReported, partitions: int) -> Iterator[Output]:
    """The report, to every partition: whoever closes ticks must hear of all."""
    value = write(
        "driftline.progress.reported.v1",
        report,
        id=derived_id("progress", report.partition, report.sequence),
        source=SOURCE,
        time_ms=report.clock_ms,
    )
    return (Output("summaries", None, value, partition) for partition in range(partitions))
