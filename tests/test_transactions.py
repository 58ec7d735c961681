"""What a commit says of its failure."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from consumers.demo.embedded import EmbeddedBroker
from stream.errors import Fenced
from stream.settings import Settings
from stream.transactions import Delta, Membership, Transactor, group_metadata

STATE = KafkaError._STATE


class Failed:
    """A producer whose transaction failed while offsets were sent: only the next call says why."""

    def __init__(self, why: int) -> None:
        self._why = why
        self._begun = False

    def begin_transaction(self) -> None:
        if self._begun:
            raise KafkaException(KafkaError(self._why))
        self._begun = True

    def produce(self, *_: object) -> None: ...

    def send_offsets_to_transaction(self, *_: object) -> None:
        raise KafkaException(KafkaError(STATE))


def commit(why: int) -> None:
    writer = Transactor(Settings(), "score.0")
    producer: Any = Failed(why)
    writer._producer = producer
    writer.commit([Delta([], ("checkpoints", 0, {}), {("requests", 0): 1})], {}, None)


def test_a_failure_that_overtook_the_call_is_told_by_its_cause() -> None:
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        commit(KafkaError.TOPIC_AUTHORIZATION_FAILED)


def test_a_fence_that_overtook_the_call_is_a_fence() -> None:
    with pytest.raises(Fenced):
        commit(KafkaError.PRODUCER_FENCED)


def test_a_membership_reads_as_librdkafka_writes_its_own() -> None:
    """Nobody documents that form, so it is held to what a consumer says, in a group and not."""
    broker = EmbeddedBroker()
    where = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "g"}
    consumer: Any = Consumer({**where, "allow.auto.create.topics": True, "log_level": 0})
    assert consumer.consumer_group_metadata() == group_metadata("g", Membership(-1, ""))
    consumer.list_topics("inputs", timeout=10)  # which makes it
    consumer.subscribe(["inputs"])
    deadline = time.monotonic() + 30
    while not consumer.assignment() and time.monotonic() < deadline:
        consumer.poll(0.1)
    found = consumer.consumer_group_metadata()
    consumer.close()
    (generation,), (_, member, _) = struct.unpack("=i", found[7:11]), found[11:].split(b"\0")

    assert generation > 0
    assert found == group_metadata("g", Membership(generation, member.decode()))


def test_one_generation_follows_another_of_the_same_member() -> None:
    assert Membership(5, "a").follows(Membership(4, "a"))
    assert not Membership(6, "a").follows(Membership(4, "a"))
    assert not Membership(5, "b").follows(Membership(4, "a"))
