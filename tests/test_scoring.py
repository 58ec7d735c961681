"""The score stage: one prediction per request, in order, whatever the models do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models.spec import Feature, ModelSpec
from stream import envelope
from stream.core import scored
from stream.core.decoding import decode
from stream.core.partitioning import partition_of
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Headers, Output, Record
from stream.core.scoring import ScoreProcessor
from stream.events import PredictionMade, PredictionRequested
from tests.fleets import CHURN, GOOD_FEATURES, FakeLive

NOW = 1_700_000_000_000
PRICES = ModelSpec(name="prices", task="regression", features=(Feature(name="x"),))
COLOURS = ModelSpec(
    name="colours", task="multiclass", classes=("r", "g", "b"), features=(Feature(name="x"),)
)
NOBODY: Fleet = {}


def processor(**settings: object) -> ScoreProcessor:
    core = CoreSettings(**settings)  # type: ignore[arg-type]
    return ScoreProcessor(Context(2, {"requests": 4, "predictions": 8}, core))


def request(offset: int, model: str = "churn", **features: float | str | None) -> Record:
    data = PredictionRequested(
        prediction_id=f"r-{offset}",
        model=model,
        features={**features} or GOOD_FEATURES,
    )
    kind = "driftline.prediction.requested.v1"
    time_ms = NOW - offset
    value = envelope.write(kind, data, id=str(offset), source="t", time_ms=time_ms, traceparent="t")
    return Record(offset, NOW, b"k", value)


def batch(*records: Record) -> Batch:
    return Batch("requests", 2, records)


def made(output: Output) -> PredictionMade:
    record = Record(0, NOW, output.key, output.value)
    opened = envelope.open_record("predictions", record, max_bytes=10_000)
    return envelope.read(opened, PredictionMade)


def test_a_prediction_says_all_that_monitor_needs() -> None:
    live = FakeLive(challengers=(2, 3), generation=7)

    (output,) = processor().apply(batch(request(5)), {"churn": live})

    assert made(output) == PredictionMade(
        prediction_id="r-5",
        model="churn",
        version=1,
        output=0.1,
        features=GOOD_FEATURES,
        shadow={"2": 0.2, "3": 0.3},
        spec_revision=1,
        generation=7,
    )
    assert (output.entity, output.key, output.timestamp_ms) == ("predictions", b"r-5", None)
    assert output.partition == partition_of(b"r-5", 8, "murmur2")


def test_a_prediction_is_the_cloud_event_that_the_envelope_would_write() -> None:
    """The one-pass encoding is only a short way."""
    (output,) = processor().apply(batch(request(5)), {"churn": FakeLive()})

    written = envelope.write(
        "driftline.prediction.made.v1",
        made(output),
        id="2/5",
        source="driftline/score",
        time_ms=NOW - 5,
        traceparent="t",
    )
    assert output.value
    assert msgspec.json.decode(output.value) == msgspec.json.decode(written)


CANARY = msgspec.structs.replace(
    CHURN, trial=msgspec.structs.replace(CHURN.trial, canary_share=0.3)
)


def test_a_canary_answers_its_share_of_the_keys_and_the_champion_is_beside_it() -> None:
    live = FakeLive(CANARY, challengers=(2, 3))
    live.lifecycle = msgspec.structs.replace(live.lifecycle, canary=2)
    requests = [request(offset) for offset in range(1000)]
    outputs = processor().apply(batch(*requests), {"churn": live})
    by_id = {made(output).prediction_id: made(output) for output in outputs}
    assert list(by_id) == [f"r-{offset}" for offset in range(1000)]  # in order, each once
    versions = [one.version for one in by_id.values()]
    assert set(versions) == {1, 2}
    assert 250 < versions.count(2) < 350
    for one in by_id.values():
        beside = {"1": 0.1, "2": 0.2, "3": 0.3}
        assert one.output == beside.pop(str(one.version))
        assert one.shadow == beside
    alone = [processor().apply(batch(one), {"churn": live})[0] for one in requests[:50]]
    assert alone == outputs[:50]  # whatever comes beside it, a key has the same answer


@pytest.mark.parametrize("canary", [2, 4])
def test_what_the_canary_has_no_output_for_the_champion_answers(canary: int) -> None:
    def predict(version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        if version == canary:
            raise ValueError("odd rows" if canary == 2 else "not loaded")
        return np.full((len(rows), 1), 0.1)

    live = FakeLive(CANARY, challengers=(canary,), predict=predict)
    live.lifecycle = msgspec.structs.replace(live.lifecycle, canary=canary)
    outputs = processor().apply(batch(*[request(n) for n in range(20)]), {"churn": live})
    assert {made(output).version for output in outputs} == {1}


def plain(offset: int, id_: str = "", features: bytes = b"", model: str = "churn") -> Record:
    """A request as plain JSON."""
    text = features or msgspec.json.encode(GOOD_FEATURES)
    head = msgspec.json.encode({"prediction_id": id_ or f"r-{offset}", "model": model})
    return Record(offset, NOW, b"k", head[:-1] + b',"features":' + text + b"}")


@pytest.mark.parametrize("challengers", [(), (2, 3), (4,)])  # 4 is not loaded: it says nothing
@pytest.mark.parametrize("model", ["churn", "colours"])
def test_a_batch_is_encoded_to_the_bytes_of_each_alone(
    model: str, challengers: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is alike in all predictions is encoded once, but for those that have more to say."""
    features = b'{"x":1.5}' if model == "colours" else b""
    ids = ["a", 'quo"ted', "back\\slash", "grün", "<b>&"]
    records = [plain(i, id_, features, model) for i, id_ in enumerate(ids)]
    traced = request(len(ids), model, **({"x": 1.5} if features else {}))
    colours = FakeLive(COLOURS, challengers=challengers, predict=_thirds)
    fleet = {"churn": FakeLive(challengers=challengers), "colours": colours}

    outputs = processor().apply(batch(*records), fleet)
    mixed = processor().apply(batch(*records, traced), fleet)
    monkeypatch.setattr(scored, "_framed", _one_by_one)
    alone = processor().apply(batch(*records), fleet)

    assert outputs == alone == mixed[:-1]
    assert [made(output).prediction_id for output in outputs] == ids


def _one_by_one(*arguments: Any) -> list[bytes]:
    return list(map(msgspec.json.encode, scored._envelopes(*arguments)))


def _thirds(version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
    if version == 4:
        raise KeyError(version)
    return np.array([[0.25, 0.25, 0.5]] * len(rows))


@pytest.mark.parametrize("beside", [[], [b"{"], [b"[" * 5_000]])
@pytest.mark.parametrize("structured", [False, True])
def test_features_are_handed_on_as_they_came(beside: list[bytes], structured: bool) -> None:
    """Not a digit changes, whatever else is in the batch."""
    odd = b'{ "plan":\ttrue,\n"age": 41.50, "visits per day" : 5E-1, "age": 1e0 }'
    record = plain(0, "a", odd)
    if structured:
        head = (
            b'{"specversion":"1.0","id":"1","source":"s","type":"driftline.prediction.requested.v1"'
        )
        record = record._replace(value=head + b',"data":' + (record.value or b"") + b"}")
    records = [record, *(Record(i, NOW, b"k", value) for i, value in enumerate(beside, 1))]

    output, *_ = [
        output
        for output in processor().apply(batch(*records, plain(9)), {"churn": FakeLive()})
        if output.entity == "predictions"
    ]
    assert b'"features":' + odd + b"," in (output.value or b"")
    assert made(output).features == {"age": 1.0, "visits per day": 0.5, "plan": True}


def test_monitor_reads_what_score_writes() -> None:
    fleet = {"churn": FakeLive(challengers=(2,)), "colours": FakeLive(COLOURS, challengers=(2,))}
    outputs = processor().apply(
        batch(request(1), request(2, "colours", x=1.5)), {**fleet, **_simplex()}
    )

    records = [Record(i, NOW, o.key, o.value) for i, o in enumerate(outputs)]
    decoded = decode("predictions", records, fleet, CoreSettings())

    assert [event.row for event in decoded.events] == [(41.0, 0.5, "gold"), (1.5,)]
    assert [event.values for event in decoded.events] == [(0.1,), (0.25, 0.25, 0.5)]


def _simplex() -> Fleet:
    return {"colours": FakeLive(COLOURS, challengers=(2,), predict=_thirds)}


def test_predictions_come_in_the_order_of_requests_across_models() -> None:
    fleet = {"churn": FakeLive(), "prices": FakeLive(PRICES)}
    records = [request(i, "prices", x=1.0) if i % 3 else request(i) for i in range(20)]

    outputs = processor().apply(batch(*records), fleet)

    assert [made(output).prediction_id for output in outputs] == [f"r-{i}" for i in range(20)]


def test_each_version_predicts_a_batch_once_on_the_same_rows() -> None:
    seen: list[tuple[int, Sequence[Sequence[object]]]] = []

    def predict(version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        seen.append((version, rows))
        return np.full((len(rows), 1), 0.5)

    live = FakeLive(challengers=(2,), predict=predict)
    processor().apply(batch(*map(request, range(50))), {"churn": live})

    assert [version for version, _ in seen] == [1, 2]
    assert seen[0][1] is seen[1][1]


def test_the_split_into_batches_does_not_show_in_the_outputs() -> None:
    records = [request(i) for i in range(30)]
    fleet = {"churn": FakeLive()}

    whole, pieces = processor(), processor()

    apart = [o for i in range(0, 30, 7) for o in pieces.apply(batch(*records[i : i + 7]), fleet)]
    assert whole.apply(batch(*records), fleet) == apart


def test_a_refused_request_is_a_dead_letter_and_counted() -> None:
    score = processor()
    bad = request(2)._replace(value=b"{")

    outputs = score.apply(batch(request(1), bad, request(3)), {"churn": FakeLive()})

    assert sorted(output.entity for output in outputs) == [
        "predictions", "predictions", "requests.dlq",
    ]  # fmt: skip
    assert score.counters["refused:bad-json"] == 1
    assert score.counters["predictions"] == 2


REFUSED = [
    (b"no json", "bad-json", "JSON is malformed: invalid character (byte 4)"),
    (b"\xff\x00", "bad-json", "JSON is malformed: invalid character (byte 0)"),
    (b"[[[", "bad-data", "Expected `object`, got `array`"),
    (b'{"model": "churn"', "bad-json", "Input data was truncated"),
    (
        b'{"prediction_id": "r", "model": "churn"}',
        "bad-data",
        "Object missing required field `features`",
    ),
    (
        b'{"prediction_id": "r", "model": "churn", "features": {"age": "old"}}',
        "bad-features",
        "Expected `float | null`, got `str` - at `$.features.age`",
    ),
    (
        b'{"prediction_id": "", "model": "churn", "features": {}}',
        "bad-id",
        "Expected `str` of length >= 1 - at `$.prediction_id`",
    ),
    (b'{"specversion": "9"}', "bad-envelope", "Object missing required field `id`"),
    (None, "null-value", "the record has no value"),
]


@pytest.mark.parametrize("headers", [(), (("trace", b"1"), ("dl_reason", b"before"))])
def test_half_of_a_batch_refused_becomes_dead_letters_byte_for_byte(headers: Headers) -> None:
    """Value, key, headers, place and reason of each, in order, whatever lies beside it."""
    fleet = {"churn": FakeLive()}
    bad = [
        Record(2 * n, NOW + n, b"\xff%d" % n, value, headers)
        for n, (value, _, _) in enumerate(REFUSED)
    ]
    good = [request(2 * n + 1) for n in range(len(bad))]
    mixed = [one for pair in zip(bad, good, strict=True) for one in pair]

    letters = [o for o in processor().apply(batch(*mixed), fleet) if o.entity == "requests.dlq"]

    assert letters == [
        Output(
            "requests.dlq",
            b"\xff%d" % n,
            value,
            2,
            (
                *headers[:1],
                ("dl_reason", why.encode()),
                ("dl_detail", detail.encode()),
                ("dl_topic", b"requests"),
                ("dl_partition", b"2"),
                ("dl_offset", b"%d" % (2 * n)),
                ("dl_timestamp_ms", b"%d" % (NOW + n)),
                ("dl_stage", b"score"),
            ),
        )
        for n, (value, why, detail) in enumerate(REFUSED)
    ]
    apart = [o for r in bad for o in processor().apply(batch(r), fleet)]
    assert apart == letters


def test_a_request_for_an_unknown_model_waits_and_is_then_scored() -> None:
    score = processor()
    assert score.apply(batch(request(1)), NOBODY) == []
    assert score.advance(10_000, True, NOBODY) == []

    (output,) = score.advance(14_000, True, {"churn": FakeLive()})

    assert made(output).prediction_id == "r-1"
    assert score.advance(99_000, True, {"churn": FakeLive()}) == []


def test_requests_that_waited_come_before_newer_ones() -> None:
    """Order of a key is kept across the wait."""
    score = processor()
    score.apply(batch(request(1)), NOBODY)

    outputs = score.apply(batch(request(2)), {"churn": FakeLive()})

    assert [made(output).prediction_id for output in outputs] == ["r-1", "r-2"]


def test_a_request_for_a_model_that_never_comes_is_dead_lettered_after_the_wait() -> None:
    score = processor(unknown_model_wait_ms=5_000)
    score.apply(batch(request(1)), {"churn": FakeLive(champion=None)})
    score.advance(10_000, True, NOBODY)

    (output,) = score.advance(15_000, True, NOBODY)

    assert output.entity == "requests.dlq"
    assert dict(output.headers)["dl_reason"] == b"unknown-model"


def test_what_waits_survives_in_the_checkpoint() -> None:
    first, second = processor(), processor()
    first.apply(batch(request(1)), NOBODY)

    second.restore({name: part for name, part in first.changes(complete=False).items() if part})

    (output,) = second.advance(0, True, {"churn": FakeLive()})
    assert made(output).prediction_id == "r-1"


def test_a_prediction_has_its_requests_time_where_a_replayer_is_the_clock() -> None:
    (output,) = processor(clock="event").apply(batch(request(1)), {"churn": FakeLive()})

    assert output.timestamp_ms == NOW


def test_the_newest_generation_used_is_told() -> None:
    score = processor()
    score.apply(batch(request(1)), {"churn": FakeLive(generation=4)})
    score.apply(batch(request(2)), {"churn": FakeLive(generation=5)})

    assert score.generations == {"churn": 5}


# --- models that fail ----------------------------------------------------------------------------


def _picky(version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
    """Raises where a whole batch holds a row with a negative first value."""
    if any(float(str(row[0])) < 0 for row in rows):
        raise ValueError("negative")
    return np.full((len(rows), 1), 0.5)


def _overflowing(version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
    return np.array([[np.nan if float(str(row[0])) < 0 else 0.5] for row in rows])


def _huge(version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
    return np.array([[1e13 if float(str(row[0])) < 0 else 0.5] for row in rows])


@pytest.mark.parametrize("predict", [_picky, _overflowing, _huge])
def test_a_row_that_the_champion_cannot_take_is_refused_alone(predict: object) -> None:
    live = FakeLive(PRICES, predict=predict)  # type: ignore[arg-type]
    records = [request(i, "prices", x=-1.0 if i == 3 else 1.0) for i in range(6)]

    outputs = processor().apply(batch(*records), {"prices": live})

    assert [output.entity for output in outputs].count("predictions") == 5
    (refused,) = (output for output in outputs if output.entity == "requests.dlq")
    assert dict(refused.headers)["dl_reason"] == b"bad-output"
    assert refused.value == records[3].value


@pytest.mark.parametrize("failure", [ValueError, KeyError, ZeroDivisionError])
def test_a_shadow_that_fails_does_not_touch_the_champion(failure: type[Exception]) -> None:
    def predict(version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        if version == 2:
            raise failure("shadow")
        return np.full((len(rows), 1), version / 10)

    score = processor()
    live = FakeLive(challengers=(2, 3), predict=predict)

    outputs = score.apply(batch(request(1), request(2)), {"churn": live})

    assert [made(output).shadow for output in outputs] == [{"3": 0.3}, {"3": 0.3}]
    assert score.counters["shadow_missing"] == 2


def test_a_champion_that_is_not_loaded_halts() -> None:
    """That is no fault of the record: refusing requests for it would lose them."""

    def predict(version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        raise KeyError(version)

    with pytest.raises(KeyError):
        processor().apply(batch(request(1)), {"churn": FakeLive(CHURN, predict=predict)})
