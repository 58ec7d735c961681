"""Alerts sent on: whatever a sink does, nothing is lost, and what comes twice has the same id."""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from consumers.loop import BrokerError
from consumers.sinks import courier as couriers
from consumers.sinks.configured import Sinks
from consumers.sinks.courier import Courier
from consumers.sinks.outcomes import WHY, NotTaken
from consumers.sinks.senders import Sender, build
from consumers.sinks.trying import sample
from stream.core.processor import Output
from stream.topics import HEADER_DETAIL, HEADER_REASON, HEADER_STAGE
from tests import receivers
from tests.patience import PATIENCE_SECONDS
from tests.receivers import (
    Behaviour,
    MailReceiver,
    Receiver,
    Topic,
    alert,
    answer,
    closed_port,
    distinct,
    mail_server,
    ok,
)
from tests.secured import Authority

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
QUICK = {"timeout_seconds": 60, "first_retry_seconds": 0.02, "longest_retry_seconds": 0.05}


def configured(**sink: Any) -> Any:
    return Sinks.model_validate({"sinks": {"one": {**QUICK, **sink}}}).sinks["one"]


def webhook(url: str, **more: Any) -> Sender:
    return build("one", configured(kind="webhook", url=url, **more))


def courier(sender: Sender, topic: Topic, **more: Any) -> Courier:
    lay_down: Callable[[Output], None] = more.pop("lay_down", topic.letters.append)
    return Courier(sender, lay_down, lambda: False, max_bytes=100_000, **more)


def deliver(sender: Sender, topic: Topic) -> Courier:
    """Turn until everything is dealt with."""
    one, reader = courier(sender, topic), topic.reader()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not topic.drained:
        assert time.monotonic() < deadline, one.counts
        one.turn(reader)
    return one


def failed(one: Courier) -> set[str]:
    return {name.partition(":")[2] for name in one.counts if name.startswith("failed:")}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    authority.issue("server")
    return authority.folder


def served(tls: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.crt", tls / "server.key")
    return context


def patience(why: str) -> float:
    """Seconds: short only where it is the time limit that is tested."""
    return 1 if why == "timeout" else 60


FAULTS: dict[str, tuple[Behaviour, str]] = {
    "hangs": (receivers.hang, "timeout"),
    "accepts and is mute": (receivers.mute, "timeout"),
    "answers a byte at a time": (receivers.drip, "timeout"),
    "answers half": (receivers.half, "unreachable"),
    "hangs up": (receivers.gone, "unreachable"),
    "resets": (receivers.reset, "unreachable"),
    "speaks no HTTP": (receivers.babble, "unreachable"),
    "500": (answer(500), "status"),
    "503": (answer(503, Retry_After="0"), "status"),
    "404": (answer(404), "status"),
    "401": (answer(401), "status"),
    "429": (answer(429, Retry_After="0"), "rate-limited"),
    "redirects": (answer(307, Location="http://127.0.0.1:1/"), "redirect"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_webhook_that_fails_and_recovers_gets_every_alert(fault: str) -> None:
    behaviour, why = FAULTS[fault]
    topic = Topic()
    topic.add(*(alert(number) for number in range(4)))
    with Receiver(behaviour, behaviour, ok, behaviour, ok) as receiver:
        one = deliver(webhook(receiver.url, timeout_seconds=patience(why)), topic)
    assert failed(one) == {why}
    assert sorted(distinct(receiver.ids)) == [f"alert-{n}-0" for n in range(4)]
    assert one.counts["delivered"] == 4
    assert not topic.letters


def test_a_refused_connection_and_a_name_that_nobody_has_are_tried_again() -> None:
    for host in ("127.0.0.1", "nobody.invalid"):
        topic = Topic()
        topic.add(alert())
        with closed_port() as port:
            sender = webhook(f"http://{host}:{port}/", plain_http=True, retry_for_seconds=2)
            one = deliver(sender, topic)
        assert failed(one) <= {"unreachable", "timeout"}
        assert one.counts["retried"] > 0
        [letter] = topic.letters
        assert dict(letter.headers)[HEADER_REASON] == b"undeliverable"


def test_an_answer_without_end_is_an_answer() -> None:
    """A success is read as far as 64 KiB."""
    topic = Topic()
    topic.add(alert())
    with Receiver(receivers.endless) as receiver:
        assert deliver(webhook(receiver.url), topic).counts["delivered"] == 1


def test_a_certificate_that_is_not_trusted_is_no_delivery(tls: Path) -> None:
    """And with its authority named it is."""
    topic = Topic()
    topic.add(alert())
    with Receiver(ok, tls=served(tls)) as receiver:
        with pytest.raises(NotTaken, match="tls"):
            webhook(receiver.url).attempt(sample("one", None, resolved=False), lambda: False)
        assert not receiver.posted
        deliver(webhook(receiver.url, ca_file=str(tls / "ca.crt")), topic)
    assert receiver.ids == ["alert-0-0"]


def test_redirects_are_not_followed() -> None:
    """The alert and its headers go to the host that was configured, and to no other."""
    with Receiver(ok) as other, Receiver(answer(302, Location=other.url)) as receiver:
        with pytest.raises(NotTaken, match="redirect"):
            webhook(receiver.url).attempt(sample("one", None, resolved=False), lambda: False)
        assert len(receiver.posted) == 1
    assert not other.connections


def test_what_is_refused_for_good_is_a_dead_letter_at_once_and_holds_up_nothing() -> None:
    topic = Topic()
    topic.add(alert(0), alert(1))
    with Receiver(answer(422, b"no such model"), ok) as receiver:
        one = deliver(webhook(receiver.url), topic)
    assert receiver.ids == ["alert-0-0", "alert-1-0"]
    assert one.counts["retried"] == 0
    [letter] = topic.letters
    headers = dict(letter.headers)
    assert letter.entity == "alerts.dlq"
    assert (letter.key, letter.value) == (b"alert-0", topic.records[0].value)
    assert headers[HEADER_STAGE] == b"alerts/one"
    assert headers[HEADER_DETAIL] == b"rejected: status 422: no such model (attempts: 1)"


def test_after_the_last_try_an_alert_is_a_dead_letter_and_only_then_committed() -> None:
    topic = Topic()
    topic.add(alert())
    away, refused = [True], list[Output]()

    def lay_down(letter: Output) -> None:
        if away[0]:
            refused.append(letter)
            raise BrokerError("away")
        topic.letters.append(letter)

    with Receiver(answer(500)) as receiver:
        one = courier(webhook(receiver.url, retry_for_seconds=0.2), topic, lay_down=lay_down)
        reader = topic.reader()
        while not refused:
            one.turn(reader)
        assert topic.committed == 0
        assert one.waiting == 1
        away[0] = False
        while not topic.drained:
            one.turn(reader)
    assert one.counts["dead-lettered"] == len(topic.letters) == 1
    assert len(distinct(receiver.ids)) == 1


def test_retry_after_is_honoured_for_the_whole_sink() -> None:
    """In seconds or as a date; also by alerts that were not tried yet."""
    topic = Topic()
    topic.add(alert(0), alert(1))
    with Receiver(answer(429, Retry_After="3"), ok) as receiver:
        deliver(webhook(receiver.url), topic)
    first, second, third = (posted.at for posted in receiver.posted)
    assert second - first >= 3.0
    assert third - second < 3.0


def test_no_retry_after_keeps_a_sink_waiting_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "LONGEST_PAUSE_SECONDS", 0.1)
    topic = Topic()
    topic.add(alert())
    with Receiver(answer(503, Retry_After="99999999"), ok) as receiver:
        deliver(webhook(receiver.url), topic)


def test_pauses_double_up_to_the_longest_and_are_spread_by_chance() -> None:
    sender = webhook("http://127.0.0.1:1/", first_retry_seconds=1, longest_retry_seconds=10)
    for jitter, share in ((0.0, 0.5), (1.0, 1.0)):
        one = courier(sender, Topic(), jitter=lambda j=jitter: j)
        pauses = [one._backoff(attempts) for attempts in (1, 2, 3, 4, 5, 500)]
        assert pauses == [share * seconds for seconds in (1, 2, 4, 8, 10, 10)]


def test_events_of_one_alert_keep_their_order_and_others_pass() -> None:
    """A resolution never comes before what it resolves."""
    topic = Topic()
    topic.add(alert(0), alert(0, state="resolved", revision=1, resolved_ms=1), alert(1))
    with Receiver(answer(500), ok) as receiver:
        deliver(webhook(receiver.url, first_retry_seconds=0.3), topic)
    assert receiver.ids == ["alert-0-0", "alert-1-0", "alert-0-0", "alert-0-1"]


def test_what_waits_is_bounded_and_nothing_of_the_rest_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(couriers, "MOST_WAITING", 5)
    topic = Topic()
    topic.add(*(alert(number) for number in range(40)))
    most = 0
    with Receiver(answer(500)) as receiver:
        one, reader = courier(webhook(receiver.url), topic), topic.reader()
        for _ in range(60):
            one.turn(reader)
            most = max(most, one.waiting)
        assert (most, topic.committed, reader.held) == (5, 0, True)
        assert one.waiting_seconds > 0
        receiver.behaviours = [ok]
        while not topic.drained:
            one.turn(reader)
    assert set(receiver.ids) == {f"alert-{n}-0" for n in range(40)}


def test_whoever_dies_between_delivery_and_commit_delivers_again_with_the_same_id() -> None:
    topic = Topic()
    topic.add(alert(0), alert(1))
    with Receiver(ok) as receiver:
        for _ in range(2):
            one, reader = courier(webhook(receiver.url), topic), topic.reader()
            reader.commit = lambda: None  # type: ignore[method-assign]
            one.turn(reader)
            one.turn(reader)
        deliver(webhook(receiver.url), topic)
    assert receiver.ids == ["alert-0-0", "alert-1-0"] * 3
    assert len({posted.body for posted in receiver.posted}) == 2


def test_an_event_that_is_on_the_topic_twice_is_delivered_once() -> None:
    topic = Topic()
    topic.add(alert(0), alert(0), alert(1), alert(0))
    with Receiver(ok) as receiver:
        one = deliver(webhook(receiver.url), topic)
    assert receiver.ids == ["alert-0-0", "alert-1-0"]
    assert one.counts["skipped:duplicate"] == 2


def test_what_is_no_alert_is_a_dead_letter() -> None:
    topic = Topic()
    topic.add(alert(0), alert(1))
    topic.records[0] = topic.records[0]._replace(value=b"{")
    with Receiver(ok) as receiver:
        deliver(webhook(receiver.url), topic)
    assert receiver.ids == ["alert-1-0"]
    assert [dict(letter.headers)[HEADER_REASON] for letter in topic.letters] == [b"bad-json"]


def test_a_partition_that_goes_away_takes_its_alerts_along_and_brings_them_back() -> None:
    """Its next owner is given them; should that be us, what they are is made out anew."""
    topic = Topic()
    topic.add(alert())
    with Receiver(answer(500), ok) as receiver:
        one, reader = courier(webhook(receiver.url), topic), topic.reader()
        one.turn(reader)
        one.lose(0)
        assert one.waiting == 0
        again = topic.reader()
        while not topic.drained:
            one.turn(again)
    assert receiver.ids == ["alert-0-0", "alert-0-0"]


def test_filters_choose_by_event_severity_problem_and_model() -> None:
    topic = Topic()
    topic.add(
        alert(0),
        alert(1, severity="info", problem="drift"),
        alert(2, model="fraud-eu"),
        alert(3, problem="bad-artefact:7"),
        alert(0, revision=1),  # more evidence
        alert(0, revision=2, state="acknowledged", handled_by="ann"),
        alert(0, revision=3, state="acknowledged", handled_by="ann"),  # more evidence
        alert(0, revision=4, state="snoozed", handled_by="ann", snoozed_until_ms=1),
        alert(0, revision=5),  # the snooze is over
        alert(0, revision=6, state="resolved", resolved_ms=1),
        alert(0, revision=7, reopened=1),
        alert(0, revision=8, reopened=1),
    )
    expected = {
        (("opened", "resolved"), ("critical",), ("harm",), ("churn",)): [
            *("alert-0-0", "alert-0-5", "alert-0-6", "alert-0-7"),
        ],
        (("acknowledged",), ("critical",), ("*",), ("*",)): ["alert-0-2"],
        (("snoozed",), ("critical",), ("*",), ("*",)): ["alert-0-4"],
        (("updated",), ("critical",), ("*",), ("*",)): ["alert-0-1", "alert-0-3", "alert-0-8"],
        (("opened",), ("info", "critical"), ("drift", "bad-*"), ("*",)): ["alert-1-0", "alert-3-0"],
        (("opened",), ("critical",), ("*",), ("fraud-*",)): ["alert-2-0"],
    }
    for (events, severities, problems, models), ids in expected.items():
        topic.committed = 0
        filters = {"events": events, "severities": severities}
        filters |= {"problems": problems, "models": models}
        with Receiver(ok) as receiver:
            one = deliver(webhook(receiver.url, **filters), topic)
        assert receiver.ids == ids
        assert one.counts["skipped:filtered"] == len(topic.records) - len(ids)


# --- what is sent -------------------------------------------------------------------------------


def verified(key: bytes, posted: receivers.Posted) -> bool:
    """As a receiver checks it: written from the standard, not from our code."""
    headers = posted.headers
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + posted.body
    wanted = base64.b64encode(hmac.new(key, content, "sha256").digest()).decode()
    given = [one.partition(",") for one in headers["webhook-signature"].split(" ")]
    return any(v == "v1" and hmac.compare_digest(s, wanted) for v, _, s in given)


def test_a_webhook_is_signed_with_its_time_by_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    new = base64.b64encode(b"n" * 24).decode()
    monkeypatch.setenv("OLD", SECRET)
    monkeypatch.setenv("NEW", f"whsec_{new}")
    monkeypatch.setenv("TOKEN", "Bearer hush")
    topic = Topic()
    topic.add(alert())
    with Receiver(ok) as receiver:
        signing = [{"env": "OLD"}, {"env": "NEW"}]
        headers = {"Authorization": {"env": "TOKEN"}}
        deliver(webhook(receiver.url, signing=signing, headers=headers), topic)
    [posted] = receiver.posted
    assert posted.line == "POST /hook HTTP/1.1"
    assert posted.headers["authorization"] == "Bearer hush"
    assert posted.headers["idempotency-key"] == posted.headers["webhook-id"] == "alert-0-0"
    assert abs(int(posted.headers["webhook-timestamp"]) - time.time()) < PATIENCE_SECONDS
    assert verified(b"k" * 32, posted)
    assert verified(b"n" * 24, posted)
    assert not verified(b"x" * 32, posted)
    posted.headers["webhook-timestamp"] = str(int(posted.headers["webhook-timestamp"]) - 1)
    assert not verified(b"k" * 32, posted)
    event = posted.json
    assert posted.headers["content-type"] == "application/cloudevents+json"
    assert (event["id"], event["type"]) == ("alert-0-0", "driftline.alert.opened.v1")
    assert event["data"]["sentence"] == alert().sentence


HOSTILE = '"}], "x": <!channel> & \\ \u2028\x1b[31m\r\nBcc: all@example.org ${sentence}'


def test_a_template_escapes_what_comes_from_kafka() -> None:
    topic = Topic()
    topic.add(alert(model=HOSTILE[:100], sentence=HOSTILE))
    with Receiver(ok) as receiver:
        body = '{"text": "$sentence on $model costs $$1", "who": ["$severity"]}'
        deliver(webhook(receiver.url, body=body), topic)
    assert receiver.posted[0].json == {
        "text": f"{HOSTILE} on {HOSTILE[:100]} costs $1",
        "who": ["critical"],
    }


@pytest.mark.parametrize(
    "template",
    ['{"a": "${sentence.__class__}"}', '{"a": "$secret"}', '{"a": $sentence}', '{"a": "5 $"}'],
)
def test_a_template_that_is_wrong_is_refused_when_it_is_read(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        configured(kind="webhook", url="https://example.org", body=template)


def test_slack_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing from Kafka pings a channel or makes a link."""
    topic = Topic()
    topic.add(alert(sentence=HOSTILE, state="acknowledged", handled_by="ann", note="on it"))
    with Receiver(ok) as receiver:
        monkeypatch.setenv("SLACK", receiver.url)
        sender = build("one", configured(kind="slack", url={"env": "SLACK"}))
        one = courier(sender, topic, console_url="https://d.example/")
        one.turn(topic.reader())
    text = receiver.posted[0].json["text"]
    assert text.startswith("*[critical] churn v3: harm acknowledged*\n")
    assert "&lt;!channel&gt; &amp;" in text
    assert "<" not in text
    assert "\x1b" not in text
    assert text.endswith(
        "performance harmed, since 2023-11-14T22:13:20Z, acknowledged by ann: on it\n"
        "https://d.example/models/churn"
    )


def test_pagerduty_opens_and_closes_one_incident(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the alert's id: what resolves it carries the same key."""
    topic = Topic()
    topic.add(
        alert(sentence="s" * 5000),
        alert(state="acknowledged", revision=1, handled_by="ann"),
        alert(state="resolved", revision=2, resolved_ms=1),
    )
    monkeypatch.setenv("KEY", "routing")
    with Receiver(answer(202)) as receiver:
        sink = {"kind": "pagerduty", "url": receiver.url, "routing_key": {"env": "KEY"}}
        deliver(build("one", configured(**sink)), topic)
    events = [posted.json for posted in receiver.posted]
    assert [event["event_action"] for event in events] == ["trigger", "acknowledge", "resolve"]
    assert {(event["routing_key"], event["dedup_key"]) for event in events} == {
        ("routing", "alert-0")
    }
    payload = events[0]["payload"]
    assert (payload["severity"], payload["component"], payload["class"]) == (
        *("critical", "churn", "harm"),
    )
    assert len(payload["summary"]) == 1024


# --- secrets ------------------------------------------------------------------------------------


def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    from consumers.sinks.configured import load
    from stream.errors import ConfigurationError

    file = tmp_path / "alerts.toml"
    file.write_text('[sinks.a]\nkind = "slack"\nurl = "https://hooks.example/hush"\n')
    with pytest.raises(ConfigurationError, match=r"sinks\.a\.url: secrets do not stand here") as it:
        load(file)
    assert "hush" not in str(it.value)


def test_no_secret_is_in_what_is_told_of_a_failure(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even where the other side sends it back."""
    topic = Topic()
    topic.add(alert())

    def echo(receiver: Receiver, connection: Any) -> None:
        posted = receiver.take(connection)
        body = f"{posted.line} {posted.headers['authorization']}".encode()
        head = f"HTTP/1.1 422 So\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body)

    with Receiver(echo) as receiver:
        monkeypatch.setenv("URL", f"{receiver.url}?token=hush-1")
        monkeypatch.setenv("TOKEN", "hush-2")
        headers = {"Authorization": {"env": "TOKEN"}}
        sender = build("one", configured(kind="webhook", url={"env": "URL"}, headers=headers))
        deliver(sender, topic)
    detail = dict(topic.letters[0].headers)[HEADER_DETAIL] or b""
    assert b"status 422" in detail
    said = capfd.readouterr()
    for text in (detail.decode(), said.out, said.err, repr(sender.sink)):
        assert "hush-2" not in text
        assert "hush-1" not in text


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        ({"kind": "webhook", "url": "http://example.org/"}, "plain_http"),
        ({"kind": "webhook", "url": "file:///etc/passwd"}, "https"),
        ({"kind": "slack", "url": {"env": "NOT_THERE"}}, "NOT_THERE should hold a secret"),
        ({"kind": "slack", "url": {"file": "/not/there"}}, "/not/there should hold a secret"),
        ({"kind": "webhook", "url": "https://a.b", "signing": [{"env": "SHORT"}]}, "whsec_"),
    ],
)
def test_a_sink_that_cannot_work_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, sink: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("SHORT", "whsec_aHVzaA==")
    with pytest.raises(Exception, match=said) as it:
        build("one", configured(**sink))
    assert "sinks.one" in str(it.value)
    assert "aHVzaA" not in str(it.value)


@pytest.mark.parametrize(
    "sink",
    [
        {"kind": "pigeon"},
        {"kind": "webhook", "url": "https://a.b", "colour": "red"},
        {"kind": "email", "host": "a.b", "sender": "a@b", "to": ["a@b"], "tls": "none"},
        {"kind": "email", "host": "a.b", "sender": "a@b", "to": ["a@b"], "username": "ann"},
        {"kind": "command", "argv": []},
        {"kind": "slack", "url": {"env": "A", "file": "b"}},
    ],
)
def test_what_makes_no_sense_is_no_configuration(sink: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        configured(**sink)


# --- email --------------------------------------------------------------------------------------


def mailer(receiver: Receiver, **more: Any) -> Sender:
    sink = {
        "kind": "email",
        "host": "localhost",
        "port": receiver.port,
        "sender": "Driftline <driftline@example.org>",
        "to": ["ann@example.org", "bob@example.org"],
        **more,
    }
    return build("one", configured(**sink))


def test_a_mail_goes_by_starttls_with_a_login(tls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "hush")
    topic = Topic()
    topic.add(alert(model="a\r\nBcc: x@y", sentence=HOSTILE))
    login = {"username": "ann", "password": {"env": "PASSWORD"}, "ca_file": str(tls / "ca.crt")}
    with MailReceiver(mail_server(), tls=served(tls)) as receiver:
        deliver(mailer(receiver, **login), topic)
    words = [said.split(" ")[0] for said in receiver.talk]
    assert words.index("STARTTLS") < words.index("AUTH") < words.index("MAIL")
    mail = message_from_bytes(receiver.posted[0].body, policy=policy.default)
    assert mail["Subject"] == "[critical] a??Bcc: x@y v3: harm opened"
    assert mail["Bcc"] is None
    assert mail["To"] == "ann@example.org, bob@example.org"
    assert mail["Message-ID"] == "<alert-0-0@driftline.invalid>"
    assert "Bcc: all@example.org" in mail.get_content()
    assert not any("hush" in said for said in receiver.talk)


MAIL_FAULTS: dict[str, tuple[Behaviour, str]] = {
    "is mute": (receivers.mute, "timeout"),
    "offers no STARTTLS": (mail_server(starttls=False), "tls"),
    "takes STARTTLS back": (mail_server(replies={"STARTTLS": "454 not now"}), "status"),
    "is busy": (mail_server(replies={"HELLO": "421 busy"}), "status"),
    "greylists": (mail_server(replies={"RCPT": "451 later"}), "status"),
    "is full": (mail_server(replies={".": "452 full"}), "status"),
    "is silent after DATA": (mail_server(silent_at="DATA"), "timeout"),
    "hangs up": (receivers.reset, "unreachable"),
}


@pytest.mark.parametrize("fault", MAIL_FAULTS)
def test_a_mail_server_that_fails_and_recovers_gets_every_alert(fault: str, tls: Path) -> None:
    behaviour, why = MAIL_FAULTS[fault]
    topic = Topic()
    topic.add(alert(0), alert(1))
    with MailReceiver(behaviour, mail_server(), tls=served(tls)) as receiver:
        sender = mailer(receiver, ca_file=str(tls / "ca.crt"), timeout_seconds=patience(why))
        one = deliver(sender, topic)
    assert failed(one) == {why}
    ids = re.findall(rb"Message-ID: <(\S+)@", b"".join(mail.body for mail in receiver.posted))
    assert set(ids) == {b"alert-0-0", b"alert-1-0"}
    assert not topic.letters


@pytest.mark.parametrize(("word", "reply"), [("RCPT", "550 nobody"), (".", "554 spam")])
def test_a_mail_that_is_refused_for_good_is_a_dead_letter(word: str, reply: str, tls: Path) -> None:
    topic = Topic()
    topic.add(alert())
    with MailReceiver(mail_server(replies={word: reply}), tls=served(tls)) as receiver:
        deliver(mailer(receiver, ca_file=str(tls / "ca.crt")), topic)
    detail = dict(topic.letters[0].headers)[HEADER_DETAIL] or b""
    assert reply.encode() in detail
    assert detail.startswith(b"rejected: ")


def test_a_mail_that_was_taken_is_delivered_whatever_the_server_does_then(tls: Path) -> None:
    topic = Topic()
    topic.add(alert())
    with MailReceiver(mail_server(silent_at="QUIT"), tls=served(tls)) as receiver:
        sender = mailer(receiver, ca_file=str(tls / "ca.crt"), timeout_seconds=5)
        one = deliver(sender, topic)
    assert (one.counts["delivered"], len(receiver.posted)) == (1, 1)


def test_a_wrong_password_is_tried_again_and_said(
    tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "hush")
    topic = Topic()
    topic.add(alert())
    login = {"username": "ann", "password": {"env": "PASSWORD"}, "ca_file": str(tls / "ca.crt")}
    wrong = mail_server(replies={"AUTH": "535 hush is wrong"})
    with MailReceiver(wrong, wrong, mail_server(), tls=served(tls)) as receiver:
        assert failed(deliver(mailer(receiver, **login), topic)) == {"login"}
    assert len(receiver.posted) == 1


def test_a_mail_server_of_another_authority_is_not_trusted(tls: Path) -> None:
    with (
        MailReceiver(mail_server(), tls=served(tls)) as receiver,
        pytest.raises(NotTaken, match="tls"),
    ):
        mailer(receiver).attempt(sample("one", None, resolved=False), lambda: False)
    assert not receiver.posted


# --- a command ----------------------------------------------------------------------------------


def program(text: str, **more: Any) -> Sender:
    return build("one", configured(kind="command", argv=[sys.executable, "-c", text], **more))


def test_a_command_gets_the_alert_on_its_standard_input_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_SASL_PASSWORD", "hush")
    monkeypatch.setenv("WANTED", "yes")
    out = tmp_path / "out.json"
    text = f"""
import json, os, sys
json.dump([json.load(sys.stdin), dict(os.environ)], open({str(out)!r}, "w"))
"""
    topic = Topic()
    topic.add(alert(sentence="; rm -rf / $(id)"))
    deliver(program(text, timeout_seconds=10, environment=["WANTED"]), topic)
    event, environment = json.loads(out.read_text())
    assert event["data"]["sentence"] == "; rm -rf / $(id)"
    assert environment["DRIFTLINE_ALERT_EVENT_ID"] == event["id"] == "alert-0-0"
    assert environment["WANTED"] == "yes"
    assert "DRIFTLINE_SASL_PASSWORD" not in environment


def test_a_command_that_fails_or_hangs_is_run_again_with_the_same_alert(tmp_path: Path) -> None:
    """And whatever it started ends with it."""
    out = tmp_path / "runs"
    text = f"""
import os, subprocess, sys, time
given = sys.stdin.read()
with open({str(out)!r}, "a") as runs:
    runs.write(os.environ["DRIFTLINE_ALERT_EVENT_ID"] + chr(10))
count = len(open({str(out)!r}).readlines())
if count == 1:
    sys.exit("no disk")
if count == 2:
    child = subprocess.Popen(["sleep", "600"])
    open({str(out) + ".pid"!r}, "w").write(str(child.pid))
    time.sleep(600)
"""
    topic = Topic()
    topic.add(alert())
    one = deliver(program(text, timeout_seconds=8), topic)
    assert failed(one) == {"command", "timeout"}
    assert out.read_text().split() == ["alert-0-0"] * 3
    pid = int(Path(f"{out}.pid").read_text())
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _runs(pid):
        assert time.monotonic() < deadline, "a child outlived its command"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_command_may_talk_without_end_and_need_not_listen() -> None:
    topic = Topic()
    topic.add(alert(sentence="s" * 500_000))
    one = Courier(
        program("import sys\nsys.stderr.write('x' * 5_000_000)", timeout_seconds=10),
        topic.letters.append,
        lambda: False,
        max_bytes=10_000_000,
    )
    reader = topic.reader()
    while not topic.drained:
        one.turn(reader)
    assert one.counts["delivered"] == 1


def test_a_command_that_is_not_there_is_said() -> None:
    sender = build("one", configured(kind="command", argv=["/not/there"]))
    with pytest.raises(NotTaken, match=r"/not/there: No such file"):
        sender.attempt(sample("one", None, resolved=False), lambda: False)


def test_every_reason_has_a_name() -> None:
    """They are labels of a metric, so there is a closed list of them."""
    told = {why for _, why in (*FAULTS.values(), *MAIL_FAULTS.values())}
    used = set()
    for path in (Path(__file__).parents[1] / "consumers" / "sinks").glob("*.py"):
        used |= set(re.findall(r'NotTaken\(\s*"([\w-]+)"', path.read_text()))
    assert told | used <= WHY


def test_an_attempt_is_given_up_when_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as no failure of the sink, and its alert comes again."""
    from consumers.sinks import senders

    monkeypatch.setattr(senders, "GRACE_SECONDS", 0.2)
    topic = Topic()
    topic.add(alert())
    ending = [False]
    with Receiver(receivers.hang) as receiver:
        sender = webhook(receiver.url, timeout_seconds=60)
        one = Courier(sender, topic.letters.append, lambda: ending[0], max_bytes=10_000)
        ending[0] = True
        begun = time.monotonic()
        one.turn(topic.reader())
    assert time.monotonic() - begun < 30
    assert topic.committed == 0
    assert not failed(one)


@pytest.fixture(autouse=True)
def _no_proxy() -> Iterator[None]:
    """Proxies of this machine are none of a test's business; nor are they used without a word."""
    os.environ["HTTP_PROXY"] = "http://127.0.0.1:1"
    yield
    del os.environ["HTTP_PROXY"]
