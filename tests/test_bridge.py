"""What inference servers log becomes predictions, each once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from consumers import inferences
from consumers.bridge import Bridge, Pairs, Wanted
from consumers.inferences import Half, Own
from consumers.places import Delivered, Place
from consumers.schemas import reading
from models.spec import Feature, ModelSpec
from stream.core.processor import Output, Record
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import LifecycleChanged, PredictionMade
from stream.settings import Settings

SPEC = ModelSpec(
    name="fraud",
    task="binary",
    classes=("honest", "fraud"),
    features=(Feature(name="age"), Feature(name="plan", type="categorical")),
)
COLUMNS = {
    "inputs": [
        {"name": "plan", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
        {"name": "age", "shape": [2, 1], "datatype": "FP64", "data": [41, 7]},
    ]
}
MATRIX = {"inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [41, 0, 7, 1]}]}
SAID = {
    "model_name": "fraud",
    "model_version": "3",
    "outputs": [
        {"name": "predict", "shape": [2], "datatype": "INT64", "data": [0, 1]},
        {
            "name": "predict_proba",
            "shape": [2, 2],
            "datatype": "FP64",
            "data": [0.75, 0.25, 0.5, 0.5],
        },
    ],
}
V1 = {"instances": [[41, "a"]]}, {"predictions": [0.25]}


def logged(
    kind: str, payload: object, id_: str = "r1", *, structured: bool = False, offset: int = 0
) -> Record:
    """As KServe's logger writes it, by the standard's own library."""
    event = CloudEvent(
        {
            "id": id_,
            "type": f"org.kubeflow.serving.inference.{kind}",
            "source": "http://localhost:9081/",
            "time": datetime(2026, 11, 26, tzinfo=UTC),
            "specversion": "1.0",
            "datacontenttype": "application/json",
            "inferenceservicename": "isvc",
            "namespace": "default",
        },
        payload,
    )
    message = to_structured_event(event) if structured else to_binary_event(event)
    headers = tuple(message.headers.items())
    return Record(offset, 1_700_000_000_000, message.key, message.value, headers)


class Scene:
    """A bridge, and what it wrote."""

    def __init__(
        self,
        pairs: Pairs | None = None,
        as_json: Callable[[Record], Record] | None = None,
        **wanted: Any,
    ) -> None:
        self.written: list[Output] = []
        live = LifecycleChanged(
            model="fraud", generation=1, spec=SPEC, spec_revision=1, champion=2, changed_ms=1
        )
        self.bridge = Bridge(
            Wanted("log", {"isvc": "fraud"}, **wanted),
            {"fraud": live}.get,
            self.written.append,
            Pairs() if pairs is None else pairs,
            as_json or reading(Settings()),
        )

    def take(self, record: Record, partition: int = 0, now: float = 0.0) -> list[Place]:
        return self.bridge.take(Delivered(Place(partition, record.offset), record), now)

    def made(self) -> list[PredictionMade]:
        return [
            read(
                open_record("predictions", Record(0, 0, one.key, one.value, ()), max_bytes=100_000),
                PredictionMade,
            )
            for one in self.written
            if one.entity == "predictions"
        ]


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("order", [("request", "response"), ("response", "request")])
def test_a_request_and_its_response_are_one_prediction(
    order: Sequence[str], structured: bool
) -> None:
    """In either order and mode; both records are done then, and not before."""
    scene, halves = Scene(), dict(zip(("request", "response"), V1, strict=True))
    first, second = (
        logged(kind, halves[kind], structured=structured, offset=n) for n, kind in enumerate(order)
    )
    assert scene.take(first) == []
    assert sorted(scene.take(second, partition=1)) == [Place(0, 0), Place(1, 1)]
    [made] = scene.made()
    assert (made.prediction_id, made.model, made.version) == ("r1", "fraud", 2)
    assert (made.output, made.features) == (0.25, {"age": 41, "plan": "a"})
    assert scene.written[0].key == b"r1"


def test_a_request_of_many_instances_is_many_predictions() -> None:
    """By the Open Inference Protocol: a tensor a feature; the server's version is taken."""
    scene = Scene()
    scene.take(logged("request", COLUMNS))
    scene.take(logged("response", SAID, offset=1))
    assert [(one.prediction_id, one.output, one.version) for one in scene.made()] == [
        ("r1/0", 0.25, 3),
        ("r1/1", 0.5, 3),
    ]
    assert scene.made()[1].features == {"age": 7, "plan": "b"}


def test_written_twice_it_has_the_same_ids() -> None:
    """After a crash what was not committed comes again."""
    scene = Scene()
    for _ in range(2):
        scene.take(logged("request", COLUMNS))
        scene.take(logged("response", SAID, offset=1))
    assert scene.written[:2] == scene.written[2:]


def test_a_record_may_hold_both_or_a_batch() -> None:
    """Driftline's own events go to their own topics."""
    both = {"id": "g1", "request": V1[0], "response": {**V1[1], "model_name": "isvc"}}
    own = {
        "specversion": "1.0",
        "id": "e",
        "source": "s",
        "type": "driftline.feedback.received.v1",
        "data": {"prediction_id": "g1", "model": "fraud", "label": "fraud"},
    }
    scene = Scene()
    batch = Record(5, 1_700_000_000_000, None, json.dumps([both, own]).encode())
    assert scene.take(batch) == [Place(0, 5)]
    assert [one.prediction_id for one in scene.made()] == ["g1"]
    [feedback] = [one for one in scene.written if one.entity == "feedback"]
    assert feedback.key == b"g1"
    assert json.loads(feedback.value or b"")["data"]["label"] == "fraud"


def test_what_does_not_fit_is_a_dead_letter_and_done() -> None:
    scene = Scene()
    for offset, (request, response) in enumerate(
        [
            ({"instances": [[1]]}, V1[1]),
            (V1[0], {"predictions": ["x"]}),
            (V1[0], {"predictions": [0.1, 0.2]}),
            (V1[0], {"outputs": [{"name": n, "shape": [1], "data": [1]} for n in "ab"]}),
            ({"inputs": [{"name": "age", "shape": [1], "data": [1]}]}, V1[1]),
            ({"inputs": []}, V1[1]),
            ({"inputs": [{"name": "x", "shape": [2, 2], "data": [1, 2, 3]}]}, V1[1]),
        ]
    ):
        assert scene.take(logged("request", request, f"r{offset}", offset=2 * offset)) == []
        answer = logged("response", response, f"r{offset}", offset=2 * offset + 1)
        assert len(scene.take(answer)) == 2
    for value in (None, b"no json", b'"text"', b"[1]", b'{"type": "x.inference.request"}'):
        assert scene.take(Record(99, 0, None, value)) == [Place(0, 99)]
    assert scene.made() == []
    reasons = [dict(one.headers)["dl_reason"].decode() for one in scene.written]  # type: ignore[union-attr]
    of_pairs = ["bad-features", *["bad-output"] * 3, *["bad-features"] * 3]
    assert reasons == [
        *(reason for reason in of_pairs for _ in ("request", "response")),
        *("null-value", "bad-json", "bad-envelope", "bad-envelope", "bad-envelope"),
    ]
    assert scene.take(Record(100, 0, None, b'{"type": "other"}')) == [Place(0, 100)]


def test_a_model_that_nobody_registered_is_said_so() -> None:
    scene = Scene()
    for kind, payload in zip(("request", "response"), V1, strict=True):
        record = logged(kind, payload)
        headers = tuple((n, v) for n, v in record.headers if n != "ce_inferenceservicename")
        scene.take(record._replace(headers=headers))
    for letter in scene.written:
        assert ("dl_reason", b"unknown-model") in letter.headers


def test_of_a_refused_pair_both_halves_are_kept_and_say_where_they_lay() -> None:
    """One without the other could never be sent again."""
    scene = Scene()
    for offset, (kind, payload) in enumerate(zip(("request", "response"), V1, strict=True)):
        wrong = {"instances": [[1]]} if kind == "request" else payload
        scene.take(logged(kind, wrong, offset=offset), partition=3)
    assert [one.value for one in scene.written] == [
        logged("request", {"instances": [[1]]}).value,
        logged("response", V1[1]).value,
    ]
    for offset, letter in enumerate(scene.written):
        assert dict(letter.headers).items() >= {
            *(("dl_stage", b"bridge"), ("dl_source", b"log")),
            *(("dl_partition", b"3"), ("dl_offset", b"%d" % offset)),
        }


def test_a_record_that_holds_both_halves_is_one_dead_letter() -> None:
    scene = Scene()
    both = {"id": "g1", "request": {"instances": [[1]]}, "response": V1[1]}
    scene.take(Record(5, 0, None, json.dumps(both).encode()))
    assert len(scene.written) == 1


def test_a_half_waits_so_long_and_so_many_wait() -> None:
    """What is given up no longer holds the offsets back."""
    scene = Scene(Pairs(most=2, wait_seconds=10))
    for n in range(3):
        scene.take(logged("request", V1[0], f"r{n}", offset=n), now=float(n))
    assert scene.bridge.give_up(3.0) == [Place(0, 0)]
    assert scene.bridge.give_up(11.5) == [Place(0, 1)]
    assert scene.bridge.counts["unpaired"] == 2
    assert scene.written == []


def test_a_partition_that_went_to_another_leaves_nothing() -> None:
    scene = Scene()
    scene.take(logged("request", V1[0]), partition=3)
    scene.bridge.lose(3)
    assert scene.take(logged("response", V1[1], offset=1)) == []
    assert scene.made() == []


def test_the_same_half_twice_waits_once() -> None:
    scene = Scene()
    assert scene.take(logged("request", V1[0])) == []
    assert scene.take(logged("request", V1[0], offset=1)) == [Place(0, 1)]
    assert scene.take(logged("response", V1[1], offset=2)) == [Place(0, 0), Place(0, 2)]
    assert len(scene.made()) == 1


def test_one_tensor_of_all_features_is_in_the_order_of_the_spec() -> None:
    found = inferences.rows(SPEC, MATRIX, SAID)
    assert found == [({"age": 41, "plan": 0}, 0.25), ({"age": 7, "plan": 1}, 0.5)]


def test_the_output_may_be_named() -> None:
    assert [said for _, said in inferences.rows(SPEC, MATRIX, SAID, "predict")] == [0.0, 1.0]
    with pytest.raises(Refused, match="--output"):
        inferences.rows(SPEC, MATRIX, SAID, "absent")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["inputs", "outputs", "instances", "predictions", "name", "data", "shape"])
SHAPED = st.recursive(
    JSON, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4)
)


@given(SHAPED, SHAPED)
def test_whatever_is_logged_is_rows_or_refused(request: object, response: object) -> None:
    """No payload stops the bridge."""
    if isinstance(request, dict) and isinstance(response, dict):
        try:
            inferences.rows(SPEC, request, response)
        except Refused:
            return


@given(SHAPED)
def test_whatever_lies_there_is_read_or_refused(value: object) -> None:
    record = Record(0, 0, None, json.dumps(value).encode())
    try:
        found = list(inferences.read(record))
    except Refused:
        return
    assert all(isinstance(one, Half | Own) for one in found)
