"""What a commit says of its failure."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream.errors import Fenced
from stream.settings import Settings
from stream.transactions import Transactor

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
    writer.commit([], {}, ("checkpoints", 0, {}), {("requests", 0): 1}, None)


def test_a_failure_that_overtook_the_call_is_told_by_its_cause() -> None:
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        commit(KafkaError.TOPIC_AUTHORIZATION_FAILED)


def test_a_fence_that_overtook_the_call_is_a_fence() -> None:
    with pytest.raises(Fenced):
        commit(KafkaError.PRODUCER_FENCED)
