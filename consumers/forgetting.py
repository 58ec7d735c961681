"""Beginning a stage anew: its checkpoints and offsets go, its inputs are read from the start.

For when the topic of checkpoints is lost, or an input was made anew. What a stage writes on its
second way through its inputs carries the ids of the first (examples: model, prediction id and
revision), so readers can drop the doubles; counts that are added up (summaries) cannot be told
apart, so they go with whoever adds them up.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from confluent_kafka import (
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from consumers import topics_admin
from consumers.loop import BrokerError, log
from stream import checkpoints
from stream.errors import ConfigurationError
from stream.producers import flush
from stream.settings import Settings
from stream.topics import INPUTS, Stage

TIMEOUT_SECONDS = 15.0
GONE = KafkaError.GROUP_ID_NOT_FOUND


class Scope(NamedTuple):
    """What begins anew with a stage: groups by stage, and topics by entity."""

    stages: tuple[Stage, ...]
    entities: tuple[str, ...]


SCOPES: Final[dict[Stage, Scope]] = {
    "score": Scope(("score",), ("checkpoints.score",)),
    # Evaluate adds up what monitor sends, so it must not hear it twice.
    "monitor": Scope(
        ("monitor", "evaluate"), ("checkpoints.monitor", "checkpoints.evaluate", "summaries")
    ),
    "evaluate": Scope(("evaluate",), ("checkpoints.evaluate",)),
    "shadow": Scope(("shadow",), ("checkpoints.shadow",)),
}


def forget(settings: Settings, stage: Stage) -> Scope:
    """Take a stage, and those that add up what it sends, back to the beginning of their inputs.

    Raises:
        ConfigurationError: a process of one of the stages still runs.
        BrokerError: the broker refuses or does not answer; safe to repeat.
    """
    scope = SCOPES[stage]
    admin = AdminClient(settings.client(), logger=log)
    groups = [settings.names.group(one) for one in scope.stages]
    _demand_empty(admin, groups)
    _make_anew(admin, settings, scope.entities)
    _each(admin.delete_consumer_groups(groups, request_timeout=TIMEOUT_SECONDS))
    return scope


def keep_offsets(settings: Settings) -> dict[int, int]:
    """Let score go on at its group's offsets, without its checkpoints: its only state is records
    that waited a few seconds for a model to become known. Returns the offsets by partition.

    Raises:
        ConfigurationError: a process of the stage still runs, or the group has no offsets.
        BrokerError: the broker refuses or does not answer; safe to repeat.
    """
    names = settings.names
    group, topic = names.group("score"), names.topic(INPUTS["score"][0])
    admin = AdminClient(settings.client(), logger=log)
    _demand_empty(admin, [group])
    counts = {row.entity: row.partitions for row in topics_admin.listing(settings)}
    places = [TopicPartition(topic, number) for number in range(counts["requests"])]
    asked = ConsumerGroupTopicPartitions(group, places)
    [found] = _each(admin.list_consumer_group_offsets([asked], request_timeout=TIMEOUT_SECONDS))
    offsets = {place.partition: place.offset for place in found.topic_partitions}
    if min(offsets.values()) < 0:
        raise ConfigurationError(
            f"the group {group} has no offsets of every partition: begin anew, without --keep"
        )
    _make_anew(admin, settings, SCOPES["score"].entities)
    _write(settings, counts, offsets)
    return offsets


def _write(settings: Settings, counts: dict[str, int], offsets: dict[int, int]) -> None:
    """An empty checkpoint for each partition, at its offset."""
    producer = Producer(settings.client(**{"enable.idempotence": True}), logger=log)
    topic = settings.names.checkpoints("score")
    for partition, offset in offsets.items():
        manifest = checkpoints.Manifest(
            stage="score",
            partition=partition,
            next={"requests": offset},
            partitions={entity: counts[entity] for entity in checkpoints.PINNED["score"]},
        )
        for key, value in checkpoints.records(manifest, {}).items():
            producer.produce(topic, value, key.encode(), partition)
    if flush(producer, TIMEOUT_SECONDS):
        raise BrokerError(f"{topic}: the new checkpoints were not acknowledged; run it again")


def _demand_empty(admin: Any, groups: list[str]) -> None:
    """Whoever still runs would write its checkpoint again, or halt over the lost one."""
    answers = admin.describe_consumer_groups(groups, request_timeout=TIMEOUT_SECONDS)
    for group, answer in answers.items():
        try:
            state = answer.result().state
        except KafkaException as error:
            if error.args[0].code() == GONE:
                continue
            raise BrokerError(f"{group}: {error.args[0].str()}") from error
        if state not in (ConsumerGroupState.EMPTY, ConsumerGroupState.DEAD):
            raise ConfigurationError(
                f"{group} still has members: stop its workers first "
                "(one that was killed counts until its session timeout has passed)"
            )


def _make_anew(admin: Any, settings: Settings, entities: Iterable[str]) -> None:
    topics = [settings.names.topic(entity) for entity in entities]
    there = admin.list_topics(timeout=TIMEOUT_SECONDS).topics.keys()
    known = [topic for topic in topics if topic in there]
    if known:
        _each(admin.delete_topics(known, operation_timeout=TIMEOUT_SECONDS))
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while there & set(known):
        if time.monotonic() > deadline:
            raise BrokerError(f"{', '.join(known)} did not go away in time; run it again")
        time.sleep(0.2)
        there = admin.list_topics(timeout=TIMEOUT_SECONDS).topics.keys()
    topics_admin.apply(settings)


def _each(answers: dict[str, Any]) -> list[Any]:
    """What the broker answered to each; what is gone already is as it should be."""
    found = []
    for name, answer in answers.items():
        try:
            found.append(answer.result())
        except KafkaException as error:
            if error.args[0].code() not in (GONE, KafkaError.UNKNOWN_TOPIC_OR_PART):
                raise BrokerError(f"{name}: {error.args[0].str()}") from error
    return found
