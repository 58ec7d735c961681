"""The console beside a real broker: it leaves no trace there, and tells how others keep up."""

from __future__ import annotations

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from consumers import topics_admin
from consumers.console.pipeline import GroupView, group_views
from consumers.console.routes import Parts
from stream.settings import Settings
from tests.consoles import console, measured, publish, wait_until
from tests.topics import quiet_client


def view(parts: Parts, entity: str) -> GroupView | None:
    views = group_views(list(parts.pipeline.samples))
    return next((one for one in views if one.entity == entity), None)


def told(parts: Parts, entity: str, word: str, lag: int | None) -> bool:
    found = view(parts, entity)
    return found is not None and (found.word, found.lag) == (word, lag)


def test_reads_without_a_group_that_others_see(kafka_settings: Settings) -> None:
    """Nobody's lag moves, no member joins, nothing is committed; what aborted is not shown."""
    topics_admin.apply(kafka_settings)
    publish(kafka_settings, [measured(0.9)])
    admin = AdminClient(quiet_client(kafka_settings.bootstrap_servers))
    with console(kafka_settings, follow=True) as parts:
        wait_until(lambda: len(parts.history.accuracies("churn", "86400s")) == 1)
        wait_until(lambda: told(parts, "summaries", "nothing done yet", None))
        parts.inspector.search("a1")
        groups = admin.list_consumer_groups(request_timeout=10).result(timeout=10).valid

    prefix = kafka_settings.topic_prefix
    assert [group.group_id for group in groups if group.group_id.startswith(prefix)] == []


def test_tells_the_lag_of_a_group_and_that_nobody_runs_it(kafka_settings: Settings) -> None:
    topics_admin.apply(kafka_settings)
    publish(kafka_settings, [measured(0.9, hour=hour) for hour in range(24, 34)])
    settings = kafka_settings
    name = settings.names.group("trainer")
    member = Consumer(quiet_client(settings.bootstrap_servers) | {"group.id": name})
    topic = settings.names.topic("commands")
    member.commit(offsets=[TopicPartition(topic, 0, 0)], asynchronous=False)
    member.close()

    with console(settings, follow=True) as parts:
        wait_until(lambda: told(parts, "commands", "nobody runs it", 0))
