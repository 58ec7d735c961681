"""Where a stage's inputs begin and end, and whether they are still the topics they were.

Asked every few seconds beside the stage, by a client of its own: what it says holds also when the
stage's own clients are stuck.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import structlog
from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from stream.errors import ConfigurationError, explained
from stream.settings import Settings

log = structlog.get_logger(__name__)

PROBE_SECONDS = 3.0
PATIENCE_SECONDS = 20.0
SAY_SECONDS = 30.0  # between two lines about a broker that is away
FAILURES = 10  # of one client: one that a cut met in a wrong moment may never be answered again

Place = tuple[str, int]


class End(NamedTuple):
    """One partition: its first offset, how far a reader may go, and its end.

    Between the last two lies what open transactions hold up.
    """

    first: int
    stable: int
    end: int


class Identity(NamedTuple):
    """A topic made anew has another id."""

    id: str
    partitions: int


class BrokerAway(Exception):
    """Nobody answered; the message says why, as far as the client knows."""


class Ends:
    """
    Raises (every method):
        BrokerAway: nobody answered in `timeout_seconds`.
    """

    def __init__(self, settings: Settings, timeout_seconds: float = PROBE_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._where = settings.bootstrap_servers
        self._why = ""
        self._embedded = settings.embedded_broker
        self._properties = settings.client(log_level=0, error_cb=self._note)
        self._admin = AdminClient(self._properties)
        self._failures = 0

    def probe(self) -> None:
        """Ask for nothing but an answer."""
        try:
            self._admin.list_topics(timeout=self._timeout_seconds)
        except KafkaException as error:
            raise self._away(error) from error

    def wait(self) -> None:
        """Return when a broker answers; says every half minute that none does."""
        begun = time.monotonic()
        said = begun - SAY_SECONDS + 2 * self._timeout_seconds
        while True:
            try:
                self.probe()
            except BrokerAway as away:
                now = time.monotonic()
                if now - said >= SAY_SECONDS:
                    said = now
                    log.warning("broker away", error=str(away), seconds=round(now - begun))
                time.sleep(0.2)
            else:
                return

    def see(self, group: str) -> None:
        """Ask for a group before joining it: aiokafka waits in silence for one that it may not see.

        Raises:
            ConfigurationError: this process may not.
            KafkaException: the broker did not answer.
        """
        if self._embedded:
            return
        asked = self._admin.describe_consumer_groups([group], request_timeout=PATIENCE_SECONDS)
        try:
            asked[group].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                raise
            raise ConfigurationError(explained(error)) from error

    def look(self, places: Iterable[Place]) -> dict[Place, End]:
        """What the partitions hold; those whose leader did not answer are left out."""
        asked = [TopicPartition(*place) for place in places]
        if not asked:
            self.probe()
            return {}
        committed, uncommitted = IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED
        answers = [
            self._offsets(asked, OffsetSpec.earliest(), uncommitted),
            self._offsets(asked, OffsetSpec.latest(), committed),
            self._offsets(asked, OffsetSpec.latest(), uncommitted),
        ]
        first, stable, end = (self._answered(answer) for answer in answers)
        known = first.keys() & stable.keys() & end.keys()
        # Asked one after another, so a log may have grown in between.
        return {
            place: End(first[place], stable[place], max(end[place], stable[place]))
            for place in known
        }

    def identities(self, topics: Iterable[str]) -> dict[str, Identity]:
        """By topic; those that do not exist are left out, and all on the embedded broker."""
        if self._embedded:
            return {}
        asked = TopicCollection(list(topics))
        answers = self._admin.describe_topics(asked, request_timeout=self._timeout_seconds)
        found = {}
        for topic, answer in answers.items():
            try:
                described = answer.result()
            except KafkaException as error:
                if _nobody(error):
                    raise self._away(error) from error
                continue
            found[topic] = Identity(str(described.topic_id), len(described.partitions))
        return found

    def _offsets(self, asked: list[TopicPartition], spec: Any, isolation: Any) -> Mapping[Any, Any]:
        found: Mapping[Any, Any] = self._admin.list_offsets(
            dict.fromkeys(asked, spec),
            isolation_level=isolation,
            request_timeout=self._timeout_seconds,
        )
        return found

    def _answered(self, answers: Mapping[Any, Any]) -> dict[Place, int]:
        found, failed = {}, None
        for place, answer in answers.items():
            try:
                found[place.topic, place.partition] = int(answer.result().offset)
            except KafkaException as error:
                failed = error
        if not found and failed is not None and _nobody(failed):
            raise self._away(failed)
        return found

    def _note(self, error: Any) -> None:
        self._why = error.str()

    def _away(self, error: KafkaException) -> BrokerAway:
        self._failures += 1
        if self._failures % FAILURES == 0:
            self._admin = AdminClient(self._properties)
        why = self._why or error.args[0].str()
        return BrokerAway(f"no answer from Kafka at {self._where}: {why}")


def _nobody(error: KafkaException) -> bool:
    """The client gave up by itself; what a broker says has a code of zero or more."""
    return bool(error.args[0].code() < 0)


def of_broker(error: BaseException | None) -> bool:
    """Kafka failed, not we."""
    return isinstance(error, KafkaException | BrokerAway)
