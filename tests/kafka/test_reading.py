"""What a stage asks its log, of the real broker."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaException, Producer

from stream.reading import LogReader
from stream.settings import Settings
from tests.topics import Sent, produce, quiet_client


def test_ends_of_many_partitions_are_told_at_once_with_what_lies_in_open_transactions(
    settings: Settings,
) -> None:
    topic = settings.names.topic("requests")
    produce(settings.bootstrap_servers, topic, [Sent(b"a", b"1", 0), Sent(b"b", b"2", 0)])
    hanging = Producer(
        quiet_client(
            settings.bootstrap_servers, **{"transactional.id": f"{settings.topic_prefix}.hanging"}
        )
    )
    hanging.init_transactions(30)
    hanging.begin_transaction()
    hanging.produce(topic, b"3", partition=1)
    hanging.flush(30)
    reader = LogReader(settings, "anybody")

    places = [(topic, partition) for partition in range(settings.partitions)]
    assert reader.ends(places) == {place: reader.bounds(*place)[1] for place in places}
    assert [reader.ends([place])[place] for place in places[:3]] == [2, 1, 0]
    assert reader.ends([]) == {}
    hanging.abort_transaction(30)


def test_the_end_of_a_partition_that_is_not_there_is_an_error(settings: Settings) -> None:
    """Not an end that everybody has reached."""
    reader = LogReader(settings, "anybody")
    topic = settings.names.topic("requests")

    with pytest.raises(KafkaException):
        reader.ends([(topic, 0), (topic, settings.partitions)])
