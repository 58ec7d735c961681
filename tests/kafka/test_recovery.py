"""Topics made anew, cut short or grown halt a stage; lost checkpoints and registries come back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from consumers import forgetting
from consumers.relay import Relay
from models.registry import Registry
from models.spec import Feature
from stream.errors import ConfigurationError
from stream.settings import Settings
from stream.supervising import environment
from tests.kafka.children import COPY, Child, Children, terminate
from tests.kafka.copies import PARTITIONS, ROOT, outputs, send, state
from tests.kafka.logs import Logs
from tests.kafka.loop import Stages, drain
from tests.kafka.traffic import Sender, Traffic, launch
from tests.patience import PATIENCE_SECONDS
from tests.registries import CHURN
from tests.topics import create, make_topics, quiet_client


@pytest.fixture
def admin(bootstrap: str) -> AdminClient:
    return AdminClient(quiet_client(bootstrap))


def make_anew(admin: AdminClient, settings: Settings, entity: str, count: int = 0) -> None:
    """Delete a topic and make it again, with more records than it had."""
    topic = settings.names.topic(entity)
    admin.delete_topics([topic])[topic].result(30)
    while topic in admin.list_topics(timeout=10).topics:
        time.sleep(0.05)
    create(settings.bootstrap_servers, {topic: PARTITIONS})
    send(settings, 1000, count)


def cut(admin: AdminClient, settings: Settings, offset: int) -> None:
    """Take the first records of partition 0, as retention does."""
    place = TopicPartition(settings.names.topic("requests"), 0, offset)
    for future in admin.delete_records([place]).values():
        future.result(30)


def add_partitions(admin: AdminClient, settings: Settings) -> None:
    topic = settings.names.topic("requests")
    admin.create_partitions([NewPartitions(topic, PARTITIONS * 2)])[topic].result(30)


def have_worked(children: Children, *names: str) -> dict[str, Settings]:
    """One set of topics a name; a worker has applied its 200 records and drained."""
    started = {name: children.start(name, COPY) for name in names}
    for child in started.values():
        child.until(lambda child=child: state(child.settings)[0] == 200)  # type: ignore[misc]
    terminate(list(started.values()))
    return {name: child.settings for name, child in started.items()}


def says(child: Child, words: str, code: int = 1) -> None:
    assert child.ended() == code, child.text()
    assert words in child.text()


def test_what_no_longer_fits_its_checkpoint_halts_with_what_to_do(
    children: Children, admin: AdminClient
) -> None:
    """An input made anew (though longer than before), partitions added, records gone, checkpoints
    gone: the stage never goes on at a wrong place. Expired group offsets are no such thing."""
    worked = have_worked(children, "anew", "grown", "cut", "lost", "expired")
    make_anew(admin, worked["anew"], "requests", 400)
    add_partitions(admin, worked["grown"])
    send(worked["cut"], 200, 400)
    cut(admin, worked["cut"], 100)
    make_anew(admin, worked["lost"], "checkpoints.score")
    group = worked["expired"].names.group("score")
    admin.delete_consumer_groups([group])[group].result(30)
    send(worked["expired"], 200, 100)

    again = {name: children.start(name, COPY, settings) for name, settings in worked.items()}
    says(again["anew"], "requests was deleted and made anew")
    says(again["grown"], "topics must have the same number of partitions", code=2)
    says(again["cut"], "50 offsets are gone")
    says(again["lost"], "the checkpoint's is None")
    again["expired"].until(lambda: state(worked["expired"])[0] == 300)
    assert len(outputs(worked["expired"])) == 300
    for name in ("anew", "cut", "lost"):
        written = [partition for _, partition, _ in outputs(worked[name]) if partition == 0]
        assert len(written) == 50, name


def test_a_topic_that_changes_under_a_running_worker_halts_it(
    children: Children, admin: AdminClient
) -> None:
    """Deleted and made anew, or given more partitions: the process ends within seconds, and its
    next start says what happened."""
    started = {name: children.start(name, COPY) for name in ("anew", "grown")}
    for child in started.values():
        child.until(lambda child=child: state(child.settings)[0] == 200)  # type: ignore[misc]
        child.until_ready()
    settings = started["anew"].settings
    make_anew(admin, settings, "requests")
    add_partitions(admin, started["grown"].settings)
    says(started["grown"], "has 8 partitions now")
    assert started["anew"].ended() == 1
    send(settings, 1000, 400)
    says(children.start("again", COPY, settings), "requests was deleted and made anew")


def test_lost_checkpoints_are_made_again_by_a_replay(
    children: Children, admin: AdminClient
) -> None:
    """Forgotten, the stage reads its inputs again: state as before, and outputs a second time that
    are the same, so that readers can drop them. With its offsets kept, score writes none twice."""
    worked = have_worked(children, "replay", "keep")
    for settings in worked.values():
        make_topics(settings)
        make_anew(admin, settings, "checkpoints.score")
    forgetting.forget(worked["replay"], "score")
    assert set(forgetting.keep_offsets(worked["keep"]).values()) == {50}
    for settings in worked.values():
        send(settings, 200, 100)
    again = {name: children.start(name, COPY, settings) for name, settings in worked.items()}
    again["replay"].until(lambda: state(worked["replay"])[0] == 300)
    copies = outputs(worked["replay"])
    assert len(copies) == 500
    assert {number for number, _, _ in copies} == set(range(300))
    assert len(set(copies)) == 300
    again["keep"].until(lambda: len(outputs(worked["keep"])) == 300)
    assert {number for number, _, _ in outputs(worked["keep"])} == set(range(300))
    with pytest.raises(ConfigurationError, match="still has members"):
        forgetting.forget(worked["replay"], "score")


def test_what_retention_took_is_skipped_only_when_told_and_counted(
    children: Children, admin: AdminClient
) -> None:
    [settings] = have_worked(children, "cut").values()
    send(settings, 200, 400)
    cut(admin, settings, 100)
    skipping = children.start("skip", COPY, settings.model_copy(update={"lost_records": "skip"}))
    skipping.until(lambda: state(settings)[0] == 550)
    where = {"partition": "0", "entity": "requests"}
    assert skipping.metric("driftline_lost_to_retention_records_total", **where) == 50
    assert [line["offsets"] for line in skipping.lines("lost to retention")] == [50]


def test_a_registry_restored_from_a_backup_is_heard_again(
    children: Children, tmp_path: Path
) -> None:
    """Workers have seen generations that it has lost; republished, what it holds is newer."""
    settings = children.topics("restored").model_copy(
        update={"registry_url": f"sqlite:///{tmp_path}/r.db"}
    )
    with Registry(settings.registry_url) as registry:
        registry.upgrade()
        registry.add_model(CHURN, who="test")
        Relay(registry, settings).pump()
    shutil.copy(tmp_path / "r.db", tmp_path / "backup.db")
    with Registry(settings.registry_url) as registry:
        for name in ("a", "b", "c"):
            spec = CHURN.__class__(
                name="churn", task="binary", classes=("no", "yes"), features=(Feature(name=name),)
            )
            registry.revise_spec(spec, who="test")
        Relay(registry, settings).pump()
    worker = children.start("worker", COPY, settings)
    worker.until(lambda: [line["generation"] for line in worker.lines("live")] == [4])
    for file in tmp_path.glob("r.db*"):
        file.unlink()
    shutil.copy(tmp_path / "backup.db", tmp_path / "r.db")
    done = subprocess.run(
        [sys.executable, "-m", "consumers", "models", "republish", "churn"],
        cwd=ROOT,
        env={**os.environ, **environment(settings, 0)},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    worker.until(lambda: [line["generation"] for line in worker.lines("live")] == [4, 5])
    with Registry(settings.registry_url) as registry:
        assert registry.live("churn") is not None
        assert registry.republish("churn") == 5


def test_all_checkpoints_lost_the_loop_counts_every_event_once_by_a_replay(
    kafka_settings: Settings, admin: AdminClient, tmp_path: Path
) -> None:
    """The real stages, from the beginning of their inputs: events come a second time under the ids
    of the first, and what is counted is what was counted before."""
    settings = kafka_settings.model_copy(update={"log_format": "json"})
    make_topics(settings)
    traffic = Traffic(1500, pieces=8, seed=3)
    launch(settings).close()
    stages = Stages(settings, tmp_path, score=1, monitor=1, evaluate=1)
    try:
        stages.start()
        sender = Sender(settings)
        for piece in traffic.pieces:
            sender.send(piece)
        drain(stages)
        before = Logs(settings)
        told = {entity: said(before, entity) for entity in ("predictions", "examples")}
        first = counted(before)
        for entity in ("score", "monitor", "evaluate"):
            topic = settings.names.checkpoints(entity)
            admin.delete_topics([topic])[topic].result(30)
        forgetting.forget(settings, "score")
        forgetting.forget(settings, "monitor")
        stages.start()
        drain(stages)
    finally:
        stages.end()
    after = Logs(settings)
    for entity, once in told.items():
        assert said(after, entity) == {id_: 2 * count for id_, count in once.items()}, entity
    assert counted(after) == first
    assert first["predictions"] == 1500
    assert first["labelled"] == len(traffic.labelled)


def said(logs: Logs, entity: str) -> Counter[str]:
    """How often each event lies there, by its id; examples by what names each of them."""
    if entity == "examples":
        return Counter(f"{one.prediction_id} {one.revision}" for one in logs.examples())
    return Counter(json.loads(record.value or b"")["id"] for record in logs.of(entity))


def counted(logs: Logs) -> Counter[str]:
    """Over all deltas of the whole model, whatever tick they are of."""
    found: Counter[str] = Counter()
    for delta in logs.deltas:
        if not delta.segment:
            found["predictions"] += delta.predictions
            found["labelled"] += delta.labelled
            found["bets"] += sum(delta.bets)
            found.update(delta.sums)
    return found
