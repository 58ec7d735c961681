"""librdkafka's in-process broker: a whole Kafka on a loopback port, for as long as it is held."""

from __future__ import annotations

from confluent_kafka import Producer

from stream.topics import TOPICS, Names

QUIET = 4  # syslog's "warning": that the broker is embedded is said where it is asked for
PARTITIONS = 4  # what the embedded broker gives every topic; it takes no wishes


class EmbeddedBroker:
    """Nothing it holds outlives this object; transactions are accepted, but not isolated."""

    def __init__(self) -> None:
        wanted = {"bootstrap.servers": "ignored:1", "test.mock.num.brokers": 1}
        self._holder = Producer({**wanted, "log_level": QUIET})
        brokers = self._holder.list_topics(timeout=10).brokers.values()
        self.bootstrap_servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def touch(self, names: Names) -> None:
        """Make every topic exist: they come up when somebody asks for them."""
        for topic in TOPICS:
            self._holder.list_topics(names.topic(topic.entity), timeout=10)
