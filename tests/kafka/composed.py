"""The services of docker-compose.yml as local processes: its commands, environment and order.

Only what a container would bring is put in its place: addresses, the artefact folder, and each
service's own loopback, whose ports become free ones of this machine.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from consumers.demo.stack import Stack
from tests.broker import free_ports

FILE = Path(__file__).parent.parent.parent / "docker-compose.yml"
INSIDE = "file:/var/lib/driftline/artefacts"
INSIDE_CONSOLE = "sqlite:////var/lib/driftline/console/"
PAUSE_SECONDS = 1.0
PORT, CONSOLE_PORT = "9464", "8420"  # of the doors, of the console
Ports = dict[str, str]  # of one process: what the file says, and what stands for it here
ADDRESSES = ("LISTENERS", "VOTERS", "LISTENER_NAME", "LISTENER_SECURITY", "LOG_DIRS", "NODE_ID")


def broker_properties() -> str:
    """What the kafka service is told by its environment, but for its addresses."""
    told: dict[str, str] = _services()["kafka"]["environment"]
    lines = [
        f"{name.removeprefix('KAFKA_').lower().replace('_', '.')}={value}"
        for name, value in told.items()
        if name.startswith("KAFKA_") and not any(part in name for part in ADDRESSES)
    ]
    return "\n".join(lines) + "\n"


class Composed(Stack):
    """Starts and stops the services; `run` is `docker compose run` for any command.

    Args:
        addresses: by what stands in the file, what stands for it here.
        more: settings of the test beside the file's.
    """

    def __init__(
        self, folder: Path, addresses: Mapping[str, str], more: Mapping[str, str], **scale: int
    ) -> None:
        super().__init__(folder, {})
        self._addresses = {**addresses, INSIDE: f"file:{folder}/artefacts"}
        self._addresses[INSIDE_CONSOLE] = f"sqlite:///{folder}/"
        self._more = dict(more)
        self._scale = scale
        self._ours = {
            name: one
            for name, one in _services().items()
            if "build" in one and "profiles" not in one  # Compose leaves these out, too
        }
        self._ports: dict[str, Ports] = {}
        self._base = dict(self._environment)
        self._environment = self._base | self._here(_document()["x-driftline"]["environment"], {})

    def up(self) -> None:
        """One-shot services to their end, then the lasting ones, as `depends_on` orders them."""
        waiting = dict(self._ours)
        done: set[str] = set()
        while waiting:
            outside = _services().keys() - self._ours.keys()
            ready = [
                name
                for name, service in waiting.items()
                if set(service.get("depends_on", ())) <= done | outside
            ]
            assert ready, f"{sorted(waiting)} wait for each other"
            for name in ready:
                self._up(name, waiting.pop(name))
                done.add(name)

    def _up(self, name: str, service: dict[str, Any]) -> None:
        if service["restart"].startswith("on-failure"):
            self._environment = self._base | self._here(service["environment"], {})
            self.run(*service["command"])
            return
        for number in range(self._scale.get(name, 1)):
            ports = dict(zip((PORT, CONSOLE_PORT), map(str, free_ports(2)), strict=True))
            self._launch(f"{name}-{number + 1}", service, ports)

    def _launch(self, name: str, service: dict[str, Any], ports: Ports) -> None:
        self._ports[name] = ports
        with self.log(name).open("ab") as log:
            self._services[name] = subprocess.Popen(
                self._line(tuple(service["command"])),
                env=self._base | self._here(service["environment"], ports),
                stdout=log,
                stderr=log,
            )

    def wait_healthy(self, seconds: float) -> list[str]:
        """The lasting services, once each has passed its own health check; those that have."""
        deadline = time.monotonic() + seconds
        healthy: set[str] = set()
        while len(healthy) < len(self._services) and time.monotonic() < deadline:
            self.check()
            time.sleep(PAUSE_SECONDS)  # a check is a process of its own
            healthy |= {name for name in self._services.keys() - healthy if self._is_healthy(name)}
        return sorted(healthy)

    def _is_healthy(self, name: str) -> bool:
        check = self._ours[name.rpartition("-")[0]].get("healthcheck")
        if check is None:
            return True
        kind, *words = check["test"]
        assert kind == "CMD", "a shell of the image is not here"
        assert words[0] in ("python", "driftline")
        line = [_moved(word, self._ports[name]) for word in words[1:]]
        command = [sys.executable, *([] if words[0] == "python" else ["-m", "consumers"]), *line]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _here(self, environment: Mapping[str, str], ports: Ports) -> dict[str, str]:
        said = {name: _substituted(value) for name, value in environment.items()}
        for inside, here in self._addresses.items():
            said = {name: value.replace(inside, here) for name, value in said.items()}
        return {name: _moved(value, ports) for name, value in said.items()} | self._more


def _moved(text: str, ports: Ports) -> str:
    """At once: a port here may have one of there in its digits."""
    return re.sub("|".join(ports), lambda found: ports[found[0]], text) if ports else text


def _substituted(value: str) -> str:
    """`${NAME:-default}` as it is without the variable."""
    while "${" in value:
        before, _, rest = value.partition("${")
        variable, _, after = rest.partition("}")
        value = before + variable.partition(":-")[2] + after
    return value


def _document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return document


def _services() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = _document()["services"]
    return services
