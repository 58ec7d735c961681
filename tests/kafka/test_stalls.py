"""A stage that stands still though there is work ends itself; one that only waits does not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from stream.metrics import METRICS
from stream.settings import Settings
from tests.broker import Broker
from tests.kafka.children import COPY, STUCK, Children
from tests.kafka.copies import send, state
from tests.topics import quiet_client

STALL_SECONDS = (
    5.0  # a broker that stands still for longer than 9 is fenced, and then looked for anew
)
NO_TURN = "without a turn of its loop"


@pytest.fixture
def children(kafka_settings: Settings, tmp_path: Path) -> Iterator[Children]:
    quick = kafka_settings.model_copy(update={"stall_seconds": STALL_SECONDS})
    started = Children(quick, tmp_path)
    yield started
    started.end()


def test_what_stands_still_ends_and_says_where(children: Children) -> None:
    """Hung apply, restore and commit, a dead fetcher, consumer and agent: exit code 1, and the log
    names the partition, the phase and the stacks."""
    hung = [
        ("applying records", children.start("a", COPY, DRIFTLINE_FAILPOINT="apply:1:600")),
        ("reading its checkpoint", children.start("b", COPY, DRIFTLINE_FAILPOINT="restore:1:600")),
        ("committing", children.start("c", COPY, DRIFTLINE_FAILPOINT="before_commit:1:600")),
        ("waiting for records", children.start("d", [*STUCK, "fetcher"])),
        ("waiting for records", children.start("e", [*STUCK, "consumer"])),
        (NO_TURN, children.start("f", [*STUCK, "agent"])),
    ]
    for phase, child in hung:
        assert child.ended() == 1, child.text()
        stalled = child.lines("stalled")
        assert [line["phase"] for line in stalled] == [phase], child.text()
        assert (stalled[0]["partition"] is None) == (phase == NO_TURN)
        assert "most recent call first" in child.text()


def test_a_slow_model_and_an_outage_are_no_stall(
    children: Children, broker: Broker, tmp_path: Path
) -> None:
    """A model that computes for four times as long, also while a rebalance gives its partitions
    anew, and a broker that stands still for as long as a stall takes: both go on, and nothing is
    lost."""
    decided_anew = tmp_path / "decided-anew"
    slow = children.start("slow", [*STUCK, "slow"], SLOW_UNTIL=str(decided_anew))
    idle = children.start("idle", COPY)
    for child in (slow, idle):
        child.until(lambda child=child: bool(child.lines("restored")))  # type: ignore[misc]
    children.start("slow", COPY, slow.settings)  # its coming makes the group decide again
    slow.until(lambda: any(line["late"] for line in slow.lines("revoked")))
    decided_anew.touch()
    idle.until_ready()
    idle.until(lambda: state(idle.settings)[0] == 200)
    broker.pause()
    try:
        idle.until_reason("broker away")
        time.sleep(STALL_SECONDS)
        assert idle.door("/livez")[0] == 200
    finally:
        broker.resume()
    idle.until_ready()
    send(idle.settings, 200, 100)
    idle.until(lambda: state(idle.settings)[0] == 300)
    slow.until(lambda: state(slow.settings)[0] == 200)
    assert not slow.lines("stalled")


def test_what_a_hanging_transaction_holds_up_is_measured_and_no_stall(children: Children) -> None:
    """Somebody else's open transaction lies in our input: the worker stays, and says how much."""
    settings = children.topics("held")
    topic = settings.names.topic("requests")
    hanging = Producer(
        quiet_client(
            settings.bootstrap_servers,
            **{"transactional.id": f"{settings.topic_prefix}.hanging"},
        )
    )
    hanging.init_transactions(30)
    hanging.begin_transaction()
    hanging.produce(topic, b"999", partition=1)
    hanging.flush(30)
    send(settings, 200, 400)
    child = children.start("held", COPY, settings)
    child.until(lambda: state(settings)[0] >= 500)
    where = {"partition": "1", "entity": "requests"}
    child.until(
        lambda: (child.metric("driftline_held_up_seconds", **where) or 0) > 1.5 * STALL_SECONDS
    )
    assert child.metric("driftline_held_up_records", **where) == 101
    assert child.metric("driftline_lag_records", **where) == 0
    assert child.ready() == []
    assert set(re.findall(r"^(driftline_\w+)", child.door("/metrics")[1], re.M)) <= METRICS.keys()
    hanging.abort_transaction(30)
    child.until(lambda: state(settings)[0] == 600)
    child.until(lambda: child.metric("driftline_held_up_records", **where) == 0)


@pytest.mark.faults
def test_an_interpreter_that_is_held_for_ever_is_ended(children: Children) -> None:
    """No thread of Python's can look then; faulthandler's timer does."""
    child = children.start("held", [*STUCK, "interpreter"])
    assert child.ended() == 1, child.text()
    assert "Timeout" in child.text()
    assert "most recent call first" in child.text()


@pytest.mark.faults
def test_an_end_that_holds_the_interpreter_is_ended(children: Children) -> None:
    """What says that the end hangs is a thread of Python's, too."""
    child = children.start("held-end", [*STUCK, "end"])
    assert child.ended() == 1, child.text()
    assert child.lines("failed")
    assert "most recent call first" in child.text()
