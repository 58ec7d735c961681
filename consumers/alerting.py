"""Alerts from outside: how they stand, and what people say about them.

Evaluate alone writes the alerts it raises, so that each has one history. What a person says goes to
`summaries`, which evaluate reads, in the partition of the model: it is applied once, in one order
with the counts, and is part of what a replay reads. So does what they say of alerts of workers and
the trainer, with the alert as they saw it.
"""

from __future__ import annotations

import time
from typing import Final, Literal

from consumers.loop import RangeReader
from consumers.producing import PARTITIONERS, Publisher
from consumers.status import newest_alerts
from stream.core.alerts import MEANING
from stream.envelope import derived_id, write
from stream.events import Alert, AlertHandled
from stream.settings import Settings
from stream.signing import signed, signer

HANDLED: Final = "driftline.alert.handled.v1"
SEVERITY: Final = ("critical", "warning", "info")
POLL_SECONDS: Final = 0.5
UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def newest(settings: Settings) -> list[Alert]:
    """The newest revision of every alert, the worst first, then the oldest.

    Raises:
        BrokerError, ConfigurationError: nobody answers, or there is no such topic.
    """
    with RangeReader(settings) as reader:
        found = newest_alerts(reader, settings)
    return sorted(found, key=lambda alert: (SEVERITY.index(alert.severity), alert.opened_ms))


def handle(
    settings: Settings,
    alert: Alert,
    kind: Literal["acknowledge", "snooze", "resolve", "reopen"],
    *,
    who: str,
    note: str,
    seconds: float | None,
    wait_seconds: float,
) -> Alert | None:
    """Say something about an alert; signed where lifecycle is.

    Args:
        seconds: of a snooze, in event time.
        wait_seconds: how long evaluate is given to do it.

    Returns:
        The alert as it is then; None if that was not seen in time.

    Raises:
        BrokerError, ConfigurationError: it could not be written, or not be signed.
    """
    now_ms = int(time.time() * 1000)
    said = AlertHandled(
        model=alert.model,
        alert_id=alert.alert_id,
        kind=kind,
        who=who,
        note=note,
        handled_ms=now_ms,
        seconds=seconds,
        alert=None if alert.problem in MEANING else alert,
    )
    value = write(
        HANDLED,
        said,
        id=derived_id("handled", alert.alert_id, kind, who, now_ms),
        source="driftline/people",
        time_ms=now_ms,
    )
    key, record_key = signer(settings, "lifecycle"), alert.model.encode()
    if key is not None:
        value = signed(key, settings.names.topic("summaries"), record_key, value)
    # Summaries lie where this partitioner puts their model, whatever producers use.
    publisher = Publisher(settings, partitioner=PARTITIONERS["murmur2"])
    publisher.send("summaries", record_key, value)
    publisher.flush()
    return _awaited(settings, alert, wait_seconds)


def seconds_of(text: str) -> float:
    """A duration in seconds.

    >>> seconds_of("12h"), seconds_of("90")
    (43200.0, 90.0)

    Raises:
        ValueError: it is none.
    """
    number, unit = (text[:-1], text[-1]) if text[-1:] in UNITS else (text, "s")
    seconds = float(number) * UNITS[unit]
    if not 0 < seconds < 10**9:
        raise ValueError("a number and s, m, h or d")
    return seconds


def _awaited(settings: Settings, before: Alert, wait_seconds: float) -> Alert | None:
    deadline = time.monotonic() + wait_seconds
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        for alert in newest(settings):
            if alert.alert_id == before.alert_id and alert.revision > before.revision:
                return alert
    return None
