"""librdkafka's in-process broker: a whole Kafka on a loopback port, for as long as it is held."""

from __future__ import annotations

from confluent_kafka import Producer

from stream.topics import TOPICS, Names

PARTITIONS = 4  # what the embedded broker gives every topic; it takes no wishes


class EmbeddedBroker:
    """Nothing it holds outlives this object; transactions are accepted, but not isolated."""

    def __init__(self) -> None:
        self._holder = Producer({"bootstrap.servers": "ignored:1", "test.mock.num.brokers": 1})
        brokers = self._holder.list_topics(timeout=10).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def touch(self, names: Names) -> None:
        """Make every topic exist: they come up when somebody asks for them."""
        for topic in TOPICS:
            self._holder.list_topics(names.topic(topic.entity), timeout=10)
