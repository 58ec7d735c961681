"""The reader: topics into history and board, outside any group, again after a restart."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from msgspec.structs import replace

from consumers.console import reader as module
from consumers.console.access import Visitor
from consumers.console.actions import Unknown
from consumers.console.handling import Said
from consumers.console.history import Came
from consumers.console.pulse import Pulse, delay_quantile
from consumers.console.reader import Reader
from consumers.console.routes import Parts
from consumers.demo.embedded import EmbeddedBroker
from consumers.keymaking import make
from consumers.loop import BrokerError, RangeReader
from consumers.places import Delivered
from stream.core.partitioning import partition_of
from stream.envelope import open_record, read, write
from stream.events import AlertHandled, GenerationAdopted, ProgressReported, SummaryComputed
from stream.settings import Settings
from stream.signing import read_key, signed
from tests.broker import free_ports
from tests.consoles import (
    HOUR,
    START,
    alert,
    console,
    held,
    lifecycle,
    measured,
    publish,
    settings_in,
    wait_until,
)
from tests.labelled import example, together
from tests.patience import PATIENCE_SECONDS

ADOPTED = GenerationAdopted(model="another", generation=2, partition=0, offset=0, closed_ms=START)


@pytest.fixture(scope="module")
def broker() -> EmbeddedBroker:
    return EmbeddedBroker()


@pytest.fixture
def settings(tmp_path: Path, broker: EmbeddedBroker, request: pytest.FixtureRequest) -> Settings:
    made = settings_in(
        tmp_path,
        bootstrap_servers=broker.bootstrap_servers,
        embedded_broker=True,
        topic_prefix=f"t{abs(hash(request.node.nodeid))}",
    )
    broker.touch(made.names)
    return made


def values(parts: Parts) -> list[float]:
    return [m.metrics["accuracy"].value for m in parts.history.accuracies("churn", "86400s")]


def test_what_is_published_is_shown_and_a_restart_goes_on_where_it_was(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is read twice, nothing is left out, and the past is there before the broker is."""
    publish(settings, [lifecycle(), measured(0.9, hour=24), alert(), held(), ADOPTED])
    with console(settings, follow=True) as parts:
        wait_until(lambda: parts.board.entry("churn") is not None and len(values(parts)) == 1)
        wait_until(lambda: parts.history.held("churn") == [held()])
        assert parts.board.entry("another") is None, "which generation is followed is no news"
    publish(settings, [measured(0.8, hour=25)])

    taken: list[str] = []
    take = Reader._take

    def noted(self: Reader, entity: str, came: Delivered) -> None:
        taken.append(entity)
        take(self, entity, came)

    monkeypatch.setattr(Reader, "_take", noted)
    with console(settings) as parts:
        entry = parts.board.entry("churn")
        assert entry is not None
        assert list(entry.alerts) == ["alert-harm"]
    with console(settings, follow=True) as parts:
        wait_until(lambda: len(values(parts)) == 2)
        assert values(parts) == [0.9, 0.8]
    assert taken == ["accuracy"]


def test_records_that_are_no_events_are_counted_and_stop_nobody(settings: Settings) -> None:
    producer = Producer(settings.client())
    hostile = [
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 5000,
        b'{"specversion":"1.0"}',
        b"<script>alert(1)</script>",
    ]
    for value in [*hostile, None]:
        producer.produce(settings.names.topic("accuracy"), value, b"churn", partition=0)
    producer.flush(PATIENCE_SECONDS)
    publish(settings, [measured(0.9)])

    with console(settings, follow=True) as parts:
        wait_until(lambda: values(parts) == [0.9])
        assert parts.reader.refused == len(hostile) + 1
        assert parts.reader.standing.state == "following"


def test_what_is_not_signed_by_the_trusted_is_not_shown(settings: Settings, tmp_path: Path) -> None:
    """Where the stages check who says what is live, the console believes no more than they do."""
    private, public = make(tmp_path / "trainer.key", "ed25519")
    trusting = settings.model_copy(update={"lifecycle_keys": (str(public),)})
    topic = settings.names.topic("lifecycle")
    live, forged = (
        write("driftline.lifecycle.changed.v1", told, id="x", source="test", time_ms=START)
        for told in (lifecycle(champion=1), lifecycle(champion=666, generation=9))
    )
    producer = Producer(settings.client())
    producer.produce(topic, signed(read_key(private), topic, b"churn", live), b"churn", 0)
    producer.produce(topic, forged, b"churn", 0)
    producer.flush(PATIENCE_SECONDS)

    with console(trusting, follow=True) as parts:
        wait_until(lambda: parts.reader.refused == 1)
        wait_until(lambda: parts.board.entry("churn") is not None)
        entry = parts.board.entry("churn")
        assert entry is not None
        assert entry.champion == 1


def test_a_broker_that_is_away_is_told_and_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(RangeReader, "bounds", _refused)
    with console(settings, follow=True) as parts:
        wait_until(lambda: parts.reader.standing.state == "away")
        assert "not now" in parts.reader.standing.problem
        since = parts.reader.standing.since_ms
        monkeypatch.undo()
        wait_until(lambda: parts.reader.standing.state == "following")
        assert parts.reader.standing.since_ms >= since


def _refused(*_: object) -> Iterator[object]:
    raise BrokerError("not now")


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(settings: Settings) -> None:
    """Positions beyond its end say that it is another one."""
    with console(settings) as parts:
        parts.history.add([], {(settings.names.topic("accuracy"), 0): 1000})
    publish(settings, [measured(0.9)])

    with console(settings, follow=True) as parts:
        wait_until(lambda: values(parts) == [0.9])


def test_an_event_is_found_by_its_id_with_its_place(settings: Settings) -> None:
    """Wherever along its way it lies; what lies beside it is not told."""
    from consumers.publishing import SOURCE
    from stream.events import FeedbackReceived, PredictionMade

    producer = Producer(settings.client())
    for prediction_id in ("a1", "a2"):
        key = prediction_id.encode()
        at = partition_of(key, 4, settings.partitioner)
        made = PredictionMade(
            prediction_id=prediction_id, model="churn", version=3, output=0.83, features={"age": 41}
        )
        truth = FeedbackReceived(prediction_id=prediction_id, model="churn", label="leaves")
        for entity, kind, data in (
            ("predictions", "driftline.prediction.made.v1", made),
            ("feedback", "driftline.feedback.received.v1", truth),
        ):
            value = write(kind, data, id=prediction_id, source=SOURCE, time_ms=START)
            headers = [("traceparent", b"00-ab")]
            producer.produce(settings.names.topic(entity), value, key, at, headers=headers)
    producer.flush(PATIENCE_SECONDS)

    with console(settings) as parts:
        found = parts.inspector.search("a1")
        newest = parts.inspector.newest("predictions", "churn", 10)
        nothing = parts.inspector.search("b7")
    assert [f.entity for f in found.found] == ["predictions", "feedback"]
    assert found.complete
    assert found.found[0].value["data"]["version"] == 3
    assert found.found[0].headers == [("traceparent", "00-ab")]
    assert {f.key for f in newest} == {"a1", "a2"}
    assert nothing.found == []


def test_an_example_is_found_among_those_that_share_its_record(settings: Settings) -> None:
    """Without the others; what 0.1 wrote has the id as its key."""
    producer, topic = Producer(settings.client()), settings.names.topic("examples")
    at = partition_of(b"a1", 4, settings.partitioner)
    mine = example("a1", partition=at, label="leaves")
    many = together(example("a0", partition=at), mine, example("churn", partition=at))
    one = replace(mine, revision=1)
    for version, key, data in (("v2", b"churn", many), ("v1", b"a1", one)):
        value = write(f"driftline.example.labelled.{version}", data, id="e", source="t", time_ms=1)
        producer.produce(topic, value, key, at)
    producer.flush(PATIENCE_SECONDS)

    with console(settings) as parts:
        found = parts.inspector.search("a1").found
        nothing = parts.inspector.search("a").found
        named = parts.inspector.search("churn").found  # as its model is
    assert [f.value["data"].get("revision", 0) for f in found] == [0, 1]
    assert [f.value["data"]["label"] for f in found] == ["leaves", "leaves"]
    assert nothing == []
    assert all(f.value["data"]["prediction_id"] == "churn" for f in named)


def test_what_a_person_says_of_an_alert_reaches_evaluate(settings: Settings) -> None:
    """In the partition of the model, with who said it; refused attempts reach nobody."""
    operator, reader = Visitor("ann", "operate"), Visitor("bob", "read")
    said = Said(kind="snooze", note="until the release", seconds=3600)
    with console(settings) as parts:
        parts.history.add([Came(START, alert()), Came(START, alert("drift", state="resolved"))], {})
        done = parts.handling.handle("alert-harm", said, operator, "here")
        for alert_id, who in (("alert-harm", reader), ("alert-drift", operator)):
            assert not parts.handling.handle(alert_id, said, who, "here").applied
        with pytest.raises(Unknown):
            parts.handling.handle("alert-other", said, operator, "here")
        outcomes = [(d.who, d.action, d.outcome) for d in parts.access.audit()]
        with RangeReader(settings) as ranges:
            [came] = list(ranges.read("summaries", ranges.bounds("summaries")))
    opened = open_record("summaries", came.record, max_bytes=10_000)
    told = read(opened, AlertHandled)

    assert done.applied
    assert (told.alert_id, told.kind, told.seconds) == ("alert-harm", "snooze", 3600)
    assert (told.who, told.note) == ("ann (console)", "until the release")
    assert came.record.key == b"churn"
    assert outcomes == [
        ("ann", "snooze alert", "refused"),
        ("ann", "snooze alert", "refused"),
        ("bob", "snooze alert", "refused"),
        ("ann", "snooze alert", "done"),
    ]


def test_rates_and_delays_are_of_lately() -> None:
    """A rate is over the last full minute, a delay the upper end of its doubling bin."""
    pulse, now = Pulse(), 1_000_000_000
    for second in range(120):
        summary = SummaryComputed(
            model="churn", version=1, tick=0, partition=0, predictions=5, bets=[2], delays={"3": 2}
        )
        pulse.take(summary, now + second * 1000)

    assert pulse.rate("churn", now + 120_000).predictions == 5
    assert pulse.total(now + 120_000).labels == 2
    assert pulse.rate("churn", now + HOUR).predictions == 0
    assert pulse.rate("other", now).predictions == 0
    assert delay_quantile(pulse.delays("churn"), 0.5) == 15
    assert delay_quantile(pulse.delays("other"), 0.5) is None


def test_the_pulse_is_bounded() -> None:
    """Hostile partitions and delay bins are left out, old labels are forgotten."""
    pulse = Pulse()
    for i in range(3000):
        pulse.take(
            ProgressReported(
                partition=i, partitions=1, sequence=1, watermark_ms=0, clock_ms=0, caught_up=True
            ),
            0,
        )
        pulse.take(
            SummaryComputed(
                model="churn", version=1, tick=0, partition=0, delays={str(i): 100, "x": 1}
            ),
            0,
        )

    assert len(pulse.progress()) == 1024
    assert set(pulse.delays()) <= set(range(100))
    assert pulse.delays().total() <= 20_000 + 100


def test_the_service_ends_with_0_also_while_a_page_is_open(settings: Settings) -> None:
    """SIGTERM: streams end, the process follows soon; the same command starts it again."""
    [port] = free_ports(1)
    values = settings.model_dump(
        include={"bootstrap_servers", "topic_prefix", "registry_url", "console_url"}
    )
    environment = {f"DRIFTLINE_{name.upper()}": value for name, value in values.items()} | {
        "DRIFTLINE_EMBEDDED_BROKER": "true",
        "DRIFTLINE_CONSOLE_PORT": str(port),
    }
    console = subprocess.Popen(
        [sys.executable, "-m", "consumers", "console"],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(port, "/readyz"))
        with urllib.request.urlopen(f"http://localhost:{port}/api/stream") as stream:
            assert b"data:" in stream.readline() + stream.readline()
            console.terminate()
            assert console.wait(PATIENCE_SECONDS) == 0
    finally:
        console.kill()
        console.wait()


def answers(port: int, path: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(urllib.request.urlopen(f"http://localhost:{port}{path}").status == 200)
    return False
