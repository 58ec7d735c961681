"""A configured sink as something that sends: secrets read, TLS ready, time limited."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.trace import Span, SpanKind, StatusCode

from consumers.sinks import mailing, posting, running, shapes
from consumers.sinks.configured import (
    BaseSink,
    Command,
    Email,
    HttpSink,
    PagerDuty,
    Sink,
    Slack,
    Webhook,
    revealed,
)
from consumers.sinks.notes import Note
from consumers.sinks.outcomes import NotTaken
from consumers.sinks.shapes import Request
from consumers.sinks.wording import filled, json_text
from models.masking import HIDDEN
from stream import tracing
from stream.errors import ConfigurationError

Deliver = Callable[[Note], Awaitable[None]]
#: From being told to end to giving an attempt up: its alert is delivered again.
GRACE_SECONDS: Final = 3.0
LOOK_SECONDS: Final = 0.1
#: What a failed attempt closed, above all TLS, is closed by the event loop, and that ends here.
CLOSING_SECONDS: Final = 0.05


class Sender(NamedTuple):
    """One sink, ready.

    Attributes:
        sink: its configuration.
        deliver: one attempt, without a time limit; raises NotTaken.
        secrets: must not be in anything that is shown.
    """

    name: str
    sink: BaseSink
    deliver: Deliver
    secrets: tuple[str, ...]

    def attempt(self, note: Note, ending: Callable[[], bool]) -> None:
        """One attempt, within the sink's time limit, or what is left when the process ends.

        Raises:
            NotTaken: the sink did not take it, and says why without a secret.
        """
        with self._span(note) as span:
            try:
                asyncio.run(_within(self.deliver(note), self.sink.timeout_seconds, ending))
            except NotTaken as failed:
                detail = self._shown(failed.detail)
                span.set_attribute("error.type", failed.why)
                span.set_status(StatusCode.ERROR, detail)
                raise NotTaken(
                    failed.why, detail, for_good=failed.for_good, after_seconds=failed.after_seconds
                ) from None

    def _span(self, note: Note) -> AbstractContextManager[Span]:
        """The attempt as a span, linked to a few traces of what the alert counted."""
        traces = note.alert.evidence.get("traces")
        return tracing.tracer().start_as_current_span(
            f"send alert {note.event}",
            kind=SpanKind.CLIENT,
            links=tracing.links(traces if isinstance(traces, list) else ()),
            attributes={
                "driftline.sink": self.name,
                "driftline.model": note.alert.model,
                "driftline.problem": note.alert.problem,
                "driftline.alert.id": note.alert.alert_id,
                "driftline.alert.event.id": note.id,
            },
            record_exception=False,
            set_status_on_exception=False,
        )

    def _shown(self, detail: str) -> str:
        for secret in self.secrets:
            detail = detail.replace(secret, HIDDEN)
        return detail


def build(name: str, sink: Sink) -> Sender:
    """
    Raises:
        ConfigurationError: a secret is not where the configuration says, or no secret of its kind.
    """
    try:
        secrets = [part for secret in sink.secrets() for part in _parts(secret.read())]
        return Sender(name, sink, _deliver(sink), tuple(secrets))
    except ConfigurationError as error:
        raise ConfigurationError(f"sinks.{name}: {error}") from error


def _parts(secret: str) -> Iterator[str]:
    """A secret, and of a URL what its server is told: it may say that again."""
    yield secret
    parts = urlsplit(secret)
    if parts.scheme in ("http", "https"):
        yield from (part for part in (parts.query, parts.path) if len(part) > 1)


async def _within(work: Awaitable[None], seconds: float, ending: Callable[[], bool]) -> None:
    task = asyncio.ensure_future(work)
    deadline, told = time.monotonic() + seconds, False
    while not task.done():
        if ending() and not told:
            deadline, told = min(deadline, time.monotonic() + GRACE_SECONDS), True
        left = deadline - time.monotonic()
        if left <= 0:
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
            break
        await asyncio.wait({task}, timeout=min(left, LOOK_SECONDS))
    if not task.done() or task.cancelled() or task.exception() is not None:
        await asyncio.sleep(CLOSING_SECONDS)
    if not task.done() or task.cancelled():
        raise NotTaken("timeout", f"not taken within {seconds:g} s")
    task.result()


def _deliver(sink: Sink) -> Deliver:
    match sink:
        case Webhook():
            return _webhook(sink)
        case Slack():
            url = sink.checked_url(sink.url.read())
            return _poster(sink, lambda note: shapes.slack(note, sink, url))
        case PagerDuty():
            key = sink.routing_key.read()
            sink.checked_url(sink.url)
            return _poster(sink, lambda note: shapes.pagerduty(note, sink, key))
        case Email():
            return _email(sink)
        case Command():
            return _command(sink)


def _webhook(sink: Webhook) -> Deliver:
    url, keys = sink.checked_url(revealed(sink.url)), sink.keys()
    headers = {name.lower(): revealed(given) for name, given in sink.headers.items()}

    def request(note: Note) -> Request:
        carried = headers | tracing.carried()
        return shapes.webhook(note, url, sink.body, carried, keys, int(time.time()))

    return _poster(sink, request)


def _poster(sink: HttpSink, request: Callable[[Note], Request]) -> Deliver:
    tls = ssl.create_default_context(cafile=sink.ca_file)

    async def deliver(note: Note) -> None:
        await posting.post(request(note), tls, sink.proxy)

    return deliver


def _email(sink: Email) -> Deliver:
    password = None if sink.password is None else sink.password.read()
    tls = None if sink.tls == "none" else ssl.create_default_context(cafile=sink.ca_file)

    async def deliver(note: Note) -> None:
        await mailing.send(mailing.mail(note, sink), sink, password, tls)

    return deliver


def _command(sink: Command) -> Deliver:
    async def deliver(note: Note) -> None:
        given = (
            note.value if sink.stdin is None else filled(sink.stdin, note.words, json_text).encode()
        )
        about = {"DRIFTLINE_ALERT_EVENT": note.event, "DRIFTLINE_ALERT_EVENT_ID": note.id}
        await running.run(sink, given, about)

    return deliver
