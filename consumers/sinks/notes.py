"""What is sent on: one event of an alert, and what it is called when the past is looked at."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from consumers.sinks.configured import BaseSink, Event
from consumers.sinks.wording import fields
from stream.core.processor import Record
from stream.envelope import Opened, derived_id, open_record, read, write
from stream.events import Alert

SOURCE: Final = "driftline/alerts"
REMEMBERED: Final = 10_000
LONGEST_ID: Final = 100


@dataclass(frozen=True, slots=True)
class Note:
    """One event of one alert, on its way to a sink.

    Attributes:
        id: of the event: the same for every copy and every attempt, so whoever gets it twice knows.
        value: the event as a structured CloudEvent.
        words: by the names in `wording.FIELDS`.
    """

    id: str
    event: Event
    time_ms: int
    alert: Alert
    value: bytes
    words: Mapping[str, str]


class Told(NamedTuple):
    """What was last heard of an alert."""

    state: str
    reopened: int


class Past:
    """The newest that was heard of each alert, of as many as are remembered.

    It makes out what an update is: an alert that came back or whose snooze is over was opened. One
    whose past is not known is told as opened, too: better once too often than never.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._told: OrderedDict[str, Told] = OrderedDict()

    def event(self, alert: Alert) -> Event:
        """What this revision is, given those before it."""
        before = self._told.get(alert.alert_id)
        self._told[alert.alert_id] = Told(alert.state, alert.reopened)
        self._told.move_to_end(alert.alert_id)
        if len(self._told) > self._most:
            self._told.popitem(last=False)
        if alert.revision == 0 and alert.state == "open":
            return "opened"
        if alert.state != "open":
            again = before is not None and before.state == alert.state
            return "updated" if again and alert.state != "resolved" else alert.state
        was_open = before is not None and before.state in ("open", "acknowledged")
        came_back = before is not None and before.reopened != alert.reopened
        return "updated" if was_open and not came_back else "opened"

    def forget(self) -> None:
        """Others may have dealt with what follows, or it comes again."""
        self._told.clear()


def decode(record: Record, max_bytes: int) -> tuple[Opened, Alert]:
    """
    Raises:
        Refused: the record is no alert.
    """
    opened = open_record("alerts", record, max_bytes=max_bytes)
    return opened, read(opened, Alert)


def note(opened: Opened, alert: Alert, event: Event, console_url: str | None) -> Note:
    """What is sent on of an event that was read."""
    id_ = safe_id(opened.id)
    value = write(
        opened.type,
        alert,
        id=id_,
        source=SOURCE,
        time_ms=opened.time_ms,
        traceparent=opened.traceparent,
    )
    return Note(id_, event, opened.time_ms, alert, value, fields(alert, event, id_, console_url))


def wanted(sink: BaseSink, alert: Alert, event: Event) -> bool:
    """Whether an alert passes the filters of a sink."""
    return (
        event in sink.events
        and alert.severity in sink.severities
        and any(fnmatchcase(alert.problem, pattern) for pattern in sink.problems)
        and any(fnmatchcase(alert.model, pattern) for pattern in sink.models)
    )


def safe_id(id_: str) -> str:
    """An id that may stand in a header; ours do, and anybody else's are hashed if they do not.

    >>> safe_id("1cec68282d10"), len(safe_id("a\\r\\nb"))
    ('1cec68282d10', 32)
    """
    fits = 0 < len(id_) <= LONGEST_ID and id_.isascii() and id_.isprintable() and " " not in id_
    return id_ if fits else derived_id("alert event", id_)
