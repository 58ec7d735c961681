"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consumers import relay
from consumers.cli import app
from models.registry import Registry
from tests.registries import CHURN, register

SPEC = """
name = "churn"
task = "binary"
classes = ["no", "yes"]
[[features]]
name = "age"
[[features]]
name = "plan"
type = "categorical"
[training]
minimum_rows = 100
candidates = ["logistic_regression"]
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def settle_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder to work in, and no broker."""
    monkeypatch.chdir(folder)
    # Set by name, so that what `--bootstrap` writes there is taken back after the test.
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr(relay, "PROBE_SECONDS", 0.2)


@contextmanager
def registry_here() -> Iterator[Registry]:
    """A migrated registry that knows the model churn, with version 1 live."""
    with Registry("sqlite:///driftline.db") as opened:
        opened.upgrade()
        opened.add_model(CHURN, who="test")
        opened.promote("churn", register(opened), who="test")
        yield opened
