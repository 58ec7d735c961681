"""One form for every log line: ours, the libraries', warnings, and what nobody caught."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from types import TracebackType
from typing import Any, Final

import structlog

# Faust's services log under the module that subclasses them.
REPEATING: Final = "driftline.kafka"  # librdkafka's: twenty lines a second while a broker is away
SELDOM_SECONDS: Final = 60.0
LIBRARIES = ("faust", "mode", "aiokafka", "asyncio", "stream.app", "stream.transport")


def configure(log_format: str, level: str, **bound: str) -> None:
    """Log to stderr, as text or as one JSON object a line; `bound` goes with every line."""
    structlog.contextvars.clear_contextvars()

    def add_bound(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**bound, **event}

    shared: list[Any] = [
        add_bound,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
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
        logger_factory=_Named,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
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
    logging.getLogger(REPEATING).filters[:] = [] if level == "debug" else [Seldom()]
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


class Seldom(logging.Filter):
    """Lets a line that differs from an earlier one in numbers only pass once in so many seconds,
    with how many were left out."""

    MOST: Final = 200  # kinds of lines that are remembered
    _NUMBERS: Final = re.compile(r"\d+")

    def __init__(
        self, seconds: float = SELDOM_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}  # kind -> when it passed, left out since
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        text, now = record.getMessage(), self._clock()
        kind = self._NUMBERS.sub("#", text)
        with self._lock:
            at, left_out = self._said.get(kind, (now - self._seconds, 0))
            if now - at < self._seconds:
                self._said[kind] = (at, left_out + 1)
                return False
            if len(self._said) >= self.MOST:
                self._said.clear()
            self._said[kind] = (now, 0)
        if left_out:
            record.msg, record.args = f"{text} ({left_out} more such lines since the last)", ()
        return True


class _Named(structlog.WriteLogger):
    """Writes to stderr, and knows the name it was asked for by."""

    def __init__(self, name: str = "driftline") -> None:
        super().__init__(sys.stderr)
        self.name = name


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    told = (kind, error, trace)
    structlog.get_logger("driftline").critical("not caught", exc_info=told)


def _uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_value is not None:
        name = told.thread.name if told.thread is not None else ""
        error = (told.exc_type, told.exc_value, told.exc_traceback)
        structlog.get_logger("driftline").critical("not caught", thread=name, exc_info=error)
