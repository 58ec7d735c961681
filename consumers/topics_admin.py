"""Making the topics as `stream.topics` wants them, and saying where the broker's differ."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from consumers.loop import BrokerError, log
from stream.settings import Settings
from stream.topics import TOPICS, Topic

TIMEOUT_SECONDS = 15.0
PROBE_SECONDS = 5.0  # whether anybody answers at all
SETTLE_SECONDS = 10.0  # until every broker tells of a change
EMBEDDED_NOTE = (
    "the embedded broker makes topics itself, with 4 partitions, and keeps no configuration"
)


State = Literal["ok", "made", "altered", "missing", "differs"]


class Row(NamedTuple):
    """One topic and what is, or was done, about it.

    Attributes:
        state: ok; made; altered; missing; differs (`note` says in what, and what to do).
    """

    topic: str
    entity: str
    partitions: int
    state: State
    note: str = ""


def config_of(topic: Topic, settings: Settings) -> dict[str, str]:
    """The broker's configuration of one topic.

    A replayer stamps records in event time (`clock="event"`), which may lie years back, so that
    retention by time would delete them at once: there it is for ever.
    """
    replayed = settings.clock == "event"
    config = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "max.message.bytes": str(settings.max_record_bytes),
        "message.timestamp.type": "CreateTime" if replayed else "LogAppendTime",
    }
    if not topic.compacted:
        hours = -1 if replayed else settings.retention_hours
        config["retention.ms"] = str(-1 if hours < 0 else round(hours * 3_600_000))
    if topic.entity.startswith("checkpoints."):
        config["segment.bytes"] = str(64 * 1024 * 1024)  # what a restart may have to read
    if settings.replication_factor >= 3:
        config["min.insync.replicas"] = "2"
    return config


def apply(settings: Settings) -> list[Row]:
    """Make what is missing and alter configuration that differs; partition counts never change.

    Raises:
        BrokerError: the broker does not answer or refuses.
    """
    admin = _admin(settings)
    if settings.embedded_broker:
        return [_touched(admin, topic, settings) for topic in TOPICS]
    before = {row.topic: row for row in _compared(admin, settings)}
    _make(
        admin, settings, [topic for topic in TOPICS if _row(before, topic, settings) == "missing"]
    )
    _alter(
        admin, settings, [topic for topic in TOPICS if _row(before, topic, settings) == "differs"]
    )
    done: dict[State, State] = {"missing": "made", "differs": "altered"}
    return [
        after._replace(state=done.get(before[after.topic].state, "ok"))
        if after.state == "ok"
        else after
        for after in _settled(admin, settings)
    ]


def listing(settings: Settings) -> list[Row]:
    """Every topic of Driftline as the broker has it."""
    admin = _admin(settings)
    if settings.embedded_broker:
        return [_touched(admin, topic, settings) for topic in TOPICS]
    return _compared(admin, settings)


def _compared(admin: Any, settings: Settings) -> list[Row]:
    counts = _counts(admin, settings)
    names = settings.names
    present = [topic for topic in TOPICS if names.topic(topic.entity) in counts]
    configs = _configs(admin, [names.topic(topic.entity) for topic in present])
    rows = []
    for topic in TOPICS:
        name = names.topic(topic.entity)
        if name not in counts:
            note = "`driftline topics apply` makes it"
            rows.append(Row(name, topic.entity, 0, "missing", note))
            continue
        wanted = config_of(topic, settings)
        differing = [k for k, v in wanted.items() if configs[name].get(k) != v]
        note = "; ".join(
            [
                *(f"{k} is {configs[name].get(k)}, not {wanted[k]}" for k in differing),
                *_partition_note(counts[name], settings),
            ]
        )
        rows.append(Row(name, topic.entity, counts[name], "differs" if note else "ok", note))
    return rows


def _settled(admin: Any, settings: Settings) -> list[Row]:
    """The comparison once it shows what was changed: brokers hear of changes a moment later."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        rows = _compared(admin, settings)
        open_ones = (
            r for r in rows if r.state != "ok" and r.partitions in (0, settings.partitions)
        )
        if next(open_ones, None) is None or time.monotonic() > deadline:
            return rows
        time.sleep(0.1)


def _partition_note(count: int, settings: Settings) -> list[str]:
    if count == settings.partitions:
        return []
    note = (
        f"{count} partitions, not {settings.partitions}: set DRIFTLINE_PARTITIONS={count}, or "
        "start under a new topic prefix and replay; a live topic's count must not change"
    )
    return [note]


def _counts(admin: Any, settings: Settings) -> dict[str, int]:
    try:
        topics = admin.list_topics(timeout=PROBE_SECONDS).topics
    except KafkaException as error:
        raise _unreachable(settings, error) from error
    return {name: len(topic.partitions) for name, topic in topics.items()}


def _configs(admin: Any, topics: Iterable[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    if not resources:
        return {}
    answers = admin.describe_configs(resources, request_timeout=TIMEOUT_SECONDS)
    return {
        resource.name: {name: entry.value for name, entry in _result(answer, resource.name).items()}
        for resource, answer in answers.items()
    }


def _make(admin: Any, settings: Settings, topics: Iterable[Topic]) -> None:
    wanted = [
        NewTopic(
            settings.names.topic(topic.entity),
            num_partitions=settings.partitions,
            replication_factor=settings.replication_factor,
            config=config_of(topic, settings),
        )
        for topic in topics
    ]
    if wanted:
        answers = admin.create_topics(wanted, operation_timeout=TIMEOUT_SECONDS)
        for name, answer in answers.items():
            _result(answer, name)


def _alter(admin: Any, settings: Settings, topics: Iterable[Topic]) -> None:
    wanted = [
        ConfigResource(
            ResourceType.TOPIC,
            settings.names.topic(topic.entity),
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in config_of(topic, settings).items()
            ],
        )
        for topic in topics
    ]
    if wanted:
        for resource, answer in admin.incremental_alter_configs(wanted).items():
            _result(answer, resource.name)


def _touched(admin: Any, topic: Topic, settings: Settings) -> Row:
    name = settings.names.topic(topic.entity)
    try:
        found = admin.list_topics(name, timeout=PROBE_SECONDS).topics[name]
    except KafkaException as error:
        raise _unreachable(settings, error) from error
    return Row(name, topic.entity, len(found.partitions), "ok", EMBEDDED_NOTE)


def _row(rows: dict[str, Row], topic: Topic, settings: Settings) -> str:
    return rows[settings.names.topic(topic.entity)].state


def _result(answer: Any, what: str) -> Any:
    try:
        return answer.result(timeout=TIMEOUT_SECONDS)
    except KafkaException as error:
        raise BrokerError(f"{what}: {error.args[0].str()}") from error


def _admin(settings: Settings) -> Any:
    return AdminClient(settings.client(), logger=log)


def _unreachable(settings: Settings, error: KafkaException) -> BrokerError:
    return BrokerError(
        f"no answer from Kafka at {settings.bootstrap_servers} ({error.args[0].str()}); "
        "start it, or name another with --bootstrap or KAFKA_BOOTSTRAP_SERVERS"
    )
