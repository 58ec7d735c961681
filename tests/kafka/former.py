"""What a worker of release 0.1 does to the broker, for one partition of copying workers.

It holds a transactional id by partition and sends offsets as a consumer that is no member: the
group takes them in any generation, so nothing but that id keeps it out. Its manifests name no
writer.
"""

from __future__ import annotations

import json
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from stream import checkpoints
from stream.checkpoints import Manifest
from stream.core.processor import Record
from stream.settings import Settings
from tests.kafka.copies import PARTITIONS
from tests.topics import quiet_client, read_all

SECONDS = 30.0


class FormerOwner:
    """One partition of score, from its restore on."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._settings = settings
        self._partition = partition
        self.group = settings.names.group("score")
        where = settings.bootstrap_servers
        properties = {"transactional.id": f"{self.group}.{partition}"}
        self._producer: Any = Producer(quiet_client(where, **properties))
        self._consumer: Any = Consumer(quiet_client(where, **{"group.id": self.group}))
        self._producer.init_transactions(SECONDS)
        self.next, self.count, self.sum = self._restored()

    def _restored(self) -> tuple[int, int, int]:
        names = self._settings.names
        latest = {
            record.key or b"": record.value or b""
            for record in read_all(self._settings.bootstrap_servers, names.checkpoints("score"))
            if record.partition == self._partition
        }
        checkpoint = checkpoints.parse(latest, "score", self._partition)
        if checkpoint is None:
            return 0, 0, 0
        count, total = json.loads(checkpoint.parts["state"])
        return checkpoint.manifest.next["requests"], count, total

    def begin(self, records: list[Record]) -> None:
        """Apply, and write all but the end of the transaction."""
        names, producer = self._settings.names, self._producer
        producer.begin_transaction()
        for record in records:
            number = int(record.value or b"")
            self.next, self.count, self.sum = record.offset + 1, self.count + 1, self.sum + number
            value = b"%d:%d:%d" % (number, self._partition, self.count)
            producer.produce(names.topic("predictions"), value, record.key, self._partition)
        state = json.dumps([self.count, self.sum]).encode()
        manifest = Manifest(
            stage="score",
            partition=self._partition,
            next={"requests": self.next},
            partitions=dict.fromkeys(checkpoints.PINNED["score"], PARTITIONS),
            parts={"state": checkpoints.digest(state)},
        )
        for key, part in checkpoints.records(manifest, {"state": state}).items():
            topic = names.checkpoints("score")
            producer.produce(topic, _without_writer(part), key.encode(), self._partition)
        producer.flush(SECONDS)

    def commit(self) -> None:
        """
        Raises:
            KafkaException: it was fenced.
        """
        place = (self._settings.names.topic("requests"), self._partition, self.next)
        metadata = self._consumer.consumer_group_metadata()
        self._producer.send_offsets_to_transaction([TopicPartition(*place)], metadata, SECONDS)
        self._producer.commit_transaction(SECONDS)


def _without_writer(part: bytes | None) -> bytes:
    return (part or b"").replace(b',"writer":""', b"")
