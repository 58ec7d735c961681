"""Records in Confluent's wire format, by a local server that speaks a registry's REST API."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from consumers import schemas
from consumers.places import Place
from consumers.schemas import Schemas, Unanswered, reading
from stream.core.processor import Record
from stream.envelope import open_record, read
from stream.errors import ConfigurationError, Refused
from stream.events import FeedbackReceived, PredictionMade, PredictionRequested
from stream.settings import Settings
from tests.broker import free_ports
from tests.commands import run
from tests.schema_registry import (
    AT_MS,
    FEEDBACK,
    PREDICTION,
    SchemaRegistry,
    avro,
    framed,
    prediction,
)
from tests.test_bridge import V1, Scene


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are not tried again by the library, which pauses for seconds."""
    monkeypatch.setattr(schemas, "RETRIES", 0)


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    with SchemaRegistry() as one:
        yield one


def by(registry: SchemaRegistry, **more: Any) -> Schemas:
    return Schemas(Settings(schema_registry_url=registry.url, **more))


# --- what is read ---------------------------------------------------------------------------------


def test_avro_predictions_are_predictions(registry: SchemaRegistry) -> None:
    """By a schema that refers to another; event time is the record's own."""
    scene = Scene(as_json=by(registry), entity="predictions")
    for number in range(3):
        value = avro(PREDICTION, prediction(number))
        assert scene.take(framed(7, value, number)) == [Place(0, number)]
    assert [one.prediction_id for one in scene.made()] == ["r0", "r1", "r2"]
    assert scene.made()[0].features == {"age": 41.0, "plan": None}
    assert [one.key for one in scene.written] == [b"r0", b"r1", b"r2"]
    opened = open_record("predictions", Record(0, 0, None, scene.written[0].value), max_bytes=9999)
    assert opened.time_ms == AT_MS
    assert registry.asked == ["/schemas/ids/7", "/subjects/acme.Features/versions/3"]


@pytest.mark.parametrize(
    ("entity", "struct_", "data"),
    [
        ("requests", PredictionRequested, {"features": {"age": 1.5, "plan": "a"}}),
        ("predictions", PredictionMade, {"version": 2, "output": 0.5, "features": {"age": 1.5}}),
        ("feedback", FeedbackReceived, {"label": "fraud"}),
    ],
)
def test_json_schema_records_are_what_they_are_said_to_be(
    registry: SchemaRegistry, entity: str, struct_: Any, data: dict[str, Any]
) -> None:
    scene = Scene(as_json=by(registry), entity=entity)
    value = json.dumps({"prediction_id": "r1", "model": "fraud", **data}).encode()
    scene.take(framed(9, value))
    [written] = scene.written
    assert (written.entity, written.key) == (entity, b"r1")
    lying = Record(0, 0, written.key, written.value)
    event = read(open_record(entity, lying, max_bytes=9999), struct_)
    assert (event.prediction_id, event.model) == ("r1", "fraud")


def test_avro_feedback_is_feedback_and_comes_again_with_the_same_id(
    registry: SchemaRegistry,
) -> None:
    scene = Scene(as_json=by(registry), entity="feedback")
    value = avro(FEEDBACK, {"prediction_id": "r1", "model": "fraud", "label": "fraud"})
    for _ in range(2):
        scene.take(framed(8, value))
    first, second = scene.written
    assert (first.entity, first) == ("feedback", second)


def test_what_says_itself_what_it_is_needs_no_word(registry: SchemaRegistry) -> None:
    """A CloudEvent or what KServe logs, framed; beside records that are not."""
    scene = Scene(as_json=by(registry), entity="feedback")
    kind = "driftline.prediction.made.v1"
    event = {"specversion": "1.0", "id": "e", "source": "s", "type": kind, "data": prediction(1)}
    scene.take(framed(9, json.dumps(event).encode()))
    both = {"id": "g1", "request": V1[0], "response": {**V1[1], "model_name": "isvc"}}
    scene.take(framed(9, json.dumps(both).encode(), 1))
    scene.take(Record(2, AT_MS, None, json.dumps(both | {"id": "g2"}).encode()))
    assert [one.prediction_id for one in scene.made()] == ["r1", "g1", "g2"]


def test_times_decimals_and_what_is_no_number_are_json(registry: SchemaRegistry) -> None:
    at = {"type": "long", "logicalType": "timestamp-millis"}
    price = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
    fields = [{"name": n, "type": t} for n, t in (("at", at), ("price", price), ("x", "double"))]
    schema = {"type": "record", "name": "R", "fields": fields}
    registry.knows(10, schema)
    value = struct.pack(">bb", 0x02, 0x04) + b"\x01\x3a" + struct.pack("<d", float("nan"))
    record = by(registry)(framed(10, value))
    assert json.loads(record.value or b"") == {
        "at": "1970-01-01T00:00:00.001000Z",
        "price": 3.14,
        "x": None,
    }


# --- what is not ----------------------------------------------------------------------------------


UNREADABLE = [
    pytest.param(framed(404, b"{}"), "bad-schema", "knows no schema 404", id="an unknown id"),
    pytest.param(Record(0, AT_MS, b"k", b"\0\0\0"), "bad-schema", "ends within", id="half an id"),
    pytest.param(framed(11, b""), "bad-schema", "no Avro schema", id="no schema"),
    pytest.param(framed(12, b""), "bad-schema", "PROTOBUF", id="protobuf"),
    pytest.param(framed(13, b""), "bad-schema", "version 9 of gone", id="an unknown reference"),
    pytest.param(framed(14, b""), "bad-schema", "no Avro schema", id="an unknown name"),
    pytest.param(framed(8, b"\x06r1"), "bad-data", "do not fit", id="cut off"),
    pytest.param(framed(8, b"\x02a\x02b\x02c!"), "bad-data", "1 bytes behind", id="too much"),
    pytest.param(framed(8, b"\x02a\x02b\x02\xff"), "bad-data", "do not fit", id="not UTF-8"),
    pytest.param(framed(8, b""), "bad-data", "do not fit", id="nothing"),
    pytest.param(framed(9, b"{"), "bad-json", "", id="no JSON"),
]


@pytest.mark.parametrize(("record", "reason", "detail"), UNREADABLE)
def test_what_cannot_be_read_is_a_dead_letter_with_its_own_bytes(
    registry: SchemaRegistry, record: Record, reason: str, detail: str
) -> None:
    registry.knows(11, {"type": "no such thing"})
    registry.knows(12, "syntax", "PROTOBUF")
    registry.knows(13, FEEDBACK, references=[{"name": "Gone", "subject": "gone", "version": 9}])
    registry.knows(14, PREDICTION)  # without the schema that it refers to
    scene = Scene(as_json=by(registry), entity="feedback")
    assert scene.take(record) == [Place(0, 0)]
    [letter] = scene.written
    assert (letter.entity, letter.key, letter.value) == ("feedback.dlq", b"k", record.value)
    headers = dict(letter.headers)
    assert headers["dl_reason"] == reason.encode()
    assert detail.encode() in (headers["dl_detail"] or b"")


SILENT = [
    pytest.param(500, b'{"error_code": 50001, "message": "store"}', id="its store fails"),
    pytest.param(503, b"down", id="a proxy without it"),
    pytest.param(401, b'{"error_code": 401, "message": "Unauthorized"}', id="a wrong password"),
    pytest.param(404, b"<html>not found</html>", id="something else, which knows no such page"),
    pytest.param(200, b"<html>hello</html>", id="something else, which answers"),
    pytest.param(200, b"[]", id="JSON of another kind"),
    pytest.param(200, b"{}", id="no schema in it"),
    pytest.param(200, b"", id="nothing"),
]


@pytest.mark.parametrize(("status", "body"), SILENT)
def test_a_registry_that_does_not_answer_says_nothing_about_a_record(
    registry: SchemaRegistry, status: int, body: bytes
) -> None:
    """Neither a dead letter nor done: asked again, it is read."""
    good = registry.answers["/schemas/ids/8"]
    registry.answers["/schemas/ids/8"] = status, body
    scene = Scene(as_json=by(registry), entity="feedback")
    record = framed(8, avro(FEEDBACK, {"prediction_id": "r1", "model": "fraud", "label": "fraud"}))
    with pytest.raises(Unanswered, match="schema 8"):
        scene.take(record)
    assert scene.written == []
    registry.answers["/schemas/ids/8"] = good
    assert scene.take(record) == [Place(0, 0)]
    assert [one.entity for one in scene.written] == ["feedback"]


def test_nobody_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "RETRIES", 1)
    [port] = free_ports(1)
    asking = Schemas(Settings(schema_registry_url=f"http://127.0.0.1:{port}"))
    with pytest.raises(Unanswered, match="schema 8"):
        asking(framed(8, b""))


def test_an_unknown_id_is_asked_for_again_after_a_while(registry: SchemaRegistry) -> None:
    """Not at every record: a topic of nonsense is not to weigh on the registry."""
    now = [0.0]
    asking = Schemas(Settings(schema_registry_url=registry.url), lambda: now[0])
    for _ in range(3):
        with pytest.raises(Refused):
            asking(framed(99, b"{}"))
    assert registry.asked == ["/schemas/ids/99"]
    registry.knows(99, {}, "JSON")
    now[0] = schemas.UNKNOWN_SECONDS + 1
    assert asking(framed(99, b"{}")).value == b"{}"


def test_ids_that_somebody_made_up_do_not_fill_the_memory(
    registry: SchemaRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "MOST_KNOWN", 5)
    asking = by(registry)
    for id_ in range(100, 120):
        with pytest.raises(Refused):
            asking(framed(id_, b""))
    assert len(asking._known) <= 5


@given(st.binary(max_size=60))
def test_whatever_the_bytes_are_they_are_read_or_refused(value: bytes) -> None:
    read_one = schemas._avro(fastavro.parse_schema(FEEDBACK))
    try:
        found = json.loads(read_one(value))
    except Refused:
        return
    assert found.keys() == {"prediction_id", "model", "label"}


# --- settings -------------------------------------------------------------------------------------


def test_it_logs_in_and_the_password_shows_nowhere(registry: SchemaRegistry) -> None:
    password: dict[str, Any] = {
        "schema_registry_user": "ann",
        "schema_registry_password": SecretStr("hush"),
    }
    asking = by(registry, **password)
    asking(framed(9, b"{}"))
    assert registry.authorizations == {"Basic YW5uOmh1c2g="}
    registry.answers["/schemas/ids/5"] = 401, b"no"
    with pytest.raises(Unanswered) as wrong:
        asking(framed(5, b""))
    assert "hush" not in str(wrong.value)
    assert "hush" not in repr(Settings(schema_registry_url=registry.url, **password))


def test_without_a_registry_such_records_are_refused_and_others_are_not() -> None:
    as_json = reading(Settings())
    plain = Record(0, AT_MS, None, b"{}")
    assert as_json(plain) is plain
    with pytest.raises(Refused, match="DRIFTLINE_SCHEMA_REGISTRY_URL"):
        as_json(framed(8, b""))


def test_what_is_no_registrys_address_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="DRIFTLINE_SCHEMA_REGISTRY_URL"):
        reading(Settings(schema_registry_url="registry:8081"))


def test_the_command_line_knows_what_records_may_be() -> None:
    done = run("bridge", "log", "--as", "lifecycle")
    assert (done.exit_code, "predictions, requests, feedback" in done.stderr) == (2, True)
