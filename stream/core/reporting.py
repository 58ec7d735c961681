"""The records that one partition of monitor writes about what it has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec
from msgspec import Struct

from models.spec import ModelSpec
from stream.core.joining import Joined
from stream.core.partitioning import partition_of
from stream.core.processor import Output
from stream.envelope import SPEC_VERSION, derived_id, from_ms, write
from stream.events import ExampleLabelled, ProgressReported, SummaryComputed

SOURCE: Final = "driftline/monitor"
_ENCODER: Final = msgspec.json.Encoder()


class _Envelope(Struct, frozen=True, gc=False):
    """`stream.envelope.Envelope` with an example inside, so that one pass encodes both."""

    specversion: str
    id: str
    source: str
    type: str
    time: datetime
    datacontenttype: str
    data: ExampleLabelled


def example(joined: Joined, spec: ModelSpec, partition: int) -> Output:
    """A prediction and its label; the label in one spelling, however it came."""
    kind, label = joined.kind, joined.label
    data = ExampleLabelled(
        prediction_id=joined.id,
        model=kind.model,
        version=kind.version,
        partition=partition,
        offset=joined.offset,
        predicted_ms=joined.predicted_ms,
        labelled_ms=joined.labelled_ms,
        label=spec.classes[int(label)] if spec.classes else label,
        weight=joined.weight,
        revision=joined.revision,
    )
    envelope = _Envelope(
        specversion=SPEC_VERSION,
        id=derived_id("example", kind.model, joined.id, joined.revision),
        source=SOURCE,
        type="driftline.example.labelled.v1",
        time=from_ms(joined.labelled_ms),
        datacontenttype="application/json",
        data=data,
    )
    return Output("examples", joined.id.encode(), _ENCODER.encode(envelope), partition)


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
