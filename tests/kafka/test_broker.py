"""The tests' own broker keeps what the tests rely on."""

from __future__ import annotations

from confluent_kafka import Producer

from stream.settings import Settings
from stream.topics import TOPICS
from tests.broker import Broker, Sent, create, make_topics, produce, quiet_client, read_all


def test_keeps_records_headers_and_order_of_a_partition(bootstrap: str, topic_prefix: str) -> None:
    """What was produced is read back, in order, with keys and headers."""
    topic = f"{topic_prefix}.greetings"
    create(bootstrap, {topic: 2})

    produce(
        bootstrap,
        topic,
        [Sent(b"k", b"%d" % n, partition=1, headers=(("h", b"x"),)) for n in range(100)],
    )

    seen = read_all(bootstrap, topic)
    assert [b"%d" % n for n in range(100)] == [record.value for record in seen]
    assert {(1, b"k", (("h", b"x"),))} == {
        (record.partition, record.key, record.headers) for record in seen
    }


def test_hides_records_of_an_open_transaction(bootstrap: str, topic_prefix: str) -> None:
    """A read-committed reader sees a transaction's records only when it committed."""
    topic = f"{topic_prefix}.transfers"
    create(bootstrap, {topic: 1})
    producer = Producer(quiet_client(bootstrap, **{"transactional.id": f"{topic_prefix}.t"}))
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"in doubt")
    producer.flush(30)

    assert read_all(bootstrap, topic) == []
    assert len(read_all(bootstrap, topic, isolation="read_uncommitted")) == 1
    producer.commit_transaction(30)
    assert [record.value for record in read_all(bootstrap, topic)] == [b"in doubt"]


def test_makes_every_topic_of_the_table(kafka_settings: Settings) -> None:
    """All durable topics can be made and are empty."""
    make_topics(kafka_settings)

    for row in TOPICS:
        assert (
            read_all(kafka_settings.bootstrap_servers, kafka_settings.names.topic(row.entity)) == []
        )


def test_keeps_its_log_across_a_kill(broker: Broker, topic_prefix: str) -> None:
    """After SIGKILL and a new start the acknowledged records are there, on the same port."""
    topic = f"{topic_prefix}.kept"
    create(broker.bootstrap, {topic: 1})
    produce(broker.bootstrap, topic, [(b"a", b"1"), (b"b", b"2")])

    broker.kill()
    broker.start()

    assert [record.value for record in read_all(broker.bootstrap, topic)] == [b"1", b"2"]
