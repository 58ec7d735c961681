"""Workers of release 0.1 and of this one over each other's partitions, and zombies of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException

from stream.core.processor import Record
from stream.settings import Settings
from tests.kafka.copies import Workers, copying, exact, send, state, until
from tests.kafka.former import FormerOwner
from tests.topics import read_all


@pytest.fixture
def workers(kafka_settings: Settings, tmp_path: Path) -> Iterator[Workers]:
    # It would be held up longer than this test waits, if nobody fenced the former owner.
    patient = kafka_settings.model_copy(update={"transaction_timeout_ms": 60_000})
    with copying(patient, tmp_path) as started:
        yield started


def requests(settings: Settings, partition: int, start: int) -> list[Record]:
    topic = settings.names.topic("requests")
    return [
        Record(seen.offset, 0, seen.key, seen.value)
        for seen in read_all(settings.bootstrap_servers, topic)
        if seen.partition == partition and seen.offset >= start
    ]


def test_this_release_goes_on_where_the_former_was_and_back_again(workers: Workers) -> None:
    """An upgrade, a way back and another upgrade, each exact."""
    settings = workers.settings
    for turn in range(2):
        send(settings, 800 * turn, 400)
        for number in range(4):
            former = FormerOwner(settings, number)
            former.begin(requests(settings, number, former.next))
            former.commit()
        assert state(settings)[0] == 800 * turn + 400
        worker = workers.start()
        send(settings, 800 * turn + 400, 400)
        exact(workers, 800 * (turn + 1))
        assert workers.end(worker) == 0


def test_a_zombie_of_the_former_release_can_commit_nothing(workers: Workers) -> None:
    """One that was stopped in the middle of a transaction, and one that had only restored what a
    worker of this release had written: the group would take the offsets of both."""
    settings = workers.settings
    send(settings, 0, 400)
    in_the_middle = FormerOwner(settings, 2)
    in_the_middle.begin(requests(settings, 2, 0))
    worker = workers.start()
    exact(workers, 400)
    assert workers.end(worker) == 0
    restored = FormerOwner(settings, 3)
    send(settings, 400, 400)
    workers.start()
    exact(workers, 800)
    records = requests(settings, 3, restored.next)
    with pytest.raises(KafkaException):
        _commit(restored, records)
    with pytest.raises(KafkaException):
        in_the_middle.commit()
    send(settings, 800, 400)
    until(lambda: state(settings)[0] >= 1200, workers)
    exact(workers, 1200)


def _commit(owner: FormerOwner, records: list[Record]) -> None:
    owner.begin(records)
    owner.commit()
