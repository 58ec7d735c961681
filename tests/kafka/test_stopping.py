"""SIGTERM ends every service with 0 within ten seconds, whatever it is at."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.registry import Registry
from stream import checkpoints
from stream.checkpoints import Manifest
from stream.settings import Settings
from tests.broker import Broker, free_ports
from tests.kafka.children import COPY, STUCK, Child, Children, terminate
from tests.kafka.copies import PARTITIONS, ROOT
from tests.patience import GRACE_SECONDS
from tests.registries import CHURN
from tests.topics import Sent, make_topics, produce

TRAINER = ("consumers", "trainer")


@pytest.fixture
def silence() -> Iterator[str]:
    """An address that takes connections and never answers, as a half-open network does."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        yield f"127.0.0.1:{deaf.getsockname()[1]}"


def end_in_time(children: list[Child]) -> None:
    """SIGTERM to all at once; `pytest -s` tells the slowest."""
    slowest = max(terminate(children))
    print(f"{len(children)} processes ended with 0, the slowest after {slowest:.1f} s")
    assert slowest < GRACE_SECONDS


def waiting_for_lifecycle(children: Children) -> Child:
    """Its checkpoints know of a generation that the lifecycle topic does not."""
    settings = children.topics("lifecycle")
    counts = dict.fromkeys(checkpoints.PINNED["score"], PARTITIONS)
    produce(
        settings.bootstrap_servers,
        settings.names.checkpoints("score"),
        [
            Sent(checkpoints.MANIFEST_KEY.encode(), records["manifest"], partition)
            for partition in range(PARTITIONS)
            for records in [
                checkpoints.records(
                    Manifest(
                        stage="score",
                        partition=partition,
                        next={"requests": 0},
                        partitions=counts,
                        generations={"churn": 7},
                    ),
                    {},
                )
            ]
        ],
    )
    return children.start("lifecycle", COPY, settings)


def test_a_stage_ends_in_time_whatever_it_is_at(children: Children, silence: str) -> None:
    """Starting without a broker, hung in init, restore, apply or commit, waiting for lifecycle,
    busy, with a stuck event loop: nothing is lost by an end, so it is one without fault."""
    absent = Settings(bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}")
    deaf = Settings(bootstrap_servers=silence)
    starting = [children.start("absent", COPY, absent), children.start("deaf", COPY, deaf)]
    failpoints = {
        name: children.start(name.replace("_", "-"), COPY, DRIFTLINE_FAILPOINT=f"{name}:1:600")
        for name in ("init", "restore", "apply", "before_commit")
    }
    busy = children.start("busy", COPY, COPY_PACE_SECONDS="0.05")
    agent = children.start("agent", [*STUCK, "agent"])
    lifecycle = waiting_for_lifecycle(children)
    for child in starting:
        child.until_reason("broker away")
    lifecycle.until_reason("churn at generation 7, told is none")
    failpoints["init"].until_reason("fencing the owner before")
    failpoints["restore"].until_reason("reading its checkpoint")
    for child in (busy, agent, failpoints["apply"], failpoints["before_commit"]):
        child.until(lambda child=child: len(child.lines("restored")) == PARTITIONS)  # type: ignore[misc]
    phase = ("driftline_phase_seconds", "apply"), ("driftline_phase_seconds", "flush")
    for (name, what), child in zip(
        phase, (failpoints["apply"], failpoints["before_commit"]), strict=True
    ):
        child.until(lambda n=name, w=what, c=child: (c.metric(n, phase=w) or 0) > 1)  # type: ignore[misc]
    every = [*starting, *failpoints.values(), busy, agent, lifecycle]
    end_in_time(every)
    assert busy.lines("drained")
    assert failpoints["before_commit"].lines(
        "not drained in time: the last records will be read again"
    )


def test_a_stage_and_a_trainer_end_in_time_when_the_broker_stands_still(
    children: Children, broker: Broker, kafka_settings: Settings
) -> None:
    """As a cut network or a long pause of the broker would have it."""
    make_topics(kafka_settings)
    with Registry(kafka_settings.registry_url) as registry:
        registry.upgrade()
        trainer = children.start("trainer", TRAINER, kafka_settings)
        stage = children.start("stage", COPY, COPY_PACE_SECONDS="0.05")
        stage.until(lambda: len(stage.lines("restored")) == PARTITIONS)
        trainer.until_ready()
        broker.pause()
        try:
            registry.add_model(CHURN, who="test")  # so that the trainer wants to publish
            for child in (trainer, stage):
                child.until_reason("broker away")
            end_in_time([trainer, stage])
        finally:
            broker.resume()


def test_a_trainer_ends_in_time_whatever_it_is_at(
    children: Children, silence: str, tmp_path: Path
) -> None:
    """Without a broker, without a database that answers, and with one that is locked."""
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("free", "locked")]
    for url in urls:
        with Registry(url) as registry:
            registry.upgrade()
    absent = Settings(bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}", registry_url=urls[0])
    broker_away = children.start("broker", TRAINER, absent)
    broker_away.until_reason("broker away")
    lock = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    lock.execute("PRAGMA locking_mode = EXCLUSIVE")
    lock.execute("BEGIN EXCLUSIVE")
    locked = children.start("locked", TRAINER, absent.model_copy(update={"registry_url": urls[1]}))
    deaf_url = f"postgresql+psycopg://driftline@{silence}/driftline"
    deaf = children.start("deaf", TRAINER, absent.model_copy(update={"registry_url": deaf_url}))
    for child in (locked, deaf):
        child.until_reason("looking for the registry")
    end_in_time([broker_away, locked, deaf])
    lock.close()


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_a_supervisor_ends_in_time_also_in_its_first_moments(
    tmp_path: Path, seconds: float
) -> None:
    """Children that have not even begun are no failure."""
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "consumers", "worker"],
            cwd=ROOT,
            env={**os.environ, "DRIFTLINE_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_ports(1)[0]}"},
            stderr=file,
        )
    while log.read_text().count("started") < 3:
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    time.sleep(seconds)
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(GRACE_SECONDS) == 0, log.read_text()
    assert time.monotonic() - begun < GRACE_SECONDS
