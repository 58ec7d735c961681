"""Sinks looked at and tried from the command line, beside the service and outside its groups."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from consumers.deadletters import DeadLetter, read
from consumers.loop import RangeReader
from consumers.sinks.configured import Sinks, load
from consumers.sinks.courier import stage_of
from consumers.sinks.notes import Note, Past, decode, note
from consumers.sinks.outcomes import NotTaken
from consumers.sinks.senders import Sender, build
from stream.core.processor import Record
from stream.envelope import Opened, derived_id
from stream.errors import ConfigurationError, Refused
from stream.events import Alert
from stream.settings import Settings

TEST_SENTENCE: Final = "This is a test: nothing is wrong, and somebody wanted to see an alert."


class Listed(NamedTuple):
    """One sink of the file; `wrong` says what keeps it from being served."""

    name: str
    kind: str
    events: tuple[str, ...]
    severities: tuple[str, ...]
    problems: tuple[str, ...]
    models: tuple[str, ...]
    wrong: str


def listing(settings: Settings) -> list[Listed]:
    """
    Raises:
        ConfigurationError: the file is not there, or wrong.
    """
    found = []
    for name, sink in load(settings.alert_sinks).sinks.items():
        try:
            build(name, sink)
        except ConfigurationError as error:
            wrong = str(error)
        else:
            wrong = ""
        filters = (sink.events, sink.severities, sink.problems, sink.models)
        found.append(Listed(name, sink.kind, *filters, wrong))
    return found


def try_out(settings: Settings, name: str, *, resolved: bool) -> None:
    """Send one test alert, once.

    Raises:
        NotTaken: the sink did not take it.
        ConfigurationError: there is no such sink, or it is wrong.
    """
    configured = load(settings.alert_sinks)
    sender = _sender(configured, name)
    sender.attempt(sample(name, configured.console_url, resolved=resolved), lambda: False)


def sample(name: str, console_url: str | None, *, resolved: bool) -> Note:
    """A sink's test alert is one problem, so that where alerts are closed it can be."""
    now_ms = int(time.time() * 1000)
    alert = Alert(
        alert_id=f"driftline-test-{name}",
        model="driftline-test",
        problem="test",
        verdict="operation failed",
        state="resolved" if resolved else "open",
        severity="info",
        sentence=TEST_SENTENCE,
        opened_ms=now_ms,
        updated_ms=now_ms,
        resolved_ms=now_ms if resolved else None,
    )
    event = "resolved" if resolved else "opened"
    opened = Opened(
        f"driftline.alert.{event}.v1", derived_id("test alert", name, now_ms), now_ms, b""
    )
    return note(opened, alert, "resolved" if resolved else "opened", console_url)


def undelivered(settings: Settings, name: str, seconds: float | None) -> list[DeadLetter]:
    """The dead letters of one sink, of each alert the newest, the oldest first.

    Args:
        seconds: only what was laid down in so many seconds; None: all there are.
    """
    now_ms = time.time() * 1000
    found: dict[bytes | None, DeadLetter] = {}
    with RangeReader(settings) as reader:
        for letter in read(reader, ["alerts"], "undeliverable"):
            recent = seconds is None or now_ms - letter.laid_ms <= seconds * 1000
            if recent and letter.stage == stage_of(name):
                found.pop(letter.key, None)
                found[letter.key] = letter
    return list(found.values())


def send_again(
    settings: Settings, name: str, letters: Sequence[DeadLetter]
) -> tuple[int, list[str]]:
    """Send each once, with the id that it always had.

    Returns:
        How many were taken, and of the others why not.
    """
    configured = load(settings.alert_sinks)
    sender, taken, failed = _sender(configured, name), 0, []
    for letter in letters:
        try:
            sender.attempt(_note(settings, letter, configured.console_url), lambda: False)
        except (NotTaken, Refused) as error:
            failed.append(f"{letter.place.partition} {letter.place.offset}: {error}")
        else:
            taken += 1
    return taken, failed


def _note(settings: Settings, letter: DeadLetter, console_url: str | None) -> Note:
    theirs = tuple(header for header in letter.headers if not header[0].startswith("dl_"))
    record = Record(0, letter.timestamp_ms, letter.key, letter.value, theirs)
    opened, alert = decode(record, settings.max_record_bytes)
    return note(opened, alert, Past().event(alert), console_url)


def _sender(configured: Sinks, name: str) -> Sender:
    if name not in configured.sinks:
        raise ConfigurationError(f"no sink {name!r}; there are {', '.join(configured.sinks)}")
    return build(name, configured.sinks[name])
