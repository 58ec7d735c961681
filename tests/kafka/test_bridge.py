"""The bridge as a process on the real broker, killed again and again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from stream.core.partitioning import partition_of
from stream.envelope import write
from stream.events import LifecycleChanged
from stream.settings import Settings
from stream.supervising import environment
from tests.broker import Sent, create, make_topics, produce, read_all
from tests.kafka.loop import HERE
from tests.patience import PATIENCE_SECONDS
from tests.schema_registry import PREDICTION, SchemaRegistry, avro, framed, prediction
from tests.test_bridge import SPEC

PAIRS = 600
KILLS = 4


def test_every_pair_is_a_prediction_whatever_is_killed(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    """None is lost, doubles have the same id, and a half that stays alone holds nobody up."""
    make_topics(kafka_settings)
    topic = f"{kafka_settings.topic_prefix}.log"
    create(kafka_settings.bootstrap_servers, {topic: 3})
    live = LifecycleChanged(
        model="fraud", generation=1, spec=SPEC, spec_revision=1, champion=1, changed_ms=1
    )
    value = write("driftline.lifecycle.changed.v1", live, id="l", source="test", time_ms=1)
    bootstrap, names = kafka_settings.bootstrap_servers, kafka_settings.names
    produce(bootstrap, names.topic("lifecycle"), [(b"fraud", value)])

    bridge = start(kafka_settings, topic, tmp_path)
    try:
        for kill in range(KILLS):
            numbers = range(kill * PAIRS // KILLS, (kill + 1) * PAIRS // KILLS)
            *waiting, last = [half(n, "request") for n in numbers]
            produce(bootstrap, topic, [half(10_000 + kill, "request"), *waiting])
            produce(bootstrap, topic, [last, half(numbers[-1], "response")])
            until(kafka_settings, {f"r{numbers[-1]}"}, tmp_path)
            time.sleep(1)  # what could be committed is
            bridge.send_signal(signal.SIGKILL)
            bridge.wait()
            produce(bootstrap, topic, [half(n, "response") for n in numbers[:-1]])
            bridge = start(kafka_settings, topic, tmp_path)
        until(kafka_settings, {f"r{n}" for n in range(PAIRS)}, tmp_path)
        bridge.send_signal(signal.SIGTERM)
        assert bridge.wait(PATIENCE_SECONDS) == 0
    finally:
        bridge.kill()
        bridge.wait()
    assert len({event["id"] for event in events(kafka_settings)}) == PAIRS


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    with SchemaRegistry() as one:
        yield one


def test_avro_records_are_predictions_and_wait_for_their_registry(
    kafka_settings: Settings, tmp_path: Path, registry: SchemaRegistry
) -> None:
    """While it is down the bridge ends and commits nothing; started again, it reads them."""
    make_topics(kafka_settings)
    topic = f"{kafka_settings.topic_prefix}.scores"
    create(kafka_settings.bootstrap_servers, {topic: 1})
    good = registry.answers["/schemas/ids/7"]
    registry.answers["/schemas/ids/7"] = 503, b"down"
    values = [framed(7, avro(PREDICTION, prediction(n))).value or b"" for n in range(20)]
    sent = [Sent(b"k", value, 0, ()) for value in [*values, b"\0\0\0\0\x63?"]]
    produce(kafka_settings.bootstrap_servers, topic, sent)

    where = {"DRIFTLINE_SCHEMA_REGISTRY_URL": registry.url}
    bridge = start(kafka_settings, topic, tmp_path, "--as", "predictions", **where)
    assert bridge.wait(PATIENCE_SECONDS) == 1, (tmp_path / "log").read_text()
    assert "schema registry, schema 7" in (tmp_path / "log").read_text()
    assert events(kafka_settings) == []

    registry.answers["/schemas/ids/7"] = good
    bridge = start(kafka_settings, topic, tmp_path, "--as", "predictions", **where)
    try:
        until(kafka_settings, {f"r{n}" for n in range(20)}, tmp_path)
        bridge.send_signal(signal.SIGTERM)
        assert bridge.wait(PATIENCE_SECONDS) == 0
    finally:
        bridge.kill()
        bridge.wait()
    dead = kafka_settings.names.topic("predictions.dlq")
    [letter] = read_all(kafka_settings.bootstrap_servers, dead)
    assert letter.value == b"\0\0\0\0\x63?"


def until(settings: Settings, wanted: set[str], folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not wanted <= ids(settings):
        assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.3)


def half(number: int, kind: str) -> Sent:
    """Keyed by the request's id."""
    key = f"r{number}".encode()
    payload = {"instances": [[number, "a"]]} if kind == "request" else {"predictions": [0.5]}
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"r{number}",
        "ce_type": f"org.kubeflow.serving.inference.{kind}",
        "ce_source": "test",
        "ce_inferenceservicename": "fraud",
    }
    sent = tuple((name, text.encode()) for name, text in headers.items())
    return Sent(key, json.dumps(payload).encode(), partition_of(key, 3, "murmur2"), sent)


def start(
    settings: Settings, topic: str, folder: Path, *options: str, **more: str
) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "consumers", "bridge", topic, *options],
            cwd=folder,
            env={**environment(settings, 0), **HERE, **more},
            stdout=log,
            stderr=log,
        )


def events(settings: Settings) -> list[dict[str, object]]:
    topic = settings.names.topic("predictions")
    lying = read_all(settings.bootstrap_servers, topic)
    return [msgspec.json.decode(one.value or b"") for one in lying]


def ids(settings: Settings) -> set[str]:
    return {str(event["data"]["prediction_id"]) for event in events(settings)}  # type: ignore[index]
