"""The outbox reaches `lifecycle` in order, whoever relays it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from consumers.demo.embedded import EmbeddedBroker
from consumers.loop import BrokerError, RangeReader
from consumers.relay import Relay, encode, lifecycle, pump_once
from models.registry import Outgoing, Registry
from stream.envelope import open_record, read
from stream.events import LifecycleChanged
from stream.settings import Settings
from tests.registries import CHURN, register
from tests.topics import make_topics


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(f"sqlite:///{tmp_path}/r.db") as opened:
        opened.upgrade()
        opened.add_model(CHURN, who="test")
        yield opened


@pytest.fixture(scope="module")
def embedded() -> Iterator[Settings]:
    broker = EmbeddedBroker()
    yield Settings(bootstrap_servers=broker.bootstrap_servers, embedded_broker=True)
    del broker


def generations(settings: Settings) -> list[int]:
    """Of the model churn, in the order of the log."""
    with RangeReader(settings) as reader:
        records = [came.record for came in reader.read("lifecycle", reader.bounds("lifecycle"))]
    opened = [open_record("lifecycle", record, max_bytes=100_000) for record in records]
    return [read(one, LifecycleChanged).generation for one in opened]


def change(registry: Registry, times: int) -> None:
    """Make new generations. Each in one transaction, so threads may collide in it, but not fail."""
    for _ in range(times):
        state = registry.live("churn")
        assert state is not None
        (registry.unpin if state.pinned else registry.pin)("churn", who="test")


def test_what_is_published_says_what_the_registry_says(registry: Registry) -> None:
    state = registry.live("churn")
    assert state is not None
    published = lifecycle(state)
    assert msgspec.to_builtins(published) == msgspec.to_builtins(state)
    assert encode(state) == encode(state)


def test_every_change_is_published_once_and_in_order(
    registry: Registry, embedded: Settings
) -> None:
    registry.promote("churn", register(registry), who="test")
    change(registry, 3)
    relay = Relay(registry, embedded)
    assert relay.pump() == 5
    assert relay.pump() == 0
    assert generations(embedded) == [1, 2, 3, 4, 5]


def test_without_a_broker_the_rows_stay_and_a_command_line_goes_on(registry: Registry) -> None:
    nowhere = Settings(bootstrap_servers="127.0.0.1:1")
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1"):
        Relay(registry, nowhere).pump()
    assert "A running trainer publishes it" in pump_once(registry, nowhere)
    assert len(registry.outbox_pending(10)) == 1


class SlowReader:
    """An outbox that hands out, once, what was read of it a while ago."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.held: list[list[Outgoing]] = []

    def outbox_pending(self, limit: int) -> list[Outgoing]:
        return self.held.pop() if self.held else self._registry.outbox_pending(limit)

    def outbox_sent(self, ids: Sequence[int]) -> None:
        self._registry.outbox_sent(ids)


def test_what_was_read_before_taking_over_is_read_again(
    registry: Registry, embedded: Settings
) -> None:
    seen = generations(embedded)
    outbox = SlowReader(registry)
    outbox.held = [registry.outbox_pending(10)]
    Relay(registry, embedded).pump()
    assert Relay(outbox, embedded).pump() == 0
    assert generations(embedded) == [*seen, 1]


def test_a_relay_that_was_overtaken_never_writes_an_older_state_behind_a_newer(
    registry: Registry, kafka_settings: Settings
) -> None:
    make_topics(kafka_settings)
    registry.promote("churn", register(registry), who="test")
    outbox = SlowReader(registry)
    slow, quick = Relay(outbox, kafka_settings), Relay(registry, kafka_settings)
    slow.pump()
    change(registry, 1)
    outbox.held = [registry.outbox_pending(10)]  # generation 3
    change(registry, 2)
    assert quick.pump() == 3
    assert slow.pump() == 0
    assert generations(kafka_settings) == [1, 2, 3, 4, 5]
    change(registry, 2)
    assert slow.pump() == 2  # it has taken over again
    assert generations(kafka_settings) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    "code", [KafkaError._FENCED, KafkaError.UNKNOWN, KafkaError.INVALID_TXN_STATE]
)
def test_a_transaction_that_was_overtaken_is_written_anew(
    registry: Registry, embedded: Settings, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Whatever the broker calls it."""
    seen = generations(embedded)
    change(registry, 1)
    failures = [KafkaException(KafkaError(code))]
    write = Relay._write

    def overtaken(*args: Any) -> None:
        if failures:
            raise failures.pop()
        write(*args)

    monkeypatch.setattr(Relay, "_write", overtaken)
    assert Relay(registry, embedded).pump() == 1
    assert not failures
    assert generations(embedded)[len(seen) :] == [1]


def test_relays_at_once_leave_generations_that_never_go_back(
    registry: Registry, kafka_settings: Settings
) -> None:
    """But for rows that a take-over repeats before they are marked: those end with the newest."""
    make_topics(kafka_settings)
    registry.promote("churn", register(registry), who="test")
    relays = [Relay(registry, kafka_settings) for _ in range(3)]

    def work(relay: Relay) -> None:
        for _ in range(4):
            change(registry, 2)
            relay.pump()

    threads = [threading.Thread(target=work, args=(relay,)) for relay in relays]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    relays[0].pump()
    seen = generations(kafka_settings)
    state = registry.live("churn")
    assert state is not None
    assert list(dict.fromkeys(seen)) == list(range(1, state.generation + 1))
    assert seen[-1] == state.generation
