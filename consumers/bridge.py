"""The bridge as a process: what inference servers log on a topic of theirs, as predictions.

Offsets are committed up to the oldest record that still waits for its other half, when what was
made of those before it is written. So after a crash some predictions are written again, with the
same ids, and monitor counts each once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec
import structlog
from confluent_kafka import KafkaException

from consumers import inferences, schemas
from consumers.group import GroupReader
from consumers.inferences import Half, Own
from consumers.places import Delivered, Place
from consumers.producing import Publisher
from consumers.service import Stop
from consumers.spans import bridging
from consumers.status import published
from stream import logs, tracing
from stream.core.deadletters import dead_letter
from stream.core.processor import Output, Record
from stream.envelope import derived_id, write
from stream.errors import Refused
from stream.events import EVENT_TYPES, LifecycleChanged, PredictionMade
from stream.settings import Settings
from stream.topics import BRIDGE, BRIDGE_GROUP, BY_ENTITY

log = structlog.get_logger("driftline.bridge")

MADE: Final = "driftline.prediction.made.v1"
POLL_SECONDS: Final = 0.5
WAIT_SECONDS: Final = 600.0  # for the other half
MAX_WAITING: Final = 100_000
KNOWN_SECONDS: Final = 30.0  # what is live is asked again after so long


class Waiting(NamedTuple):
    half: Half
    came: Delivered
    since: float


class Pairs:
    """Requests and responses that wait for each other, oldest first, and so many at most."""

    def __init__(self, most: int = MAX_WAITING, wait_seconds: float = WAIT_SECONDS) -> None:
        self._most = most
        self._wait_seconds = wait_seconds
        self._waiting: dict[str, Waiting] = {}  # by the request's id

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, half: Half, came: Delivered, now: float) -> Waiting | None:
        """The other half, if it came before; else this one waits. A second request is the first."""
        other = self._waiting.get(half.id)
        if other is None or other.half.kind == half.kind:
            self._waiting.setdefault(half.id, Waiting(half, came, now))
            return None
        return self._waiting.pop(half.id)

    def given_up(self, now: float) -> list[Waiting]:
        """Those that have waited too long, and the oldest where there are too many."""
        gone = []
        for id_, one in list(self._waiting.items()):
            if len(self._waiting) <= self._most and now - one.since <= self._wait_seconds:
                break
            gone.append(self._waiting.pop(id_))
        return gone

    def drop(self, partition: int) -> None:
        """Its records come again, to whoever has it now."""
        kept = {k: one for k, one in self._waiting.items() if one.came.place.partition != partition}
        self._waiting = kept


class Wanted(NamedTuple):
    """What the command line says.

    Attributes:
        models: inference service -> model, where they are not called the same.
        version: of every prediction, where the server tells none; by default what is live.
        output: the tensor that holds what the model said.
        entity: what records are that do not say it: predictions, requests, feedback, or nothing.
    """

    topic: str
    models: Mapping[str, str] = {}
    version: int | None = None
    output: str = ""
    entity: str = ""


class Bridge:
    """Turns records into outputs, and says which records are dealt with.

    Attributes:
        counts: predictions, events (of batches), unpaired, refused.
    """

    def __init__(
        self,
        wanted: Wanted,
        live: Callable[[str], LifecycleChanged | None],
        write_out: Callable[[Output], None],
        pairs: Pairs,
        as_json: Callable[[Record], Record],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._as_json = as_json
        self._wanted = wanted
        self._live = live
        self._write = write_out
        self._pairs = pairs
        self._open: Counter[Place] = Counter()  # halves of a record that wait

    def take(self, came: Delivered, now: float) -> list[Place]:
        """Deal with one record; returns the places that are done by it.

        Raises:
            Unanswered: its schema cannot be asked for; nothing of it is done.
        """
        done: list[Place] = []
        try:
            for one in list(inferences.read(self._as_json(came.record), self._wanted.entity)):
                if isinstance(one, Own):
                    self._own(one)
                else:
                    done += self._half(one, came, now)
        except Refused as refused:
            self._refuse(came, refused)
        own = [] if came.place in self._open else [came.place]
        return list(dict.fromkeys([*done, *own]))

    def give_up(self, now: float) -> list[Place]:
        """Halves whose other half did not come. Not dead letters: what is missing is elsewhere."""
        gone = self._pairs.given_up(now)
        for one in gone:
            self.counts["unpaired"] += 1
            log.warning("unpaired", what=one.half.kind, id=one.half.id, **one.came.place._asdict())
        return [place for one in gone for place in self._closed(one.came.place)]

    def lose(self, partition: int) -> None:
        self._pairs.drop(partition)
        for place in [place for place in self._open if place.partition == partition]:
            del self._open[place]

    def _half(self, half: Half, came: Delivered, now: float) -> list[Place]:
        """Pair it, or let it wait; returns where its other half lay, if nothing there waits now."""
        before = len(self._pairs)
        other = self._pairs.take(half, came, now)
        if other is None:
            if len(self._pairs) > before:  # else it is here already
                self._open[came.place] += 1
            return []
        done = self._closed(other.came.place)
        pair = (other.half, half) if half.kind == "response" else (half, other.half)
        try:
            for output in self._predictions(*pair):
                self._write(output)
        except Refused as refused:  # both, so that both can be sent again
            for one in {other.came.place: other.came, came.place: came}.values():
                self._refuse(one, refused)
        return done

    def _closed(self, place: Place) -> list[Place]:
        self._open[place] -= 1
        if self._open[place] > 0:
            return []
        del self._open[place]
        return [place]

    def _refuse(self, came: Delivered, refused: Refused) -> None:
        self.counts["refused"] += 1
        log.warning("record refused", reason=str(refused), **came.place._asdict())
        entity = self._wanted.entity or "predictions"
        place, source = came.place, self._wanted.topic
        self._write(dead_letter(entity, came.record, refused, BRIDGE, place.partition, source))

    def _predictions(self, request: Half, response: Half) -> Iterator[Output]:
        service = request.service or response.service
        model = self._wanted.models.get(service, service)
        live = self._live(model)
        if live is None:
            raise Refused("unknown-model", f"{model!r}; --model SERVICE=MODEL names another")
        found = inferences.rows(live.spec, request.payload, response.payload, self._wanted.output)
        version = inferences.version_of(response.payload) or self._wanted.version
        for number, (features, output) in enumerate(found):
            id_ = request.id if len(found) == 1 else f"{request.id}/{number}"
            made = PredictionMade(
                prediction_id=id_,
                model=model,
                version=version or live.champion or 1,
                output=output,
                features=features,
            )
            self.counts["predictions"] += 1
            yield Output(
                "predictions",
                id_.encode(),
                write(
                    MADE,
                    made,
                    id=derived_id("bridge", model, id_),
                    source=inferences.SOURCE,
                    time_ms=request.time_ms,
                    traceparent=request.traceparent or response.traceparent,
                ),
            )

    def _own(self, one: Own) -> None:
        """An event of a batch, sent to its own topic as a record of its own."""
        _, entity = EVENT_TYPES.get(one.kind, (None, ""))
        data = one.event.get("data")
        if entity not in BY_ENTITY or not BY_ENTITY[entity].open or not isinstance(data, dict):
            raise Refused("unknown-event", f"{one.kind!r} is nothing that producers write")
        self.counts["events"] += 1
        key = str(data.get("prediction_id", ""))
        self._write(Output(entity, key.encode(), msgspec.json.encode(one.event)))


def run(settings: Settings, wanted: Wanted) -> int:
    """Serve until SIGTERM.

    Raises:
        ConfigurationError: records with schemas cannot be read here.
        BrokerError, KafkaException, Unanswered: going on makes no sense; nothing is lost, start it
            again.
    """
    logs.configure(settings.log_format, settings.log_level, service="bridge")
    send_spans = tracing.configure("driftline-bridge")
    stop = Stop(settings.drain_seconds)
    publisher = Publisher(settings)

    def write_out(output: Output) -> None:
        publisher.send(output.entity, output.key, output.value, headers=output.headers)

    bridge = Bridge(wanted, _Known(settings), write_out, Pairs(), schemas.reading(settings))
    reader = GroupReader(settings, BRIDGE_GROUP, "", bridge.lose, topic=wanted.topic)
    log.info("bridge serves", bootstrap=settings.bootstrap_servers, topic=wanted.topic)
    try:
        while not stop.asked:
            _turn(reader, bridge, publisher)
    finally:
        reader.close()
        send_spans()
        log.info("bridge ends", **bridge.counts)
    return 0


def _turn(reader: GroupReader, bridge: Bridge, publisher: Publisher) -> None:
    now = time.monotonic()
    came = reader.poll(POLL_SECONDS)
    with bridging([one.record for one in came], bridge.counts):
        done = [place for one in came for place in bridge.take(one, now)]
        done += bridge.give_up(now)
        publisher.flush()  # before any of them is committed
        for place in done:
            reader.done(place)
        try:
            reader.commit()
        except KafkaException as error:  # tried again at the next turn; at worst they come again
            log.warning("offsets not committed", error=str(error))


class _Known:
    """What is live for a model, as `lifecycle` tells, asked again now and then."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, tuple[float, LifecycleChanged | None]] = {}

    def __call__(self, model: str) -> LifecycleChanged | None:
        now = time.monotonic()
        asked, live = self._known.get(model, (-KNOWN_SECONDS, None))
        if now - asked >= KNOWN_SECONDS:
            live = published(self._settings, model)
            self._known[model] = (now, live)
        return live
