"""At-least-once reading in a consumer group, with offsets that commit when the work is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from consumers.loop import BATCH, delivered, is_record, log, open_consumer, partitions_of, some
from consumers.places import Acknowledged, Delivered, Place
from stream.settings import Settings

TIMEOUT_SECONDS = 10.0
REBALANCED = (
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
)


class GroupReader:
    """At-least-once delivery of one topic to the members of one consumer group.

    The topic is Driftline's own `entity`, or somebody else's by its full name, `topic`.

    `on_lost(partition)` is called, inside `poll` or `close`, for each partition that goes away.
    """

    def __init__(
        self,
        settings: Settings,
        role: str,
        entity: str,
        on_lost: Callable[[int], None] = lambda _partition: None,
        *,
        topic: str | None = None,
        **properties: object,
    ) -> None:
        self._topic = topic or settings.names.topic(entity)
        self._acknowledged = Acknowledged()
        self._committed: dict[int, int] = {}
        self._on_lost = on_lost
        self._held = False
        self._consumer = open_consumer(
            settings,
            **{
                "group.id": settings.names.group(role),
                "auto.offset.reset": "earliest",
                "session.timeout.ms": round(settings.session_timeout_seconds * 1000),
                **properties,
            },
        )
        self._consumer.subscribe([self._topic], on_revoke=self._revoked, on_lost=self._dropped)

    def poll(self, timeout_seconds: float, most: int = BATCH) -> list[Delivered]:
        """Records that came, in the order of each partition; empty after the timeout."""
        came = [
            delivered(message)
            for message in some(self._consumer, timeout_seconds, most)
            if is_record(message, self._topic)
        ]
        for place, _ in came:
            self._acknowledged.take(place)
        return came

    def hold(self, *, held: bool) -> None:
        """Let nothing come, or let it come again; the membership is kept by polling all the same.

        To be said before each poll: a rebalance brings partitions that nobody has held.
        """
        assigned = self._consumer.assignment()
        if held:
            self._consumer.pause(assigned)
        elif self._held:
            self._consumer.resume(assigned)
        self._held = held

    def done(self, place: Place) -> None:
        self._acknowledged.done(place)

    def commit(self) -> None:
        """Commit what is done; nothing is sent when nothing changed.

        A commit that a rebalance overtakes is left out: those commands come again, and are known.
        """
        offsets = self._acknowledged.committable()
        changed = {p: o for p, o in offsets.items() if self._committed.get(p) != o}
        if not changed:
            return
        places = [TopicPartition(self._topic, p, o) for p, o in changed.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in REBALANCED:
                raise
            log.warning("a rebalance overtook a commit: %s", error)
        else:
            self._committed |= changed

    def close(self) -> None:
        """Commit what is done and leave the group, so that the next member starts at once."""
        self._consumer.close()

    def _revoked(self, consumer: object, partitions: Sequence[TopicPartition]) -> None:
        try:
            self.commit()
        except KafkaException as error:
            log.warning("commit at revocation failed, those commands come again: %s", error)
        self._dropped(consumer, partitions)

    def _dropped(self, _consumer: object, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._acknowledged.drop(partition.partition)
            self._committed.pop(partition.partition, None)
            self._on_lost(partition.partition)


def begin(settings: Settings, role: str, entity: str, at: Literal["now", "beginning"]) -> None:
    """Give a group a place in every partition where it has none, so that it does not depend on
    when its first commit comes: what is written from now on is delivered, whatever happens.

    Raises:
        ConfigurationError: the topic does not exist.
        BrokerError: whoever asks may not read the topic.
        KafkaException, TimeoutError: the broker does not answer, or refuses.
    """
    group, topic = settings.names.group(role), settings.names.topic(entity)
    # By an admin client: a consumer that finds no coordinator, or may not ask, waits for ever.
    admin = AdminClient(settings.client(), logger=log)
    consumer = open_consumer(settings, **{"group.id": group})
    try:
        wanted = [TopicPartition(topic, p) for p in partitions_of(consumer, topic)]
        [asked] = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group, wanted)], request_timeout=TIMEOUT_SECONDS
        ).values()
        new = [one for one in asked.result(TIMEOUT_SECONDS).topic_partitions if one.offset < 0]
        for one in new:
            first, end = consumer.get_watermark_offsets(one, timeout=TIMEOUT_SECONDS)
            one.offset = end if at == "now" else first
        if new:
            [done] = admin.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group, new)], request_timeout=TIMEOUT_SECONDS
            ).values()
            done.result(TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() not in (*REBALANCED, KafkaError.NON_EMPTY_GROUP):
            raise  # else somebody else has begun
    finally:
        consumer.close()
