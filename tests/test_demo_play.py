"""The demo as a newcomer runs it, on both brokers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


def assert_closed(figures: dict[str, Any]) -> None:
    assert figures["closed"]
    assert min(figures[kind] for kind in ("retrains", "promotions", "rollbacks", "alerts")) >= 1
    assert figures["loss_new_on_same_events"] < figures["loss_old_on_same_events"]
    assert figures["accuracy_degraded"] < figures["accuracy_before"]
    assert (figures["swap_lost"], figures["swap_duplicated"]) == (0, 0)
    assert figures["events"] >= figures["labelled"] > 1000


def test_the_loop_closes_on_real_data_on_the_embedded_broker(tmp_path: Path) -> None:
    """Harm is found, a better version proven and promoted, a forced bad one rolled back; and the
    picture of it says so."""
    picture = tmp_path / "demo.svg"
    figures, story = play("--seconds", "40", "--plot", str(picture))

    assert_closed(figures)
    for words in ("version 2", "performance harmed", "retrain", "promote", "rollback"):
        assert f">{words}</text>" in picture.read_text()
    assert "performance harmed" in story
    assert "nothing is kept" in story


def test_the_loop_closes_on_a_real_broker(bootstrap: str) -> None:
    """The same story where transactions are real."""
    figures, _ = play("--seconds", "40", "--bootstrap", bootstrap)

    assert_closed(figures)
