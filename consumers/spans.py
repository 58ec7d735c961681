"""Spans of what happens seldom: commands, retrains and their steps, publishing, a person's deeds;
and of each turn of the bridge.

Where no spans are recorded these are the API's empty ones (see `stream.tracing`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Literal

from opentelemetry.trace import Span, SpanKind, set_span_in_context

from models.state import LiveState
from stream import tracing
from stream.core.processor import Record
from stream.events import Command
from stream.spans import sampled

NAME_CHARACTERS: Final = 200  # of a model that a stranger may have named
Step = Literal["wait", "fit", "gate"]


def decision(command: Command) -> AbstractContextManager[Span]:
    """A command that is carried out at once, with links to the traces in its evidence."""
    return tracing.tracer().start_as_current_span(
        command.kind,
        kind=SpanKind.CONSUMER,
        links=tracing.links(_traces(command.evidence)),
        attributes=_of(command),
    )


def publication(states: Sequence[LiveState]) -> AbstractContextManager[Span]:
    """One transaction on `lifecycle`."""
    return tracing.tracer().start_as_current_span(
        "publish lifecycle",
        kind=SpanKind.PRODUCER,
        links=tracing.links(trace for state in states for trace in state.traces),
        attributes={
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.batch.message_count": len(states),
            "driftline.models": sorted({state.model for state in states}),
        },
    )


@contextmanager
def bridging(records: Sequence[Record], counts: Counter[str]) -> Iterator[None]:
    """One turn of the bridge, to the end of its commit; none of a turn to which nothing came.

    Args:
        counts: what was made of all records so far; what the turn adds is told.
    """
    if not records or not tracing.recording():
        yield
        return
    before = counts.copy()
    with tracing.tracer().start_as_current_span(
        "bridge turn",
        kind=SpanKind.CONSUMER,
        links=tracing.links(sampled(records)),
        attributes={
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.batch.message_count": len(records),
        },
    ) as span:
        yield
        for name, made in (counts - before).items():
            span.set_attribute(f"driftline.{name}", made)


def deed(action: str, model: str, role: str) -> AbstractContextManager[Span]:
    """What a person asks of the console. Who it is stands in the audit, not here."""
    return tracing.tracer().start_as_current_span(
        f"console {action}",
        kind=SpanKind.SERVER,
        attributes={"driftline.model": model[:NAME_CHARACTERS], "driftline.role": role},
    )


class RetrainSpans:
    """A retrain as a span, and its steps as spans within it, one after the other.

    It lasts over many turns of the trainer's loop, so none of them is ever the current span.
    """

    def __init__(self, command: Command) -> None:
        self._whole = tracing.tracer().start_span(
            "retrain",
            kind=SpanKind.CONSUMER,
            links=tracing.links(_traces(command.evidence)),
            attributes=_of(command),
        )
        self._step: Span | None = None

    def begin(self, step: Step) -> None:
        """The step before, if any, is over."""
        self._over()
        within = set_span_in_context(self._whole)
        self._step = tracing.tracer().start_span(step, context=within)

    def end(self, verdict: str, run_id: int | None = None) -> None:
        self._over()
        self._whole.set_attribute("driftline.verdict", verdict)
        if run_id is not None:
            self._whole.set_attribute("driftline.run", run_id)
        self._whole.end()

    def _over(self) -> None:
        if self._step is not None:
            self._step.end()
            self._step = None


def _of(command: Command) -> dict[str, str | int]:
    told: dict[str, str | int] = {
        "driftline.model": command.model,
        "driftline.command.id": command.command_id,
        "driftline.generation": command.generation,
    }
    return told if command.version is None else told | {"driftline.version": command.version}


def _traces(evidence: Mapping[str, object]) -> Sequence[object]:
    traces = evidence.get("traces")
    return traces if isinstance(traces, list) else ()
