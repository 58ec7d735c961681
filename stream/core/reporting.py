"""The records that one partition of monitor writes about what it has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from stream.core.joining import Joined
from stream.core.partitioning import partition_of
from stream.core.processor import Output
from stream.envelope import SPEC_VERSION, derived_id, from_ms, hashed, write
from stream.events import Label, ProgressReported, SummaryComputed

SOURCE: Final = "driftline/monitor"
_ENCODER: Final = msgspec.json.Encoder()
_new: Final = tuple.__new__  # half the price of Output(...)


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


def example(joined: Joined, classes: Sequence[str], partition: int) -> Output:
    """A prediction and its label; the label in one spelling, however it came."""
    id_, kind, revision, label = joined.id, joined.kind, joined.revision, joined.label
    labelled_ms = joined.labelled_ms
    envelope = _Envelope(
        SPEC_VERSION,
        hashed(f"example\x1f{kind.model}\x1f{id_}\x1f{revision}"),
        SOURCE,
        "driftline.example.labelled.v1",
        from_ms(labelled_ms),
        "application/json",
        _Example(
            id_,
            kind.model,
            kind.version,
            partition,
            joined.offset,
            joined.predicted_ms,
            labelled_ms,
            classes[int(label)] if classes else label,
            UNSET if joined.weight == 1.0 else joined.weight,
            revision,
        ),
    )
    value = _ENCODER.encode(envelope)
    return _new(Output, ("examples", id_.encode(), value, partition, (), None))


def summaries(
    deltas: Sequence[SummaryComputed], partitions: int, *, sequence: int, clock_ms: int
) -> Iterator[Output]:
    """Deltas, each to the partition of its model. `sequence`: of the report they are part of."""
    for delta in deltas:
        place = (delta.model, delta.version, delta.segment, delta.tick)
        value = write(
            "driftline.summary.computed.v1",
            delta,
            id=derived_id("summary", delta.partition, sequence, *place),
            source=SOURCE,
            time_ms=clock_ms,
        )
        key = delta.model.encode()
        yield Output("summaries", key, value, partition_of(key, partitions, "murmur2"))


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
