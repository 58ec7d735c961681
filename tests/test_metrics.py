"""What is exported is what the table says, with bounded labels, and the page shows the table."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consumers.console.doors import Told
from consumers.console.reader import Standing as Standstill
from consumers.sinks.standing import Standing as Alerting
from consumers.standing import Standing
from stream.ends import End
from stream.inputs import Input, Measures
from stream.metrics import (
    ALERTS_METRICS,
    CONSOLE_METRICS,
    METRICS,
    STAGE_METRICS,
    TRAINER_METRICS,
    StageCollector,
)
from stream.settings import Settings
from tests.test_partitions import Log, flush, piece, restored

ROOT = Path(__file__).parent.parent
COUNTED = re.compile(r'_counters\[f?"([\w-]+):')


def exported(collector: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def stage() -> Any:
    """The health of a stage that holds one partition, as far as metrics look at it."""
    one = restored(Log())
    one.apply(piece(0, 2))
    flush(one)
    one.counts["lost:requests"] = 4
    one.processor.gauges = {"parked": 1}  # type: ignore[attr-defined]
    one.processor.model_seconds = {"churn": 2.5}  # type: ignore[attr-defined]
    lengths = {f"model-{number}": number for number in range(1, 31)}
    one.processor.model_backlog = lengths  # type: ignore[attr-defined]
    counters = {"records_seen": 2, "refused:bad-json": 2, "rerouted:feedback": 1}
    counters |= {"dropped:unknown-model": 1, "unjudged:no-profile": 1, "alert.opened": 1}
    type(one.processor).counters = property(lambda _: counters)  # type: ignore[assignment]
    keeper = SimpleNamespace(
        number=0, partition=one, at=("wait", 0.0, None), phase_seconds=1.5, restore_seconds=0.5
    )
    counts = {"assignments": 1, "fences": 1, "late_revocations": 0}
    return SimpleNamespace(
        stage="score",
        ready=lambda: ["restoring"],
        away_seconds=0.0,
        runtime=SimpleNamespace(keepers={0: keeper}, counts=counts),
        inputs={(0, "requests"): Input(5, 3, 12.0, 100, 0)},
    )


@pytest.fixture
def health(monkeypatch: pytest.MonkeyPatch) -> Any:
    from tests.test_partitions import Counting

    monkeypatch.setattr(Counting, "counters", Counting.counters)  # put back after the test
    return stage()


def test_a_stage_exports_its_whole_table_and_no_more(health: Any) -> None:
    samples = exported(StageCollector(health))
    assert {name for name, _ in samples} == {told.name for told in STAGE_METRICS}
    for name, labels in samples:
        assert {label for label, _ in labels} == set(METRICS[name].labels)
    where = {("stage", "score"), ("partition", "0")}
    assert samples["driftline_lag_records", frozenset(where | {("entity", "requests")})] == 5
    assert samples["driftline_refused_total", frozenset(where | {("reason", "bad-json")})] == 2
    assert samples["driftline_ready", frozenset({("stage", "score")})] == 0
    assert samples["driftline_model_seconds_total", frozenset(where | {("model", "churn")})] == 2.5


def test_of_the_models_that_wait_the_longest_lines_are_named_and_the_rest_summed(
    health: Any,
) -> None:
    samples = exported(StageCollector(health))
    waiting = {
        dict(labels)["model"]: count
        for (name, labels), count in samples.items()
        if name == "driftline_model_waiting"
    }
    assert waiting == {f"model-{n}": n for n in range(11, 31)} | {"(others)": 55}


def test_the_trainer_exports_its_whole_table_and_no_more() -> None:
    standing = Standing(Settings(bootstrap_servers="127.0.0.1:1"))
    trainer: Any = SimpleNamespace(
        commands={("promote", "applied"): 2}, fits={"accepted": 1}, fitting=(1, 0)
    )
    publishing: Any = SimpleNamespace(pending=2, age_seconds=3.0, sent=4)
    standing.serves(trainer, publishing)
    samples = exported(standing)
    assert {name for name, _ in samples} == {told.name for told in TRAINER_METRICS}


def test_the_alerts_service_exports_its_whole_table_and_no_more() -> None:
    counts = {"delivered": 2, "retried": 1, "dead-lettered": 1}
    counts |= {"failed:timeout": 1, "skipped:filtered": 3}
    courier: Any = SimpleNamespace(
        counts=counts,
        waiting=4,
        waiting_seconds=5.0,
        turned=time.monotonic(),
        sender=SimpleNamespace(sink=SimpleNamespace(timeout_seconds=10.0)),
    )
    standing = Alerting(Settings(bootstrap_servers="127.0.0.1:1"))
    standing.couriers = {"ops": courier}
    samples = exported(standing)
    assert {name for name, _ in samples} == {told.name for told in ALERTS_METRICS}
    assert samples["driftline_alerts_waiting", frozenset({("sink", "ops")})] == 4


def test_the_console_exports_its_whole_table_and_no_more() -> None:
    reader: Any = SimpleNamespace(read=5, refused=1, standing=Standstill("away", 0, "no broker"))
    told = Told(reader, SimpleNamespace(open=2))  # type: ignore[arg-type]
    samples = exported(told)
    assert {name for name, _ in samples} == {told.name for told in CONSOLE_METRICS}
    assert samples["driftline_console_ready", frozenset()] == 0
    assert told.ready() == ["no broker"]
    reader.standing = Standstill("following", 0)
    assert exported(told)["driftline_console_ready", frozenset()] == 1


def test_the_page_shows_every_metric_and_no_other() -> None:
    page = (ROOT / "docs" / "OPERATIONS.md").read_text()
    rows = set(re.findall(r"^\| `(driftline_\w+)` \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE))
    table = {(told.name, ", ".join(told.labels), told.help) for told in METRICS.values()}
    assert rows == table


def test_every_labelled_counter_of_the_core_has_a_metric() -> None:
    """A new `name:label` in a processor needs a row, or its scrape would fail."""
    names = {
        name
        for path in (ROOT / "stream" / "core").glob("*.py")
        for name in COUNTED.findall(path.read_text())
    }
    assert names == {"refused", "rerouted", "dropped", "unjudged"}
    assert {f"driftline_{name}_total" for name in names} <= METRICS.keys()


def keeper_at(position: int) -> Any:
    place = ("driftline.requests.v1", 0)
    world = SimpleNamespace(inputs=lambda _: {"requests": place})
    return SimpleNamespace(
        number=0, partition=SimpleNamespace(world=world, positions={"requests": position})
    )


def test_what_a_hanging_transaction_holds_up_grows_old_until_it_ends() -> None:
    """Short transactions are always open somewhere; the stable end moves between two looks."""
    clock = iter([0.0, 3.0, 6.0, 9.0])
    measures = Measures(lambda: next(clock))
    place = ("driftline.requests.v1", 0)
    ages = []
    for stable, end in ((10, 12), (10, 20), (20, 21), (21, 21)):
        found = measures.of([keeper_at(10)], {place: End(0, stable, end)})[0, "requests"]
        ages.append((found.held_up, found.held_up_seconds))
    assert ages == [(2, 0.0), (10, 3.0), (1, 0.0), (0, 0.0)]


def test_what_retention_takes_is_told_before_and_after() -> None:
    place = ("driftline.requests.v1", 0)
    near = Measures().of([keeper_at(10)], {place: End(8, 20, 20)})[0, "requests"]
    gone = Measures().of([keeper_at(10)], {place: End(13, 20, 20)})[0, "requests"]
    assert (near.headroom, near.lost, near.lag) == (2, 0, 10)
    assert (gone.headroom, gone.lost) == (0, 3)
