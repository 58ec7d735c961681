"""The README's commands, run as a newcomer would, on a real broker: nothing else is needed."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from stream.settings import Settings
from tests.broker import free_ports
from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(heading: str, language: str = "") -> list[str]:
    """The code blocks below a heading, up to the next one."""
    _, _, section = README.partition(f"\n{heading}\n")
    fences = MarkdownIt().parse(re.split(r"\n##+ ", section)[0])
    return [one.content for one in fences if one.type == "fence" and one.info == language]


def lines(block: str) -> list[str]:
    """Its commands without the remarks."""
    return [re.sub(r"\s+#.*", "", line) for line in block.splitlines() if line.strip()]


class Shell:
    """Runs lines in one folder, by the virtual environment's programs."""

    def __init__(self, folder: Path, settings: Settings, **more: str) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "KAFKA_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "DRIFTLINE_TOPIC_PREFIX": settings.topic_prefix,
            **more,
        }

    def run(self, line: str) -> str:
        """One line, as it stands; what ends with & goes on until the shell does."""
        if line.endswith("&"):
            self.start(line.removesuffix("&"))
            return ""
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}{self.said()}"
        return done.stdout

    def start(self, line: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{len(self.running)}.log").open("wb") as log:
            process = subprocess.Popen(
                # Whoever runs the tests in the background has them ignore Ctrl-C.
                ["env", "--default-signal=INT", *shlex.split(line)],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        return process

    def said(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "".join(f"\n--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)

    def watch(self, line: str, seen: Callable[[str], bool]) -> None:
        """What goes on for ever: until something is seen of it, then Ctrl-C."""
        log = self.folder / f"{len(self.running)}.log"
        process = self.start(line)
        until(lambda: seen(log.read_text()), self.said)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) in (0, 130)

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(PATIENCE_SECONDS)


def until(
    condition: Callable[[], bool], said: Callable[[], str], seconds: float = PATIENCE_SECONDS
) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.3)


def answers(url: str, body: dict[str, Any] | None = None) -> Any:
    """None: nobody is there yet."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            text = answer.read()
    except OSError:
        return None
    return json.loads(text) if text[:1] in (b"{", b"n") else text.decode()


@pytest.fixture
def shell(kafka_settings: Settings, tmp_path: Path) -> Iterator[Shell]:
    (console_port,) = free_ports(1)
    one = Shell(tmp_path, kafka_settings, DRIFTLINE_CONSOLE_PORT=str(console_port))
    try:
        yield one
    finally:
        one.stop()


def prepared(folder: Path) -> None:
    """The newcomer's own files: the spec as the README has it, rows, events."""
    (spec,) = blocks("## Your first model", "toml")
    (folder / "churn.toml").write_text(spec)
    draw = random.Random(7)
    rows = [(draw.uniform(18, 80), draw.choice(("basic", "gold"))) for _ in range(1200)]
    told = ["leaves" if age + draw.gauss(0, 15) > 55 else "stays" for age, _ in rows]
    history = [
        f"{1_700_000_000_000 + n * 60_000},{age:.0f},{plan},{label}"
        for n, ((age, plan), label) in enumerate(zip(rows, told, strict=True))
    ]
    (folder / "history.csv").write_text("\n".join(["time,age,plan,label", *history[:1000]]))
    late = [*enumerate(zip(rows, told, strict=True))][1000:]
    requests = [
        {"prediction_id": f"a{n}", "features": {"age": age, "plan": plan}}
        for n, ((age, plan), _) in late
    ]
    labels = [{"prediction_id": f"a{n}", "label": label} for n, (_, label) in late]
    for name, events in (("requests", requests), ("labels", labels)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, events)))


@pytest.mark.timeout(1200)
def test_a_newcomer_watches_a_file_and_a_serving_system(shell: Shell) -> None:
    """Every command of the two sections, in their order; then each model is live and measured."""
    prepared(shell.folder)
    console = f"http://localhost:{shell.environment['DRIFTLINE_CONSOLE_PORT']}/"
    _, own = (block for block in blocks("## Your first model") if "driftline" in block)
    for line in lines(own):
        match line.split()[1]:
            case "tail":
                shell.watch(line, lambda text: text.count("churn version=1 a1") == 200)
            case "top":
                until(lambda: "churn" in shell.run("driftline top --seconds 1"), shell.said)
            case "console":
                shell.watch(line, lambda _: "Driftline" in str(answers(console)))
            case _:
                shell.run(line)
    until(lambda: champion(shell, "churn")["accuracy"]["labelled"] == 200, shell.said)

    (shell.folder / "examples").symlink_to(ROOT / "examples")
    begin, reference = blocks("### Served elsewhere")
    add, serve, predict, outcome = lines(begin)
    shell.run(add)
    (port,) = map(str, free_ports(1))
    shell.run(serve.replace("8000", port))
    url = f"http://localhost:{port}"
    until(lambda: answers(f"{url}/openapi.json") is not None, shell.said)
    told = json.loads(shell.run(predict.replace("8000", port)))
    shell.run(outcome.replace("8000", port).replace("...", told["prediction_id"]))
    visit(url, 300)
    for line in lines(reference):
        shell.run(line)
    assert champion(shell, "loyalty")["live"]["champion"] == 1
    visit(url, 50)
    until(lambda: champion(shell, "loyalty")["accuracy"]["labelled"] > 0, shell.said)


def visit(url: str, customers: int) -> None:
    """Each asks, and what came of it is told."""
    for n in range(customers):
        said = answers(f"{url}/predict", {"age": 18 + n % 60, "visits": n % 30})
        label = "leaves" if said["leaves"] > 0.5 else "stays"
        answers(f"{url}/outcome", {"prediction_id": said["prediction_id"], "label": label})


def champion(shell: Shell, model: str) -> Any:
    status = json.loads(shell.run("driftline status --json"))["status"]
    found = {one["live"]["model"]: one for one in status["models"]}[model]
    return found | {"accuracy": found["accuracy"] or {"labelled": 0}}
