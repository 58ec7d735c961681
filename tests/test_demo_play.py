"""The demo as a newcomer runs it, on both brokers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.broker import free_ports

pytestmark = [pytest.mark.demo, pytest.mark.timeout(400)]


def play(*options: str) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "consumers", "demo", "--headless", "--json", *options],
        capture_output=True,
        text=True,
        timeout=380,
        env=dict(os.environ),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


class Visitor(threading.Thread):
    """Asks the console for its fleet until it has `bikes`, or until the demo is over."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._url = f"http://127.0.0.1:{port}/api/fleet"
        self.over = threading.Event()
        self.saw = False

    def run(self) -> None:
        while not self.saw and not self.over.wait(0.5):
            try:
                with urllib.request.urlopen(self._url, timeout=2) as answer:
                    self.saw = b'"bikes"' in answer.read()
            except OSError:  # not up yet
                continue


def assert_closed(figures: dict[str, Any]) -> None:
    assert figures["closed"]
    assert min(figures[kind] for kind in ("retrains", "promotions", "rollbacks", "alerts")) >= 1
    assert figures["loss_new_on_same_events"] < figures["loss_old_on_same_events"]
    assert figures["accuracy_degraded"] < figures["accuracy_before"]
    assert (figures["swap_lost"], figures["swap_duplicated"]) == (0, 0)
    assert figures["events"] >= figures["labelled"] > 1000


def test_the_loop_closes_on_real_data_on_the_embedded_broker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harm is found, a better version proven and promoted, a forced bad one rolled back; the
    picture of it says so, and the console beside it shows the model."""
    picture = tmp_path / "demo.svg"
    [port] = free_ports(1)
    monkeypatch.setenv("DRIFTLINE_CONSOLE_PORT", str(port))
    visitor = Visitor(port)
    visitor.start()
    figures, story = play("--seconds", "40", "--plot", str(picture), "--console")
    visitor.over.set()

    assert visitor.saw
    assert f"http://localhost:{port}/" in story
    assert_closed(figures)
    for words in ("version 2", "performance harmed", "retrain", "promote", "rollback"):
        assert f">{words}</text>" in picture.read_text()
    assert "performance harmed" in story
    assert "nothing is kept" in story


def test_the_loop_closes_on_a_real_broker(bootstrap: str) -> None:
    """The same story where transactions are real."""
    figures, _ = play("--seconds", "40", "--bootstrap", bootstrap)

    assert_closed(figures)
