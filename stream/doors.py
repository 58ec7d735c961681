"""What a process tells over HTTP: `/livez`, `/readyz` with the reasons, `/metrics`.

Loopback unless the setting `metrics_host` says otherwise. It answers from threads of its own,
also while the process still looks for its broker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

import msgspec
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stream.errors import ConfigurationError
from stream.settings import Settings

log = structlog.get_logger(__name__)

JSON: Final = "application/json"
OK, NOT_FOUND, UNAVAILABLE = 200, 404, 503
CLIENT_SECONDS = 5.0  # a client that says nothing is left

#: Why not: empty where all is well.
Reasons = Callable[[], list[str]]
Answer = tuple[int, str, bytes]


class Doors:
    """An HTTP server on daemon threads, from when it is made.

    Args:
        live, ready: why the process is not alive, or not ready.
        about: goes with both answers, such as {"stage": "score"}.

    Raises:
        ConfigurationError: the address is taken or not this machine's.
    """

    def __init__(
        self,
        address: tuple[str, int],
        live: Reasons,
        ready: Reasons,
        metrics: CollectorRegistry,
        **about: str,
    ) -> None:
        self._about = about
        self._metrics = metrics
        self._reasons = {"/livez": ("live", live), "/readyz": ("ready", ready)}
        try:
            self._server = _Server(address, _Handler)
        except OSError as error:
            where = f"{address[0]}:{address[1]}"
            raise ConfigurationError(
                f"{where} can't be listened on ({error.strerror}): choose another "
                "DRIFTLINE_METRICS_PORT (children of one worker take one each) or METRICS_HOST"
            ) from error
        self._server.answer = self.answer
        threading.Thread(target=self._server.serve_forever, name="doors", daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, accept: str) -> Answer:
        """Status, content type and body."""
        if path == "/metrics":
            encode, kind = choose_encoder(accept)
            return OK, kind, encode(self._metrics)
        if path not in self._reasons:
            paths = ["/metrics", *self._reasons]
            return NOT_FOUND, JSON, msgspec.json.encode({"paths": paths})
        word, why = self._reasons[path]
        reasons = why()
        body = {word: not reasons, "reasons": reasons, **self._about}
        return UNAVAILABLE if reasons else OK, JSON, msgspec.json.encode(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    answer: Callable[[str, str], Answer]


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = CLIENT_SECONDS
    server_version = "driftline"
    sys_version = ""

    def do_GET(self) -> None:
        try:
            status, kind, body = self.server.answer(
                self.path.partition("?")[0], self.headers.get("Accept", "")
            )
        except Exception:
            log.exception("door", path=self.path)
            status, kind, body = 500, JSON, b'{"error":"see the log"}'
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody wants a line a scrape."""


def open_doors(
    settings: Settings, live: Reasons, ready: Reasons, metrics: CollectorRegistry, **about: str
) -> Doors | None:
    """The doors of a process, where `metrics_port` asks for them."""
    if settings.metrics_port is None:
        return None
    doors = Doors((settings.metrics_host, settings.metrics_port), live, ready, metrics, **about)
    log.info("doors", url=f"http://{settings.metrics_host}:{doors.port}/readyz")
    return doors
