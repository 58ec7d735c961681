"""How the stages keep up: lag, dead letters and members of their groups, sampled on a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from consumers.loop import RangeReader
from consumers.loop import log as kafka_log
from consumers.places import Span
from consumers.status import OPTIONAL, READS
from stream.errors import DriftlineError, explained
from stream.settings import Settings
from stream.topics import TOPICS

log = structlog.get_logger("driftline.console")

INTERVAL_SECONDS: Final = 5.0
SAMPLES: Final = 120  # ten minutes
TIMEOUT_SECONDS: Final = 5.0
STOP_SECONDS: Final = 3.0  # it may stand in a call to a broker that is away
STANDING_SAMPLES: Final = 6  # without progress though there is work: standing still
RATE_SAMPLES: Final = 7  # half a minute
BEHIND: Final = 5_000  # records
DEAD: Final = tuple(topic.entity for topic in TOPICS if topic.entity.endswith(".dlq"))


class Group(Struct, frozen=True, kw_only=True):
    """One consumer group on one topic at one moment; None where the broker does not tell.

    Attributes:
        end: sum of the ends of its partitions; done: of the committed offsets; lag: what is open.
        members: processes in the group; state: the broker's word for it.
    """

    role: str
    entity: str
    end: int
    done: int | None
    lag: int | None
    members: int | None = None
    state: str | None = None


class Sample(Struct, frozen=True, kw_only=True):
    """Everything at one moment of the console's clock."""

    at_ms: int
    groups: list[Group]
    dead_letters: dict[str, int]


class GroupView(Struct, frozen=True, kw_only=True):
    """One group as it is shown: how fast, how far behind, and in a word how it is.

    Attributes:
        rate_in, rate_out: offsets per second, over the samples there are (transactions count too).
        lags: the past, oldest first.
    """

    role: str
    entity: str
    lag: int | None
    rate_in: float | None
    rate_out: float | None
    members: int | None
    word: str
    lags: list[int]


def group_views(samples: Sequence[Sample]) -> list[GroupView]:
    """Every group of the newest sample."""
    return [] if not samples else [_view(group, samples) for group in samples[-1].groups]


def _view(group: Group, samples: Sequence[Sample]) -> GroupView:
    past = [
        (sample.at_ms, g)
        for sample in samples
        for g in sample.groups
        if (g.role, g.entity) == (group.role, group.entity)
    ]
    recent = past[-RATE_SAMPLES:]
    seconds = (recent[-1][0] - recent[0][0]) / 1000
    first = recent[0][1]
    done = None if group.done is None or first.done is None else group.done - first.done
    return GroupView(
        role=group.role,
        entity=group.entity,
        lag=group.lag,
        rate_in=(group.end - first.end) / seconds if seconds else None,
        rate_out=done / seconds if seconds and done is not None else None,
        members=group.members,
        word=_word(group, [g for _, g in past]),
        lags=[g.lag for _, g in past if g.lag is not None],
    )


def _word(group: Group, past: Sequence[Group]) -> str:
    if group.lag is None:
        return "not told by this broker" if group.members is None else "nothing done yet"
    if group.members == 0:
        return "nobody runs it"
    if group.state in ("preparing_rebalancing", "completing_rebalancing"):
        return "rebalancing"
    waited = past[-STANDING_SAMPLES:]
    if len(waited) == STANDING_SAMPLES and group.lag and len({g.done for g in waited}) == 1:
        return "standing still"
    if len(past) > 1 and past[0].lag is not None and group.lag > 2 * past[0].lag + BEHIND:
        return "falling behind"
    return "behind, working" if group.lag > BEHIND else "keeping up"


class Pipeline:
    """Samples while it runs. `problem` says why the newest sample is old, if it is."""

    def __init__(self, settings: Settings, clock: Callable[[], int]) -> None:
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.problem = ""
        self._settings = settings
        self.replays = settings.clock == "event"  # time is what the events say: none is late
        self._clock = clock
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="console-pipeline", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        admin = AdminClient(self._settings.client(), logger=kafka_log)
        while not self._stopping.is_set():
            try:
                with RangeReader(self._settings) as reader:
                    while not self._stopping.is_set():
                        self.samples.append(self._sample(reader, admin))
                        self.problem = ""
                        self._stopping.wait(INTERVAL_SECONDS)
            except (DriftlineError, KafkaException) as error:
                self.problem = explained(error)
            except Exception as error:
                log.exception("pipeline")
                self.problem = f"sampling failed and begins again: {explained(error)}"
            self._stopping.wait(INTERVAL_SECONDS)

    def _sample(self, reader: RangeReader, admin: Any) -> Sample:
        names = self._settings.names
        groups = []
        for role, entities in READS:
            members, state = _members(admin, names.group(role))
            for entity in entities:
                spans = reader.bounds(entity)
                done = _committed(admin, names.group(role), names.topic(entity), spans)
                if done is None and role in OPTIONAL:
                    continue
                groups.append(
                    Group(
                        role=role,
                        entity=entity,
                        end=sum(span.end for span in spans),
                        done=None if done is None else sum(done.values()),
                        lag=None if done is None else _lag(spans, done),
                        members=members,
                        state=state,
                    )
                )
        dead = {e: sum(span.length for span in reader.bounds(e)) for e in DEAD}
        return Sample(at_ms=self._clock(), groups=groups, dead_letters=dead)


def _lag(spans: list[Span], done: dict[int, int]) -> int:
    return sum(max(s.end - max(done.get(s.partition, 0), s.start), 0) for s in spans)


def _committed(admin: Any, group: str, topic: str, spans: list[Span]) -> dict[int, int] | None:
    """Next offsets by partition; None where nothing was ever committed or nobody tells."""
    asked = ConsumerGroupTopicPartitions(group)
    try:
        [answer] = admin.list_consumer_group_offsets(
            [asked], request_timeout=TIMEOUT_SECONDS
        ).values()
        places = answer.result(timeout=TIMEOUT_SECONDS).topic_partitions
    except (KafkaException, TimeoutError) as error:
        log.debug("no offsets", group=group, error=str(error))
        return None
    known = {p.partition: p.offset for p in places if p.topic == topic and p.offset >= 0}
    return {s.partition: known.get(s.partition, s.start) for s in spans} if known else None


def _members(admin: Any, group: str) -> tuple[int | None, str | None]:
    try:
        [answer] = admin.describe_consumer_groups([group], request_timeout=TIMEOUT_SECONDS).values()
        described = answer.result(timeout=TIMEOUT_SECONDS)
    except (KafkaException, TimeoutError) as error:
        log.debug("group not described", group=group, error=str(error))
        return None, None
    return len(described.members), described.state.name.lower()
