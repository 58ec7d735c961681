"""The console as a process: its threads, its parts put together, its server."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

import structlog
import uvicorn

from consumers.console.access import Access
from consumers.console.actions import Actions
from consumers.console.board import Board
from consumers.console.doors import open_beside
from consumers.console.feed import Feed
from consumers.console.guard import App, Guard
from consumers.console.handling import Handling
from consumers.console.history import History
from consumers.console.inspector import Inspector
from consumers.console.pipeline import Pipeline
from consumers.console.pulse import Pulse
from consumers.console.reader import Reader
from consumers.console.routes import Parts, build
from consumers.console.shelf import Shelf
from consumers.console.store import open_database
from models.database import now_ms
from models.registry import Registry
from stream import logs, tracing
from stream.settings import Settings

log = structlog.get_logger("driftline.console")

LOOPBACK = ("127.0.0.1", "::1", "localhost")
STOP_SECONDS = 3


def run(settings: Settings) -> int:
    """Serve until SIGTERM.

    Raises:
        RegistryError: the console's database cannot be opened.
    """
    logs.configure(settings.log_format, settings.log_level, service="console")
    send_spans = tracing.configure("driftline-console")
    with assembled(settings) as parts:
        log.info("console", url=f"http://{settings.console_host}:{settings.console_port}/")
        if not on_loopback(settings) and not parts.access.any_tokens():
            log.warning("no token opens this console yet", make="driftline console token new NAME")
        config = uvicorn.Config(
            guarded(settings, parts),
            host=settings.console_host,
            port=settings.console_port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody's word on where a request comes from is taken
            timeout_graceful_shutdown=STOP_SECONDS,
            limit_concurrency=500,
        )
        doors = open_beside(settings, parts.reader, parts.feed)
        try:
            Server(config, parts.feed).run()
        finally:
            send_spans()
            if doors is not None:
                doors.close()
    return 0


class Server(uvicorn.Server):
    """Ends the streams when it is told to end, and then the process with 0."""

    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, which kills the process with the signal once more after a clean end."""
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._feed.closing = True
        super().handle_exit(sig, frame)


def on_loopback(settings: Settings) -> bool:
    return settings.console_host in LOOPBACK


def guarded(settings: Settings, parts: Parts) -> App:
    """The application behind its guard."""
    return Guard(
        build(parts),
        parts.access,
        port=settings.console_port,
        origins=settings.console_origins,
        open_on_loopback=on_loopback(settings) and settings.console_anonymous == "read",
    )


@contextmanager
def assembled(settings: Settings, *, follow: bool = True) -> Iterator[Parts]:
    """All parts, with the past loaded and, unless told otherwise, the topics followed."""
    with ExitStack() as stack:
        database = open_database(settings.console_url)
        stack.callback(database.close)
        registry = stack.enter_context(Registry(settings.registry_url))
        history = History(database, points=settings.console_points)
        board, pulse = Board(), Pulse()
        board.begin(history.present())
        access = Access(database)
        reader = Reader(settings, history, board, pulse, now_ms)
        pipeline = Pipeline(settings, now_ms)
        if follow:
            for thread in (reader, pipeline):
                thread.start()
                stack.callback(thread.stop)
        yield Parts(
            history=history,
            board=board,
            pulse=pulse,
            pipeline=pipeline,
            reader=reader,
            registry=registry,
            access=access,
            actions=Actions(registry, access, settings),
            handling=Handling(history, access, settings),
            inspector=Inspector(settings),
            shelf=Shelf(settings.max_artefact_bytes),
            feed=Feed(board, lambda: reader.standing, now_ms, secrets.token_hex(4)),
            clock=now_ms,
        )
