"""Runs a module with a wall clock that a file sets: `python -m tests.faults.skewed <module> ...`.

The file named by the variable FAULTS_CLOCK holds how many seconds the clock is ahead.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
from pathlib import Path

FILE = "FAULTS_CLOCK"
LOOK_SECONDS = 0.2


class Skew:
    """How far ahead the clock is, in seconds."""

    def __init__(self, file: Path) -> None:
        self.seconds = 0.0
        self._file = file
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while True:
            self.seconds = float(self._file.read_text() or self.seconds)
            time.sleep(LOOK_SECONDS)


def skew_clocks(file: Path) -> None:
    skew, right, right_ns = Skew(file), time.time, time.time_ns
    time.time = lambda: right() + skew.seconds
    time.time_ns = lambda: right_ns() + int(skew.seconds * 1e9)


if __name__ == "__main__":
    skew_clocks(Path(os.environ[FILE]))
    _, module, *rest = sys.argv
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
