"""Follows the topics of verdicts, outside any consumer group, into history and board."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog
from confluent_kafka import KafkaException
from msgspec import Struct

from consumers.console.board import Board
from consumers.console.history import Came
from consumers.console.pulse import Pulse
from consumers.loop import RangeReader
from consumers.places import Delivered, Span
from models.database import RegistryError
from stream.envelope import open_record, read
from stream.errors import DriftlineError, Refused, explained
from stream.events import EVENT_TYPES, GenerationAdopted
from stream.settings import Settings
from stream.signing import NOBODY, Trust, trust

log = structlog.get_logger("driftline.console")

STORED: Final = ("lifecycle", "alerts", "commands", "decisions", "accuracy", "drift")
PASSING: Final = ("summaries",)  # only what comes from now on
WHOLE: Final = ("lifecycle", "alerts")  # compacted: read from the beginning
BACKFILL: Final = 200_000  # records of a partition that a console without a past looks back
FLUSH_SECONDS: Final = 0.5
MAX_BATCH: Final = 5_000
RETRY_SECONDS: Final = 3.0
STOP_SECONDS: Final = 3.0  # it may stand in a call to a broker that is away


class Standing(Struct, frozen=True):
    """How the reader is: `following`, `starting`, or `away` with the reason."""

    state: str
    since_ms: int
    problem: str = ""


class Past(Protocol):
    """Where what was read is kept, and how far that is: `consumers.console.history.History`."""

    def positions(self) -> dict[tuple[str, int], int]: ...

    def add(self, batch: Sequence[Came], positions: dict[tuple[str, int], int]) -> None: ...

    def rewind(self, topic: str) -> None: ...


class Reader:
    """A thread; while the broker is away it says so, and tries again."""

    def __init__(
        self,
        settings: Settings,
        history: Past,
        board: Board,
        pulse: Pulse,
        clock: Callable[[], int],
        *,
        back: int = BACKFILL,
    ) -> None:
        self.standing = Standing("starting", clock())
        self.read = 0  # records
        self.refused = 0  # of them, no events of their topic
        self._settings = settings
        self._trusted: dict[str, Trust] = {
            "commands": trust(settings, "commands"),
            "lifecycle": trust(settings, "lifecycle"),
        }
        self._history = history
        self._board = board
        self._pulse = pulse
        self._clock = clock
        self._back = back
        self._stopping = threading.Event()
        self._batch: list[Came] = []
        self._positions: dict[tuple[str, int], int] = {}
        self._flushed = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="console-reader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with RangeReader(self._settings) as reader:
                    self._follow(reader)
            except (DriftlineError, RegistryError, KafkaException) as error:
                self._away(explained(error))
            except Exception as error:
                log.exception("reader")
                self._away(f"the reader failed and begins again: {explained(error)}")
            self._batch, self._positions = [], {}
            self._stopping.wait(RETRY_SECONDS)

    def _away(self, problem: str) -> None:
        if self.standing.problem != problem:
            log.warning("topics are not followed", reason=problem)
            self.standing = Standing("away", self._clock(), problem)

    def _follow(self, reader: RangeReader) -> None:
        starts = {entity: self._starts(reader, entity) for entity in (*STORED, *PASSING)}
        self.standing = Standing("following", self._clock())
        for entity, came in reader.follow_from(starts, self._turn):
            self._take(entity, came)
            if len(self._batch) >= MAX_BATCH:
                self._flush()

    def _starts(self, reader: RangeReader, entity: str) -> list[Span]:
        topic = self._settings.names.topic(entity)
        spans = reader.bounds(entity)
        if entity in PASSING:
            return [span._replace(start=span.end) for span in spans]
        known = self._history.positions()
        if any(known.get((topic, span.partition), 0) > span.end for span in spans):
            log.warning("topic was made anew, it is read from its beginning", topic=topic)
            self._history.rewind(topic)
            known = {}
        return [
            start_of(span, known.get((topic, span.partition)), entity, self._back) for span in spans
        ]

    def _take(self, entity: str, came: Delivered) -> None:
        self.read += 1
        if entity not in PASSING:
            self._positions[self._settings.names.topic(entity), came.place.partition] = (
                came.place.offset + 1
            )
        event = self._decoded(entity, came)
        if event is None:
            return
        if entity in PASSING:
            self._pulse.take(event, self._clock())
        elif not isinstance(event, GenerationAdopted):  # which only a replay wants to know
            self._batch.append(Came(self._heard_ms(came), event))

    def _decoded(self, entity: str, came: Delivered) -> Struct | None:
        try:
            self._trusted.get(entity, NOBODY).check(came.record)
            opened = open_record(entity, came.record, max_bytes=self._settings.max_record_bytes)
            return read(opened, EVENT_TYPES[opened.type][0])
        except Refused:  # written by somebody else, or by somebody who is not trusted
            self.refused += 1
            return None

    def _heard_ms(self, came: Delivered) -> int:
        """When it was written, where the broker says so; a replayer stamps event time instead."""
        now = self._clock()
        if self._settings.clock == "event" or came.record.timestamp_ms <= 0:
            return now
        return min(now, came.record.timestamp_ms)

    def _turn(self) -> bool:
        """Asked by the reader several times a second, also when nothing comes."""
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self._flush()
        return self._stopping.is_set()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if not self._positions:
            return
        batch, positions = self._batch, self._positions
        self._batch, self._positions = [], {}
        self._history.add(batch, positions)
        if batch:
            self._board.take(batch)


def start_of(span: Span, known: int | None, entity: str, back: int = BACKFILL) -> Span:
    """Where to go on in one partition.

    >>> start_of(Span(0, 10, 900), 500, "accuracy").start
    500
    >>> start_of(Span(0, 600, 900), 500, "accuracy").start  # retention took what was in between
    600
    >>> start_of(Span(0, 0, 900_000), None, "accuracy").start
    700000
    """
    if known is not None:
        return span._replace(start=max(known, span.start))
    if entity in WHOLE:
        return span
    return span._replace(start=max(span.start, span.end - back))
