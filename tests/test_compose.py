"""docker-compose.yml and the Dockerfile, held to the commands and settings that exist.

No Docker engine is needed: what is tested is that the files say what the program understands.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from consumers.cli import app
from stream.settings import Settings
from stream.topics import STAGES

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text().splitlines()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"topics", "migrate"}
PINNED = re.compile(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-[\w-]+)?")


def parse(arguments: list[str]) -> dict[str, Any]:
    """What the command line would hand to its function; exits where the program would."""
    command: Any = typer.main.get_command(app)
    words = list(arguments)
    while hasattr(command, "commands") and words:
        command = command.commands[words.pop(0)]
    parameters: dict[str, Any] = command.make_context(arguments[0], words).params
    return parameters


@pytest.mark.parametrize("name", OURS)
def test_runs_a_command_that_exists(name: str) -> None:
    """The command-line parser accepts each service's command."""
    parse(OURS[name]["command"])


def test_runs_each_stage_in_a_service_of_its_own() -> None:
    """A slow stage cannot stop another, and each can be scaled alone."""
    stages = [
        parse(service["command"])["stages"]
        for service in OURS.values()
        if service["command"][0] == "worker"
    ]

    assert stages == list(STAGES)


def test_keeps_services_scalable() -> None:
    """Neither a fixed container name nor a host port stands in the way of `--scale`.

    The console is there once: it has a past of its own.
    """
    scaled = OURS.keys() - {"console"}
    assert not [name for name in scaled if {"container_name", "ports"} & OURS[name].keys()]


@pytest.mark.parametrize("name", SERVICES)
def test_publishes_on_loopback_only(name: str) -> None:
    """Nothing is reached from outside the machine unless somebody opens it."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_the_console_is_published_at_the_port_it_listens_on() -> None:
    """So that the host name a browser sends is one that the console knows; its past outlives it."""
    port = Settings().console_port
    console = OURS["console"]

    assert console["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f":{port}/livez" in " ".join(console["healthcheck"]["test"])
    place = Path(console["environment"]["DRIFTLINE_CONSOLE_URL"].removeprefix("sqlite:///")).parent
    assert f"console:{place}" in console["volumes"]
    assert any(str(place) in line for line in DOCKERFILE)


@pytest.mark.parametrize("name", OURS)
def test_sets_only_settings_that_exist(name: str) -> None:
    """Every variable is a setting, and together they are valid."""
    environment = OURS[name]["environment"]
    values = {key.removeprefix("DRIFTLINE_").lower(): value for key, value in environment.items()}

    assert values.keys() <= Settings.model_fields.keys()
    Settings(**values)


def test_reaches_the_services_it_names() -> None:
    """Bootstrap servers and registry are hosts of this file."""
    environment = COMPOSE["x-driftline"]["environment"]
    kafka = environment["DRIFTLINE_BOOTSTRAP_SERVERS"]

    assert kafka.split(":")[0] in SERVICES
    assert f"//{kafka}" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert "@postgres/" in environment["DRIFTLINE_REGISTRY_URL"]


@pytest.mark.parametrize("name", OURS)
def test_drains_before_it_is_killed(name: str) -> None:
    """The stop grace is longer than the time a worker may take to drain."""
    grace = float(OURS[name]["stop_grace_period"].removesuffix("s"))

    assert grace > Settings().drain_seconds + 1


@pytest.mark.parametrize("name", SERVICES)
def test_comes_back_after_a_crash(name: str) -> None:
    """Services restart; one-shot ones only when they failed."""
    expected = "on-failure:5" if name in ONE_SHOT else "unless-stopped"

    assert SERVICES[name]["restart"] == expected


def test_sends_alerts_on_only_if_asked_to() -> None:
    """Its file is the user's to write, so it is behind a profile, and read where it is put."""
    alerts = OURS["alerts"]

    assert alerts["profiles"] == ["alerts"]
    assert [name for name in OURS if "profiles" in OURS[name]] == ["alerts"]
    place = alerts["environment"]["DRIFTLINE_ALERT_SINKS"]
    assert alerts["volumes"] == [f"./alerts.toml:{place}:ro"]


@pytest.mark.parametrize("name", ["kafka", "postgres", "trainer", "alerts", *STAGES])
def test_tells_its_health(name: str) -> None:
    """Servers, stages and the trainer have a health check."""
    assert SERVICES[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@pytest.mark.parametrize("name", ["trainer", "alerts", *STAGES])
def test_asks_for_health_where_the_doors_are(name: str) -> None:
    """The health check knocks at the port that the setting opens, and asks whether it is ready."""
    port = OURS[name]["environment"]["DRIFTLINE_METRICS_PORT"]

    assert f"127.0.0.1:{port}/readyz" in " ".join(OURS[name]["healthcheck"]["test"])


@pytest.mark.parametrize("name", OURS)
def test_waits_for_what_it_needs(name: str) -> None:
    """A service starts after healthy servers and finished one-shots."""
    for needed, how in OURS[name]["depends_on"].items():
        finished = needed in ONE_SHOT
        expected = "service_completed_successfully" if finished else "service_healthy"
        assert how["condition"] == expected, needed
        assert finished or "healthcheck" in SERVICES[needed]


def test_shares_artefacts_and_only_the_trainer_writes_them() -> None:
    """All workers see one artefact store, at the place that the setting names."""
    place = OURS["trainer"]["environment"]["DRIFTLINE_ARTEFACT_URL"].removeprefix("file:")

    assert OURS["trainer"]["volumes"] == [f"artefacts:{place}"]
    for stage in STAGES:
        assert OURS[stage]["volumes"] == [f"artefacts:{place}:ro"]
    assert any("install -d -o driftline" in line and place in line for line in DOCKERFILE)


def test_declares_its_volumes() -> None:
    """Each named volume is declared, and each declared one is used."""
    used = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if not volume.startswith("./")  # the user's own files
    }

    assert used == COMPOSE["volumes"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_pins_its_image(name: str) -> None:
    """No image changes under a deployment that did not."""
    assert PINNED.fullmatch(SERVICES[name]["image"])


def test_runs_the_kafka_that_the_tests_ran() -> None:
    """The image's version is the one whose jars the tests start."""
    pom = (ROOT / "scripts" / "kafka-pom.xml").read_text()
    [version] = re.findall(r"<artifactId>kafka_2.13</artifactId>\s*<version>([^<]+)<", pom)

    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version}"


def test_builds_on_a_pinned_python_that_is_tested() -> None:
    """Both stages start from the same pinned image of the oldest Python that we promise."""
    bases = [line.split()[1] for line in DOCKERFILE if line.startswith("FROM ")]

    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", bases[0])


def test_runs_without_root() -> None:
    """The image's last user is an unprivileged number, which Kubernetes can check."""
    users = [line.split()[1] for line in DOCKERFILE if line.startswith("USER ")]

    assert users
    assert int(users[-1]) >= 10_000


def test_copies_only_what_is_there() -> None:
    """Every source of a COPY exists, and the builder is allowed to see it."""
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    copies = [shlex.split(line)[1:-1] for line in DOCKERFILE if line.startswith("COPY ")]
    sources = [word for words in copies if not words[0].startswith("--") for word in words]

    assert {"stream", "models", "consumers"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in allowed, source
