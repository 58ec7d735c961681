"""A TCP proxy between the stages and their broker that can cut, delay and fall silent.

    with Proxy(target_port) as proxy:
        proxy.cut()

The broker must advertise the proxy's port to who comes through it: `broker_behind` makes one so.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.broker import Broker, free_ports

PIECE_BYTES = 65_536
LISTENERS = """
listeners=PLAINTEXT://127.0.0.1:{{port}},BEHIND://127.0.0.1:{target},CONTROLLER://127.0.0.1:{{controller_port}}
advertised.listeners=PLAINTEXT://127.0.0.1:{{port}},BEHIND://127.0.0.1:{proxy}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,BEHIND:PLAINTEXT
"""


class Proxy:
    """Forwards every connection to `target_port` on loopback.

    Attributes:
        delay_seconds: every piece waits so long, each way.
        piece_bytes: the most that goes through at once.
        cuts: connections that were cut.
    """

    def __init__(self, target_port: int) -> None:
        self.delay_seconds = 0.0
        self.piece_bytes = PIECE_BYTES
        self.cuts = 0
        self._target = ("127.0.0.1", target_port)
        self._open: set[socket.socket] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._lock = threading.Lock()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()
        self._flowing.set()
        self.cut()

    def cut(self) -> None:
        """Reset all connections."""
        with self._lock:
            cut, self._open = self._open, set()
        self.cuts += len(cut) // 2
        for one in cut:
            with suppress(OSError):  # the other end was quicker
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def silence(self) -> None:
        """Half-open: connections stay, new ones are taken, and nothing goes through."""
        self._flowing.clear()

    def speak(self) -> None:
        self._flowing.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open |= {client, server}
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(self.piece_bytes):
                if self.delay_seconds:
                    time.sleep(self.delay_seconds)
                self._flowing.wait()
                sink.sendall(piece)
        with self._lock:
            self._open -= {source, sink}
        source.close()
        sink.close()


def broker_behind(directory: Path) -> tuple[Broker, Proxy]:
    """A broker that is reached directly at its `bootstrap`, and at the proxy's port through it."""
    (target,) = free_ports(1)
    proxy = Proxy(target)
    listeners = LISTENERS.format(target=target, proxy=proxy.port)
    return Broker(directory, properties=listeners), proxy
