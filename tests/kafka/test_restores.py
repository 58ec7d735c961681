"""Disaster, as docs/OPERATIONS.md has it: the cluster, `lifecycle` or the database is lost."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from models.registry import Registry
from stream import checkpoints
from stream.settings import Settings
from stream.supervising import environment
from tests import postgres
from tests.kafka.children import COPY, Child, Children, terminate
from tests.kafka.copies import PARTITIONS, ROOT
from tests.kafka.logs import Logs
from tests.kafka.loop import Stages, drain
from tests.kafka.test_recovery import counted, said
from tests.kafka.traffic import Sender, Traffic, launch
from tests.patience import PATIENCE_SECONDS
from tests.registries import CHURN, register
from tests.topics import Sent, make_topics, produce, read_all

MIRRORED = ("requests", "predictions", "feedback", "examples", "lifecycle", "alerts")
SEEN_GENERATION = 7  # that workers have seen and the registry has not


# --- the cluster is lost, a mirror is there -------------------------------------------------------


def mirror(settings: Settings, other: Settings) -> None:
    """As MirrorMaker copies: committed records in their partitions, under new offsets and times."""
    make_topics(other)
    for entity in MIRRORED:
        records = read_all(settings.bootstrap_servers, settings.names.topic(entity))
        produce(
            other.bootstrap_servers,
            other.names.topic(entity),
            [Sent(r.key, r.value, r.partition, r.headers) for r in records],
        )


def predicted(logs: Logs) -> set[str]:
    return {data["prediction_id"] for data in logs.data("predictions") if "clock_ms" not in data}


def test_on_a_mirror_the_stages_count_every_event_once(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    """Without checkpoints and offsets: all is read again, and what is counted is what was counted
    on the cluster that was lost."""
    settings = kafka_settings.model_copy(update={"log_format": "json"})
    other = settings.model_copy(update={"topic_prefix": f"{settings.topic_prefix}-mirror"})
    make_topics(settings)
    launch(settings).close()
    traffic = Traffic(1_500, pieces=8, seed=5)
    before = run_through(settings, tmp_path / "before", traffic)
    mirror(settings, other)
    after = run_through(other, tmp_path / "after", None)
    assert predicted(after) == predicted(before) == set(traffic.ids)
    assert said(after, "examples").keys() == said(before, "examples").keys()
    assert counted(after) == counted(before)
    assert counted(after)["labelled"] == len(traffic.labelled)


def run_through(settings: Settings, logs: Path, traffic: Traffic | None) -> Logs:
    """All stages, until they have applied whatever there is."""
    logs.mkdir()
    stages = Stages(settings, logs, score=1, monitor=1, evaluate=1)
    try:
        stages.start()
        sender = Sender(settings)
        for piece in traffic.pieces if traffic else ():
            sender.send(piece)
        drain(stages)
    finally:
        stages.end()
    return Logs(settings)


# --- `lifecycle` is lost --------------------------------------------------------------------------


def test_a_stage_waits_for_a_lost_lifecycle_until_the_registry_tells_it_again(
    children: Children, tmp_path: Path
) -> None:
    """It never goes on with an older model than its checkpoint has seen."""
    url = f"sqlite:///{tmp_path}/registry.db"
    settings = children.topics("lost").model_copy(update={"registry_url": url})
    with Registry(url) as registry:
        registry.upgrade()
        registry.add_model(CHURN, who="test")
    produce(
        settings.bootstrap_servers,
        settings.names.checkpoints("score"),
        [seen(partition) for partition in range(PARTITIONS)],
    )
    child = children.start("lost", COPY, settings)
    child.until_reason(f"churn at generation {SEEN_GENERATION}, told is none")
    assert not child.lines("restored")
    republish(settings)
    child.until_ready()
    assert generations(child)[-1] == SEEN_GENERATION + 1
    terminate([child])


def seen(partition: int) -> Sent:
    """A checkpoint that knows of a generation of the model."""
    manifest = checkpoints.Manifest(
        stage="score",
        partition=partition,
        next={"requests": 0},
        partitions=dict.fromkeys(checkpoints.PINNED["score"], PARTITIONS),
        generations={"churn": SEEN_GENERATION},
    )
    records = checkpoints.records(manifest, {})
    return Sent(checkpoints.MANIFEST_KEY.encode(), records["manifest"], partition)


def generations(child: Child) -> list[int]:
    return [line["generation"] for line in child.lines("live")]


def republish(settings: Settings) -> None:
    command = ["models", "republish", "churn", "--after", str(SEEN_GENERATION)]
    done = subprocess.run(
        [sys.executable, "-m", "consumers", *command],
        cwd=ROOT,
        env={**os.environ, **environment(settings, 0)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr


# --- the database is lost, a backup is there ------------------------------------------------------


def sqlite_backup(url: str, folder: Path) -> str:
    """What `sqlite3 driftline.db ".backup copy.db"` does."""
    with (
        closing(sqlite3.connect(make_url(url).database or "")) as source,
        closing(sqlite3.connect(folder / "copy.db")) as copy,
    ):
        source.backup(copy)
    return f"sqlite:///{folder}/copy.db"


def postgres_backup(url: str, folder: Path) -> str:
    """`pg_dump` into an empty database."""
    lost, copy = make_url(url), make_url(url).set(database=f"{make_url(url).database}_restored")
    plain = [one.set(drivername="postgresql").render_as_string() for one in (lost, copy)]
    programs, dump = postgres.programs(), folder / "dump.sql"
    maintenance = lost.set(drivername="postgresql", database="postgres").render_as_string()
    create = ["-c", f'create database "{copy.database}"']
    for program, *arguments in (
        ["pg_dump", "-f", str(dump), plain[0]],
        ["psql", "-q", maintenance, *create],
        ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(dump), plain[1]],
    ):
        command = [str(programs / program), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
        assert done.returncode == 0, done.stderr
    return copy.render_as_string()


@pytest.mark.parametrize(
    ("fixture", "backup"),
    [("sqlite_url", sqlite_backup), ("postgres_url", postgres_backup)],
    ids=["sqlite", "postgres"],
)
def test_a_backup_of_the_registry_is_the_registry(
    fixture: str,
    backup: Callable[[str, Path], str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    """Taken while it is open: what is live, its history and commands that must not act again."""
    url: str = request.getfixturevalue(fixture)
    with Registry(url) as registry:
        registry.upgrade()
        registry.add_model(CHURN, who="test")
        registry.promote("churn", register(registry), who="test")
        register(registry)
        promote(registry, 2)
        copied = backup(url, tmp_path)
        told = registry.live("churn"), registry.history("churn"), registry.versions("churn")
        registry.promote("churn", 1, who="after the backup")
    with Registry(copied) as restored:
        assert (
            restored.live("churn"),
            restored.history("churn"),
            restored.versions("churn"),
        ) == told
        generation = promote(restored, 2)
        assert generation == told[0].generation  # type: ignore[union-attr]
        assert register(restored) == 3


def promote(registry: Registry, version: int) -> int:
    """By a command of one id; returns the generation afterwards."""
    registry.promote("churn", version, expected_generation=2, command_id="once", who="test")
    state = registry.live("churn")
    assert state is not None
    return state.generation


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/lost.db"


def test_the_manual_names_the_topics_that_the_mirror_above_has() -> None:
    page = (ROOT / "docs" / "OPERATIONS.md").read_text()
    listed = page.partition("mirror `")[2].partition(", leave out")[0]
    assert tuple(f"`{listed}".split("`")[1::2]) == MIRRORED
