"""One partition of monitor folded again, in a process of its own: partitions know no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

import msgspec
from msgspec import Struct

from consumers.loop import RangeReader
from consumers.places import Span
from consumers.replay.fleets import Fleets
from consumers.replay.past import ReplayError
from stream.core.processor import Context, Record
from stream.core.replaying import counted
from stream.events import Applied, LifecycleChanged, ProgressReported
from stream.settings import Settings
from stream.topics import INPUTS

Fetch = Callable[[Applied], Sequence[Record]]


class Job(Struct, frozen=True, kw_only=True):
    """One partition's share.

    Attributes:
        home: the partition of `summaries` whose records are wanted, those of `model` and reports.
        partitions: counts by entity.
        before: generations in force before the first report, by model.
    """

    model: str
    partition: int
    home: int
    partitions: dict[str, int]
    reports: list[ProgressReported]
    lifecycles: list[LifecycleChanged]
    before: dict[str, int]


class Counted(Struct, frozen=True, kw_only=True):
    """What came of it: values by report, and how many records were applied, by entity."""

    made: list[list[bytes]]
    events: dict[str, int]


class Log:
    """The records of one partition's inputs, read once and forwards.

    Raises (when called):
        ReplayError: retention has taken some.
    """

    def __init__(self, settings: Settings, job: Job, stack: ExitStack) -> None:
        self.events: dict[str, int] = dict.fromkeys(INPUTS["monitor"], 0)
        self._partition = job.partition
        self._next: dict[str, Record | None] = {}
        self._ahead: dict[str, Iterator[Record]] = {}
        for entity in INPUTS["monitor"]:
            runs = [run for report in job.reports for run in report.applied if run.entity == entity]
            if not runs:
                continue
            reader = stack.enter_context(RangeReader(settings))
            held = {span.partition: span for span in reader.bounds(entity)}[job.partition]
            if held.start > runs[0].first:
                raise ReplayError(
                    f"{settings.names.topic(entity)}/{job.partition}: offset {runs[0].first} is "
                    f"wanted, and retention has left those from {held.start} on; begin later with "
                    "--from, or fold the counts alone with --counts"
                )
            spans = [Span(job.partition, runs[0].first, runs[-1].end)]
            self._ahead[entity] = (record for _, record in reader.read(entity, spans))
            self._next[entity] = next(self._ahead[entity], None)

    def __call__(self, run: Applied) -> list[Record]:
        found, ahead = [], self._ahead[run.entity]
        record = self._next[run.entity]
        while record is not None and record.offset < run.end:
            found.append(record)
            record = next(ahead, None)
        self._next[run.entity] = record
        self.events[run.entity] += len(found)
        return found


def count(settings: Settings, job: Job) -> Counted:
    with ExitStack() as stack:
        log = Log(settings, job, stack)
        return Counted(made=fold(settings, job, log), events=log.events)


def fold(settings: Settings, job: Job, fetch: Fetch) -> list[list[bytes]]:
    """What the partition wrote for this model, by report."""
    lifecycles = {(one.model, one.generation): one for one in job.lifecycles}
    fleets = Fleets(lifecycles, settings)
    before = {model: fleets.live(model, number) for model, number in job.before.items()}
    context = Context(job.partition, job.partitions, settings.core)
    reports = counted(context, job.reports, fetch, fleets.live, before)
    return [
        [
            output.value or b""
            for output in outputs
            if (output.entity, output.partition) == ("summaries", job.home)
            and output.key in (None, job.model.encode())
        ]
        for outputs in reports
    ]


def count_all(settings: Settings, jobs: Sequence[Job], processes: int) -> list[Counted]:
    """In the order of the jobs, however many processes share them."""
    if processes < 2 or len(jobs) < 2:
        return [count(settings, job) for job in jobs]
    given = msgspec.json.encode(settings.plain())
    context = get_context("spawn")  # forked clients of Kafka do not work
    with ProcessPoolExecutor(min(processes, len(jobs)), mp_context=context) as pool:
        return _gathered(pool, given, jobs)


def _gathered(pool: Executor, given: bytes, jobs: Sequence[Job]) -> list[Counted]:
    encoded = [msgspec.msgpack.encode(job) for job in jobs]
    told = pool.map(_counted, [given] * len(jobs), encoded)
    return [msgspec.msgpack.decode(one, type=Counted) for one in told]


def _counted(given: bytes, job: bytes) -> bytes:
    settings = Settings(**msgspec.json.decode(given))
    return msgspec.msgpack.encode(count(settings, msgspec.msgpack.decode(job, type=Job)))
