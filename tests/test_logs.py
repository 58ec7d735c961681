"""Every line that a process logs has one form, whoever says it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stream.logs import Seldom

SPEAKERS = """
import logging, sys, threading, warnings
from stream import logs
logs.configure(sys.argv[1], "debug", service="test")
import structlog
structlog.get_logger("driftline.test").warning("ours", number=1)
structlog.get_logger().info("ours without a name")
for name in ("faust.app", "mode.services", "aiokafka.conn", "uvicorn.error", "alembic.runtime",
             "sqlalchemy.engine"):
    logging.getLogger(name).error("theirs: %s", name)
def judge():
    record = "".join(["hu", "sh"])
    return 1 / len(record.replace("hush", ""))
try:
    judge()
except ZeroDivisionError:
    logging.getLogger("faust.agents").exception("theirs with a trace")
    structlog.get_logger("driftline.test").exception("ours with a trace")
warnings.warn("a warning")
thread = threading.Thread(target=lambda: {}["nothing"], name="lost")
thread.start()
thread.join()
raise RuntimeError("the end")
"""


def said(form: str) -> list[str]:
    command = [sys.executable, "-c", SPEAKERS, form]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=root)
    assert done.returncode == 1
    assert not done.stdout
    return done.stderr.splitlines()


def test_every_line_of_json_is_an_object_with_the_same_keys() -> None:
    """Ours, Faust's, uvicorn's, alembic's, warnings, and what nobody caught in any thread."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in said("json")]
    for line in lines:
        assert {"timestamp", "level", "event", "logger", "service"} <= line.keys()
    loggers = [line["logger"] for line in lines]
    assert loggers == [
        *("driftline.test", "driftline"),
        *("faust.app", "mode.services", "aiokafka.conn", "uvicorn.error", "alembic.runtime"),
        *("sqlalchemy.engine", "faust.agents", "driftline.test", "py.warnings"),
        *("driftline", "driftline"),
    ]
    for line in (lines[8], lines[9], *lines[11:]):
        assert "Traceback" in line["exception"]
    assert lines[11]["thread"] == "lost"
    assert "RuntimeError: the end" in lines[12]["exception"]


def test_text_has_the_same_in_words() -> None:
    text = "\n".join(said("text"))
    for what in ("ours", "theirs: uvicorn.error", "a warning", "RuntimeError: the end"):
        assert what in text
    assert text.count("service=test") == 13


@pytest.mark.parametrize("form", ["json", "text"])
def test_values_of_local_variables_are_in_no_trace(form: str) -> None:
    """They are people's records."""
    text = "\n".join(said(form))
    assert "judge" in text
    assert "hush" not in text


def test_what_a_library_repeats_is_told_once_a_minute_with_how_often() -> None:
    """Numbers (ports, clients, milliseconds) make no other line; words do."""
    now = [0.0]
    seldom = Seldom(60, lambda: now[0])
    passed: list[str] = []

    def say(text: str) -> None:
        record = logging.LogRecord("driftline.kafka", logging.ERROR, "", 0, text, (), None)
        if seldom.filter(record):
            passed.append(record.getMessage())

    for client in range(20):
        say(f"FAIL [consumer-{client}] refused after {client}ms")
    say("FAIL authentication")
    now[0] = 60.0
    say("FAIL [consumer-1] refused after 7ms")
    assert passed == [
        "FAIL [consumer-0] refused after 0ms",
        "FAIL authentication",
        "FAIL [consumer-1] refused after 7ms (19 more such lines since the last)",
    ]


def test_what_is_remembered_of_repeated_lines_is_bounded() -> None:
    seldom = Seldom(60, lambda: 0.0)
    for number in range(10 * Seldom.MOST):
        text = "x" * number
        seldom.filter(logging.LogRecord("driftline.kafka", logging.ERROR, "", 0, text, (), None))
    assert len(seldom._said) <= Seldom.MOST
