"""The services of docker-compose.yml, on a real broker and PostgreSQL, close the loop."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from consumers.demo.datasets import history_csv
from consumers.demo.director import Director, Pipeline
from consumers.demo.ledger import Ledger
from consumers.demo.replayer import Replayer
from consumers.demo.report import summary
from consumers.demo.scenarios import DAY_MS, SCENARIOS
from consumers.demo.story import Story
from consumers.demo.watcher import Watcher
from stream.settings import Settings
from tests import postgres
from tests.broker import Broker
from tests.kafka.composed import Composed, broker_properties
from tests.patience import PATIENCE_SECONDS

SECONDS = 40.0
REPLAYED = {  # a replayer is the clock, faster than real time
    "DRIFTLINE_CLOCK": "event",
    "DRIFTLINE_SUMMARY_INTERVAL_MS": "100",
    "DRIFTLINE_RETENTION_HOURS": "-1",
}


@pytest.fixture
def composed(
    postgres_server: postgres.Server, tmp_path: Path
) -> Iterator[tuple[Composed, Settings]]:
    """The services are up, two of score, and the settings that a user on the host has."""
    with Broker(tmp_path / "kafka", properties=broker_properties()) as broker:
        url = postgres_server.database("driftline")
        addresses = {
            "kafka:19092": broker.bootstrap,
            "driftline:driftline@postgres/": url.partition("//")[2].rpartition("/")[0] + "/",
        }
        stack = Composed(tmp_path, addresses, REPLAYED, score=2)
        settings = Settings(
            bootstrap_servers=broker.bootstrap,
            registry_url=url,
            artefact_url=f"file:{tmp_path}/artefacts",
            clock="event",
        )
        try:
            stack.up()
            yield stack, settings
        finally:
            stack.stop()


@pytest.mark.demo
def test_the_services_of_the_compose_file_close_the_loop(
    composed: tuple[Composed, Settings],
) -> None:
    """Commands, environment and order are the file's own; harm leads to a proven, better version,
    and a version forced by hand is rolled back."""
    stack, settings = composed
    scenario = SCENARIOS["bikes"]
    happenings = scenario.happenings()
    start_ms = happenings[0].asked_ms + scenario.history_days * DAY_MS
    history = [one for one in happenings if one.asked_ms < start_ms]
    live = [one for one in happenings if one.asked_ms >= start_ms]
    expected = ["console-1", "evaluate-1", "monitor-1", "score-1", "score-2", "trainer-1"]
    assert stack.wait_healthy(PATIENCE_SECONDS) == expected
    spec, data = stack.folder / "spec.json", stack.folder / "history.csv"
    spec.write_bytes(msgspec.json.encode(scenario.spec))
    data.write_text(history_csv(history))
    stack.run("models", "add", str(spec), "--data", str(data))

    ledger = Ledger(scenario.spec, live)
    with Story(ledger, Console(file=io.StringIO(), force_terminal=False)) as story:
        watcher = Watcher(settings, ledger, story)
        watcher.start()
        try:
            assert watcher.wait(lambda: ledger.lifecycle is not None, PATIENCE_SECONDS)
            replayer = Replayer(settings, scenario.spec.name, live)
            director = Director(
                scenario, Pipeline(stack, replayer, watcher, ledger, story), SECONDS
            )
            director.play(start_ms, live[-1].asked_ms + DAY_MS)
            figures = summary(scenario, ledger, start_ms, director.first_alert_seconds)
        finally:
            watcher.stop()

    assert figures["closed"], figures
    assert (figures["swap_lost"], figures["swap_duplicated"]) == (0, 0)
    stack.check()
