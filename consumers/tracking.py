"""Runs and versions, copied to an MLflow tracking server. Needs the extra `mlflow`.

Copied again, a run is brought up to date, not doubled: its MLflow run carries its number as a tag.
Driftline stays the one that decides; aliases in MLflow follow what is live here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from models.artefacts import ArtefactError, fetch
from models.cards import Subject, markdown
from models.runs import Figure, Run, Verdict
from models.state import LiveState, Version
from stream.errors import ConfigurationError

TAG: Final = "driftline.run"
ENDED: Final[dict[Verdict, str]] = {
    "accepted": "FINISHED",
    "refused": "FAILED",
    "failed": "FAILED",
    "cancelled": "KILLED",
    "void": "KILLED",
}
LONGEST: Final = 500  # characters of a parameter, in the oldest server that is about


class Tracking:
    """One MLflow server.

    Args:
        uri: such as http://host:5000, or sqlite:///mlflow.db; None: as MLflow itself is set up.

    Raises:
        ConfigurationError: MLflow is not installed.
    """

    def __init__(self, uri: str | None = None) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ConfigurationError(
                "MLflow is not installed here: pip install mlflow-skinny"
            ) from error
        self._client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def copy(self, subject: Subject) -> str:
        """Write a run; returns its id in MLflow. A page of plots goes along as its model card."""
        from consumers.cards import page

        run = subject.run
        known = self._known(run)
        run_id: str = known or self._begun(run)
        for name, value in _metrics(run):
            self._client.log_metric(run_id, name, value, timestamp=run.started_ms)
        if not known:
            for name, said in _parameters(run):
                self._client.log_param(run_id, name, said[:LONGEST])
        for name, said in _tags(run):
            self._client.set_tag(run_id, name, said)
        self._client.log_text(run_id, markdown(subject), "card.md")
        self._client.log_text(run_id, page(subject), "card.html")
        self._client.log_text(run_id, msgspec.json.encode(run).decode(), "run.json")
        if run.verdict != "running":
            self._client.set_terminated(run_id, ENDED[run.verdict], run.finished_ms)
        return run_id

    def register(self, run_id: str, version: Version, max_bytes: int) -> None:
        """Put a version's bytes into MLflow's model registry, once.

        Raises:
            ArtefactError: they are not where they should be.
        """
        name = version.model
        if self._registered(version) is not None:
            return
        data = fetch(version.artefact_url, version.artefact_digest, max_bytes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.skops"
            path.write_bytes(data)
            self._client.log_artifact(run_id, str(path), "model")
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        source = f"{self._client.get_run(run_id).info.artifact_uri}/model"
        self._client.create_model_version(
            name,
            source=source,
            run_id=run_id,
            tags={
                "driftline.version": str(version.version),
                "driftline.artefact": version.artefact_digest,
            },
        )

    def alias(self, live: LiveState, versions: list[Version]) -> None:
        """Let `champion`, `challenger` and `previous` name what they name here."""
        challenger = live.challengers[0] if live.challengers else None
        parts = {"champion": live.champion, "challenger": challenger, "previous": live.previous}
        numbers = {one.version: self._registered(one) for one in versions}
        if not any(numbers.values()):
            return
        for alias, version in parts.items():
            number = None if version is None else numbers.get(version)
            if number is not None:
                self._client.set_registered_model_alias(live.model, alias, number)
            else:
                self._client.delete_registered_model_alias(live.model, alias)

    def _begun(self, run: Run) -> str:
        name = f"driftline/{run.model}"
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        begun = self._client.create_run(
            experiment,
            start_time=run.started_ms,
            tags={TAG: str(run.run_id)},
            run_name=f"{run.model} {run.run_id}",
        )
        run_id: str = begun.info.run_id
        return run_id

    def _known(self, run: Run) -> str | None:
        found = self._client.get_experiment_by_name(f"driftline/{run.model}")
        if found is None:
            return None
        same = self._client.search_runs([found.experiment_id], f"tags.`{TAG}` = '{run.run_id}'")
        return same[0].info.run_id if same else None

    def _registered(self, version: Version) -> str | None:
        """The number that MLflow gave a version; None if it has not got it."""
        for known in self._client.search_model_versions(f"name = '{version.model}'"):
            if known.tags.get("driftline.version") == str(version.version):
                number: str = known.version
                return number
        return None


def copy_run(
    tracking: Tracking, subject: Subject, version: Version | None, max_bytes: int
) -> tuple[str, str]:
    """Write a run, and its version if it has one. Returns its id, and what was left out, if so."""
    run_id = tracking.copy(subject)
    if version is None or subject.spec.served == "elsewhere":
        return run_id, ""
    try:
        tracking.register(run_id, version, max_bytes)
    except ArtefactError as error:
        return run_id, str(error)
    return run_id, ""


def _metrics(run: Run) -> Iterator[tuple[str, float]]:
    for candidate in run.candidates:
        under = "" if candidate.chosen else f"{candidate.name}/"
        for name, figure in candidate.metrics.items():
            yield from _figures(f"{under}{name}", figure)
        if candidate.fit_seconds is not None:
            yield _name(f"{candidate.name}/fit_seconds"), candidate.fit_seconds
    if run.chosen is None:
        return
    for segment, metrics in run.chosen.segments.items():
        for name, figure in metrics.items():
            yield from _figures(f"segment/{segment}/{name}", figure)
    if run.chosen.calibration_error is not None:
        yield "calibration_error", run.chosen.calibration_error
    if run.data is not None and run.data.coverage is not None:
        yield "label_coverage", run.data.coverage


def _figures(name: str, figure: Figure) -> Iterator[tuple[str, float]]:
    yield _name(name), figure.value
    if figure.low is not None and figure.high is not None:
        yield _name(f"{name}_low"), figure.low
        yield _name(f"{name}_high"), figure.high


def _parameters(run: Run) -> Iterator[tuple[str, str]]:
    for name, value in run.parameters.items():
        yield _name(name), str(value)
    if run.chosen is not None:
        yield "chosen", run.chosen.name
        for name, value in run.chosen.parameters.items():
            yield _name(f"chosen.{name}"), str(value)


def _tags(run: Run) -> Iterator[tuple[str, str]]:
    yield "driftline.model", run.model
    yield "driftline.cause", run.cause
    yield "driftline.verdict", run.verdict
    yield "driftline.reason", run.reason
    yield "driftline.command", run.command_id or ""
    yield "driftline.alert", run.alert_id or ""
    yield "driftline.artefact", run.artefact_digest
    yield "driftline.data", run.data.digest if run.data is not None else ""
    if run.version is not None:
        yield "driftline.version", str(run.version)
    for name, found in run.libraries.items():
        yield f"library.{name}", found


def _name(text: str) -> str:
    """MLflow takes letters, digits and a few signs in names."""
    return re.sub(r"[^\w\-./: ]", " ", text, flags=re.ASCII)[:250]
