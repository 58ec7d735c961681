"""The records that one partition of monitor writes about what it has seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import repeat
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from stream.core.framing import SLOT, framed, texts, time_texts
from stream.core.joining import Joined
from stream.core.partitioning import partition_of
from stream.core.processor import Output
from stream.envelope import SPEC_VERSION, derived_id, from_ms, hashed, write
from stream.events import Label, ProgressReported, SummaryComputed

SOURCE: Final = "driftline/monitor"
EXAMPLE: Final = "driftline.example.labelled.v1"
FEW: Final = 4  # examples that are faster encoded one by one
_ENCODER: Final = msgspec.json.Encoder()


class _Example(Struct, frozen=True, gc=False, omit_defaults=True):
    """`ExampleLabelled`, cheaper to make."""

    prediction_id: str
    model: str
    version: int
    partition: int
    offset: int
    predicted_ms: int
    labelled_ms: int
    label: Label
    weight: float | UnsetType = UNSET  # 1.0 is left out, as no default is unless it is the object
    revision: int = 0


class _Envelope(Struct, frozen=True, gc=False):
    """`stream.envelope.Envelope` with an example inside, so that one pass encodes both."""

    specversion: str
    id: str
    source: str
    type: str
    time: datetime
    datacontenttype: str
    data: _Example


def examples(
    joined: Sequence[Joined], classes: Mapping[str, Sequence[str]], partition: int
) -> list[Output]:
    """Predictions and their labels; a label in one spelling, however it came.

    Args:
        classes: by model, as labels are spelt; none for numbers.
    """
    values: list[bytes] = [b""] * len(joined)
    plain = [i for i, one in enumerate(joined) if one.weight == 1.0 and not one.revision]
    if len(plain) >= FEW:
        encoded = _framed([joined[place] for place in plain], classes, partition)
        for place, value in zip(plain, encoded, strict=True):
            values[place] = value
    for place, one in enumerate(joined):
        if not values[place]:
            values[place] = _ENCODER.encode(_envelope(one, classes, partition))
    keys = [one.id.encode() for one in joined]
    return list(map(Output, repeat("examples"), keys, values, repeat(partition)))


def _envelope(one: Joined, classes: Mapping[str, Sequence[str]], partition: int) -> _Envelope:
    kind, names = one.kind, classes[one.kind.model]
    return _Envelope(
        SPEC_VERSION,
        _id(one),
        SOURCE,
        EXAMPLE,
        from_ms(one.labelled_ms),
        "application/json",
        _Example(
            one.id,
            kind.model,
            kind.version,
            partition,
            one.offset,
            one.predicted_ms,
            one.labelled_ms,
            names[int(one.label)] if names else one.label,
            UNSET if one.weight == 1.0 else one.weight,
            one.revision,
        ),
    )


def _framed(
    joined: Sequence[Joined], classes: Mapping[str, Sequence[str]], partition: int
) -> list[bytes]:
    """First labels of weight 1: the same bytes in half the time."""
    frame = _Envelope(
        SPEC_VERSION,
        SLOT,
        SOURCE,
        EXAMPLE,
        SLOT,
        "application/json",
        _Example(SLOT, SLOT, SLOT, partition, SLOT, SLOT, SLOT, SLOT),
    )
    models = [one.kind.model for one in joined]
    labels: list[Label] = [
        names[int(one.label)] if names else one.label
        for one, names in zip(joined, map(classes.__getitem__, models), strict=True)
    ]
    labelled_ms = [one.labelled_ms for one in joined]
    return framed(
        frame,
        [
            texts(list(map(_id, joined))),
            time_texts(labelled_ms),
            texts([one.id for one in joined]),
            texts(models),
            texts([one.kind.version for one in joined]),
            texts([one.offset for one in joined]),
            texts([one.predicted_ms for one in joined]),
            texts(labelled_ms),
            texts(labels),
        ],
    )


def _id(one: Joined) -> str:
    return hashed(f"example\x1f{one.kind.model}\x1f{one.id}\x1f{one.revision}")


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
