"""On a broker that trusts nobody: who is let in, what each service may do, whose word counts."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from subprocess import Popen
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from consumers import acls, status, topics_admin
from consumers.loop import BrokerError, RangeReader
from consumers.producing import Publisher
from models.registry import Registry
from stream.app import _security
from stream.envelope import write
from stream.events import Command
from stream.settings import Settings
from stream.signing import read_key, signed
from stream.supervising import environment
from stream.tokens import NoToken
from stream.topics import SINK_GROUPS, Names
from tests import broker as brokers
from tests.kafka import traffic
from tests.kafka.guarded import PREFIX, Guarded, until
from tests.kafka.loop import HERE
from tests.patience import PATIENCE_SECONDS
from tests.receivers import Receiver, alert, answer, ok, record
from tests.secured import ROOT, Authority, Secured, token_endpoint

pytestmark = pytest.mark.kafka
TOKEN_SECONDS = 20  # far more than the second within which a broker takes no second proof
LOOP = ("score", "monitor", "evaluate", "trainer")
NAMES = Names(PREFIX)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    try:
        one = Guarded(tmp_path_factory.mktemp("guarded"))
    except brokers.Unavailable as missing:
        pytest.skip(str(missing))
    with one.secured.broker:
        one.prepare()
        traffic.launch(one.settings("operator")).close()
        yield one


@pytest.fixture(scope="module")
def secured(guarded: Guarded) -> Secured:
    return guarded.secured


async def ask(settings: Settings) -> None:
    """By aiokafka, what only those who are let in may ask."""
    client = AIOKafkaClient(
        bootstrap_servers=settings.bootstrap_servers,
        request_timeout_ms=3_000,
        **_security(settings),
    )
    try:
        await client.bootstrap()
    finally:
        await client.close()
        await asyncio.sleep(0.1)  # what it closed is closed by the event loop


def seen_by_both(settings: Settings) -> None:
    AdminClient(settings.client(log_level=0)).list_topics(timeout=PATIENCE_SECONDS)
    asyncio.run(ask(settings))


def refused_by_both(settings: Settings) -> None:
    with pytest.raises(KafkaException):
        AdminClient(settings.client(log_level=0)).list_topics(timeout=3)
    with pytest.raises((KafkaError, NoToken)):
        asyncio.run(ask(settings))


def test_both_clients_come_in_by_scram(guarded: Guarded) -> None:
    """SHA-512 and SHA-256."""
    seen_by_both(guarded.settings("score"))
    seen_by_both(guarded.settings("monitor"))


def test_both_clients_come_in_by_certificate(secured: Secured) -> None:
    secured.authority.issue("locked", "hush")
    seen_by_both(secured.by_certificate("nobody"))
    seen_by_both(secured.by_certificate("locked", tls_key_password="hush"))


def test_both_clients_come_in_by_oauth(secured: Secured) -> None:
    """Each fetches its own token from the same endpoint."""
    with token_endpoint("driftline", "hush", "ann") as url:
        seen_by_both(by_oauth(secured, url, "hush"))


def test_a_wrong_password_authority_or_token_is_refused_by_both_clients(
    secured: Secured, tmp_path: Path
) -> None:
    refused_by_both(secured.settings(ROOT, sasl_password="wrong"))
    other = Authority(tmp_path)
    refused_by_both(secured.settings(ROOT, tls_ca_file=str(other.folder / "ca.crt")))
    with token_endpoint("driftline", "hush", "ann") as url:
        refused_by_both(by_oauth(secured, url, "wrong"))


@pytest.mark.faults
def test_a_stage_outlives_its_tokens(guarded: Guarded, tmp_path: Path) -> None:
    """The broker ends a connection when its token does; nothing is lost, nobody starts again."""
    here: dict[str, Any] = {"topic_prefix": "outlived", "partitions": 2}
    topics_admin.apply(guarded.secured.settings(ROOT, **here))
    publisher = Publisher(guarded.secured.settings(ROOT, **here))
    reader = RangeReader(guarded.secured.settings(ROOT, **here))
    numbers = range(3 * TOKEN_SECONDS)

    def copied() -> list[int]:
        found = reader.read("predictions", reader.bounds("predictions"))
        return sorted(int((one.record.value or b"").partition(b":")[0]) for one in found)

    with (
        token_endpoint("driftline", "hush", ROOT, TOKEN_SECONDS) as url,
        (tmp_path / "log").open("w+b") as log,
        reader,
    ):
        settings = by_oauth(guarded.secured, url, "hush", session_timeout_seconds=6, **here)
        worker = Popen(
            [sys.executable, "-m", "tests.kafka.copy_worker", "score"],
            cwd=tmp_path,
            env={**environment(settings, 0), **HERE},
            stderr=log,
        )
        try:
            for number in numbers:
                publisher.send("requests", b"k%d" % number, b"%d" % number)
                publisher.flush()
                time.sleep(1)
            until(
                lambda: len(copied()) >= len(numbers),
                (tmp_path / "log").read_text,
            )
            assert copied() == list(numbers)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(PATIENCE_SECONDS) == 0
        finally:
            worker.kill()
            worker.wait()


def by_oauth(secured: Secured, url: str, secret: str, **more: Any) -> Settings:
    return Settings(
        **more,
        bootstrap_servers=secured.broker.bootstrap,
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        sasl_oauth_url=url,
        sasl_oauth_client_id="driftline",
        sasl_oauth_client_secret=SecretStr(secret),
        tls_ca_file=str(secured.authority.folder / "ca.crt"),
    )


# --- rights ---------------------------------------------------------------------------------------


def test_the_loop_turns_with_exactly_the_rights_that_are_listed(guarded: Guarded) -> None:
    """Request in, prediction out, label in, accuracy out, a command carried out: each service as
    itself, commands and lifecycle signed, and a command that evaluate did not sign refused."""
    with Registry(guarded.settings("operator").registry_url) as registry:
        running = {service: guarded.start(service) for service in LOOP}
        try:
            turn(guarded, registry)
            assert ended(running) == dict.fromkeys(LOOP, 0)
        finally:
            for process in running.values():
                process.kill()
                process.wait()


def turn(guarded: Guarded, registry: Registry) -> None:
    """The loop once round, and what people look at."""

    def logs() -> str:
        return "".join(guarded.log(service) for service in LOOP)

    dice = Random(1)
    asked = {f"r{number}": traffic.some_features(dice) for number in range(200)}
    guarded.send("requests", {id_: {"features": f} for id_, f in asked.items()})
    until(lambda: len(guarded.read("predictions")) == len(asked), logs)
    guarded.send("feedback", {i: {"label": traffic.some_label(dice, f)} for i, f in asked.items()})
    until(lambda: labelled(guarded) == len(asked), logs)
    state = registry.live(traffic.SPEC.name)
    assert state is not None
    guarded.publish(ROOT, "commands", state.model, command("rollback", state.generation))
    retrain = command("retrain", state.generation)
    key = read_key(guarded.folder / "evaluate.key")
    retrain = signed(key, NAMES.topic("commands"), state.model.encode(), retrain)
    guarded.publish("evaluate", "commands", state.model, retrain)
    run = until(lambda: [r for r in registry.runs(state.model) if r.command_id], logs)[0]
    until(lambda: registry.run(run.run_id).verdict != "running", logs)  # type: ignore[union-attr]
    data = registry.run(run.run_id).data  # type: ignore[union-attr]
    assert data is not None
    assert data.labelled == len(asked)
    (letter,) = guarded.read("commands.dlq")
    assert dict(letter.record.headers)["dl_reason"] == b"bad-signature"
    problems = [
        json.loads(a.record.value or b"")["data"]["problem"] for a in guarded.read("alerts")
    ]
    assert "forged-command" in problems
    found = status.collect(guarded.settings("reader"), registry)
    assert found.models[0].accuracy is not None
    assert {lag.records for lag in found.lags} <= set(range(1_000))


def labelled(guarded: Guarded) -> int:
    """The most labels that a figure of accuracy rests on."""
    measured = [json.loads(came.record.value or b"{}")["data"] for came in guarded.read("accuracy")]
    return max((one["labelled"] for one in measured if not one.get("segment")), default=0)


def command(kind: str, generation: int, **more: object) -> bytes:
    fields = {"command_id": f"{kind}-{generation}", "kind": kind, "model": traffic.SPEC.name}
    asked = Command(**fields, generation=generation, reason="test", issued_ms=1, **more)  # type: ignore[arg-type]
    return write(
        f"driftline.command.{kind}.v1",
        asked,
        id=asked.command_id,
        source="driftline/evaluate",
        time_ms=1,
    )


def ended(running: dict[str, Popen[bytes]]) -> dict[str, int]:
    for process in running.values():
        process.send_signal(signal.SIGTERM)
    return {service: process.wait(PATIENCE_SECONDS) for service, process in running.items()}


LACKING = [
    ("score", "Read", "topic", "requests"),
    ("score", "Read", "topic", "lifecycle"),
    ("score", "Read", "group", "score"),
    ("score", "Write", "topic", "predictions"),
    ("score", "Write", "topic", "checkpoints.score"),
    ("score", "Write", "transactional-id", "score."),
    ("trainer", "Read", "topic", "commands"),
    ("trainer", "Read", "group", "trainer"),
    ("trainer", "Write", "topic", "lifecycle"),
    ("trainer", "Write", "transactional-id", "relay"),
]


@pytest.mark.parametrize(("service", "operation", "resource", "what"), LACKING)
def test_a_service_that_lacks_a_right_says_which(
    guarded: Guarded, service: str, operation: acls.Operation, resource: str, what: str
) -> None:
    """No row of the table can be spared, and whoever misses one is told what to look at."""
    named = NAMES.topic(what) if resource == "topic" else f"{PREFIX}.{what}"
    (acl,) = [
        acl._replace(operations=(operation,))
        for acl in acls.listing(NAMES)
        if (acl.service, acl.resource, acl.name) == (service, resource, named)
    ]
    with Registry(guarded.settings(ROOT).registry_url) as registry, guarded.without(acl):
        registry.republish(traffic.SPEC.name)  # something to relay
        process = guarded.start(service)
        guarded.send("requests", {"x": {"features": traffic.some_features(Random(1))}})
        try:
            until(
                lambda: "topics acls" in guarded.log(service),
                lambda: f"{guarded.log(service)}\nended: {process.poll()}",
            )
        finally:
            process.kill()
            process.wait()


ALERT_ACLS = [
    ("Read", "topic", "alerts", False),
    ("Read", "group", "alerts.", True),
    ("Write", "topic", "alerts.dlq", False),
]


def test_alerts_are_sent_on_and_laid_down_with_exactly_the_rights_that_are_listed(
    guarded: Guarded,
) -> None:
    with Receiver(answer(422), ok) as receiver:
        process = send_on(guarded, receiver)
        try:
            until(lambda: receiver.posted, lambda: guarded.log("alerts"))
            until(lambda: guarded.read("alerts.dlq"), lambda: guarded.log("alerts"))
            tell(guarded, 1)
            until(lambda: len(receiver.ids) > 1, lambda: guarded.log("alerts"))
            until(lambda: lag_of(guarded, receiver) == 0, lambda: str(receiver.ids))
        finally:
            assert ended({"alerts": process}) == {"alerts": 0}
    assert "authorization" not in guarded.log("alerts").lower()


@pytest.mark.parametrize(("operation", "resource", "what", "prefixed"), ALERT_ACLS)
def test_the_service_that_sends_alerts_on_says_which_right_it_lacks(
    guarded: Guarded, operation: acls.Operation, resource: str, what: str, prefixed: bool
) -> None:
    named = NAMES.topic(what) if resource == "topic" else NAMES.group(what)
    (acl,) = [
        acl._replace(operations=(operation,))
        for acl in acls.listing(NAMES)
        if (acl.service, acl.resource, acl.name) == ("alerts", resource, named)
    ]
    assert acl.prefixed == prefixed
    with guarded.without(acl), Receiver(answer(422)) as receiver:
        process = send_on(guarded, receiver)
        try:
            until(
                lambda: "topics acls" in guarded.log("alerts"),
                lambda: guarded.log("alerts"),
            )
        finally:
            process.kill()
            process.wait()


def test_what_is_fatal_to_a_producer_is_told_in_its_own_words(guarded: Guarded) -> None:
    """Who may write nowhere gets no id for its producer, and hears of that while it flushes."""
    (acl,) = [
        acl._replace(operations=("Write",))
        for acl in acls.listing(NAMES)
        if (acl.service, acl.name) == ("alerts", NAMES.topic("alerts.dlq"))
    ]
    with guarded.without(acl):
        until(lambda: fatal_to(guarded), lambda: "it may still write")


def fatal_to(guarded: Guarded) -> bool:
    """A moment after it is taken away, a right may still be in force."""
    with pytest.raises((KafkaException, BrokerError)) as raised:
        guarded.publish("alerts", "alerts", "a", b"which it reads, so of that topic it is told")
    return "Failed to acquire idempotence PID" in str(raised.value)


def send_on(guarded: Guarded, receiver: Receiver) -> Popen[bytes]:
    """The service with a sink that begins with all there is, of a name that nobody had."""
    sink = f'[sinks.s{receiver.port}]\nkind = "webhook"\nurl = "{receiver.url}"\n'
    (guarded.folder / "alerts.toml").write_text(sink + 'begin = "beginning"\n')
    tell(guarded, 0)
    return guarded.start("alerts")


def lag_of(guarded: Guarded, receiver: Receiver) -> int | None:
    """What waits for the sink, as `driftline status` tells whoever may read verdicts."""
    settings = guarded.settings("reader")
    with RangeReader(settings) as reader:
        told = {lag.group: lag.records for lag in status.lags(settings, reader)}
    return told[NAMES.group(f"{SINK_GROUPS}s{receiver.port}")]


def tell(guarded: Guarded, number: int) -> None:
    guarded.publish(ROOT, "alerts", f"alert-{number}", record(0, alert(number)).value or b"")


def lacks_nothing(settings: Settings, service: str) -> bool:
    """Rights are in force, and groups can be asked about, a moment after they are given."""
    try:
        return acls.lacking(settings, service) == []
    except BrokerError:
        return False


@pytest.mark.parametrize("service", acls.TABLE)
def test_doctor_says_which_rights_are_lacking(guarded: Guarded, service: str) -> None:
    """Each service has its own, as `driftline doctor --as` sees it, and not another's."""
    settings = guarded.settings(service)
    until(lambda: lacks_nothing(settings, service), lambda: service)
    other = "score" if service != "score" else "evaluate"
    lacks = {
        (lack.name, operation)
        for lack in acls.lacking(settings, other)
        for operation in lack.operations
    }
    assert (NAMES.topic(f"checkpoints.{other}"), "Write") in lacks
    assert (NAMES.group(other), "Read") in lacks


@pytest.mark.parametrize("entity", ["commands", "lifecycle", "predictions", "alerts"])
def test_a_producer_may_not_write_what_decides(guarded: Guarded, entity: str) -> None:
    """Whoever may ask for predictions may not say what is live."""
    with pytest.raises(BrokerError, match="authorization"):
        guarded.publish("producer", entity, "loans", b"{}")
