"""Every example runs as a reader would run it, and what it sends is accepted."""

from __future__ import annotations

import fcntl
import runpy
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from starlette.testclient import TestClient

from consumers.demo.embedded import EmbeddedBroker
from consumers.loop import RangeReader
from models.spec import read_spec
from stream.core.partitioning import partition_of
from stream.envelope import open_record, read
from stream.events import FeedbackReceived, PredictionMade
from stream.settings import Settings
from tests import broker as brokers
from tests.patience import PATIENCE_SECONDS
from tests.topics import make_topics

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
CACHE = ROOT / ".cache" / "examples"
E = TypeVar("E", PredictionMade, FeedbackReceived)


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    broker = EmbeddedBroker()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    monkeypatch.setenv("DRIFTLINE_TOPIC_PREFIX", "examples")
    settings = Settings(embedded_broker=True)
    broker.touch(settings.names)
    yield settings
    del broker


@pytest.fixture
def real(kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The real broker: clients of other families do not take librdkafka's for one."""
    make_topics(kafka_settings)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_settings.bootstrap_servers)
    monkeypatch.setenv("DRIFTLINE_TOPIC_PREFIX", kafka_settings.topic_prefix)
    return kafka_settings


def sent(settings: Settings) -> tuple[PredictionMade, FeedbackReceived]:
    """The one prediction and the one label that lie there, each in the partition of its key."""
    prediction = one(settings, "predictions", PredictionMade)
    feedback = one(settings, "feedback", FeedbackReceived)
    assert prediction.prediction_id == feedback.prediction_id
    return prediction, feedback


def one(settings: Settings, entity: str, struct: type[E]) -> E:
    with RangeReader(settings) as reader:
        spans = reader.bounds(entity)
        (came,) = reader.read(entity, spans)
    key = came.record.key or b""
    assert came.place.partition == partition_of(key, len(spans), settings.partitioner)
    event = read(open_record(entity, came.record, max_bytes=10_000), struct)
    assert key.decode() == event.prediction_id
    return event


def assert_the_usual(settings: Settings) -> None:
    """What the examples in other languages say."""
    prediction, feedback = sent(settings)
    assert prediction.features == {"age": 41, "plan": "basic"}
    assert (prediction.model, prediction.version, prediction.output) == ("churn", 3, 0.83)
    assert (feedback.model, feedback.label) == ("churn", "leaves")


def needed(command: str) -> str:
    found = shutil.which(command)
    if found is None:
        pytest.skip(f"{command} is not here; install it to run this example")
    return found


def run(*command: object, folder: Path) -> None:
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=folder, check=False, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]


def test_the_serving_example_reports_its_predictions_and_outcomes(kafka: Settings) -> None:
    """A scikit-learn model behind FastAPI; what it says fits the spec beside it."""
    served = runpy.run_path(str(EXAMPLES / "python" / "serving.py"))
    spec = read_spec((EXAMPLES / "python" / "loyalty.toml").read_text(), toml=True)
    with TestClient(served["app"]) as client:
        answer = client.post("/predict", json={"age": 70, "visits": 3}).json()
        told = {"prediction_id": answer["prediction_id"], "label": "leaves"}
        assert client.post("/outcome", json=told).status_code == 200

    prediction, feedback = sent(kafka)
    assert prediction.model == spec.name
    assert prediction.output == answer["leaves"] > 0.5
    assert set(prediction.features) == {feature.name for feature in spec.features}
    assert feedback.label in spec.classes


def test_the_wrapped_example_reports_its_predictions(kafka: Settings) -> None:
    """Nothing in the application knows of it; a client is told which prediction it was."""
    served = runpy.run_path(str(EXAMPLES / "python" / "wrapped.py"))
    spec = read_spec((EXAMPLES / "python" / "loyalty.toml").read_text(), toml=True)
    answer = TestClient(served["app"]).post("/predict", json={"age": 70, "visits": 3})
    assert served["reporter"].flush(PATIENCE_SECONDS)
    served["reporter"].close()

    prediction = one(kafka, "predictions", PredictionMade)
    assert prediction.prediction_id == answer.headers["x-prediction-id"]
    assert (prediction.model, prediction.output) == (spec.name, answer.json()["leaves"])
    assert set(prediction.features) == {feature.name for feature in spec.features}


def test_ten_lines_watch_the_serving_example() -> None:
    """What the page promises."""
    lines = (EXAMPLES / "python" / "serving.py").read_text().split('"""', 2)[2].splitlines()
    assert sum("report" in line or "watched" in line for line in lines) <= 10


def test_the_example_in_java(real: Settings, tmp_path: Path) -> None:
    """By the properties beside it, with the jars of the broker's own."""
    folder = tmp_path / "java"
    shutil.copytree(EXAMPLES / "java", folder)
    with (folder / "producer.properties").open("a") as file:
        file.write("max.block.ms=60000\n")  # on a machine that does much else; the last one counts
    run("java", "-cp", f"{brokers.jars()}/*", "Report.java", folder=folder)
    assert_the_usual(real)


@pytest.mark.timeout(600)  # the first time its modules are fetched and compiled
def test_the_example_in_go(real: Settings, tmp_path: Path) -> None:
    run(needed("go"), "build", "-o", tmp_path / "report", ".", folder=EXAMPLES / "go")
    run(tmp_path / "report", folder=tmp_path)
    assert_the_usual(real)


def test_the_example_for_node(kafka: Settings) -> None:
    """Its one package is fetched by name, once."""
    node, npm = needed("node"), needed("npm")
    folder = CACHE / "node"
    folder.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("package.json", "report.js"):
            shutil.copy(EXAMPLES / "node" / name, folder)
        if not (folder / "node_modules" / "kafkajs").exists():
            run(npm, "install", "--no-package-lock", "--no-audit", "--no-fund", folder=folder)
    run(node, "report.js", folder=folder)
    assert_the_usual(kafka)


def test_no_example_depends_on_a_setting_of_this_machine() -> None:
    """Each takes the brokers from the environment."""
    for name in ("java/Report.java", "go/main.go", "node/report.js", "python/serving.py"):
        assert "KAFKA_BOOTSTRAP_SERVERS" in (EXAMPLES / name).read_text()
