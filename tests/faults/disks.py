"""Rows about disks that are full or damaged: the registry's, and the store of artefacts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consumers.relay import Relay
from models.registry import Registry
from tests.broker import Broker
from tests.faults.rows import EXACT, TRANSACTION, Row
from tests.faults.trainers import MODEL, Trainers
from tests.faults.world import Outcome, Unable, World
from tests.kafka import oracle
from tests.kafka.logs import Logs
from tests.kafka.naive import Naive
from tests.kafka.traffic import promote_corrupt

PAGE = 4096
BROKER_KILOBYTES = 300_000
SMALL_FILES = """
log.segment.bytes=4194304
log.index.size.max.bytes=262144
"""


@contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own, in memory.

    Raises:
        Unable: only root may mount one.
    """
    if os.geteuid() != 0:
        raise Unable("a small disk needs root (mount -t tmpfs)")
    path.mkdir()
    options = f"size={kilobytes}k"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=False)
    if done.returncode != 0:
        raise Unable("mount -t tmpfs is not allowed here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * PAGE):
                pass
        except OSError:
            pass
    return filler


def registry_disk_full(world: World) -> Outcome:
    with small_disk(world.directory / "disk", 4096) as disk:
        world.set(registry_url=f"sqlite:///{disk}/registry.db")
        trainers = Trainers(world)
        trainers.launch()
        trainers.until(lambda: "trainer serves" in trainers.log)
        filler = fill(disk)
        for number in range(40):  # a page of its own that SQLite has may take a few
            trainers.command("promote", 1 + number % 2)
        trainers.until(lambda: trainers.failures.total() > 0)
        filler.unlink()
        trainers.command("retrain")
        trainers.until(trainers.handled)
        outcome = trainers.judge_decisions(1)
        world.close()
    return outcome


def artefact_disk_full(world: World) -> Outcome:
    """A retrain that can't store what it fitted fails, and says so; the next one works."""
    with small_disk(world.directory / "disk", 512) as disk:
        world.set(artefact_url=f"file:{disk}")
        trainers = Trainers(world)
        filler = fill(disk)
        trainers.launch()
        trainers.command("retrain")
        trainers.until(trainers.handled)
        (run,) = trainers.registry.runs(MODEL)
        assert run.verdict == "failed", run
        assert "No space left on device" in run.reason, run.reason
        left = [path.name for path in disk.rglob("*") if path.is_file() and path != filler]
        assert not left, f"half an artefact lies about: {left}"
        filler.unlink()
        trainers.sent["retrain"].clear()
        trainers.sent["retrain"].append("retrain-1")
        trainers.send("retrain", "retrain-1")
        trainers.until(trainers.handled)
        outcome = trainers.judge(1, f"the first one: {run.reason}")
        world.close()
    return outcome


def broker_disk_full(world: World) -> Outcome:
    """Kafka ends itself when it can't write its log; with room again it starts on what is there."""
    with small_disk(world.directory / "disk", BROKER_KILOBYTES) as disk:
        with Broker(disk / "broker", properties=SMALL_FILES) as broker:
            world.set(bootstrap_servers=broker.bootstrap)
            world.begin(12_000, 40, score=2, monitor=2, evaluate=1)
            world.at(0.4)
            filler = fill(disk)
            world.until(lambda: not broker.is_running)
            filler.unlink()
            broker.restart()
            outcome = world.finish(1)
            world.close()
        return outcome


def corrupt_artefact(world: World) -> Outcome:
    """A version is promoted whose bytes are not those of its digest: the old one goes on."""
    world.begin(8_000, 20, score=1, monitor=1, evaluate=1)
    world.at(0.4)
    with Registry(world.settings.registry_url) as registry:
        promote_corrupt(registry, world.settings)
        Relay(registry, world.settings).pump()
    world.until(lambda: _refused(world) > 0)
    outcome = world.finish(1, check=_check_without_evaluate)
    made = {data["version"] for data in Logs(world.settings).data("predictions")}
    assert made == {1}, f"versions {made} have scored"
    return outcome


def _refused(world: World) -> int:
    alerts = list(Logs(world.settings).data("alerts"))
    return sum(json.dumps(data).count("bad-artefact:2") for data in alerts)


def _check_without_evaluate(logs: Logs, requested: list[str], *, lateless: bool) -> Naive:
    """Evaluate's commands depend on when it has seen the new generation."""
    oracle.check_predictions(logs, requested)
    oracle.check_progress(logs)
    oracle.check_replay(logs)
    naive = oracle.check_naive(logs, lateless=lateless)
    oracle.check_offsets(logs)
    return naive


ROWS = (
    Row(
        id="registry-disk-full",
        run=registry_disk_full,
        done="the disk of the SQLite registry is full (tmpfs of 4 MB), then has room again",
        invariant="each command has one decision; the trainer ends and is started again",
        kept_by="offsets of commands are committed last",
        seen="as trainer-kills",
    ),
    Row(
        id="artefact-disk-full",
        run=artefact_disk_full,
        done="the disk of the artefacts is full when a fit stores its model",
        invariant="the run fails and says why, no half artefact lies about, the next one works",
        kept_by="artefacts are written beside, synced and renamed",
        sabotage="inplace",
    ),
    Row(
        id="broker-disk-full",
        run=broker_disk_full,
        done="the broker's disk is full under load, which ends it; with room again it is started",
        invariant=EXACT,
        kept_by=f"{TRANSACTION}; acknowledged by the broker before anything goes on",
        seen="as broker-pause",
    ),
    Row(
        id="corrupt-artefact",
        run=corrupt_artefact,
        done="a version is promoted where the bytes of another model lie in place of its own, and "
        "score is killed before it is rolled back",
        invariant="an alert says so, the bytes are never served, nothing is lost",
        kept_by="the digest of the very bytes that are loaded is checked",
        sabotage="credulous",
    ),
)
