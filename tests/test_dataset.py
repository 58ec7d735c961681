"""Reading labelled examples with their features: what is used, and how far it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from msgspec.structs import replace

from consumers import dataset
from consumers.dataset import Dataset, load
from consumers.loop import RangeReader
from consumers.places import Delivered, Place, Span
from models.spec import Feature, ModelSpec, Training
from stream.core.processor import Record
from stream.envelope import write
from stream.events import ExampleLabelled, FeatureValue, PredictionMade
from stream.settings import Settings
from tests.labelled import example, together
from tests.topics import Sent, make_topics, produce

SPEC = ModelSpec(
    name="churn",
    task="binary",
    classes=("no", "yes"),
    features=(Feature(name="age"), Feature(name="plan", type="categorical")),
    training=Training(window_seconds=100, maximum_rows=1000),
)
SECOND = 1000


class FakeLog:
    """Both topics in memory, partition 0 only, and what was read of them."""

    def __init__(self) -> None:
        self.records: dict[str, list[Record]] = {"examples": [], "predictions": []}
        self.first = {"examples": 0, "predictions": 0}  # oldest offset still held
        self.reads: list[tuple[str, Span]] = []

    def bounds(self, entity: str) -> list[Span]:
        return [Span(0, self.first[entity], len(self.records[entity]))]

    def read(self, entity: str, spans: Sequence[Span]) -> Iterator[Delivered]:
        for span in spans:
            self.reads.append((entity, span))
            for offset in range(max(span.start, self.first[entity]), span.end):
                yield Delivered(Place(0, offset), self.records[entity][offset])

    def add(self, entity: str, value: bytes) -> int:
        offset = len(self.records[entity])
        self.records[entity].append(Record(offset, 0, b"key", value))
        return offset

    def predict(self, number: int, model: str = "churn", **features: FeatureValue) -> int:
        return self.add("predictions", prediction(number, model, **features))

    def label(self, number: int, at_seconds: float, **more: object) -> None:
        """A prediction made at a time, and its label a second later."""
        offset = self.predict(number, age=float(number), plan="a")
        self.add("examples", labelled(number, offset, at_seconds, **more))

    def load(self, spec: ModelSpec = SPEC) -> Dataset:
        return load(self, spec, self.bounds("examples"), Settings())


def prediction(number: int, model: str = "churn", **features: FeatureValue) -> bytes:
    made = PredictionMade(
        prediction_id=f"p{number}", model=model, version=1, output=0.5, features=features
    )
    return write(
        "driftline.prediction.made.v1", made, id=f"e{number}", source="test", time_ms=number
    )


def labelled(number: int, offset: int, at_seconds: float, **more: object) -> bytes:
    return told(made_at(number, offset, at_seconds, **more))


def made_at(number: int, offset: int, at_seconds: float, **more: object) -> ExampleLabelled:
    at_ms = round(at_seconds * SECOND)
    times = {"predicted_ms": at_ms, "labelled_ms": at_ms + SECOND}
    return example(f"p{number}", offset=offset, **times, **more)


def told(*examples: ExampleLabelled) -> bytes:
    kind = "driftline.example.labelled.v2"
    return write(kind, together(*examples), id="x", source="test", time_ms=0)


def test_rows_come_in_event_time_with_their_labels_and_features() -> None:
    log = FakeLog()
    log.label(1, 20, label="no", weight=2.0)
    log.label(2, 10)
    found = log.load()
    assert found.rows == [(2.0, "a"), (1.0, "a")]
    assert (found.labels, found.weights) == (["yes", "no"], [1.0, 2.0])
    assert found.times_ms == [10 * SECOND, 20 * SECOND]
    assert (found.data.rows, found.data.classes) == (2, {"no": 1, "yes": 1})
    assert (found.data.start_ms, found.data.end_ms) == (10 * SECOND, 20 * SECOND)


def test_only_the_window_before_the_newest_label_is_used() -> None:
    log = FakeLog()
    for number, at in enumerate((10, 500, 590, 600)):
        log.label(number, at)
    assert log.load().times_ms == [590 * SECOND, 600 * SECOND]


def test_the_newest_correction_of_a_label_counts_whatever_the_order() -> None:
    log = FakeLog()
    log.label(1, 10)
    log.add("examples", labelled(1, 0, 10, label="no", revision=2))
    log.add("examples", labelled(1, 0, 10, label="yes", revision=1))
    assert log.load().labels == ["no"]


def test_examples_that_share_a_record_are_read_one_by_one() -> None:
    log = FakeLog()
    offsets = [log.predict(number, age=float(number), plan="a") for number in range(3)]
    first, second, third = (made_at(n, offset, 10 + n) for n, offset in enumerate(offsets))
    log.add("examples", told(first, replace(second, label="no", weight=2.0), third))
    found = log.load()
    assert found.rows == [(0.0, "a"), (1.0, "a"), (2.0, "a")]
    assert (found.labels, found.weights) == (["yes", "no", "yes"], [1.0, 2.0, 1.0])


def test_examples_that_0_1_wrote_are_read_beside_those_of_today() -> None:
    log = FakeLog()
    former = made_at(1, log.predict(1, age=1.0, plan="a"), 10)
    kind = "driftline.example.labelled.v1"
    log.add("examples", write(kind, former, id="x", source="test", time_ms=0))
    log.label(2, 11)
    assert log.load().rows == [(1.0, "a"), (2.0, "a")]


def test_other_models_and_strange_records_are_left_out() -> None:
    log = FakeLog()
    log.label(1, 10)
    log.label(2, 11, model="other")
    log.add("examples", b"no json")
    uneven = labelled(3, log.predict(3, age=3.0, plan="a"), 12).replace(b'["yes"]', b"[]")
    log.add("examples", uneven)
    assert log.load().rows == [(1.0, "a")]


def test_predictions_that_are_gone_or_do_not_fit_are_counted() -> None:
    log = FakeLog()
    log.label(1, 10)
    log.label(2, 11)
    log.add("examples", labelled(3, log.predict(3, age="text", plan="a"), 12))
    log.first["predictions"] = 1
    found = log.load()
    assert (found.rows, found.gone, found.unfit) == ([(2.0, "a")], 1, 1)
    assert (found.data.labelled, found.data.rows) == (3, 1)


def test_no_more_than_maximum_rows_and_these_the_newest() -> None:
    log = FakeLog()
    for number in range(10):
        log.label(number, 10 + number)
    found = log.load(replace(SPEC, training=Training(maximum_rows=3)))
    assert found.rows == [(7.0, "a"), (8.0, "a"), (9.0, "a")]


def test_what_aborted_between_examples_does_not_end_the_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though it fills a chunk; times are those of a clock, so that zero is long ago."""
    monkeypatch.setattr(dataset, "FIRST_CHUNK", 10)
    log = FakeLog()
    log.label(1, 1_700_000_000)
    for _ in range(35):
        log.add("examples", b"aborted")
    log.label(2, 1_700_000_001)
    assert log.load().rows == [(1.0, "a"), (2.0, "a")]


def test_a_short_window_does_not_read_the_whole_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "FIRST_CHUNK", 10)
    log = FakeLog()
    for number in range(1000):
        log.label(number, number * 10.0)  # the window holds ten
    assert len(log.load().rows) == 10
    read = sum(span.length for entity, span in log.reads if entity == "examples")
    assert read <= 70
    assert {entity: span.start for entity, span in log.reads}["predictions"] >= 985


def test_coverage_counts_the_predictions_of_the_model_only() -> None:
    log = FakeLog()
    log.label(1, 10)
    log.predict(8, "other", age=1.0)
    log.predict(9, age=1.0, plan="a")  # never labelled
    log.label(2, 11)
    data = log.load().data
    assert (data.predictions, data.labelled) == (3, 2)


def test_the_same_data_has_the_same_digest_and_other_data_has_not() -> None:
    logs = [FakeLog(), FakeLog(), FakeLog()]
    for log, label in zip(logs, ("yes", "yes", "no"), strict=True):
        log.label(1, 10, label=label)
    first, second, third = (log.load().data.digest for log in logs)
    assert first == second != third


def test_no_examples_is_an_empty_dataset() -> None:
    assert FakeLog().load().rows == []


def test_the_real_log_is_read_to_the_recorded_end_and_no_further(kafka_settings: Settings) -> None:
    make_topics(kafka_settings)
    topic, boot = kafka_settings.names.topic, kafka_settings.bootstrap_servers
    made = [Sent(b"k", prediction(n, age=float(n), plan="a"), n % 2) for n in range(200)]
    produce(boot, topic("predictions"), made)
    sent = [
        Sent(b"k", labelled(n, n // 2, 10 + n / 100, partition=n % 2), n % 4) for n in range(200)
    ]
    produce(boot, topic("examples"), sent[:150])
    with RangeReader(kafka_settings) as reader:
        bounds = reader.bounds("examples")
        produce(boot, topic("examples"), sent[150:])
        found = load(reader, SPEC, bounds, kafka_settings)
    assert [row[0] for row in found.rows] == [float(n) for n in range(150)]
    assert found.gone == 0
    ranges = {(r.topic, r.partition): (r.first, r.end) for r in found.data.ranges}
    assert ranges[topic("predictions"), 0] == (0, 75)
    assert sum(end - first for (t, _), (first, end) in ranges.items() if "examples" in t) == 150
