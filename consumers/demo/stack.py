"""The services of the demo: the same commands that a user would start, as child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from stream.errors import DriftlineError

STOP_SECONDS = 12.0


class ServiceDied(DriftlineError):
    """A service of the demo ended by itself; its log says why."""


class Stack:
    """Starts, watches and stops `driftline` commands that share one environment and one folder."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        # One thread a process for linear algebra: few cores are shared, and batches are small.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._environment = {**os.environ, **threads, **environment}
        self._services: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *command: str) -> None:
        """Start a service; what it writes goes to `<folder>/<command>.log`."""
        with self.log(command[0]).open("ab") as log:
            self._services[command[0]] = subprocess.Popen(  # noqa: S603  our own command
                self._line(command), env=self._environment, stdout=log, stderr=log
            )

    def run(self, *command: str, seconds: float = 120) -> str:
        """Run a command to its end and return what it printed.

        Raises:
            ServiceDied: it failed; the message holds what it said.
        """
        done = subprocess.run(  # noqa: S603  our own command
            self._line(command),
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            raise ServiceDied(
                f"`driftline {' '.join(command)}` failed:\n{done.stderr.strip()[-2000:]}"
            )
        return done.stdout

    def check(self) -> None:
        """Raises:
        ServiceDied: a service has ended.
        """
        for name, service in self._services.items():
            if service.poll() is not None:
                tail = self.log(name).read_text(errors="replace")[-2000:]
                raise ServiceDied(f"`driftline {name}` ended with {service.returncode}:\n{tail}")

    def stop(self) -> None:
        """SIGTERM to all, then wait; what does not end in time is killed."""
        for service in self._services.values():
            if service.poll() is None:
                service.send_signal(signal.SIGTERM)
        for service in self._services.values():
            try:
                service.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _line(self, command: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "consumers", *command]
