"""A past range, folded again by the core: monitor by its journal, evaluate by what it followed.

Nothing is decided here. Equal records, journal and lifecycle give the same bytes as they gave live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from stream.core.evaluate import EvaluateProcessor
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Context, Fleet, LiveModel, Output, Record
from stream.events import Applied, ProgressReported

#: Gives the records of a run, which the journal names, in offset order.
Fetch = Callable[[Applied], Sequence[Record]]
#: Gives a model as of a generation of lifecycle.
Lives = Callable[[str, int], LiveModel]


class Adoption(NamedTuple):
    """Records of `summaries` from `offset` on were judged by this generation, till the next."""

    offset: int
    generation: int


def counted(
    context: Context,
    reports: Iterable[ProgressReported],
    fetch: Fetch,
    lives: Lives,
    fleet: Fleet,
) -> Iterator[list[Output]]:
    """What one partition of monitor wrote with each of its reports, and between it and the last.

    Args:
        reports: of this partition, without a hole. What it held before the first is not known.
        fleet: what was live before them.
    """
    processor = MonitorProcessor(context)
    for report in reports:
        outputs: list[Output] = []
        for run in report.applied:
            news = {name: lives(name, number) for name, number in run.generations.items()}
            fleet = {**fleet, **news} if news else fleet
            records = fetch(run) if run.entity else ()
            outputs += processor.apply(Batch(run.entity, context.partition, records), fleet)
        outputs += processor.advance(report.clock_ms, report.caught_up, fleet)
        processor.changes(complete=False)  # else it keeps them for a checkpoint
        yield outputs


def judged(
    context: Context,
    model: str,
    records: Sequence[Record],
    adoptions: Sequence[Adoption],
    lives: Mapping[int, LiveModel],
    check: Callable[[Record], None],
) -> Iterator[Output]:
    """What evaluate says of one model.

    Args:
        records: of the model's partition of `summaries`, of this model and of progress.
        adoptions: in the order of offsets.
        lives: by generation.
        check: as `EvaluateProcessor` takes it.
    """
    processor, fleet = EvaluateProcessor(context, check), dict[str, LiveModel]()
    ahead = list(reversed(adoptions))
    for record in records:
        while ahead and ahead[-1].offset <= record.offset:
            fleet = {model: lives[ahead.pop().generation]}
            yield from processor.advance(0, False, fleet)
        yield from processor.apply(Batch("summaries", context.partition, [record]), fleet)
    while ahead:
        yield from processor.advance(0, False, {model: lives[ahead.pop().generation]})
