"""Producers' records: accepted in three spellings, refused with the reason, never raised."""

from __future__ import annotations

import gc
import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.kafka import from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from models.spec import Feature, ModelSpec
from stream import envelope
from stream.core import checking, decoding
from stream.core.decoding import Decoded, decode
from stream.core.processor import CoreSettings, Record
from stream.events import DEFAULT_TYPES, ClockAdvanced, FeedbackReceived, PredictionRequested
from tests.fleets import CHURN, GOOD_FEATURES, FakeLive

NOW = 1_700_000_000_000
SETTINGS = CoreSettings()
COLOURS = ModelSpec(
    name="colours",
    task="multiclass",
    classes=("red", "green", "blue"),
    features=(Feature(name="model"),),
)
PRICES = ModelSpec(name="prices", task="regression", features=(Feature(name="x"),))
ELSEWHERE = msgspec.structs.replace(PRICES, name="elsewhere", served="elsewhere")
FLEET = {spec.name: FakeLive(spec) for spec in (CHURN, COLOURS, PRICES, ELSEWHERE)} | {
    "new": FakeLive(msgspec.structs.replace(PRICES, name="new"), champion=None)
}

REQUEST = {"prediction_id": "r-1", "model": "churn", "features": GOOD_FEATURES}
PREDICTION = REQUEST | {"version": 1, "output": 0.75}
FEEDBACK = {"prediction_id": "r-1", "model": "churn", "label": "leaves"}
GOOD: dict[str, dict[str, Any]] = {
    "requests": REQUEST,
    "predictions": PREDICTION,
    "feedback": FEEDBACK,
}


def record(value: object, offset: int = 0, headers: Any = ()) -> Record:
    raw = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Record(offset, NOW, b"r-1", raw, tuple(headers))


def cloud_event(entity: str, data: object, **attributes: Any) -> dict[str, Any]:
    required = {"specversion": "1.0", "id": "1", "source": "test", "type": DEFAULT_TYPES[entity]}
    return required | attributes | {"data": data}


def one(entity: str, value: object, **more: Any) -> Decoded:
    return decode(entity, [record(value, **more)], FLEET, SETTINGS)


def reason(entity: str, value: object, **more: Any) -> str:
    decoded = one(entity, value, **more)
    assert not decoded.events
    (kept,) = decoded.refused + decoded.unknown
    return kept[1].reason


# --- accepted -----------------------------------------------------------------------------------


@pytest.mark.parametrize("entity", sorted(GOOD))
def test_plain_json_and_cloud_events_say_the_same(entity: str) -> None:
    (plain,) = one(entity, GOOD[entity]).events
    (structured,) = one(entity, cloud_event(entity, GOOD[entity])).events

    assert plain.data == structured.data
    assert (plain.row, plain.values) == (structured.row, structured.values)
    assert plain.time_ms == structured.time_ms == NOW


@pytest.mark.parametrize("entity", sorted(GOOD))
@pytest.mark.parametrize("mode", [to_structured, to_binary])
def test_what_the_cloudevents_sdk_writes_is_accepted(entity: str, mode: Any) -> None:
    """The SDK's Kafka binding is the oracle of both content modes."""
    event = CloudEvent(
        attributes={
            "specversion": "1.0",
            "id": "e-1",
            "type": DEFAULT_TYPES[entity],
            "source": "/oracle",
            "time": datetime.fromtimestamp(NOW / 1000 - 60, tz=UTC),
            "datacontenttype": "application/json",
            "traceparent": "00-ab-cd-01",
            "subject": "s",
        },
        data=GOOD[entity],
    )
    message = mode(event, JSONFormat())

    decoded = one(entity, message.value, headers=message.headers.items())

    (accepted,) = decoded.events
    assert accepted.data.prediction_id == "r-1"
    assert accepted.time_ms == NOW - 60_000
    assert accepted.traceparent == "00-ab-cd-01"


def test_the_cloudevents_sdk_reads_what_we_write() -> None:
    value = envelope.write(
        DEFAULT_TYPES["feedback"],
        FeedbackReceived(prediction_id="r-1", model="churn", label=True),
        id="7",
        source="here",
        time_ms=NOW,
    )
    from cloudevents.core.bindings.kafka import KafkaMessage

    message = KafkaMessage({"content-type": b"application/cloudevents+json"}, None, value)
    event = from_structured(message, JSONFormat())

    assert event.get_data() == {"prediction_id": "r-1", "model": "churn", "label": True}
    assert event.get_time() == datetime.fromtimestamp(NOW / 1000, tz=UTC)


def test_rows_are_in_the_order_of_the_spec_with_categories_as_text() -> None:
    (event,) = one(
        "requests", REQUEST | {"features": {"plan": 3, "visits per day": None, "age": 2}}
    ).events

    assert event.row == (2.0, None, "3")


def test_outputs_come_as_floats_whatever_the_task() -> None:
    colours = {"prediction_id": "a", "model": "colours", "version": 2, "features": {"model": 1}}

    (binary,) = one("predictions", PREDICTION | {"shadow": {"2": 0.5}}).events
    (multi,) = one("predictions", colours | {"output": [0.2, 0.3, 0.5]}).events

    assert binary.values == (0.75,)
    assert binary.data.shadow == {"2": 0.5}  # type: ignore[union-attr]
    assert multi.values == (0.2, 0.3, 0.5)


def test_a_feature_named_model_does_not_confuse_the_look_up() -> None:
    value = b'{"features":{"model":1.5},"prediction_id":"a","model":"colours"}'
    hinted = (
        b'{"note":{"model":"churn"},"prediction_id":"a","features":{"model":1},"model":"colours"}'
    )

    assert len(one("requests", value).events) == len(one("requests", hinted).events) == 1


def test_a_model_is_read_by_the_spec_that_is_live_now() -> None:
    """What was remembered of it goes with what was live."""
    fleet = {"churn": FLEET["churn"]}
    sent = [record(FEEDBACK, offset) for offset in range(2)]
    assert len(decode("feedback", sent, fleet, SETTINGS).events) == 2
    fleet["churn"] = FakeLive(msgspec.structs.replace(CHURN, classes=("stays", "goes")))
    assert [refused.reason for _, refused in decode("feedback", sent, fleet, SETTINGS).refused] == [
        "bad-label"
    ] * 2


def test_unknown_fields_are_ignored() -> None:
    """Fields may be added to events without a new version."""
    assert one("requests", REQUEST | {"new": {"a": [1, 2]}}).events


def test_escaped_and_non_ascii_text_is_text() -> None:
    value = json.dumps(REQUEST | {"prediction_id": "zürich-1"}).encode()

    assert one("requests", value).events[0].data.prediction_id == "zürich-1"
    assert one("requests", value.decode().encode().decode("unicode_escape").encode()).events


def test_clock_records_count_only_where_a_replayer_is_the_clock() -> None:
    value = envelope.write(
        "driftline.clock.advanced.v1", ClockAdvanced(clock_ms=NOW), id="1", source="s", time_ms=NOW
    )
    event_clock = SETTINGS._replace(clock="event")

    assert decode("feedback", [record(value)], FLEET, event_clock).clocks == [NOW]
    assert reason("feedback", value) == "unknown-event"


def test_a_clock_record_cannot_run_ahead() -> None:
    """One future stamp must not push a watermark."""
    ahead = ClockAdvanced(clock_ms=NOW + 10**9)
    value = envelope.write("driftline.clock.advanced.v1", ahead, id="1", source="s", time_ms=NOW)

    decoded = decode("feedback", [record(value)], FLEET, SETTINGS._replace(clock="event"))

    assert (decoded.clocks, decoded.refused[0][1].reason) == ([], "bad-time")


# --- refused ------------------------------------------------------------------------------------


def changed(**fields: object) -> dict[str, object]:
    return REQUEST | fields


def with_feature(raw: bytes) -> bytes:
    return json.dumps(REQUEST).encode().replace(b"41", raw)


HOSTILE: dict[str, tuple[object, str]] = {
    "null value": (None, "null-value"),
    "empty": (b"", "bad-json"),
    "not JSON": (b"hello", "bad-json"),
    "binary": (bytes(range(256)), "bad-json"),
    "truncated": (json.dumps(REQUEST).encode()[:-5], "bad-json"),
    "trailing": (json.dumps(REQUEST).encode() + b"x", "bad-json"),
    "not UTF-8": (json.dumps(REQUEST).encode().replace(b"r-1", b"r\xff1"), "bad-json"),
    "a list": ([1, 2], "bad-data"),
    "a number": (7, "bad-data"),
    "NaN": (with_feature(b"NaN"), "bad-json"),
    "Infinity": (with_feature(b"-Infinity"), "bad-json"),
    "1e999": (with_feature(b"1e999"), "bad-features"),
    "5,000 digits": (with_feature(b"9" * 5000), "bad-features"),
    "deep in features": (with_feature(b"[" * 100_000 + b"]" * 100_000), "bad-json"),
    "deep elsewhere": (
        json.dumps(REQUEST).encode()[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "bad-json",
    ),
    "deep and open": (b"[" * 100_000, "bad-data"),
    "deep objects": (b'{"a":' * 50_000, "bad-json"),
    "lone surrogate": (json.dumps(REQUEST).encode().replace(b"r-1", b"\\ud800"), "bad-json"),
    "10 MB": (json.dumps(changed(x="y" * 10_000_000)).encode(), "too-large"),
    "no id": ({"model": "churn", "features": GOOD_FEATURES}, "bad-data"),
    "empty id": (changed(prediction_id=""), "bad-id"),
    "huge id": (changed(prediction_id="x" * 257), "bad-id"),
    "id of too many bytes": (changed(prediction_id="ü" * 200), "bad-id"),
    "control character in id": (changed(prediction_id="a\x07b"), "bad-id"),
    "bidirectional override in id": (changed(prediction_id="a\u202eb"), "bad-id"),
    "number as id": (changed(prediction_id=7), "bad-id"),
    "model of the wrong type": (changed(model=["churn"]), "bad-data"),
    "empty model": (changed(model=""), "bad-data"),
    "unknown model": (changed(model="nobody"), "unknown-model"),
    "model without champion": (changed(model="new"), "unknown-model"),
    "model served elsewhere": (changed(model="elsewhere", features={"x": 1}), "unknown-model"),
    "features of the wrong type": (changed(features=[1, 2]), "bad-features"),
    "missing feature": (changed(features={"age": 1}), "bad-features"),
    "extra feature": (changed(features=GOOD_FEATURES | {"z": 1}), "unknown-feature"),
    "text for a number": (changed(features=GOOD_FEATURES | {"age": "41"}), "bad-features"),
    "true for a number": (changed(features=GOOD_FEATURES | {"age": True}), "bad-features"),
    "fraction for a category": (changed(features=GOOD_FEATURES | {"plan": 0.5}), "bad-features"),
    "novel for a category": (changed(features=GOOD_FEATURES | {"plan": "x" * 300}), "bad-features"),
    "huge category": (
        json.dumps(REQUEST).encode().replace(b'"gold"', b"9" * 5000),
        "bad-features",
    ),
    "unknown version of the event": (
        cloud_event("requests", REQUEST, type="driftline.prediction.requested.v2"),
        "unknown-event",
    ),
    "another topic's event": (
        cloud_event("requests", FEEDBACK, type="driftline.feedback.received.v1"),
        "unknown-event",
    ),
    "event without data": (
        {k: v for k, v in cloud_event("requests", 0).items() if k != "data"},
        "bad-envelope",
    ),
    "event with null data": (cloud_event("requests", None), "bad-data"),
    "specversion 0.3": (cloud_event("requests", REQUEST, specversion="0.3"), "bad-envelope"),
    "event without type": (
        {k: v for k, v in cloud_event("requests", REQUEST).items() if k != "type"},
        "bad-envelope",
    ),
    "bad time": (cloud_event("requests", REQUEST, time="yesterday"), "bad-envelope"),
    "far future": (cloud_event("requests", REQUEST, time="9999-12-31T23:59:59Z"), "bad-time"),
    "far past": (cloud_event("requests", REQUEST, time="0001-01-01T00:00:00+23:59"), "bad-time"),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_a_hostile_value_is_refused_with_its_reason(case: str) -> None:
    value, expected = HOSTILE[case]

    assert reason("requests", value) == expected


@pytest.mark.parametrize("entity", sorted(GOOD))
def test_the_reason_is_the_same_alone_and_among_others(entity: str) -> None:
    """To the letter: what is refused at first sight, and what is looked at again."""
    hostile = [value for value, _ in HOSTILE.values()]
    hostile.append(b'{"model": 5, "x": ')  # with headers, that it ends too soon is seen first
    for headers in ((), (("trace", b"1"),)):
        alone = [one(entity, value, headers=headers) for value in hostile]
        mixed = [record(GOOD[entity], n) for n in range(2 * len(hostile))]
        mixed[1::2] = [record(v, 2 * n + 1, headers) for n, v in enumerate(hostile)]

        decoded = decode(entity, mixed, FLEET, SETTINGS)

        told = {r.offset: (x.reason, x.detail) for r, x in decoded.refused + decoded.unknown}
        assert told == {
            2 * n + 1: (x.reason, x.detail)
            for n, each in enumerate(alone)
            for _, x in each.refused + each.unknown
        }


def test_what_is_refused_leaves_nothing_for_the_collector_of_cycles() -> None:
    """An error that holds its own frames holds the whole batch, until the collector comes by."""
    hostile = [record(value, n) for n, (value, _) in enumerate(HOSTILE.values())]
    decode("requests", hostile, FLEET, SETTINGS)
    gc.collect()
    gc.disable()
    try:
        decode("requests", hostile, FLEET, SETTINGS)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_what_hostile_text_makes_long_is_not_remembered() -> None:
    """Messages name fields, and times have digits, of any length: they would fill the memory."""
    before = checking._blamed.cache_info().currsize, envelope.ms_of.cache_info().currsize
    named = changed(features=GOOD_FEATURES | {"z" * 5_000: 1})
    timed = cloud_event("requests", REQUEST, time=f"2023-11-14T22:13:20.{'0' * 5_000}Z")

    assert reason("requests", named) == "unknown-feature"
    assert [event.time_ms for event in one("requests", timed).events] == [NOW]
    after = checking._blamed.cache_info().currsize, envelope.ms_of.cache_info().currsize
    assert after == before


def test_hostile_values_do_not_touch_their_neighbours() -> None:
    """Good records between all the hostile ones decode as they would alone, in order."""
    mixed: list[Record] = []
    for value, _ in HOSTILE.values():
        mixed += [record(REQUEST, len(mixed)), record(value, len(mixed) + 1)]

    decoded = decode("requests", mixed, FLEET, SETTINGS)

    assert [event.record.offset for event in decoded.events] == list(range(0, len(mixed), 2))
    assert len(decoded.refused) + len(decoded.unknown) == len(HOSTILE)


def test_events_keep_their_order_whatever_lies_between_them() -> None:
    """Models of different features, CloudEvents, escapes and poison, in one batch."""
    priced = {"prediction_id": "r-1", "model": "prices", "features": {"x": 1.5}}
    escaped = REQUEST | {"prediction_id": "\u00e9"}
    some = [REQUEST, priced, cloud_event("requests", priced), escaped, b"{", None, {"model": "x"}]
    mixed = [record(some[n * n % len(some)], n) for n in range(300)]

    decoded = decode("requests", mixed, FLEET, SETTINGS)

    alone = [event for r in mixed for event in decode("requests", [r], FLEET, SETTINGS).events]
    assert [(e.record, e.row) for e in decoded.events] == [(e.record, e.row) for e in alone]
    assert [r.offset for r, _ in decoded.refused] == sorted(r.offset for r, _ in decoded.refused)
    assert len(decoded.events) + len(decoded.refused) + len(decoded.unknown) == len(mixed)


def test_poison_does_not_make_its_neighbours_be_read_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every second record poison: what is right is still read together."""
    looked_at: list[int] = []

    def alone(reader: decoding._Reader, r: Record, *, quick: bool) -> object:
        looked_at.append(r.offset)
        return real(reader, r, quick=quick)

    real = decoding._Reader.alone
    monkeypatch.setattr(decoding._Reader, "alone", alone)
    poison = [REQUEST | {"features": {"tenure": "long"}}, b"no json", None]
    mixed = [record(REQUEST if n % 2 else poison[n % 3], n) for n in range(200)]

    decoded = decode("requests", mixed, FLEET, SETTINGS)

    assert [event.record.offset for event in decoded.events] == list(range(1, 200, 2))
    assert looked_at == list(range(2, 200, 6))  # what is refused at first sight is not looked at


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"output": 1.5}, "bad-output"),
        ({"output": -0.1}, "bad-output"),
        ({"output": [0.5]}, "bad-output"),
        ({"output": None}, "bad-output"),
        ({"output": "0.5"}, "bad-output"),
        ({"shadow": {"2": 7}}, "bad-output"),
        ({"shadow": {"two": 0.5}}, "bad-output"),
        ({"shadow": {str(v): 0.5 for v in range(1, 30)}}, "bad-output"),
        ({"version": 9}, "unknown-version"),
        ({"version": 0}, "bad-data"),
        ({"version": 2**31}, "bad-data"),
        ({"generation": 10**30}, "bad-data"),
        ({"model": "prices", "features": {"x": 1}, "output": 1e13}, "bad-output"),
        ({"model": "colours", "features": {"model": 1}, "output": [0.5, 0.5]}, "bad-output"),
        ({"model": "colours", "features": {"model": 1}, "output": [0.9, 0.9, 0.9]}, "bad-output"),
    ],
)
def test_a_prediction_that_does_not_fit_the_task_is_refused(
    fields: dict[str, object], expected: str
) -> None:
    assert reason("predictions", PREDICTION | fields) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"label": "perhaps"}, "bad-label"),
        ({"label": None}, "bad-label"),
        ({"label": [1]}, "bad-label"),
        ({"label": 10**24}, "bad-label"),
        ({"model": "prices", "label": "12"}, "bad-label"),
        ({"model": "prices", "label": True}, "bad-label"),
        ({"weight": 0}, "bad-data"),
        ({"weight": 1e300}, "bad-data"),
        ({"model": "nobody"}, "unknown-model"),
    ],
)
def test_feedback_that_fits_no_label_is_refused(fields: dict[str, object], expected: str) -> None:
    assert reason("feedback", FEEDBACK | fields) == expected


def test_feedback_is_taken_for_models_without_champion_or_served_elsewhere() -> None:
    for model in ("new", "elsewhere"):
        assert one("feedback", FEEDBACK | {"model": model, "label": 3}).events


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s")], "bad-envelope"),
        ([("ce_specversion", b"2.0")], "bad-envelope"),
        ([("ce_id", b"\xff")], "bad-envelope"),
        ([("traceparent", b"\xff")], "bad-envelope"),
    ],
)
def test_broken_binary_mode_headers_are_refused(
    headers: list[tuple[str, bytes]], expected: str
) -> None:
    assert reason("requests", REQUEST, headers=headers) == expected


def test_a_cloud_event_in_disguise_is_one_all_the_same() -> None:
    """Its attribute's name in escapes must not make it plain data."""
    attributes = {"specversion": "1.0", "id": "1", "source": "s", "type": "other.v1"}
    disguised = json.dumps(REQUEST | attributes).replace("specversion", "\\u0073pecversion")

    assert reason("requests", disguised.encode()) == "bad-envelope"


def test_text_that_is_not_utf8_is_refused_where_an_attribute_may_stand() -> None:
    value = json.dumps(REQUEST | {"id": "?"}).encode().replace(b"?", b"\xff")

    assert reason("requests", value) == "bad-json"


def test_foreign_headers_change_nothing() -> None:
    assert one("requests", REQUEST, headers=[("b3", b"\xff"), ("x", None)]).events


# --- the quick way is only a quick way ------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [
    "prediction_id", "model", "features", "version", "output", "label", "weight", "shadow",
    "specversion", "type", "time", "data", "id", "source",
]  # fmt: skip


@st.composite
def _mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A good event with some fields replaced, wrapped or not, some bytes overwritten."""
    entity = draw(st.sampled_from(sorted(GOOD)))
    data = dict(GOOD[entity])
    if draw(st.booleans()):
        data["model"] = draw(st.sampled_from(["churn", "prices", "colours", "nobody"]))
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=2)):
        data[name] = draw(JSON)
    value: object = cloud_event(entity, data) if draw(st.booleans()) else data
    raw = bytearray(json.dumps(value, ensure_ascii=draw(st.booleans())).encode(errors="replace"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return entity, bytes(raw)


def _outcome(decoded: Decoded) -> list[object]:
    events = [
        (e.record, e.time_ms, msgspec.json.encode(e.data), e.row, e.values) for e in decoded.events
    ]
    refused = [(r, x.reason, x.detail) for r, x in decoded.refused + decoded.unknown]
    return [*events, *refused, *decoded.clocks]


@settings(max_examples=200)
@given(st.lists(_mutated(), min_size=1, max_size=4))
def test_what_becomes_of_a_record_depends_on_its_bytes_alone(
    cases: list[tuple[str, bytes]],
) -> None:
    """Decoding together, alone, or without the quick way gives the same; nothing raises."""
    for entity in GOOD:
        records = [record(raw, i) for i, (of, raw) in enumerate(cases) if of == entity]
        together = _outcome(decode(entity, records, FLEET, SETTINGS))
        alone = [decode(entity, [r], FLEET, SETTINGS) for r in records]

        assert sorted(map(repr, together)) == sorted(repr(x) for d in alone for x in _outcome(d))
        for r, decoded in zip(records, alone, strict=True):
            assert _outcome(decoded) == _outcome(_exactly(entity, r))


def _exactly(entity: str, r: Record) -> Decoded:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding._Reader, "quick", lambda *_, **__: None)
        return decode(entity, [r], FLEET, SETTINGS)


def test_requests_decode_into_their_event_type() -> None:
    (event,) = one("requests", REQUEST).events

    assert isinstance(event.data, PredictionRequested)
