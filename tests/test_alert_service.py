"""The service that sends alerts on, as a process, and what one does with it at the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consumers.demo.embedded import EmbeddedBroker
from consumers.loop import RangeReader
from consumers.producing import Publisher
from stream.settings import Settings
from tests import receivers
from tests.broker import free_ports
from tests.commands import run
from tests.patience import PATIENCE_SECONDS
from tests.receivers import Receiver, alert, answer, distinct, ok, record
from tests.topics import make_topics

SINKS = """
[sinks.hung]
kind = "webhook"
url = "{hung}"
timeout_seconds = 120

[sinks.good]
kind = "webhook"
url = "{good}"
first_retry_seconds = 0.1
longest_retry_seconds = 0.5
"""


class Service:
    """A process of `driftline alerts`, started in a folder of its own."""

    def __init__(self, settings: Settings, folder: Path, sinks: str) -> None:
        (folder / "alerts.toml").write_text(sinks)
        [self.port] = free_ports(1)
        self._folder = folder
        self._environment = {
            **os.environ,
            "DRIFTLINE_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
            "DRIFTLINE_TOPIC_PREFIX": settings.topic_prefix,
            "DRIFTLINE_EMBEDDED_BROKER": str(settings.embedded_broker).lower(),
            "DRIFTLINE_SESSION_TIMEOUT_SECONDS": "6",
            "DRIFTLINE_DRAIN_SECONDS": "60",
            "DRIFTLINE_METRICS_PORT": str(self.port),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "consumers", "alerts"]
        self.process = subprocess.Popen(command, cwd=self._folder, env=self._environment)

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_SECONDS)
        self.process = None
        return code

    def close(self) -> None:
        if self.process is not None:
            self.end(signal.SIGKILL)

    def ask(self, path: str) -> str:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_SECONDS
            ) as said:
                return str(said.read().decode())
        except OSError as error:
            return str(error)

    @property
    def ready(self) -> bool:
        return '"ready":true' in self.ask("/readyz")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def send(settings: Settings, *numbers: int) -> None:
    publisher = Publisher(settings)
    for number in numbers:
        said = alert(number)
        publisher.send("alerts", said.alert_id.encode(), record(0, said).value)
    publisher.flush()


@pytest.fixture
def embedded() -> Iterator[Settings]:
    broker = EmbeddedBroker()
    settings = Settings(bootstrap_servers=broker.bootstrap_servers, embedded_broker=True)
    broker.touch(settings.names)
    yield settings
    del broker


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def begin(settings: Settings, sinks: str) -> Service:
        started.append(Service(settings, tmp_path, sinks))
        started[-1].start()
        until(lambda: started[-1].ready, "the service is not ready")
        return started[-1]

    yield begin
    for service in started:
        service.close()


def test_a_sink_that_hangs_holds_up_no_other_and_not_the_end(
    embedded: Settings, serve: Callable[..., Service]
) -> None:
    """What it did not take is waiting, and told by the metrics; SIGTERM ends with 0 in time."""
    send(embedded, 100)  # before the service was ever there: its sinks begin with what is to come
    with Receiver(receivers.hang) as hung, Receiver(answer(500), ok) as good:
        service = serve(embedded, SINKS.format(hung=hung.url, good=good.url))
        send(embedded, *range(20))
        until(lambda: len(distinct(good.ids)) == 20, "the good sink has not got all")
        until(lambda: hung.posted, "the hung sink was not asked")
        taken = 'driftline_alerts_delivered_total{sink="good"} 20.0'
        until(lambda: taken in service.ask("/metrics"), "what was delivered is not told")
        told = service.ask("/metrics")
        assert 'driftline_alerts_failed_total{sink="good",why="status"} 1.0' in told
        assert 'driftline_alerts_delivered_total{sink="hung"} 0.0' in told
        assert re.search(r'driftline_alerts_waiting\{sink="hung"\} [1-9]', told)
        assert service.ready
        begun = time.monotonic()
        assert service.end(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 50
    assert {posted.json["data"]["alert_id"] for posted in good.posted} == {
        f"alert-{n}" for n in range(20)
    }


def test_after_a_kill_between_delivery_and_commit_the_alert_comes_again_with_its_id(
    kafka_settings: Settings, serve: Callable[..., Service]
) -> None:
    """On the real broker: whoever got it cannot have been committed, and knows it again."""
    make_topics(kafka_settings)
    services: list[Service] = []

    def kill(receiver: Receiver, connection: Any) -> None:
        receiver.take(connection)
        services[0].end(signal.SIGKILL)

    with Receiver(kill, ok) as receiver:
        sinks = f'[sinks.ops]\nkind = "webhook"\nurl = "{receiver.url}"\ntimeout_seconds = 60\n'
        services.append(serve(kafka_settings, sinks))
        send(kafka_settings, 7)
        until(lambda: services[0].process is None, "the alert was not delivered")
        send(kafka_settings, 8)
        services[0].start()
        until(lambda: len(receiver.posted) == 3, "the alerts did not come")
        first, *again = receiver.posted
        same = [posted for posted in again if posted.headers["webhook-id"] == "alert-7-0"]
        assert [posted.body for posted in same] == [first.body]
        assert sorted(receiver.ids) == ["alert-7-0", "alert-7-0", "alert-8-0"]
        until(lambda: "delivered_total" in services[0].ask("/metrics"), "no metrics")
        assert services[0].end(signal.SIGTERM) == 0
        services[0].start()
        until(lambda: services[0].ready, "the service is not ready")
        send(kafka_settings, 9)
        until(lambda: len(receiver.posted) == 4, "the alert did not come")
        assert receiver.ids[-1] == "alert-9-0"
        assert services[0].end(signal.SIGTERM) == 0


def test_what_a_sink_did_not_take_is_sent_again_by_hand(
    embedded: Settings,
    serve: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """`driftline alerts retry` sends the newest dead letter of each alert, with its id."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", embedded.bootstrap_servers)
    monkeypatch.setenv("DRIFTLINE_EMBEDDED_BROKER", "true")
    with Receiver(answer(422)) as receiver:
        sinks = f'[sinks.ops]\nkind = "webhook"\nurl = "{receiver.url}"\ntimeout_seconds = 60\n'
        service = serve(embedded, sinks)
        send(embedded, 1, 2)
        until(lambda: _count(embedded) == 2, "no dead letters")
        assert service.end(signal.SIGTERM) == 0
        assert "2 undeliverable" in run("dlq", "list", "alerts").stderr
        assert run("dlq", "replay", "alerts", "--yes").exit_code == 2
        assert run("alerts", "retry", "ops", "--yes").exit_code == 1
        receiver.behaviours, receiver.posted = [ok], []
        done = run("alerts", "retry", "ops", "--since", "1h", "--yes", "--json")
        assert (done.exit_code, done.stderr) == (0, "ops took 2 of 2\n")
        told = {"sink": "ops", "dead_letters": 2, "taken": 2, "failed": []}
        assert json.loads(done.stdout) == told
        assert sorted(receiver.ids) == ["alert-1-0", "alert-2-0"]
        assert run("alerts", "retry", "other", "--yes").stderr == "no such dead letters\n"


def _count(settings: Settings) -> int:
    with RangeReader(settings) as reader:
        return sum(span.length for span in reader.bounds("alerts.dlq"))


def test_a_sink_is_tried_out_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("alerts", "test", "ops").exit_code == 2
    monkeypatch.setenv("KEY", "routing")
    with Receiver(answer(202), answer(202), answer(503, b"no")) as receiver:
        pager = f'kind = "pagerduty"\nurl = "{receiver.url}"\nrouting_key = {{ env = "KEY" }}\n'
        (tmp_path / "alerts.toml").write_text(f'[sinks.pager]\nseverities = ["critical"]\n{pager}')
        assert run("alerts", "test", "pager").stderr == "pager took it\n"
        over = run("alerts", "test", "pager", "--resolve", "--json")
        assert json.loads(over.stdout) == {"sink": "pager", "taken": True}
        failed = run("alerts", "test", "pager")
        assert (failed.exit_code, failed.stderr) == (1, "error: status: status 503: no\n")
        opened, resolved, _ = (posted.json for posted in receiver.posted)
        assert opened["dedup_key"] == resolved["dedup_key"]
        assert [opened["event_action"], resolved["event_action"]] == ["trigger", "resolve"]
    assert run("alerts", "test", "nobody").exit_code == 2


def test_sinks_are_listed_with_what_is_wrong_and_without_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAT", "https://hooks.example/hush")
    (tmp_path / "alerts.toml").write_text(
        '[sinks.chat]\nkind = "slack"\nurl = { env = "CHAT" }\n'
        '[sinks.pager]\nkind = "pagerduty"\nrouting_key = { env = "NOT_THERE" }\n'
    )
    listed = run("alerts", "sinks", "--json")
    assert listed.exit_code == 2
    assert "hush" not in listed.stdout
    chat, pager = json.loads(listed.stdout)
    assert (chat[:2], chat[-1]) == (["chat", "slack"], "")
    assert "NOT_THERE" in pager[-1]
    monkeypatch.setenv("NOT_THERE", "key")
    assert run("alerts", "sinks").exit_code == 0


def test_the_check_of_the_settings_looks_at_the_sinks_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    checked = run("config", "check", "--json")
    assert json.loads(checked.stdout) == {"sound": True, "alert_sinks": None}
    (tmp_path / "alerts.toml").write_text('[sinks.a]\nkind = "slack"\n')
    done = run("config", "check")
    assert (done.exit_code, done.stderr) == (2, "error: alerts.toml: sinks.a.url: Field required\n")


def test_the_service_says_where_its_file_should_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("alerts")
    assert done.exit_code == 2
    assert "alerts.toml" in done.stderr


def test_a_thread_that_stands_still_is_not_alive() -> None:
    from consumers.sinks.standing import Standing

    standing = Standing(Settings(bootstrap_servers="127.0.0.1:1"))
    sink = SimpleNamespace(timeout_seconds=10.0)
    stuck: Any = SimpleNamespace(turned=time.monotonic() - 1000, sender=SimpleNamespace(sink=sink))
    standing.couriers, standing.doing = {"stuck": stuck}, ""
    assert standing.live() == standing.ready() == ["sink stuck stands for 1000 s"]


def test_a_worker_may_have_the_service_beside_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """`driftline worker --alerts`: one more child; it ends when the supervisor is gone."""
    from stream import supervising, worker

    asked: list[Any] = []

    def supervise(*given: Any) -> int:
        asked.append(given)
        return 0

    monkeypatch.setattr(worker, "supervise", supervise)
    assert run("worker", "--stages", "score", "--alerts").exit_code == 0
    [(stages, _, beside)] = asked
    assert (list(stages), list(beside)) == (["score"], ["alerts"])
    assert beside["alerts"][1:] == ["-m", "consumers", "alerts"]
    assert not supervising.orphaned()
    monkeypatch.setenv(supervising.SUPERVISOR, str(os.getppid()))
    assert not supervising.orphaned()
    monkeypatch.setenv(supervising.SUPERVISOR, "1")
    assert supervising.orphaned() == (os.getppid() != 1)
