"""What `summaries` tells of a range: what was applied, in what order, and what came of it.

The model's partition holds the deltas of its model and a copy of every report of monitor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from stream.core.evaluate import HANDLED_TYPE, SUMMARY_TYPE
from stream.core.processor import Record
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import ProgressReported, SummaryComputed


class Report(NamedTuple):
    """One report of a partition of monitor.

    Attributes:
        record: as it lies there.
        deltas: of the model, that came with it.
    """

    record: Record
    said: ProgressReported
    deltas: list[Record]


class Journal(NamedTuple):
    """
    Attributes:
        reports: by partition of monitor, in their order.
        asides: records that monitor did not write: score's counts, what people say of alerts.
    """

    reports: dict[int, list[Report]]
    asides: list[Record]

    @property
    def is_complete(self) -> bool:
        """It begins where each partition began: nothing was known before."""
        return all(reports[0].said.sequence == 0 for reports in self.reports.values())

    @property
    def first_watermark_ms(self) -> int:
        """Event time that every partition had passed as it begins."""
        return min(reports[0].said.watermark_ms for reports in self.reports.values())

    @property
    def watermark_ms(self) -> int:
        """Event time that every partition has passed as it ends."""
        return min(reports[-1].said.watermark_ms for reports in self.reports.values())

    @property
    def clock_ms(self) -> int:
        """Of the oldest report."""
        return min(reports[0].said.clock_ms for reports in self.reports.values())

    @property
    def generations(self) -> set[tuple[str, int]]:
        """Models and generations that monitor went over to."""
        every = (report for reports in self.reports.values() for report in reports)
        runs = (run for report in every for run in report.said.applied)
        return {place for run in runs for place in run.generations.items()}

    @property
    def recorded(self) -> list[Record]:
        """All of it, in the order of the log."""
        every = (report for reports in self.reports.values() for report in reports)
        told = [record for report in every for record in (*report.deltas, report.record)]
        return sorted([*self.asides, *told], key=lambda record: record.offset)


class Laid(NamedTuple):
    """`summaries` as it would be.

    Attributes:
        made, same: records of monitor, and how many of them are byte for byte as they were.
    """

    records: list[Record]
    made: int
    same: int


def read_journal(records: Iterable[Record], model: str, max_bytes: int) -> Journal:
    """Sort out what lies in the model's partition; deltas without their report are left out."""
    journal, waiting = Journal({}, []), dict[int, list[Record]]()
    for record in records:
        if record.key in (None, model.encode()):
            try:
                _sort(record, journal, waiting, max_bytes)
            except Refused:  # evaluate counted it, and did nothing else
                continue
    return journal


def _sort(
    record: Record, journal: Journal, waiting: dict[int, list[Record]], max_bytes: int
) -> None:
    opened = open_record("summaries", record, max_bytes=max_bytes)
    if opened.type == SUMMARY_TYPE:
        delta = read(opened, SummaryComputed)  # score's say themselves where they come from
        (journal.asides if delta.offsets else waiting.setdefault(delta.partition, [])).append(
            record
        )
    elif opened.type == HANDLED_TYPE:
        journal.asides.append(record)
    else:
        said = read(opened, ProgressReported)
        report = Report(record, said, waiting.pop(said.partition, []))
        journal.reports.setdefault(said.partition, []).append(report)


def laid_out(journal: Journal, made: Mapping[int, Sequence[Sequence[bytes]]]) -> Laid:
    """`summaries` as it would be with these records of monitor in place of those that are there.

    Args:
        made: by partition and report: deltas of the model, and the report itself.
    """
    records, same = list(journal.asides), 0
    for partition, reports in journal.reports.items():
        for report, values in zip(reports, made[partition], strict=True):
            before = [*report.deltas, report.record]
            same += sum(old.value == new for old, new in zip(before, values, strict=False))
            records += _placed(before, values)
    count = len(records) - len(journal.asides)
    return Laid(sorted(records, key=lambda record: record.offset), count, same)


def _placed(before: Sequence[Record], values: Sequence[bytes]) -> list[Record]:
    """Where those were, if they are as many; else all where the report was."""
    places = before if len(before) == len(values) else [before[-1]] * len(values)
    return [place._replace(value=value) for place, value in zip(places, values, strict=True)]
