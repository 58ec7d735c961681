"""The rules of the house that no linter knows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "deploy/requirements.lock")


def pins(lock: str) -> dict[str, str]:
    """Package -> version."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_a_skip_fails_the_run_under_ci(tmp_path: Path, ci: str, code: int) -> None:
    """What a developer may skip for want of a server, CI must run."""
    (tmp_path / "test_one.py").write_text("import pytest\ndef test_one(): pytest.skip('no server')")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        timeout=PATIENCE_SECONDS,
    )

    assert done.returncode == code, done.stdout
    assert "1 skipped" in done.stdout


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_registry_and_every_hash(lock: str) -> None:
    """Locks work with whatever registry a machine is set up for, and trust none."""
    text = (ROOT / lock).read_text()

    assert "//" not in text
    assert "--index-url" not in text
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\w)", text)[1:])


def test_the_image_installs_what_the_tests_ran_with() -> None:
    """The deployed versions are a subset of the tested ones."""
    assert pins("deploy/requirements.lock").items() <= pins("requirements.lock").items()


def test_the_environment_is_the_locked_one() -> None:
    """The tests run with the locked versions, not with what happened to be installed."""
    from importlib.metadata import version

    names = ("aiokafka", "confluent-kafka", "faust-streaming", "msgspec", "numpy", "scikit-learn")

    assert {name: version(name) for name in names} == {
        name: pins("requirements.lock")[name] for name in names
    }
