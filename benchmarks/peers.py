"""Other tools, each in an environment of its own: their requirements contradict one another's.

`benchmarks/pins/<name>.txt` pins everything that is in it, as `pip freeze` said when it was first
measured; some need packages, or older ones, that their own metadata do not ask for.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PINS: Final = Path(__file__).with_name("pins")
NAMES: Final = tuple(sorted(path.stem for path in PINS.glob("*.txt")))


def home(name: str) -> Path:
    return ROOT / ".cache" / "peers" / name


def python(name: str) -> Path:
    return home(name) / "bin" / "python"


def missing(name: str, *, install: bool) -> str | None:
    """Why a peer can't be run, or None. With `install` it is fetched by its pins if need be."""
    pins, ready = PINS / f"{name}.txt", home(name) / "ready"
    if ready.exists() and ready.read_text() == pins.read_text():
        return None
    if not install:
        return "not installed yet; a run without --quick installs it"
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(home(name))],
        [str(python(name)), "-m", "pip", "install", "--quiet", "--requirement", str(pins)],
    )
    for command in commands:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            return f"it could not be installed: {done.stderr.strip()[-300:]}"
    ready.write_text(pins.read_text())
    return None
