"""Servers on loopback that take alerts, or fail to in every way; and alerts on a topic in memory.

A receiver does one thing a connection, as told by its list of behaviours; the last goes on.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from consumers.places import Acknowledged, Delivered, Place
from stream.core.processor import Output, Record
from stream.envelope import write
from stream.events import Alert


@dataclass
class Posted:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[["Receiver", socket.socket], None]


class Receiver:
    """A TCP server; `posted` is what came whole, `talk` what an SMTP client said."""

    def __init__(self, *behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> None:
        self.posted: list[Posted] = []
        self.talk: list[str] = []
        self.connections = 0
        self.tls = tls
        self.behaviours = list(behaviours)
        self.closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._listener.close()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/hook"

    @property
    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.posted]

    def _serve(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            behaviour = self.behaviours[min(number, len(self.behaviours) - 1)]
            threading.Thread(target=self._one, args=(behaviour, connection), daemon=True).start()

    def _one(self, behaviour: Behaviour, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection:
                behaviour(self, connection)

    def take(self, connection: socket.socket) -> Posted:
        """Read one request whole."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += _some(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        line, *rest = head.decode().split("\r\n")
        headers = {k.lower(): v for k, v in (one.split(": ", 1) for one in rest)}
        while len(body) < int(headers.get("content-length", "0")):
            body += _some(connection)
        self.posted.append(Posted(line, headers, body, time.monotonic()))
        return self.posted[-1]


def _some(connection: socket.socket) -> bytes:
    piece = connection.recv(65_536)
    if not piece:
        raise ConnectionError
    return piece


def answer(status: int, body: bytes = b"ok", **headers: str) -> Behaviour:
    told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} So\r\nContent-Length: {len(body)}\r\n{told}\r\n".encode()

    def behave(receiver: Receiver, connection: socket.socket) -> None:
        receiver.take(connection)
        connection.sendall(head + body)

    return behave


ok = answer(200)


def hang(receiver: Receiver, connection: socket.socket) -> None:
    """Take it, and never answer."""
    receiver.take(connection)
    receiver.closing.wait(30)


def mute(receiver: Receiver, _: socket.socket) -> None:
    """Accept, and nothing else."""
    receiver.closing.wait(30)


def half(receiver: Receiver, connection: socket.socket) -> None:
    """Take it, promise ten bytes, send three and go."""
    receiver.take(connection)
    connection.sendall(b"HTTP/1.1 200 So\r\nContent-Length: 10\r\n\r\nabc")


def gone(receiver: Receiver, connection: socket.socket) -> None:
    """Take it and hang up."""
    receiver.take(connection)


def reset(_: Receiver, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def drip(receiver: Receiver, connection: socket.socket) -> None:
    """A byte now and then, for ever: each read succeeds, the answer never comes."""
    receiver.take(connection)
    connection.sendall(b"HTTP/1.1 200 So\r\nX-Slow: ")
    while not receiver.closing.wait(0.05):
        connection.sendall(b"a")


def babble(_: Receiver, connection: socket.socket) -> None:
    connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")


def endless(receiver: Receiver, connection: socket.socket) -> None:
    """Success, and a body that does not end."""
    receiver.take(connection)
    connection.sendall(b"HTTP/1.1 200 So\r\nContent-Length: 99999999999\r\n\r\n")
    while not receiver.closing.is_set():
        connection.sendall(b"a" * 65_536)


def mail_server(
    *,
    starttls: bool = True,
    replies: dict[str, str] | None = None,
    silent_at: str = "",
) -> Behaviour:
    """An SMTP server that takes everything, but for these replies by the command's first word.

    `receiver.tls` is what STARTTLS goes on with; `silent_at`: this command is never answered.
    """
    said = replies or {}

    def behave(receiver: Receiver, connection: socket.socket) -> None:
        with _Lines(connection) as lines:
            converse(receiver, lines)

    def converse(receiver: Receiver, lines: _Lines) -> None:
        lines.say(said.get("HELLO", "220 mail"))
        while True:
            text = lines.next()
            receiver.talk.append(text)
            word = text.split(":")[0].split(" ")[0].upper()
            if word == silent_at:
                receiver.closing.wait(30)
                return
            if word in said:
                lines.say(said[word])
            elif word == "EHLO":
                offered = ["250-mail"] + (["250-STARTTLS"] if starttls else [])
                lines.say("\r\n".join([*offered, "250 AUTH PLAIN LOGIN"]))
            elif word == "STARTTLS":
                lines.say("220 go on")
                lines.secure(receiver.tls)
            elif word == "DATA":
                lines.say("354 go on")
                receiver.posted.append(Posted("mail", {}, lines.until_dot(), time.monotonic()))
                lines.say(said.get(".", "250 taken"))
            elif word == "AUTH":
                lines.say("235 welcome")
            elif word == "QUIT":
                lines.say("221 bye")
                return
            else:
                lines.say("250 so be it")

    return behave


class _Lines:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def secure(self, tls: ssl.SSLContext | None) -> None:
        assert tls is not None
        self.connection = tls.wrap_socket(self.connection, server_side=True)

    def say(self, text: str) -> None:
        self.connection.sendall(text.encode() + b"\r\n")

    def next(self) -> str:
        return self._until(b"\r\n").decode()

    def until_dot(self) -> bytes:
        return self._until(b"\r\n.\r\n")

    def _until(self, end: bytes) -> bytes:
        while end not in self._held:
            self._held += _some(self.connection)
        found, _, self._held = self._held.partition(end)
        return found


class MailReceiver(Receiver):
    """An SMTP server: TLS only after STARTTLS."""

    def _one(self, behaviour: Behaviour, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            behaviour(self, connection)


def alert(number: int = 0, **changes: Any) -> Alert:
    values: dict[str, Any] = {
        "alert_id": f"alert-{number}",
        "model": "churn",
        "problem": "harm",
        "verdict": "performance harmed",
        "state": "open",
        "severity": "critical",
        "sentence": "The loss is higher than validated.",
        "version": 3,
        "opened_ms": 1_700_000_000_000,
        "updated_ms": 1_700_000_000_000,
    }
    return Alert(**{**values, **changes})


def record(offset: int, said: Alert, id_: str = "") -> Record:
    kind = "resolved" if said.state == "resolved" else "updated" if said.revision else "opened"
    value = write(
        f"driftline.alert.{kind}.v1",
        said,
        id=id_ or f"{said.alert_id}-{said.revision}",
        source="test",
        time_ms=said.updated_ms,
    )
    return Record(offset, said.updated_ms, said.alert_id.encode(), value, ())


@dataclass
class Topic:
    """Alerts in one partition, and how far a group has committed; `reader()` is a new member."""

    records: list[Record] = field(default_factory=list)
    committed: int = 0
    letters: list[Output] = field(default_factory=list)

    def add(self, *said: Alert) -> None:
        for one in said:
            self.records.append(record(len(self.records), one))

    def reader(self) -> Member:
        return Member(self)

    @property
    def drained(self) -> bool:
        return self.committed == len(self.records)


class Member:
    """What `consumers.group.GroupReader` is to a courier."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._next = topic.committed
        self._acknowledged = Acknowledged()
        self.held = False

    def poll(self, timeout_seconds: float, most: int) -> list[Delivered]:
        if self.held or self._next == len(self._topic.records):
            time.sleep(min(timeout_seconds, 0.01))
            return []
        came = self._topic.records[self._next : self._next + most]
        self._next += len(came)
        delivered = [Delivered(Place(0, one.offset), one) for one in came]
        for one in delivered:
            self._acknowledged.take(one.place)
        return delivered

    def hold(self, *, held: bool) -> None:
        self.held = held

    def done(self, place: Place) -> None:
        self._acknowledged.done(place)

    def commit(self) -> None:
        self._topic.committed = self._acknowledged.committable().get(0, self._topic.committed)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port on which nothing listens while it is held."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield one.getsockname()[1]


def distinct(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))
