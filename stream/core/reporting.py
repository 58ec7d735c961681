"""The records that one partition of monitor writes about what it has seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from stream.core.joining import Joined
from stream.core.packing import Kind
from stream.core.partitioning import partition_of
from stream.core.processor import Output
from stream.envelope import derived_id, write
from stream.events import ExamplesLabelled, Label, ProgressReported, SummaryComputed

SOURCE: Final = "driftline/monitor"
EXAMPLES: Final = 1_000  # of one record, at most: with the longest ids it takes 0.6 MB


def examples(
    joined: Iterable[Joined], classes: Mapping[str, Sequence[str]], partition: int
) -> list[Output]:
    """Predictions and their labels, those made alike together; a label in one spelling, however it
    came.

    Args:
        classes: by model, as labels are spelt; none for numbers.
    """
    alike: dict[Kind, list[Joined]] = {}
    for one in joined:
        alike.setdefault(one.kind, []).append(one)
    return [
        _example(kind, some[at : at + EXAMPLES], classes[kind.model], partition)
        for kind, some in alike.items()
        for at in range(0, len(some), EXAMPLES)
    ]


def _example(kind: Kind, some: Sequence[Joined], names: Sequence[str], partition: int) -> Output:
    first, last = some[0], some[-1]
    labelled_ms = [one.labelled_ms for one in some]
    weights = [one.weight for one in some]
    revisions = [one.revision for one in some]
    said: list[Label] = [one.label for one in some]
    value = write(
        "driftline.example.labelled.v2",
        ExamplesLabelled(
            model=kind.model,
            version=kind.version,
            partition=partition,
            prediction_ids=[one.id for one in some],
            offsets=[one.offset for one in some],
            predicted_ms=[one.predicted_ms for one in some],
            labelled_ms=labelled_ms,
            labels=[names[int(label)] for label in said] if names else said,
            weights=weights if weights.count(1.0) < len(some) else [],
            revisions=revisions if any(revisions) else [],
        ),
        id=derived_id(
            *("examples", kind.model, len(some)),
            *(first.id, first.revision, last.id, last.revision),
        ),
        source=SOURCE,
        time_ms=max(labelled_ms),
    )
    return Output("examples", kind.model.encode(), value, partition)


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
