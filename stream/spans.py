"""The span of a flush: one for each that commits records, never one for an event.

It lasts from the first record applied since the flush before to the end of the transaction, and
links to a few of the sampled traces of its records. They are looked for in the records' bytes, so
that the core knows of no span; and only where spans are recorded: else a partition has none of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

from opentelemetry.trace import Span, SpanKind, use_span

from stream import tracing
from stream.core.processor import Record
from stream.core.traces import MOST, few, is_trace
from stream.topics import Stage

#: As an envelope carries one, and a summary several.
_QUOTED: Final = re.compile(rb'"(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})"')
_SAMPLED: Final = 0b1  # of the flags, the last byte: someone keeps the spans of this trace


class Flushes:
    """The spans of one partition's flushes; one thread at a time."""

    def __init__(self, stage: Stage, partition: int) -> None:
        self._stage = stage
        self._partition = partition
        self._clear()

    def _clear(self) -> None:
        self._begun_ns: int | None = None
        self._records = 0
        self._traces: list[str] = []

    def applies(self, records: Sequence[Record]) -> None:
        """These are about to be applied."""
        if self._begun_ns is None:
            self._begun_ns = time.time_ns()
        self._records += len(records)
        if len(self._traces) < MOST:
            self._traces = few(self._traces, sampled(records))

    def taken(self, outputs: int) -> AbstractContextManager[None]:
        """All that was applied goes into a transaction, inside what is returned; what goes wrong
        there is the span's error."""
        span = tracing.tracer().start_span(
            f"{self._stage} flush",
            kind=SpanKind.CONSUMER,
            start_time=self._begun_ns,
            links=tracing.links(self._traces),
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.batch.message_count": self._records,
                "driftline.stage": self._stage,
                "driftline.partition": self._partition,
                "driftline.outputs": outputs,
            },
        )
        self._clear()
        return _commit(span)


@contextmanager
def _commit(span: Span) -> Iterator[None]:
    with use_span(span, end_on_exit=True):
        span.add_event("commit begins")
        yield


def sampled(records: Iterable[Record]) -> list[str]:
    """The first few sampled `traceparent`s that these records name, in values or headers."""
    found: dict[str, None] = {}
    for record in records:
        found |= dict.fromkeys(filter(_is_sampled, _named(record)))
        if len(found) >= MOST:
            break
    return list(found)[:MOST]


def _named(record: Record) -> Iterator[str]:
    for name, value in record.headers:
        if name in ("traceparent", "ce_traceparent") and value:
            yield value.decode(errors="replace")
    for trace in _QUOTED.findall(record.value or b""):
        yield trace.decode()


def _is_sampled(trace: str) -> bool:
    return is_trace(trace) and bool(int(trace[-2:], 16) & _SAMPLED)
