"""The tutorial on a real broker, command by command: it ends with the rollback that it promises."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from stream.settings import Settings
from tests.kafka.test_readme import ROOT, Shell, champion, until
from tests.patience import PATIENCE_SECONDS

PAGE = (ROOT / "docs" / "tutorial.md").read_text()


def blocks(language: str = "") -> list[str]:
    fences = MarkdownIt().parse(PAGE)
    return [one.content for one in fences if one.type == "fence" and one.info == language]


@pytest.fixture
def shell(kafka_settings: Settings, tmp_path: Path) -> Iterator[Shell]:
    one = Shell(tmp_path, kafka_settings)
    try:
        yield one
    finally:
        one.stop()


def actions(shell: Shell) -> list[str]:
    """What was done to the model so far, the newest last."""
    text = shell.run("driftline models history churn --json")
    return [entry["action"] for entry in json.loads(text)]


@pytest.mark.timeout(1200)
def test_the_tutorial_ends_with_a_rollback(shell: Shell) -> None:
    """Installing is left out. Where a reader waits, so does this; nothing else is done by hand."""
    (spec,), (program,) = blocks("toml"), blocks("python")
    (shell.folder / "churn.toml").write_text(spec)
    (shell.folder / "customers.py").write_text(program)
    seen = {
        "python customers.py normal": (
            lambda: champion(shell, "churn")["accuracy"]["labelled"] > 1000
        ),
        "python customers.py upside-down": lambda: actions(shell).count("promote") > 1,
        "driftline models promote": lambda: "rollback" in actions(shell),
    }
    customers: subprocess.Popen[bytes] | None = None
    for line in (line for block in blocks() for line in block.splitlines()):
        if line.startswith("python customers.py") and "history" not in line:
            if customers is not None:
                customers.send_signal(signal.SIGINT)
                customers.wait(PATIENCE_SECONDS)
            customers = shell.start(line)
        else:
            shell.run(line)
        for start in [start for start in seen if line.startswith(start)]:
            until(seen.pop(start), shell.said, seconds=300)
    assert not seen
