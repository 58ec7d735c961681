"""A serving system's own events: what it was asked, what it said, and what came of it.

    reporter = Reporter("churn", version=3)

    prediction_id = reporter.prediction({"age": 41, "plan": "basic"}, 0.83)
    ...
    reporter.feedback(prediction_id, "leaves")

Whatever happens to Kafka, the serving path goes on: nothing here raises, and nothing waits unless
asked to. An event costs its encoding and a place in a bounded queue; a thread of librdkafka's sends
batches. What finds no place, cannot be encoded or is not written in time is counted and told of in
the log, once in a while. Events carry ids, so what is written twice counts once.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

import msgspec
from confluent_kafka import Producer

from stream.envelope import write
from stream.events import DEFAULT_TYPES, EVENT_TYPES

if TYPE_CHECKING:
    from stream.settings import Settings

log = logging.getLogger("driftline.reporter")
log.addHandler(logging.NullHandler())

SOURCE: Final = "driftline/reporter"
#: What librdkafka calls the two.
PARTITIONERS: Final = {"murmur2": "murmur2_random", "crc32": "consistent_random"}
TELL_SECONDS: Final = 30.0  # between two lines of the log about losses
WAIT_SECONDS: Final = 0.01  # from one look at a full queue to the next
Entity = Literal["requests", "predictions", "feedback"]


class Counts(NamedTuple):
    """What became of the events that were reported.

    Attributes:
        reported: all of them.
        written: acknowledged by the broker.
        dropped: found no place in the queue, or came after `close`.
        refused: could not be encoded, or Kafka's client would not take them.
        lost: were not written in time, or the broker refused them.
        waiting: in the queue now.
    """

    reported: int = 0
    written: int = 0
    dropped: int = 0
    refused: int = 0
    lost: int = 0

    @property
    def waiting(self) -> int:
        return self.reported - self.written - self.dropped - self.refused - self.lost


class Reporter:
    """Sends one model's requests, predictions and feedback; safe to use from every thread.

    A context manager, also of `async with`; at the exit of the process it flushes by itself. After
    a fork the child has a queue of its own.

    Args:
        model: the name it is registered by.
        version: of what predictions say, where `prediction` does not say it.
        settings: how to reach Kafka; by default from the environment, as every command.
        queue_events: places in the queue.
        queue_kilobytes: and its memory.
        linger_ms: how long an event may wait for others to be sent with.
        keep_seconds: how long events are kept while the broker is away.
        flush_seconds: how long `close` waits for what is still queued.
        full: what happens when the queue is full: `drop` the event (for a serving path), or `wait`
            for a place, at most `keep_seconds` (for a batch job).

    Raises:
        ConfigurationError: settings are unsound; from here only, when the service starts.
    """

    def __init__(
        self,
        model: str,
        *,
        version: int | None = None,
        settings: Settings | None = None,
        queue_events: int = 20_000,
        queue_kilobytes: int = 32_768,
        linger_ms: float = 50,
        keep_seconds: float = 120,
        flush_seconds: float = 5,
        full: Literal["drop", "wait"] = "drop",
    ) -> None:
        from stream.settings import load  # only where one is made: importing is to cost little

        self.model = model
        self.version = version
        self._settings = load() if settings is None else settings
        self._keep_seconds = keep_seconds
        self._flush_seconds = flush_seconds
        self._waits = full == "wait"
        self._queue_events = queue_events
        self._properties = self._settings.client(
            **{
                "acks": "all",
                # Not idempotent: that needs state at the broker, whose loss is fatal to a producer.
                # One request at a time keeps the order; a repeated one makes doubles, which count
                # once.
                "max.in.flight.requests.per.connection": 1,
                "partitioner": PARTITIONERS[self._settings.partitioner],
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "queue.buffering.max.messages": queue_events,
                "queue.buffering.max.kbytes": queue_kilobytes,
                "message.timeout.ms": round(keep_seconds * 1000),
                "message.max.bytes": self._settings.max_record_bytes,
            }
        )
        self._begin()
        self._client()  # properties that it refuses are told of at the start
        _ALIVE.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(Counts._fields, 0)
        self._told = -TELL_SECONDS
        self._closed = threading.Event()
        self._producer: Any = None

    def _client(self) -> Any:
        """librdkafka's producer; in a forked child it is made by the first event."""
        if self._producer is None:
            with self._lock:
                if self._producer is None:
                    self._producer = Producer(self._properties, logger=log)
                    self._serving = threading.Thread(target=self._serve, daemon=True)
                    self._serving.start()
        return self._producer

    # --- what is reported -------------------------------------------------------------------------

    def request(
        self,
        features: Mapping[str, object],
        *,
        prediction_id: str | None = None,
        time_ms: int | None = None,
        traceparent: str | None = None,
    ) -> str:
        """Ask score for a prediction; returns its id, which feedback is to name."""
        named = prediction_id or uuid.uuid4().hex
        self._report("requests", named, time_ms, traceparent, features=features)
        return named

    def prediction(
        self,
        features: Mapping[str, object],
        output: object,
        *,
        prediction_id: str | None = None,
        version: int | None = None,
        time_ms: int | None = None,
        traceparent: str | None = None,
    ) -> str:
        """Say what a model answered; returns the prediction's id, which feedback is to name.

        Args:
            features: plain values, or NumPy's; None and NaN are missing values.
            output: P(positive class) or the value; of a multiclass model one P for each class.
            version: of the model; by default the reporter's.
            time_ms: when, since 1970; now.
            traceparent: W3C's, to find the trace of the request again.
        """
        named = prediction_id or uuid.uuid4().hex
        said = self.version if version is None else version
        self._report(
            *("predictions", named, time_ms, traceparent),
            version=said,
            output=output,
            features=features,
        )
        return named

    def feedback(
        self,
        prediction_id: str,
        label: object,
        *,
        weight: float = 1.0,
        time_ms: int | None = None,
        traceparent: str | None = None,
    ) -> None:
        """Say what was true, whenever that is known; a later word corrects an earlier one."""
        self._report("feedback", prediction_id, time_ms, traceparent, label=label, weight=weight)

    def refuse(self, why: str) -> None:
        """Count what should have been reported, but could not be made an event."""
        self._count("reported")
        self._count("refused", why)

    # --- how it is going --------------------------------------------------------------------------

    @property
    def counts(self) -> Counts:
        with self._lock:
            return Counts(**self._counts)

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until what is queued is written, or has been given up; whether that came in time."""
        try:
            within = self._flush_seconds if seconds is None else seconds
            return not self._client().flush(within)
        except Exception:  # a serving system ends as it would have without us
            log.exception("flushing failed")
            return False

    async def ready(self, seconds: float = 60) -> bool:
        """Back-pressure for an event loop: wait until half of the queue is free, without blocking.

        Returns:
            False: it was not in time.
        """
        deadline = time.monotonic() + seconds
        while len(self._client()) > self._queue_events // 2:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(WAIT_SECONDS)
        return True

    def close(self) -> None:
        """Flush, and say in the log what was not written."""
        if self._closed.is_set():
            return
        if self._producer is not None:
            self.flush()
        self._closed.set()
        if self._producer is not None:
            self._serving.join(1)
        counts = self.counts
        if counts.reported != counts.written:
            log.warning("%s: not all events were written: %s", self.model, counts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    # --- how it is done ---------------------------------------------------------------------------

    def _report(
        self,
        entity: Entity,
        prediction_id: str,
        time_ms: int | None,
        traceparent: str | None,
        **data: object,
    ) -> None:
        try:
            self._count("reported")
            if self._closed.is_set():
                self._count("dropped", "the reporter is closed")
                return
            now_ms = time.time_ns() // 1_000_000 if time_ms is None else time_ms
            value = _encoded(
                entity,
                {"prediction_id": prediction_id, "model": self.model, **data},
                now_ms,
                traceparent,
            )
            self._send(entity, prediction_id.encode(), value, now_ms)
        except BufferError:
            self._count("dropped", "the queue is full")
        except Exception as error:  # whatever it is, the serving path is not to hear of it
            self._count("refused", f"{type(error).__name__}: {error}")

    def _send(self, entity: Entity, key: bytes, value: bytes, time_ms: int) -> None:
        """
        Raises:
            BufferError: no place in the queue.
        """
        deadline = time.monotonic() + self._keep_seconds
        while True:
            try:
                self._client().produce(
                    self._settings.names.topic(entity),
                    value,
                    key,
                    timestamp=time_ms if self._settings.clock == "event" else 0,
                    on_delivery=self._delivered,
                )
            except BufferError:
                if not self._waits or time.monotonic() > deadline:
                    raise
                time.sleep(WAIT_SECONDS)
            else:
                return

    def _serve(self) -> None:
        """Hear what became of events, until closed."""
        producer, closed = self._producer, self._closed
        while not closed.is_set():
            producer.poll(0.2)

    def _delivered(self, error: object, _: object) -> None:
        if error is None:
            self._count("written")
        else:
            self._count("lost", str(error))

    def _count(self, what: str, why: str = "") -> None:
        with self._lock:
            self._counts[what] += 1
            now = time.monotonic()
            if not why or now - self._told < TELL_SECONDS:
                return
            self._told = now
            counts = Counts(**self._counts)
        log.warning("%s: an event was %s (%s); so far %s", self.model, what, why, counts)

    def _forked(self) -> None:
        """In the child: librdkafka's threads are not here, so its client may not even be freed."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._producer))
        self._begin()


def _encoded(
    entity: Entity, data: dict[str, object], time_ms: int, traceparent: str | None
) -> bytes:
    """
    Raises:
        msgspec.ValidationError: it is no such event.
    """
    kind = DEFAULT_TYPES[entity]
    struct, _ = EVENT_TYPES[kind]
    event = msgspec.convert(_plain(data), struct)
    return write(
        kind, event, id=uuid.uuid4().hex, source=SOURCE, time_ms=time_ms, traceparent=traceparent
    )


def _plain(data: object) -> Any:
    """NumPy's values as Python's; whoever reports such has NumPy, and we need not know of it."""
    return msgspec.to_builtins(data, enc_hook=lambda value: value.tolist())


_ALIVE: weakref.WeakSet[Reporter] = weakref.WeakSet()


def _close_all() -> None:
    for reporter in list(_ALIVE):
        reporter.close()


def _forked_all() -> None:
    for reporter in list(_ALIVE):
        reporter._forked()  # noqa: SLF001  its own module


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forked_all)
