"""Runs in MLflow: the real client, on a store in files."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from consumers.tracking import TAG, Tracking
from models.artefacts import open_store
from models.registry import Registry
from models.runs import Candidate, DataRange
from stream.errors import ConfigurationError
from tests.commands import registry_here, run, settle_in
from tests.test_cards import CHOSEN, RUN, SUBJECT

DATA = DataRange(source="h.csv", predictions=600, labelled=420, rows=400, digest="d" * 64)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty folder to work in; MLflow's URI."""
    settle_in(tmp_path, monkeypatch)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return f"file://{tmp_path}/mlflow"


@pytest.fixture
def client(place: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=place, registry_uri=place)


@pytest.fixture
def registry(place: str) -> Iterator[Registry]:
    """Version 1 is live; run 1 made version 2, which challenges; run 2 was refused."""
    store = open_store("file:artefacts")
    digest = store.put(b"the bytes of version 2")
    with registry_here() as opened:
        run_id = opened.begin_run("churn", cause="harm")
        opened.register_version(
            "churn",
            run_id=run_id,
            artefact_url=store.url(digest),
            artefact_digest=digest,
            profile_url=store.url(digest),
            profile_digest=digest,
        )
        opened.challenge("churn", 2, who="test")
        other = Candidate(name="acme.own:build", metrics={"log_loss": CHOSEN.metrics["log_loss"]})
        parameters = {"seed": 5, "split_ms": 7}
        opened.finish_run(
            run_id,
            "accepted",
            candidates=[CHOSEN, other],
            data=DATA,
            parameters=parameters,
            artefact_digest=digest,
        )
        refused = opened.begin_run("churn", cause="harm")
        opened.finish_run(refused, "refused", reason="one class")
        yield opened


def runs(client: Any, model: str = "churn") -> dict[str, Any]:
    experiment = client.get_experiment_by_name(f"driftline/{model}")
    return {found.data.tags[TAG]: found for found in client.search_runs([experiment.experiment_id])}


def test_runs_arrive_with_figures_parameters_and_cards(
    registry: Registry, client: Any, place: str
) -> None:
    done = run("runs", "export", "--to", "mlflow", "--uri", place)
    assert done.exit_code == 0, done.output

    found = runs(client)
    assert {number: one.info.status for number, one in found.items()} == {
        "1": "FINISHED",
        "2": "FAILED",
    }
    data = found["1"].data
    assert data.metrics["log_loss"] == 0.31
    assert (data.metrics["log_loss_low"], data.metrics["log_loss_high"]) == (0.29, 0.33)
    assert data.metrics["acme.own:build/log_loss"] == 0.31
    assert data.metrics["segment/plan basic/log_loss"] == 0.4
    assert data.metrics["label_coverage"] == pytest.approx(0.7)
    assert data.params["chosen"] == "linear"
    assert (data.params["seed"], data.params["split_ms"]) == ("5", "7")
    assert data.tags["driftline.version"] == "2"
    assert data.tags["library.river"]
    assert found["2"].data.tags["driftline.reason"] == "one class"
    card = client.download_artifacts(found["1"].info.run_id, "card.html")
    assert "<svg" in Path(card).read_text()


def test_versions_arrive_as_bytes_and_aliases_follow_what_is_live(
    registry: Registry, client: Any, place: str
) -> None:
    run("runs", "export", "--to", "mlflow", "--uri", place)
    [version] = client.search_model_versions("name = 'churn'")
    assert version.tags["driftline.version"] == "2"
    folder = client.download_artifacts(version.run_id, "model")
    assert (Path(folder) / "model.skops").read_bytes() == b"the bytes of version 2"
    assert client.get_registered_model("churn").aliases == {"challenger": str(version.version)}

    registry.promote("churn", 2, who="test")
    run("runs", "export", "1", "--to", "mlflow", "--uri", place)

    assert client.get_registered_model("churn").aliases == {"champion": str(version.version)}
    assert len(client.search_model_versions("name = 'churn'")) == 1


def test_a_run_that_is_copied_again_is_brought_up_to_date_not_doubled(
    client: Any, place: str
) -> None:
    tracking = Tracking(place)
    begun = SUBJECT._replace(
        run=replace(RUN, verdict="running", finished_ms=None, version=None, candidates=[])
    )
    first = tracking.copy(begun)
    assert client.get_run(first).info.status == "RUNNING"

    assert tracking.copy(SUBJECT) == tracking.copy(SUBJECT) == first
    [only] = runs(client).values()
    assert (only.info.status, only.data.metrics["correct"]) == ("FINISHED", 0.9)


def test_bytes_that_are_gone_are_said_and_the_run_arrives_all_the_same(
    registry: Registry, client: Any, place: str
) -> None:
    for path in Path("artefacts").rglob("*"):
        if path.is_file():
            path.unlink()
    done = run("runs", "export", "1", "--to", "mlflow", "--uri", place)

    assert (done.exit_code, "No such file" in done.stderr) == (0, True)
    assert runs(client)["1"].info.status == "FINISHED"
    assert client.search_model_versions("name = 'churn'") == []


def test_without_mlflow_the_command_says_how_to_get_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    done = run("runs", "export", "--to", "mlflow")
    assert (done.exit_code, "pip install" in done.stderr) == (2, True)
    with pytest.raises(ConfigurationError):
        Tracking(place)


def test_events_go_to_stdout_a_line_each_the_oldest_run_first(registry: Registry) -> None:
    lines = run("runs", "export").stdout.splitlines()

    kinds = [json.loads(line)["eventType"] for line in lines]
    assert kinds == ["START", "COMPLETE", "START", "FAIL"]
    assert len(run("runs", "export", "2").stdout.splitlines()) == 2
    assert run("runs", "export", "9").exit_code == 2
