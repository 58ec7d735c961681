"""A serving system's reporter on the real broker, which comes and goes."""

from __future__ import annotations

import statistics
import time

import msgspec

from consumers.reporter import Counts, Reporter
from stream.settings import Settings
from tests.broker import Broker, make_topics, read_all
from tests.patience import PATIENCE_SECONDS

EVENTS = 400


def test_what_was_reported_while_the_broker_was_dead_is_written_when_it_is_back(
    broker: Broker, kafka_settings: Settings
) -> None:
    """Killed half-way and started again: nothing is lost, and no call waited for it."""
    make_topics(kafka_settings)
    took = []
    with Reporter(
        "churn", version=1, settings=kafka_settings, flush_seconds=PATIENCE_SECONDS
    ) as reporter:
        for n in range(EVENTS):
            if n == EVENTS // 4:
                broker.kill()
            began = time.perf_counter()
            reporter.prediction({"n": n}, 0.5, prediction_id=f"p{n}")
            took.append(time.perf_counter() - began)
            time.sleep(0.002)
        broker.start()
    assert reporter.counts == Counts(reported=EVENTS, written=EVENTS)
    assert statistics.median(took) < 0.5  # most of them had no broker

    topic = kafka_settings.names.topic("predictions")
    lying = [
        msgspec.json.decode(one.value or b"")
        for one in read_all(kafka_settings.bootstrap_servers, topic)
    ]
    assert {event["data"]["prediction_id"] for event in lying} == {f"p{n}" for n in range(EVENTS)}
    doubles = len(lying) - len({event["id"] for event in lying})
    assert len(lying) - doubles == EVENTS  # a double has the id of the first
