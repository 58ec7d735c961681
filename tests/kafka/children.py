"""Processes of many cases side by side, each on topics of its own: they pass in the time of one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stream.settings import Settings
from stream.supervising import environment
from tests.broker import free_ports
from tests.kafka.copies import PARTITIONS, ROOT, send
from tests.patience import PATIENCE_SECONDS
from tests.topics import create

COPY = ("tests.kafka.copy_worker", "score")
STUCK = ("tests.kafka.stuck_worker",)


class Child(NamedTuple):
    """One process that logs JSON lines and has its doors open."""

    process: subprocess.Popen[bytes]
    settings: Settings
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        said = (json.loads(line) for line in self.text().splitlines() if line.startswith("{"))
        return [line for line in said if line["event"] == event]

    def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still there after {PATIENCE_SECONDS} s:\n{self.text()}")

    def door(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.settings.metrics_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:  # not open yet
            return 0, str(error)

    def ready(self) -> list[str] | None:
        """Why it is not ready; None while nobody answers."""
        status, body = self.door("/readyz")
        return None if status == 0 else list(json.loads(body)["reasons"])

    def metric(self, name: str, **labels: str) -> float | None:
        """A sample whose labels include these; the first."""
        for line in self.door("/metrics")[1].splitlines():
            told, _, value = line.rpartition(" ")
            if told.partition("{")[0] == name and all(
                f'{key}="{word}"' in told for key, word in labels.items()
            ):
                return float(value)
        return None

    def until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not what():
            code = self.process.poll()
            assert code is None, f"ended with {code}:\n{self.text()}"
            assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s:\n{self.text()}"
            time.sleep(0.2)

    def until_reason(self, words: str) -> None:
        """Until it says that it is not ready because of this."""
        self.until(lambda: any(words in reason for reason in self.ready() or ()))

    def until_ready(self) -> None:
        self.until(lambda: self.ready() == [])


class Children:
    """Whatever happens, they end with the test."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._directory = directory
        self._started: list[Child] = []

    def start(
        self, name: str, program: Sequence[str], settings: Settings | None = None, **variables: str
    ) -> Child:
        """Run a module; without `settings` on topics of its own that hold 200 records."""
        chosen = settings or self.topics(name)
        chosen = chosen.model_copy(update={"metrics_port": free_ports(1)[0], "log_format": "json"})
        log = self._directory / f"{name}-{len(self._started)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *program],
                cwd=ROOT,
                env={**environment(chosen, 0), "DRIFTLINE_SUPERVISOR": "0", **variables},
                stderr=file,
            )
        self._started.append(Child(process, chosen, log))
        return self._started[-1]

    def topics(self, name: str, **more: object) -> Settings:
        """Fresh topics of the score stage with 200 records in them."""
        prefix = f"{self._settings.topic_prefix}-{name}"
        settings = self._settings.model_copy(update={"topic_prefix": prefix, **more})
        create(
            settings.bootstrap_servers,
            dict.fromkeys(settings.names.touched("score"), PARTITIONS),
        )
        send(settings, 0, 200)
        return settings

    def end(self) -> None:
        for child in self._started:
            child.process.kill()
            child.process.wait()


def terminate(children: Sequence[Child]) -> list[float]:
    """SIGTERM to all; how long each took to end. All must end with 0."""
    begun = time.monotonic()
    for child in children:
        child.process.send_signal(signal.SIGTERM)
    seconds = []
    for child in children:
        assert child.ended() == 0, child.text()
        seconds.append(time.monotonic() - begun)
    return seconds
