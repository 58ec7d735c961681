"""Several stages, one child process each, started again when they fail; others beside them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from stream import logs
from stream.settings import Settings
from stream.topics import Stage

log = structlog.get_logger(__name__)

SUPERVISOR = "DRIFTLINE_SUPERVISOR"  # its process id: a child drains when it is gone
FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
HEALTHY_SECONDS = 60.0  # a child that ran this long starts again at once
POLL_SECONDS = 0.1
USAGE = 2


@dataclass
class Child:
    name: str
    command: Sequence[str]
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    backoff_seconds: float = FIRST_BACKOFF_SECONDS
    due: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env=self.environment)  # noqa: S603
        self.started = time.monotonic()
        log.info("started", child=self.name, pid=self.process.pid)

    def ended(self) -> int | None:
        """The exit code of a child that has just ended."""
        code = self.process.poll() if self.process else None
        if code is None:
            return None
        self.process = None
        now = time.monotonic()
        if now - self.started > HEALTHY_SECONDS:
            self.backoff_seconds = FIRST_BACKOFF_SECONDS
        self.due = now + self.backoff_seconds
        self.backoff_seconds = min(self.backoff_seconds * 2, LONGEST_BACKOFF_SECONDS)
        return code


def supervise(
    stages: Sequence[Stage],
    settings: Settings,
    beside: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> int:
    """Run each stage in a child process until SIGTERM or SIGINT.

    Args:
        beside: name -> command line of further children.

    Returns:
        0 when all drained, 1 when one did not, 2 when a child says that a setting is wrong.
    """
    logs.configure(settings.log_format, settings.log_level)
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopping.append(number))
    commands: dict[str, Sequence[str]] = {
        stage: [sys.executable, "-m", "stream.worker", stage] for stage in stages
    }
    children = [
        Child(name, command, environment(settings, position))
        for position, (name, command) in enumerate((commands | dict(beside)).items())
    ]
    while not stopping:
        for child in children:
            code = child.ended()
            if code == USAGE:
                _stop(children, settings.drain_seconds)
                return USAGE
            if code is not None:
                log.warning("ended", child=child.name, code=code, again_in=child.backoff_seconds)
            if child.process is None and time.monotonic() >= child.due:
                child.start()
        time.sleep(POLL_SECONDS)
    return _stop(children, settings.drain_seconds)


def _stop(children: Sequence[Child], drain_seconds: float) -> int:
    """Pass the signal on, wait for the drain, and end what does not."""
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + drain_seconds + 1.5
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # One that had not come to its signal handlers yet held nothing.
    return int(any(process.returncode not in (0, -signal.SIGTERM) for process in running))


def environment(settings: Settings, position: int) -> dict[str, str]:
    """What a child must see to have the same settings; metrics ports go up by one a child."""
    values = settings.plain()
    if settings.metrics_port:  # 0: any that is free
        values["metrics_port"] = settings.metrics_port + position
    given = {
        f"DRIFTLINE_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }
    return {**os.environ, **given, SUPERVISOR: str(os.getpid())}


def orphaned() -> bool:
    """Whether the supervisor that started this process is gone."""
    supervisor = int(os.environ.get(SUPERVISOR, "0"))
    return supervisor not in (0, os.getppid())
