"""OpenTelemetry traces, where the extra `otel` is installed and an exporter is set; else nothing.

Set by OpenTelemetry's own variables: OTEL_EXPORTER_OTLP_ENDPOINT and the others. Without them, or
without the extra, every span here is the API's empty one, and costs next to nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Final

import structlog
from opentelemetry import trace
from opentelemetry.trace import Link, NoOpTracerProvider, ProxyTracerProvider, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stream.core.traces import MOST, is_trace

log = structlog.get_logger(__name__)

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
END_SECONDS: Final = 2.0
EXTRA: Final = "opentelemetry.exporter.otlp.proto.http"
_W3C: Final = TraceContextTextMapPropagator()


def configure(service: str) -> Callable[[], None]:
    """Send this process's spans where OpenTelemetry's variables say; off without them.

    Returns:
        What sends the rest, for when the process ends.
    """
    unwanted = os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    if unwanted or not any(os.environ.get(name) for name in ENDPOINTS):
        return _nothing
    if not _installed():
        log.warning("traces are not sent", advice="pip install 'driftline[otel]'")
        return _nothing
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource.create({"service.namespace": "driftline", "service.name": service})
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return lambda: _within(END_SECONDS, provider.shutdown)


def tracer() -> Tracer:
    return trace.get_tracer("driftline")


def recording() -> bool:
    """Whether spans of this process go anywhere: what only they need is to cost nothing else."""
    provider = trace.get_tracer_provider()
    return not isinstance(provider, ProxyTracerProvider | NoOpTracerProvider)


def links(traceparents: Iterable[object]) -> list[Link]:
    """Links to a few traces; what is no `traceparent` is left out."""
    told = [one for one in traceparents if isinstance(one, str) and is_trace(one)][:MOST]
    contexts = [_W3C.extract({"traceparent": one}) for one in told]
    return [Link(trace.get_current_span(context).get_span_context()) for context in contexts]


def carried() -> dict[str, str]:
    """Headers that say to whoever is called now which span calls; none outside a real span."""
    headers: dict[str, str] = {}
    _W3C.inject(headers)
    return headers


def _installed() -> bool:
    try:
        return find_spec(EXTRA) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def _within(seconds: float, work: Callable[[], object]) -> None:
    """Do it, or leave it: an exporter that nobody answers must not hold up the end."""
    thread = threading.Thread(target=work, name="traces", daemon=True)
    thread.start()
    thread.join(seconds)


def _nothing() -> None:
    pass
