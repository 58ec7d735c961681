"""One form for every log line, ours and the libraries'."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

# Faust's services log under the module that subclasses them.
LIBRARIES = ("faust", "mode", "aiokafka", "asyncio", "stream.app", "stream.transport")


def configure(log_format: str, level: str, **bound: str) -> None:
    """Log to stderr, as text or as one JSON object a line; `bound` goes with every line."""
    structlog.contextvars.clear_contextvars()

    def add_bound(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**bound, **event}

    shared: list[Any] = [
        add_bound,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # The default prints local variables, which are people's records.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    traceback = [structlog.processors.format_exc_info] if log_format == "json" else []
    structlog.configure(
        processors=[*shared, *traceback, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *traceback,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in LIBRARIES:  # their INFO tells a rebalance in forty lines
        logging.getLogger(name).setLevel("DEBUG" if level == "debug" else "WARNING")
