"""`driftline doctor` on a real broker."""

from __future__ import annotations

import threading
import time

import pytest

from consumers import doctor
from consumers.producing import Publisher
from stream.settings import Settings
from tests.broker import make_topics
from tests.patience import PATIENCE_SECONDS


def clock(settings: Settings) -> doctor.Check:
    found = {check.what: check for check in doctor.examine(settings)}
    return found["clock of the broker"]


def test_the_clock_of_the_broker_is_told_by_a_record_that_comes_now(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written for it; while nothing comes, nothing is claimed."""
    make_topics(kafka_settings)
    monkeypatch.setattr(doctor, "CLOCK_SECONDS", 0.5)
    assert clock(kafka_settings).state == "skipped"

    monkeypatch.setattr(doctor, "CLOCK_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(doctor, "SKEW_SECONDS", 60.0)
    stopping = threading.Event()

    def report() -> None:
        publisher = Publisher(kafka_settings)
        while not stopping.wait(0.1):
            publisher.send("summaries", b"m", b"{}")
            publisher.flush()

    reporting = threading.Thread(target=report)
    reporting.start()
    try:
        assert clock(kafka_settings).state == "ok"
        monkeypatch.setattr(doctor, "now_ms", lambda: time.time_ns() // 1_000_000 + 300_000)
        late = clock(kafka_settings)
        assert late.state == "bad"
        assert "behind this machine" in late.note
    finally:
        stopping.set()
        reporting.join()


def test_what_is_not_made_and_what_differs_is_found(kafka_settings: Settings) -> None:
    """Partition counts of topics that are read together, retention, missing topics."""
    found = {check.what: check for check in doctor.examine(kafka_settings)}
    topic = kafka_settings.names.topic("predictions")
    assert "`driftline topics apply` makes it" in found[f"topic {topic}"].note
    make_topics(kafka_settings)
    other = kafka_settings.model_copy(update={"retention_hours": 1.0, "partitions": 3})
    note = {check.what: check for check in doctor.examine(other)}[f"topic {topic}"].note
    assert "retention.ms is" in note
    assert "partitions, not 3" in note
