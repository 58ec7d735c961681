"""quixstreams in an environment of its own: it needs another confluent-kafka than Driftline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

VERSION = "3.28.1"
SCRIPT = Path(__file__).with_name("quix_copy.py")
HOME = Path(__file__).parent.parent / ".cache" / f"quixstreams-{VERSION}"
READY = HOME / "ready"


def python() -> Path:
    return HOME / "bin" / "python"


def missing(*, install: bool) -> str | None:
    """Why it can't be run, or None. With `install` it is fetched by its package name if need be."""
    if READY.exists():
        return None
    if not install:
        return "not installed yet; a run without --quick installs it"
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(HOME)],
        [str(python()), "-m", "pip", "install", "--quiet", f"quixstreams=={VERSION}"],
    )
    for command in commands:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            return f"it could not be installed: {done.stderr.strip()[-300:]}"
    READY.touch()
    return None
