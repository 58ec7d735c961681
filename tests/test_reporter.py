"""A serving system reports what it does, and goes on whatever becomes of that."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from consumers.demo.embedded import PARTITIONS, EmbeddedBroker
from consumers.loop import RangeReader
from consumers.places import Delivered
from consumers.reporter import Counts, Reporter
from stream.core.partitioning import partition_of
from stream.envelope import open_record, read
from stream.events import FeedbackReceived, PredictionMade, PredictionRequested
from stream.settings import Settings
from tests.patience import PATIENCE_SECONDS

NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def broker() -> EmbeddedBroker:
    return EmbeddedBroker()


@pytest.fixture
def kafka(broker: EmbeddedBroker, request: pytest.FixtureRequest) -> Settings:
    """The embedded broker, with topics of this test's own."""
    settings = Settings(
        bootstrap_servers=broker.bootstrap_servers,
        embedded_broker=True,
        topic_prefix=request.node.name.replace("_", "-"),
    )
    broker.touch(settings.names)
    return settings


def lying(settings: Settings, entity: str) -> list[Delivered]:
    with RangeReader(settings) as reader:
        return list(reader.read(entity, reader.bounds(entity)))


def test_importing_it_pulls_in_nothing_heavy() -> None:
    """A serving process pays for what it uses."""
    heavy = {"numpy", "scipy", "sklearn", "river", "faust", "aiokafka", "sqlalchemy", "fastapi"}
    program = f"import sys, consumers.reporter; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert done.stdout.strip() == b"[]"


def test_each_kind_lies_where_its_key_belongs_and_can_be_read(kafka: Settings) -> None:
    with Reporter(
        "churn", version=3, settings=kafka, linger_ms=1, flush_seconds=PATIENCE_SECONDS
    ) as reporter:
        asked = reporter.request({"age": 41, "plan": "basic"})
        said = reporter.prediction({"age": 41, "plan": None}, 0.83, time_ms=1_700_000_000_000)
        reporter.feedback(said, "leaves")
    assert reporter.counts == Counts(reported=3, written=3)

    (request,), (prediction,), (feedback,) = (
        lying(kafka, entity) for entity in ("requests", "predictions", "feedback")
    )
    opened = open_record("predictions", prediction.record, max_bytes=10_000)
    assert opened.time_ms == 1_700_000_000_000
    made = read(opened, PredictionMade)
    assert (made.prediction_id, made.version, made.output) == (said, 3, 0.83)
    assert made.features == {"age": 41, "plan": None}
    wanted = read(open_record("requests", request.record, max_bytes=10_000), PredictionRequested)
    assert (wanted.prediction_id, wanted.model) == (asked, "churn")
    told = read(open_record("feedback", feedback.record, max_bytes=10_000), FeedbackReceived)
    assert (told.prediction_id, told.label) == (said, "leaves")
    for came in (request, prediction, feedback):
        assert came.record.key is not None
        assert came.place.partition == partition_of(came.record.key, PARTITIONS, "murmur2")


def test_values_of_numpy_are_values(kafka: Settings) -> None:
    """What scikit-learn returns can be reported as it is; NaN is a missing value."""
    features = {"a": np.float32(1.5), "b": np.int64(2), "c": np.bool_(True), "d": float("nan")}
    with Reporter("m", settings=kafka, flush_seconds=PATIENCE_SECONDS) as reporter:
        reporter.prediction(features, np.array([0.25, 0.75]), version=1)
        reporter.prediction({"a": np.float64("nan")}, np.float64(0.5), version=1)
    first, second = (
        read(open_record("predictions", one.record, max_bytes=10_000), PredictionMade)
        for one in sorted(lying(kafka, "predictions"), key=lambda one: len(one.record.value or b""))
    )
    assert (first.features, first.output) == ({"a": None}, 0.5)
    assert second.features == {"a": 1.5, "b": 2, "c": True, "d": None}
    assert second.output == [0.25, 0.75]


def test_the_serving_path_goes_on_while_the_broker_is_away() -> None:
    """The queue is bounded, what finds no place is counted, and nothing waits or raises."""
    settings = Settings(bootstrap_servers=NOBODY)
    reporter = Reporter("churn", version=1, settings=settings, queue_events=100, flush_seconds=0.3)
    began = time.monotonic()
    for _ in range(300):
        reporter.prediction({"age": 1}, 0.5)
    assert time.monotonic() - began < 90
    assert reporter.counts == Counts(reported=300, dropped=200)
    assert reporter.counts.waiting == 100
    assert not reporter.flush(0.1)
    began = time.monotonic()
    reporter.close()
    assert time.monotonic() - began < 90


def test_what_is_not_written_in_time_is_lost_aloud(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings(bootstrap_servers=NOBODY)
    with Reporter("churn", settings=settings, keep_seconds=0.2) as reporter:
        reporter.feedback("a", "yes")
    assert reporter.counts == Counts(reported=1, lost=1)
    assert "not all events were written" in caplog.text


def test_what_is_no_event_is_refused_and_nobody_hears_of_it(
    kafka: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither nonsense nor objects that cannot be encoded break the caller."""
    with Reporter("churn", settings=kafka, flush_seconds=PATIENCE_SECONDS) as reporter:
        assert reporter.prediction({"a": 1}, 0.5)  # of no version
        reporter.prediction({"a": object()}, 0.5, version=1)
        reporter.prediction({"a": [1, 2]}, 0.5, version=1)
        reporter.prediction(None, 0.5, version=1)  # type: ignore[arg-type]
        reporter.feedback("", "yes")
        reporter.feedback(None, "yes")  # type: ignore[arg-type]
        reporter.prediction({"a": "x" * 20_000_000}, 0.5, version=1)
    assert reporter.counts == Counts(reported=7, refused=7)
    assert caplog.text.count("an event was refused") == 1  # not one line for each


def test_after_it_is_closed_events_are_dropped(kafka: Settings) -> None:
    reporter = Reporter("churn", settings=kafka, flush_seconds=PATIENCE_SECONDS)
    reporter.close()
    reporter.feedback("a", "yes")
    assert reporter.counts == Counts(reported=1, dropped=1)


def test_a_batch_job_may_wait_for_a_place(kafka: Settings) -> None:
    with Reporter(
        "m",
        settings=kafka,
        queue_events=10,
        linger_ms=1,
        flush_seconds=PATIENCE_SECONDS,
        full="wait",
    ) as reporter:
        for n in range(200):
            reporter.feedback(f"p{n}", "yes")
    assert reporter.counts == Counts(reported=200, written=200)
    assert len(lying(kafka, "feedback")) == 200


def test_an_event_loop_waits_for_room_without_standing_still(kafka: Settings) -> None:
    async def play() -> Counts:
        async with Reporter(
            "m", settings=kafka, queue_events=10, linger_ms=1, flush_seconds=PATIENCE_SECONDS
        ) as reporter:
            for n in range(100):
                assert await reporter.ready()
                reporter.feedback(f"p{n}", "yes")
        return reporter.counts

    assert asyncio.run(play()) == Counts(reported=100, written=100)


def test_an_event_loop_is_told_when_no_room_comes() -> None:
    async def play() -> bool:
        nowhere = Settings(bootstrap_servers=NOBODY)
        async with Reporter("m", settings=nowhere, queue_events=10, flush_seconds=0) as reporter:
            for n in range(20):
                reporter.feedback(f"p{n}", "yes")
            return await reporter.ready(0.1)

    assert asyncio.run(play()) is False


def test_a_process_that_just_ends_has_written_its_events(kafka: Settings) -> None:
    """Nobody has to remember to close."""
    program = (
        "from consumers.reporter import Reporter\n"
        "Reporter('m', linger_ms=5000, flush_seconds=180).feedback('p1', 'yes')"
    )
    environment = {
        **os.environ,
        "DRIFTLINE_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "DRIFTLINE_TOPIC_PREFIX": kafka.topic_prefix,
    }
    subprocess.run(
        [sys.executable, "-c", program], check=True, env=environment, timeout=PATIENCE_SECONDS
    )
    assert [one.record.key for one in lying(kafka, "feedback")] == [b"p1"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_reports_and_ends(kafka: Settings) -> None:
    """A server that loads once and forks its workers, as gunicorn does with --preload."""
    other = Reporter(
        "other", settings=kafka, flush_seconds=PATIENCE_SECONDS
    )  # its client has no thread left that holds it
    other.close()
    reporter = Reporter("m", settings=kafka, linger_ms=1, flush_seconds=PATIENCE_SECONDS)
    reporter.feedback("parent", "yes")

    def serve() -> None:
        reporter.feedback("child", "yes")

    child = multiprocessing.get_context("fork").Process(target=_then_close, args=(reporter, serve))
    child.start()
    child.join(PATIENCE_SECONDS)
    assert child.exitcode == 0
    reporter.close()
    assert other.counts == Counts()
    assert {one.record.key for one in lying(kafka, "feedback")} == {b"parent", b"child"}
    assert reporter.counts == Counts(reported=1, written=1)


def _then_close(reporter: Reporter, serve: Callable[[], None]) -> None:
    serve()
    reporter.close()
    assert reporter.counts == Counts(reported=1, written=1)
