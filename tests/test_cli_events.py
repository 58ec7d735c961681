"""Commands that read and write Kafka, on the embedded broker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from msgspec import Struct

from consumers import relay
from consumers.commands import health
from consumers.demo.embedded import EmbeddedBroker
from consumers.loop import RangeReader
from consumers.producing import Publisher
from models.registry import Registry
from models.spec import read_spec
from stream.core.deadletters import dead_letter
from stream.core.partitioning import partition_of
from stream.core.processor import Record
from stream.envelope import open_record, read, write
from stream.errors import Refused
from stream.events import (
    Alert,
    AlertHandled,
    Command,
    FeedbackReceived,
    GenerationAdopted,
    PredictionMade,
    PredictionRequested,
    ProgressReported,
    RetrainHeld,
)
from stream.settings import Settings
from tests.commands import SPEC, registry_here, run, settle_in
from tests.labelled import example, together
from tests.patience import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The embedded broker, with every topic."""
    settle_in(tmp_path, monkeypatch)
    monkeypatch.setattr(relay, "PROBE_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(health, "ANSWER_SECONDS", PATIENCE_SECONDS)
    broker = EmbeddedBroker()
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    monkeypatch.setenv("DRIFTLINE_EMBEDDED_BROKER", "true")
    settings = Settings()
    broker.touch(settings.names)
    yield settings
    del broker


@pytest.fixture
def registry(kafka: Settings) -> Iterator[Registry]:
    with registry_here() as opened:
        yield opened


def values(settings: Settings, entity: str) -> list[Record]:
    with RangeReader(settings) as reader:
        return [came.record for came in reader.read(entity, reader.bounds(entity))]


@pytest.fixture
def model(registry: Registry) -> Registry:
    registry.add_model(read_spec(SPEC.replace("churn", "loans"), toml=True), who="test")
    return registry


def test_requests_from_a_csv_file_are_keyed_typed_and_the_same_each_time(
    model: Registry, kafka: Settings
) -> None:
    Path("today.csv").write_text("prediction_id,time,age,plan\np1,1700000000000,41,7\np2,,,b\n")
    for _ in range(2):
        result = run("publish", "requests", "today.csv", "--model", "loans")
        assert result.exit_code == 0, result.output
    records = {record.key: record for record in values(kafka, "requests")}
    opened = open_record("requests", records[b"p1"], max_bytes=10_000)
    data = read(opened, PredictionRequested)
    assert (data.features, opened.time_ms) == ({"age": 41.0, "plan": "7"}, 1_700_000_000_000)
    missing = read(open_record("requests", records[b"p2"], max_bytes=10_000), PredictionRequested)
    assert missing.features == {"age": None, "plan": "b"}
    assert (
        len({open_record("requests", r, max_bytes=10_000).id for r in values(kafka, "requests")})
        == 2
    )


def test_predictions_and_feedback_from_json_lines(model: Registry, kafka: Settings) -> None:
    Path("p.jsonl").write_text(
        '{"prediction_id": "p1", "version": 3, "output": 0.25, '
        '"features": {"age": 1, "plan": null}}\n'
    )
    Path("f.jsonl").write_text('{"prediction_id": "p1", "label": "yes"}\n')
    assert run("publish", "predictions", "p.jsonl", "--model", "loans").exit_code == 0
    assert run("publish", "feedback", "f.jsonl", "--model", "loans").exit_code == 0
    (made,) = values(kafka, "predictions")
    prediction = read(open_record("predictions", made, max_bytes=10_000), PredictionMade)
    assert (prediction.version, prediction.output) == (3, 0.25)
    (told,) = values(kafka, "feedback")
    assert read(open_record("feedback", told, max_bytes=10_000), FeedbackReceived).label == "yes"
    Path("f.jsonl").write_text('{"prediction_id": "p1"}\n')
    result = run("publish", "feedback", "f.jsonl", "--model", "loans")
    assert (result.exit_code, "f.jsonl:1: the label is missing" in result.stderr) == (2, True)


def test_tail_prints_what_lies_there_as_lines_or_json(kafka: Settings) -> None:
    send_alert(kafka, "open")
    text = run("tail", "alerts", "--no-follow")
    assert "churn open critical does worse" in text.stdout.replace("severity=", "").replace(
        "verdict=performance harmed ", ""
    )
    whole = json.loads(run("tail", "alerts", "--no-follow", "--json").stdout)
    assert (whole["data"]["alert_id"], whole["offset"]) == ("a1", 0)
    assert run("tail", "alerts", "--no-follow", "--model", "other").stdout == ""
    followed = shown("tail", "alerts", "--beginning", "--seconds", "1", "--json")
    assert json.loads(followed)["data"]["alert_id"] == "a1"


def shown(*arguments: str) -> str:
    """What it printed, as soon as its seconds were enough to print anything."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (text := run(*arguments).stdout):
        assert time.monotonic() < deadline
    return text


def test_tail_prints_each_of_the_examples_that_share_a_record(kafka: Settings) -> None:
    told = together(example("a"), example("b", label="no"))
    say(kafka, "examples", "driftline.example.labelled.v2", told)

    text = run("tail", "examples", "--no-follow").stdout.splitlines()
    assert [line.split("  ")[-1].strip() for line in text] == [
        *("churn version=1 a label=yes", "churn version=1 b label=no"),
    ]
    whole = run("tail", "examples", "--no-follow", "--json").stdout
    assert json.loads(whole)["data"]["prediction_ids"] == ["a", "b"]


def send_alert(settings: Settings, state: str, revision: int = 0) -> None:
    alert = Alert(
        alert_id="a1",
        model="churn",
        problem="harm",
        verdict="performance harmed",
        state=state,  # type: ignore[arg-type]
        severity="critical",
        sentence="does worse",
        opened_ms=1,
        updated_ms=1,
        revision=revision,
    )
    kind = "driftline.alert.opened.v1" if state == "open" else "driftline.alert.resolved.v1"
    publisher = Publisher(settings)
    publisher.send("alerts", b"a1", write(kind, alert, id="e", source="test", time_ms=1))
    publisher.flush()


def test_status_fails_its_check_while_an_alert_is_open(registry: Registry, kafka: Settings) -> None:
    relay.Relay(registry, kafka).pump()
    assert run("status", "--check").exit_code == 0
    send_alert(kafka, "open")
    result = run("status", "--check")
    assert (result.exit_code, "breach: churn: does worse" in result.stderr) == (3, True)
    assert json.loads(run("status", "--json").stdout)["breaches"] == ["churn: does worse"]
    send_alert(kafka, "resolved", revision=1)
    assert run("status", "--check").exit_code == 0


def test_status_and_tail_say_why_nothing_was_done(registry: Registry, kafka: Settings) -> None:
    """While the alert is open and no retrain was commanded since; tail tells decisions apart."""
    live = registry.live("churn")
    assert live is not None
    send_alert(kafka, "open")
    fixed: dict[str, Any] = {"model": "churn", "generation": live.generation, "reason": "spent"}
    held = RetrainHeld(
        **fixed, version=1, cause="harm", asked="does worse", held_ms=5, alert_id="a1"
    )
    adopted = GenerationAdopted(
        model="churn", generation=live.generation, partition=0, offset=7, closed_ms=1
    )
    say(kafka, "decisions", "driftline.retrain.held.v1", held)
    say(kafka, "decisions", "driftline.generation.adopted.v1", adopted)

    assert "does worse; retrain held back: spent" in run("status").stdout
    told = run("tail", "decisions", "--no-follow").stdout.splitlines()
    assert [line.split("  ")[-1].split(" churn")[0].strip() for line in told] == [
        *("retrain held:", "generation adopted:"),
    ]
    issued = Command(command_id="c", kind="retrain", issued_ms=6, alert_id="a1", **fixed)
    say(kafka, "commands", "driftline.command.retrain.v1", issued)
    assert "held back" not in run("status").stdout


def test_tail_refuses_a_time_that_is_none() -> None:
    for wrong in ("yesterday", "10x"):
        assert run("tail", "alerts", "--since", wrong, "--no-follow").exit_code == 2
    assert run("tail", "alerts", "--seconds", "-1").exit_code == 2


def say(settings: Settings, entity: str, kind: str, event: Struct) -> None:
    publisher = Publisher(settings)
    publisher.send(entity, b"churn", write(kind, event, id=kind, source="test", time_ms=1))
    publisher.flush()


def test_dead_letters_are_listed_shown_and_sent_again_as_they_were(kafka: Settings) -> None:
    headers = (("traceparent", b"t"), ("raw", b"\xff"))
    record = Record(17, 5, b"key\x00", b"\xffvalue", headers)
    letter = dead_letter("requests", record, Refused("bad-json", "not\x1b JSON"), "score", 2)
    publisher = Publisher(kafka)
    publisher.send(letter.entity, letter.key, letter.value, headers=letter.headers)
    publisher.flush()
    listed = run("dlq", "list")
    assert "requests: 1 bad-json" in listed.stderr
    assert "\x1b" not in listed.stdout
    (plain,) = json.loads(run("dlq", "list", "requests", "--json").stdout)
    assert plain["origin"] == "2/17"
    shown = run("dlq", "show", "requests", *plain["place"].values())
    assert "bad-json" in shown.stdout
    assert run("dlq", "show", "requests", 0, 99).exit_code == 2
    assert run("dlq", "replay", "requests").exit_code == 2
    assert run("dlq", "replay", "requests", "--reason", "other", "--yes").exit_code == 0
    assert values(kafka, "requests") == []
    assert run("dlq", "replay", "requests", "--yes").exit_code == 0
    (again,) = values(kafka, "requests")
    assert (again.key, again.value, again.headers) == (b"key\x00", b"\xffvalue", headers)


def bridged(kafka: Settings, offset: int, **headers: bytes) -> None:
    """A dead letter of the bridge, as it lies among those of `predictions`."""
    record = Record(offset, 1_700_000_000_000, b"r1", b"\x00\x00\x00\x00\x07avro", (("x", b"1"),))
    letter = dead_letter("predictions", record, Refused("bad-schema", "no 7"), "bridge", 2)
    publisher = Publisher(kafka)
    ours = (*letter.headers, *headers.items())
    publisher.send(letter.entity, letter.key, letter.value, headers=ours)
    publisher.flush()


def test_what_the_bridge_refused_goes_back_where_it_read_it(kafka: Settings) -> None:
    """To its topic and partition, bytes, headers and time as they were; none of it to ours."""
    source = f"{kafka.topic_prefix}-acme.scores"
    bridged(kafka, 3, dl_source=source.encode())
    result = run("dlq", "replay", "predictions", "--yes")
    assert result.exit_code == 0
    assert f"1 records to {source}" in result.stderr
    assert values(kafka, "predictions") == []
    consumer = Consumer(kafka.client(**{"group.id": "test", "auto.offset.reset": "earliest"}))
    consumer.assign([TopicPartition(source, 2, 0)])
    again = consumer.poll(20)
    consumer.close()
    assert again is not None
    assert (again.key(), again.value()) == (b"r1", b"\x00\x00\x00\x00\x07avro")
    assert again.headers() == [("x", b"1")]
    assert again.timestamp()[1] == 1_700_000_000_000


@pytest.mark.parametrize("source", [None, "commands", "lifecycle"])
def test_without_a_way_back_nothing_is_sent(kafka: Settings, source: str | None) -> None:
    """No source is named; or it is a topic of ours, by a forged header: then none is written."""
    told = {} if source is None else {"dl_source": kafka.names.topic(source).encode()}
    bridged(kafka, 3, dl_source=b"theirs")
    bridged(kafka, 4, **told)
    result = run("dlq", "replay", "predictions", "--yes")
    assert result.exit_code == 2
    assert ("does not say which topic" if source is None else "our own") in result.stderr
    for entity in ("predictions", "commands", "lifecycle"):
        assert values(kafka, entity) == []


def test_topics_on_the_embedded_broker_are_left_to_it_aloud(kafka: Settings) -> None:
    result = run("topics", "apply")
    assert result.exit_code == 0
    assert "nothing to apply" in result.stderr


def test_doctor_finds_what_is_wrong_and_says_what_to_do(
    registry: Registry, kafka: Settings
) -> None:
    sick = run("doctor", "--json")
    assert sick.exit_code == 3
    found = {check["what"]: check for check in json.loads(sick.stdout)}
    assert found["outbox"]["state"] == "bad"
    assert found["churn version 1"]["state"] == "bad"  # its artefact is no file
    assert found["broker"]["state"] == found["registry"]["state"] == "ok"


def test_alerts_are_listed_shown_and_handled_through_summaries(kafka: Settings) -> None:
    """A person's word lies in the partition that evaluate reads the model's counts from."""
    assert "a1" not in run("alerts", "list").stdout
    send_alert(kafka, "open")
    assert "does worse" in run("alerts", "list").stdout
    assert run("alerts", "list", "--model", "other", "--json").stdout.strip() == "[]"
    assert json.loads(run("alerts", "show", "a", "--json").stdout)["problem"] == "harm"
    assert "performance harmed" in run("alerts", "show", "a1").stdout
    said = run("alerts", "snooze", "a1", "--for", "2h", "--note", "known", "--wait", "0")
    assert said.exit_code == 0, said.output
    (record,) = values(kafka, "summaries")
    handled = read(open_record("summaries", record, max_bytes=10_000), AlertHandled)
    assert (handled.kind, handled.seconds, handled.note) == ("snooze", 7200.0, "known")
    assert record.key == b"churn"
    with RangeReader(kafka) as reader:
        spans = reader.bounds("summaries")
    (at,) = [span.partition for span in spans if span.length]
    assert at == partition_of(b"churn", len(spans), "murmur2")


def test_what_cannot_be_handled_says_why(kafka: Settings) -> None:
    missing = run("alerts", "acknowledge", "zz", "--wait", "0")
    assert (missing.exit_code, "no alert" in missing.stderr) == (1, True)
    send_alert(kafka, "open")
    assert run("alerts", "snooze", "a1", "--for", "soon").exit_code == 2
    alone = run("alerts", "acknowledge", "a1", "--wait", "0.2")
    assert (alone.exit_code, "is a worker running?" in alone.stderr) == (1, True)
    send_alert(kafka, "resolved", revision=1)
    over = run("alerts", "acknowledge", "a1")
    assert (over.exit_code, "is resolved" in over.stderr) == (1, True)


def test_what_somebody_sees_to_is_no_breach(registry: Registry, kafka: Settings) -> None:
    relay.Relay(registry, kafka).pump()
    send_alert(kafka, "open")
    assert run("status", "--check").exit_code == 3
    send_alert(kafka, "acknowledged", revision=1)
    assert run("status", "--check").exit_code == 0
    assert "does worse (acknowledged)" in run("status").stdout


def test_a_monitor_that_says_nothing_is_stale_and_a_breach(
    registry: Registry, kafka: Settings
) -> None:
    """What nobody counts is not healthy, however quiet the alerts are."""
    relay.Relay(registry, kafka).pump()
    now_ms = time.time_ns() // 1_000_000
    publisher = Publisher(kafka)
    for partition, age_ms in ((0, 0), (1, 3_600_000)):
        report = ProgressReported(
            partition=partition,
            partitions=2,
            sequence=1,
            watermark_ms=0,
            clock_ms=now_ms - age_ms,
            caught_up=True,
        )
        kind = "driftline.progress.reported.v1"
        publisher.send("summaries", None, write(kind, report, id="p", source="t", time_ms=1))
    publisher.flush()
    result = run("status", "--check")
    assert (result.exit_code, "nothing of partitions 1: stale" in result.stderr) == (3, True)
    assert "stale" in run("status").stdout


def test_top_off_a_terminal_is_one_picture(registry: Registry, kafka: Settings) -> None:
    """Or one JSON object; while nobody answers it says so."""
    relay.Relay(registry, kafka).pump()
    send_alert(kafka, "open")
    shown = run("top")
    assert shown.exit_code == 0, shown.output
    assert "✗ harmed" in shown.stdout
    assert "churn: does worse" in shown.stdout
    told = json.loads(run("top", "--json", "--seconds", "1").stdout)
    assert [(row["model"], row["state"]) for row in told["models"]] == [("churn", "harmed")]


def test_top_says_when_nobody_answers(kafka: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "ANSWER_SECONDS", 1)
    monkeypatch.setenv("DRIFTLINE_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    result = run("top", "--once")
    assert result.exit_code == 1
    assert "error: " in result.stderr
