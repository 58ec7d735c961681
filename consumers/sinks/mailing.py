"""One mail by SMTP."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

import aiosmtplib
from aiosmtplib import SMTPResponseException

from consumers.sinks.configured import Email
from consumers.sinks.notes import Note
from consumers.sinks.outcomes import NotTaken
from consumers.sinks.wording import cut, filled, line, plain
from stream.envelope import from_ms

SUBJECT_CHARACTERS: Final = 200
PERMANENT: Final = 500  # an SMTP code from here on
QUIT_SECONDS: Final = 1.0


def mail(note: Note, sink: Email) -> EmailMessage:
    """The mail. Mails about one alert are one thread, and copies of one event have one id."""
    made = EmailMessage()
    made["From"] = sink.sender
    made["To"] = ", ".join(sink.to)
    made["Subject"] = cut(line(filled(sink.subject, note.words, line)), SUBJECT_CHARACTERS)
    made["Date"] = format_datetime(from_ms(note.time_ms))
    made["Message-ID"] = f"<{note.id}@driftline.invalid>"
    thread = f"<{''.join(filter(str.isalnum, note.alert.alert_id))[:64]}@driftline.invalid>"
    made["In-Reply-To"] = made["References"] = thread
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(filled(sink.text, note.words, plain), cte="quoted-printable")
    return made


async def send(
    made: EmailMessage, sink: Email, password: str | None, tls: ssl.SSLContext | None
) -> None:
    """Hand it over. The caller sets the time limit.

    Raises:
        NotTaken: not everybody gets it.
    """
    try:
        refused = await _talk(made, sink, password, tls)
    except aiosmtplib.SMTPRecipientsRefused as error:
        raise _refused(
            [(one.recipient, one.code, one.message) for one in error.recipients]
        ) from None
    except aiosmtplib.SMTPAuthenticationError as error:
        raise NotTaken("login", _said(error.code, error.message)) from None
    except SMTPResponseException as error:
        for_good = error.code >= PERMANENT
        raise NotTaken(
            "rejected" if for_good else "status",
            _said(error.code, error.message),
            for_good=for_good,
        ) from None
    except (aiosmtplib.SMTPTimeoutError, TimeoutError):
        raise NotTaken("timeout", "the server did not answer in time") from None
    except (aiosmtplib.SMTPException, OSError) as error:
        secured = isinstance(error, ssl.SSLError) or isinstance(error.__cause__, ssl.SSLError)
        about_tls = secured or "STARTTLS" in str(error)
        raise NotTaken("tls" if about_tls else "unreachable", _reason(error)) from None
    if refused:
        raise _refused([(who, said.code, said.message) for who, said in refused.items()])


async def _talk(
    made: EmailMessage, sink: Email, password: str | None, tls: ssl.SSLContext | None
) -> dict[str, aiosmtplib.SMTPResponse]:
    """One conversation; who was refused, if others were not."""
    client = aiosmtplib.SMTP(
        hostname=sink.host,
        port=sink.port,
        start_tls=sink.tls == "starttls",
        use_tls=sink.tls == "tls",
        tls_context=tls,
        timeout=sink.timeout_seconds,
    )
    await client.connect()
    transport = client.transport
    try:
        if sink.username is not None and password is not None:
            await client.login(sink.username, password)
        refused, _ = await client.send_message(made)
        with suppress(aiosmtplib.SMTPException):  # it is taken, whatever comes of this
            await client.quit(timeout=QUIT_SECONDS)
    finally:
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()  # a polite end of TLS would wait for whoever does not answer
    return refused


def _answered(code: int, detail: str) -> NotTaken:
    for_good = code >= PERMANENT
    return NotTaken("rejected" if for_good else "status", detail, for_good=for_good)


def _refused(who: list[tuple[str, int, str]]) -> NotTaken:
    """Some will not get it. It is sent again to all while one of them may still."""
    detail = "; ".join(f"{address}: {_said(code, message)}" for address, code, message in who)
    return _answered(min(code for _, code, _ in who), detail)


def _said(code: int, message: str) -> str:
    return f"SMTP {code} {cut(line(message), 200)}"


def _reason(error: BaseException) -> str:
    text = getattr(error, "message", "") or getattr(error, "strerror", "") or ""
    return cut(line(f"{type(error).__name__}: {text}"), 200)
