"""What a process answers over HTTP, and on which address."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge

from stream.doors import Doors, open_doors
from stream.errors import ConfigurationError
from stream.settings import Settings

WHY: list[str] = []


@pytest.fixture
def doors() -> Iterator[Doors]:
    WHY.clear()
    registry = CollectorRegistry()
    Gauge("things", "in the test", registry=registry).set(3)
    opened = Doors(("127.0.0.1", 0), list, lambda: list(WHY), registry, stage="score")
    yield opened
    opened.close()


def ask(doors: Doors, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{doors.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_ready_or_not_with_the_reasons(doors: Doors) -> None:
    """200 when there is nothing against it, else 503 and why, for a person to read."""
    assert ask(doors, "/readyz") == (200, '{"ready":true,"reasons":[],"stage":"score"}')
    WHY.append("partition 2: reading its checkpoint for 3 s")
    status, body = ask(doors, "/readyz")
    assert status == 503
    assert json.loads(body)["reasons"] == WHY
    assert ask(doors, "/livez") == (200, '{"live":true,"reasons":[],"stage":"score"}')


def test_metrics_and_nothing_else(doors: Doors) -> None:
    assert "things 3.0" in ask(doors, "/metrics?a=b")[1]
    assert ask(doors, "/etc/passwd")[0] == 404


def test_a_door_that_fails_says_so_and_stays_open(doors: Doors) -> None:
    """A defect in what is asked must not take the others away."""
    doors._reasons["/readyz"] = ("ready", lambda: [str(1 // 0)])
    assert ask(doors, "/readyz")[0] == 500
    assert ask(doors, "/livez")[0] == 200


def test_a_port_that_is_taken_is_a_setting_to_change(doors: Doors) -> None:
    with pytest.raises(ConfigurationError, match="METRICS_PORT"):
        Doors(("127.0.0.1", doors.port), list, list, CollectorRegistry())


def test_no_doors_and_no_other_address_without_being_told() -> None:
    """None by default; with a port, loopback; anything else must be named."""
    assert open_doors(Settings(), list, list, CollectorRegistry()) is None
    opened = open_doors(Settings(metrics_port=0), list, list, CollectorRegistry())
    assert opened is not None
    assert opened._server.server_address[0] == "127.0.0.1"
    opened.close()
