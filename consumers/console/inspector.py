"""One prediction, wherever it lies: its request, what was said, the truth, and what refused it."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from consumers.labelled import examples_in
from consumers.loop import RangeReader
from consumers.places import Delivered, Span
from stream.core.partitioning import partition_of
from stream.errors import DriftlineError, Refused
from stream.settings import Settings

#: What is said of a prediction, in the order in which it travels; its id is the key of all but the
#: examples.
TRAIL: Final = (
    *("requests", "requests.dlq", "predictions", "predictions.dlq", "feedback", "feedback.dlq"),
    "examples",
)
#: What may be leafed through: what producers write, and what was refused of it.
LEAFED: Final = ("predictions", "feedback", "requests", *(e for e in TRAIL if e.endswith(".dlq")))
CLOCK: Final = "driftline.clock.advanced.v1"  # a replayer's, between the events
DEPTH: Final = 200_000  # newest records of a partition that are looked through
SECONDS: Final = 20.0
MAX_FOUND: Final = 50
MAX_SHOWN: Final = 20_000  # characters of one value


class Busy(DriftlineError):
    """Another search is running; they take turns."""


class Found(Struct, frozen=True, kw_only=True):
    """One record as it lies in its topic.

    Attributes:
        value: the event or plain value, decoded where it is JSON; else its text.
        headers: name and text, in their order.
    """

    entity: str
    topic: str
    partition: int
    offset: int
    time_ms: int
    key: str
    value: Any
    headers: list[tuple[str, str]]


class Search(Struct, frozen=True, kw_only=True):
    """What was found, and how far was looked."""

    prediction_id: str
    found: list[Found]
    looked: int
    complete: bool  # everything that the topics hold was looked through


class Inspector:
    """Searches the topics, one search at a time. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turn = threading.Lock()

    def search(self, prediction_id: str) -> Search:
        """Everything that is said of an id, in the order of its trail.

        Raises:
            Busy: another search runs.
            BrokerError, ConfigurationError: the topics cannot be read.
        """
        key = prediction_id.encode()
        found: list[Found] = []
        looked, complete = 0, True
        deadline = time.monotonic() + SECONDS
        with self._reader() as reader:
            for entity in TRAIL:
                spans = reader.bounds(entity)
                mine = self._partition(key, spans, entity)
                newest = [s._replace(start=max(s.start, s.end - DEPTH)) for s in mine]
                complete &= newest == mine
                for came in reader.read(entity, newest):
                    looked += 1
                    room = len(found) < MAX_FOUND
                    if room and entity == "examples":
                        found += self._examples(prediction_id, came)
                    elif room and came.record.key == key:
                        found.append(self._found(entity, came))
                    if time.monotonic() > deadline:
                        complete = False
                        break
        return Search(prediction_id=prediction_id, found=found, looked=looked, complete=complete)

    def _examples(self, prediction_id: str, came: Delivered) -> list[Found]:
        """Those of a prediction, which share their record with others; its key is the model."""
        value = came.record.value or b""
        if msgspec.json.encode(prediction_id) not in value:
            return []
        try:
            examples = examples_in(came.record, self._settings.max_record_bytes)
        except Refused:
            return []
        whole, event = self._found("examples", came), msgspec.json.decode(value)
        return [
            replace(whole, value={**event, "data": msgspec.to_builtins(example)})
            for example in examples
            if example.prediction_id == prediction_id
        ]

    def newest(self, entity: str, model: str | None, limit: int) -> list[Found]:
        """The newest records of a topic, newest first.

        Raises:
            Busy, BrokerError, ConfigurationError: as `search`.
        """
        with self._reader() as reader:
            spans = reader.bounds(entity)
            # Others' records lie in between where one model is wanted.
            depth = limit if model is None else 20 * limit
            newest = [s._replace(start=max(s.start, s.end - depth)) for s in spans]
            found = [self._found(entity, came) for came in reader.read(entity, newest)]
        happened = [f for f in found if _type(f.value) != CLOCK]
        wanted = [f for f in happened if model is None or _model(f.value) == model]
        return sorted(wanted, key=lambda f: (f.time_ms, f.offset), reverse=True)[:limit]

    def _reader(self) -> _Turn:
        return _Turn(self._turn, self._settings)

    def _partition(self, key: bytes, spans: list[Span], entity: str) -> list[Span]:
        """Where the key belongs; dead letters may lie in any partition."""
        if entity.endswith(".dlq") or not spans:
            return spans
        partition = partition_of(key, len(spans), self._settings.partitioner)
        return [span for span in spans if span.partition == partition]

    def _found(self, entity: str, came: Delivered) -> Found:
        record = came.record
        return Found(
            entity=entity,
            topic=self._settings.names.topic(entity),
            partition=came.place.partition,
            offset=came.place.offset,
            time_ms=record.timestamp_ms,
            key=_text(record.key or b""),
            value=_value(record.value),
            headers=[(name, _text(value or b"")) for name, value in record.headers],
        )


class _Turn:
    """A reader of its own for one search, while no other runs."""

    def __init__(self, lock: threading.Lock, settings: Settings) -> None:
        self._lock = lock
        self._settings = settings

    def __enter__(self) -> RangeReader:
        if not self._lock.acquire(timeout=1):
            raise Busy("another search is running; try again in a moment")
        try:
            self._reader = RangeReader(self._settings, idle_seconds=SECONDS)
        except BaseException:
            self._lock.release()
            raise
        return self._reader

    def __exit__(self, *_: object) -> None:
        try:
            self._reader.close()
        finally:
            self._lock.release()


def _value(value: bytes | None) -> Any:
    if value is None:
        return None
    if len(value) > MAX_SHOWN:
        return _text(value[:MAX_SHOWN]) + " …"
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _text(value)


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


def _type(value: Any) -> str | None:
    return value.get("type") if isinstance(value, dict) else None


def _model(value: Any) -> str | None:
    data = value.get("data", value) if isinstance(value, dict) else None
    return data.get("model") if isinstance(data, dict) else None
