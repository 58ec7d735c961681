"""What each service on the web wants an alert to look like. Pure: a note in, a request out."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from consumers.sinks.configured import PagerDuty, Slack
from consumers.sinks.notes import SOURCE, Note
from consumers.sinks.wording import cut, filled, json_text, line, mrkdwn, plain
from stream.envelope import from_ms

SLACK_CHARACTERS: Final = 3000
SUMMARY_CHARACTERS: Final = 1024  # of PagerDuty's
#: By event; what is snoozed is seen to, as far as PagerDuty is concerned.
ACTIONS: Final = {"acknowledged": "acknowledge", "snoozed": "acknowledge", "resolved": "resolve"}


class Request(NamedTuple):
    """One POST."""

    url: str
    body: bytes
    headers: Mapping[str, str]


def webhook(
    note: Note,
    url: str,
    body: str | None,
    headers: Mapping[str, str],
    keys: Sequence[bytes],
    now_seconds: int,
) -> Request:
    """The event itself, or what the template makes of it, with an id and signatures.

    Signed as Standard Webhooks 1.0 say: HMAC-SHA256 of "<id>.<seconds since 1970>.<body>", so that
    neither an old request nor another body passes; one signature a key.
    """
    if body is None:
        content, kind = note.value, "application/cloudevents+json"
    else:
        content, kind = filled(body, note.words, json_text).encode(), "application/json"
    ours = {
        "content-type": kind,
        "idempotency-key": note.id,
        "webhook-id": note.id,
        "webhook-timestamp": str(now_seconds),
    }
    if keys:
        signed = b"%s.%d.%s" % (note.id.encode(), now_seconds, content)
        ours["webhook-signature"] = " ".join(f"v1,{_hmac(key, signed)}" for key in keys)
    return Request(url, content, {**headers, **ours})


def slack(note: Note, sink: Slack, url: str) -> Request:
    text = cut(filled(sink.text, note.words, mrkdwn), SLACK_CHARACTERS)
    return Request(url, _json({"text": text}), {"content-type": "application/json"})


def pagerduty(note: Note, sink: PagerDuty, routing_key: str) -> Request:
    """An event of PagerDuty's Events API v2. The alert's id is the incident's key."""
    alert = note.alert
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": ACTIONS.get(note.event, "trigger"),
        "dedup_key": cut(alert.alert_id, 255),
        "client": "Driftline",
        "payload": {
            "summary": cut(line(filled(sink.summary, note.words, plain)), SUMMARY_CHARACTERS),
            "source": SOURCE,
            "severity": alert.severity,
            "timestamp": from_ms(note.time_ms).isoformat(),
            "component": alert.model,
            "class": alert.problem,
            "group": alert.verdict,
            "custom_details": {name: note.words[name] for name in _DETAILS},
        },
    }
    if note.words["link"]:
        event["client_url"] = note.words["link"]
    return Request(sink.url, _json(event), {"content-type": "application/json"})


_DETAILS: Final = (
    *("sentence", "version", "state", "handled_by", "note", "opened", "event_id", "evidence"),
)


def _hmac(key: bytes, content: bytes) -> str:
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
