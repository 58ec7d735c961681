"""Topics as the table wants them."""

from __future__ import annotations

import pytest

from consumers import topics_admin
from consumers.demo.embedded import EmbeddedBroker
from consumers.loop import BrokerError
from stream.settings import Settings
from stream.topics import BY_ENTITY, TOPICS
from tests.topics import create


def test_topics_that_producers_write_are_stamped_by_the_broker_and_replayed_ones_are_not() -> None:
    config = topics_admin.config_of(BY_ENTITY["requests"], Settings(retention_hours=2))
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert config["retention.ms"] == "7200000"
    replayed = topics_admin.config_of(BY_ENTITY["requests"], Settings(clock="event"))
    assert replayed["message.timestamp.type"] == "CreateTime"
    assert replayed["retention.ms"] == "-1"


def test_compacted_topics_are_kept_for_ever() -> None:
    for topic in TOPICS:
        config = topics_admin.config_of(topic, Settings())
        assert (config["cleanup.policy"] == "compact") == topic.compacted
        assert ("retention.ms" in config) != topic.compacted


def test_the_embedded_broker_makes_topics_by_itself() -> None:
    broker = EmbeddedBroker()
    settings = Settings(bootstrap_servers=broker.bootstrap_servers, embedded_broker=True)
    rows = topics_admin.apply(settings)
    assert {(row.partitions, row.state) for row in rows} == {(4, "ok")}
    assert len(rows) == len(TOPICS)


def test_nobody_there_is_said_with_what_to_do() -> None:
    settings = Settings(bootstrap_servers="127.0.0.1:1")
    with pytest.raises(BrokerError, match="--bootstrap"):
        topics_admin.listing(settings)


def test_apply_makes_what_is_missing_repairs_what_differs_and_is_safe_to_repeat(
    kafka_settings: Settings,
) -> None:
    names = kafka_settings.names
    assert {row.state for row in topics_admin.listing(kafka_settings)} == {"missing"}
    create(
        kafka_settings.bootstrap_servers,
        {names.topic("alerts"): 4, names.topic("drift"): 2},
        {"cleanup.policy": "delete"},
    )
    states = {row.entity: row for row in topics_admin.apply(kafka_settings)}
    assert states["alerts"].state == "altered"
    assert states["requests"].state == "made"
    assert states["drift"].state == "differs"
    assert "2 partitions, not 4" in states["drift"].note
    again = {row.entity: row.state for row in topics_admin.apply(kafka_settings)}
    assert again == {entity: "differs" if entity == "drift" else "ok" for entity in BY_ENTITY}
