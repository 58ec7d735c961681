"""Reads what Driftline publishes, as any subscriber would, for the ledger and the story."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from msgspec import Struct

from consumers.demo.ledger import Ledger
from consumers.demo.story import Story
from consumers.loop import RangeReader
from stream.core.processor import Record
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import EVENT_TYPES, ClockAdvanced
from stream.settings import Settings

ENTITIES = ("predictions", "accuracy", "drift", "alerts", "commands", "lifecycle")


class Watcher:
    """A thread that follows the topics; `wait` waits for what they say."""

    def __init__(self, settings: Settings, ledger: Ledger, story: Story) -> None:
        self._settings = settings
        self._ledger = ledger
        self._story = story
        self._changed = threading.Condition()
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join(10)

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition on the ledger holds; False if it does not in time.

        Raises:
            Exception: what the following thread failed with.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition():
                if self._failure is not None:
                    raise self._failure
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.5))
        return True

    def _follow(self) -> None:
        try:
            with RangeReader(self._settings) as reader:
                for entity, record in reader.follow(ENTITIES, lambda: self._stopping):
                    self._take(entity, record)
        except BaseException as error:
            self._failure = error
            with self._changed:
                self._changed.notify_all()

    def _take(self, entity: str, record: Record) -> None:
        event = decoded(entity, record, self._settings.max_record_bytes)
        if event is None or isinstance(event, ClockAdvanced):
            return
        with self._changed:
            self._ledger.take(event)
            self._story.hear(event)
            self._changed.notify_all()


def decoded(entity: str, record: Record, max_bytes: int) -> Struct | None:
    """The event in a record; None for what is not one."""
    try:
        opened = open_record(entity, record, max_bytes=max_bytes)
        return read(opened, EVENT_TYPES[opened.type][0])
    except Refused:
        return None
