"""An alert in words, and templates for them: `$name` and nothing else, so nothing can be run.

Templates are `string.Template`s that a person wrote; what is put in comes from Kafka, and is
escaped for where it goes: JSON, Slack's mrkdwn, a header, plain text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from string import Template
from typing import Final
from urllib.parse import quote

import msgspec

from stream.events import Alert

#: What a template may name.
FIELDS: Final = (
    *("event", "title", "sentence", "model", "version", "problem", "verdict", "severity", "state"),
    *("alert_id", "event_id", "opened", "updated", "resolved", "handled_by", "note", "handled"),
    *("evidence", "link"),
)
LONGEST: Final = 2000  # characters of one field

Escape = Callable[[str], str]


def fields(alert: Alert, event: str, event_id: str, console_url: str | None) -> dict[str, str]:
    """What `FIELDS` are of an alert, as plain text of bounded length."""
    version = "" if alert.version is None else str(alert.version)
    which = f"{alert.model} v{version}" if version else alert.model
    said = {
        "acknowledged": f", acknowledged by {alert.handled_by}: {alert.note}",
        "snoozed": f", snoozed by {alert.handled_by} until {_time(alert.snoozed_until_ms)}",
        "resolved": f", resolved {_time(alert.resolved_ms)}",
    }
    link = (
        ""
        if console_url is None
        else f"{console_url.rstrip('/')}/models/{quote(alert.model, safe='')}"
    )
    told = {
        "event": event,
        "title": f"[{alert.severity}] {which}: {alert.problem} {event}",
        "sentence": alert.sentence,
        "model": alert.model,
        "version": version,
        "problem": alert.problem,
        "verdict": alert.verdict,
        "severity": alert.severity,
        "state": alert.state,
        "alert_id": alert.alert_id,
        "event_id": event_id,
        "opened": _time(alert.opened_ms),
        "updated": _time(alert.updated_ms),
        "resolved": _time(alert.resolved_ms),
        "handled_by": alert.handled_by,
        "note": alert.note,
        "handled": said.get(alert.state, "").removesuffix(": "),
        "evidence": msgspec.json.encode(alert.evidence).decode(),
        "link": link,
    }
    return {name: cut(told[name], LONGEST) for name in FIELDS}


def filled(template: str, told: Mapping[str, str], escape: Escape) -> str:
    """A checked template with an alert's words in it."""
    return (
        Template(template).substitute({name: escape(text) for name, text in told.items()}).strip()
    )


def check_text(template: str) -> str:
    """
    Raises:
        ValueError: it is no template, or names what is not there.
    """
    made = Template(template)
    if not made.is_valid():
        raise ValueError("a lone $ in the template; write $$ for the sign")
    unknown = sorted(set(made.get_identifiers()) - set(FIELDS))
    if unknown:
        raise ValueError(f"the template names {', '.join(unknown)}; there are {', '.join(FIELDS)}")
    return template


def check_json(template: str) -> str:
    """
    Raises:
        ValueError: it is no template, or would not be JSON.
    """
    check_text(template)
    try:
        msgspec.json.decode(filled(template, dict.fromkeys(FIELDS, 'a "quoted" word\n'), json_text))
    except msgspec.DecodeError as error:
        raise ValueError(f"the template is no JSON with $names inside its texts: {error}") from None
    return template


def plain(text: str) -> str:
    """Without control characters; lines stay.

    >>> plain("a\\x1b[31m\\nb")
    'a?[31m\\nb'
    """
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def line(text: str) -> str:
    """On one line: what a header may hold.

    >>> line("a\\r\\nBcc: b")
    'a??Bcc: b'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def mrkdwn(text: str) -> str:
    """As Slack asks for it; so no <!channel> and no link comes from an alert.

    >>> mrkdwn("<!channel> & co")
    '&lt;!channel&gt; &amp; co'
    """
    return plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def json_text(text: str) -> str:
    """For inside the quotes of a JSON text.

    >>> json_text('a "b"')
    'a \\\\"b\\\\"'
    """
    return msgspec.json.encode(text).decode()[1:-1]


def cut(text: str, longest: int) -> str:
    """
    >>> cut("harmful", 5)
    'harm…'
    """
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _time(time_ms: int | None) -> str:
    """ISO 8601, UTC; what no calendar knows is left in milliseconds."""
    if time_ms is None:
        return ""
    try:
        return datetime.fromtimestamp(time_ms // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{time_ms} ms"
