"""Models that are served elsewhere: shadows are asked here, and paired on the same labels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from models.spec import ModelSpec
from stream.core.monitor import MonitorProcessor
from stream.core.partitioning import partition_of
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Output, Record
from stream.core.shadowing import ShadowProcessor
from stream.envelope import open_record, read
from stream.events import PredictionShadowed
from stream.topics import HEADER_REASON
from tests.monitoring import (
    SPEC,
    T0,
    TICK_MS,
    Live,
    Sent,
    data_of,
    feedback,
    keep,
    merged,
    monitor,
    prediction,
    summaries_of,
)

ELSEWHERE = replace(SPEC, served="elsewhere")
LATER_MS = T0 + 100_000


class Held(Live):
    """Versions 1 and 2 are challengers or champion; the bytes of version 1 are not here."""

    def __init__(self, spec: ModelSpec = ELSEWHERE, champion: int = 1) -> None:
        super().__init__(spec, generation=3, versions=(1, 2, 3))
        self.lifecycle = replace(self.lifecycle, champion=champion, challengers=[2, 3])

    def predict(self, version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        if version == 1:
            raise KeyError(version)
        return np.array([[version / 10 + (plan == "b") / 20] for _, plan in rows])


FLEET: Fleet = {"churn": Held()}


def shadow(partition: int = 0, partitions: int = 1, **settings: Any) -> ShadowProcessor:
    counts = {"predictions": partitions, "alerts": 1}
    return ShadowProcessor(Context(partition, counts, CoreSettings(**settings)))


def records(*sent: Sent) -> list[Record]:
    return [one.record(offset) for offset, one in enumerate(sent)]


def beside(output: Output) -> PredictionShadowed:
    opened = open_record("predictions", Record(0, T0, output.key, output.value), max_bytes=10**6)
    return read(opened, PredictionShadowed)


def written(outputs: Sequence[Output], first: int) -> list[Record]:
    """Outputs as they lie in the log, behind what was there."""
    return [
        Record(first + i, T0 + 200, output.key, output.value) for i, output in enumerate(outputs)
    ]


def test_versions_that_are_held_here_are_asked_on_the_same_features() -> None:
    stage = shadow()
    batch = Batch("predictions", 0, records(prediction("p", 5), prediction("q", 6, plan="b")))
    outputs = stage.apply(batch, FLEET)
    said: list[dict[str, float | list[float]]] = [{"2": 0.2, "3": 0.3}, {"2": 0.25, "3": 0.35}]
    assert [beside(output) for output in outputs] == [
        PredictionShadowed(prediction_id=id_, model="churn", version=1, shadow=one, generation=3)
        for id_, one in zip("pq", said, strict=True)
    ]
    assert [(o.entity, o.key, o.partition, o.timestamp_ms) for o in outputs] == [
        ("predictions", b"p", 0, None),
        ("predictions", b"q", 0, None),
    ]
    assert stage.generations == {"churn": 3}
    assert stage.apply(batch, FLEET) == outputs  # the same cause, the same bytes


def test_a_version_that_is_served_is_not_asked_again_and_the_old_one_shadows_it_if_it_is_here() -> (
    None
):
    """The outsider has followed lifecycle: its prediction with the new version confirms it."""
    live = Held(champion=2)
    live.lifecycle = replace(live.lifecycle, challengers=[], previous=3, probation=True)
    sent = records(prediction("p", 5, version=3), prediction("q", 6, version=2))
    outputs = shadow().apply(Batch("predictions", 0, sent), {"churn": live})
    assert [beside(output).shadow for output in outputs] == [{"2": 0.2}, {"3": 0.3}]


def test_what_score_predicts_and_what_is_not_right_is_passed_over() -> None:
    here: Fleet = {"churn": Held(SPEC)}
    fine = records(prediction("p", 5))
    assert shadow().apply(Batch("predictions", 0, fine), here) == []
    assert shadow().apply(Batch("predictions", 0, fine), {}) == []
    junk = [Record(0, T0, b"k", b'{"model": "churn", "features": 7}'), Record(1, T0, None, None)]
    stage = shadow()
    assert stage.apply(Batch("predictions", 0, junk), FLEET) == []
    assert stage.counters == {"unread": 1}


def test_its_own_events_are_not_answered() -> None:
    stage = shadow()
    outputs = stage.apply(Batch("predictions", 0, records(prediction("p", 5))), FLEET)
    assert stage.apply(Batch("predictions", 0, written(outputs, 1)), FLEET) == []
    assert stage.counters == {"shadowed": 1}


def test_what_lies_in_a_wrong_partition_is_met_in_the_right_one() -> None:
    right = partition_of(b"p", 4, "murmur2")
    for partition in range(4):
        batch = Batch("predictions", partition, records(prediction("p", 5)))
        outputs = shadow(partition, 4).apply(batch, FLEET)
        assert [output.partition for output in outputs] == ([right] if partition == right else [])


def told(*steps: tuple[str, Sequence[Record]]) -> dict[Any, Any]:
    """What a monitor counts, when these come in this order; a restart between any two."""
    stage, outputs = monitor(), []
    stored: dict[str, bytes] = {}
    for entity, some in steps:
        outputs += stage.apply(Batch(entity, 0, some), FLEET)
        keep(stored, stage.changes(complete=False))
        stage = monitor()
        stage.restore(stored)
    return merged(summaries_of([*outputs, *stage.advance(LATER_MS, True, FLEET)]))


def test_pairs_are_those_of_a_prediction_that_carries_its_shadows_whatever_comes_first() -> None:
    ids = [f"p{n}" for n in range(40)]
    plans = itertools.cycle("ab")
    made = [prediction(id_, 5 * n, plan=next(plans)) for n, id_ in enumerate(ids)]
    said = [
        feedback(id_, 300 + 30 * n, answer)
        for (n, id_), answer in zip(enumerate(ids), itertools.cycle(["yes", "no"]), strict=False)
    ]
    outputs = shadow().apply(Batch("predictions", 0, records(*made)), FLEET)
    carried = [
        one._replace(data={**one.data, "shadow": beside(output).shadow})
        for one, output in zip(made, outputs, strict=True)
    ]
    labels = ("feedback", records(*said))
    behind = ("predictions", written(outputs, len(made)))
    expected = told(("predictions", records(*carried)), labels)
    plain = ("predictions", records(*made))
    together = ("predictions", [*plain[1], *behind[1]])
    for order in (
        [plain, behind, labels],
        [plain, labels, behind],
        [labels, plain, behind],
        [together, labels],
    ):
        assert told(*order) == expected
    assert told(plain, labels, behind, behind) == expected  # it is paired once
    assert any("pairs" in total for total in expected.values())
    assert told(plain, labels) != expected


@pytest.mark.parametrize(
    "said", [{"2": 1.5}, {"2": [0.5, 0.5]}, {"x": 0.5}, {}, {"2": float(10**9)}]
)
def test_an_output_that_is_none_is_refused(said: dict[str, object]) -> None:
    data = {"prediction_id": "p", "model": "churn", "version": 1, "shadow": said}
    assert dead(data) == [b"bad-output"]


def test_what_only_seems_to_be_such_an_event_is_read_as_what_it_is() -> None:
    name = prediction("driftline.prediction.shadowed.v1", 5)
    stage = monitor()
    assert stage.apply(Batch("predictions", 0, records(name)), FLEET) == []
    assert stage.counters["predictions"] == 1
    assert dead({"prediction_id": "p", "model": "churn"}) == [b"unknown-event"]


def test_what_meets_no_prediction_is_of_no_use_and_counted() -> None:
    stage = monitor()
    lone = {"prediction_id": "p", "model": "churn", "version": 1, "shadow": {"2": 0.5}}
    assert dead(lone, stage) == []
    assert stage.counters["shadowed:unused"] == 1
    assert dead({**lone, "model": "nobody"}, stage) == []
    assert stage.counters["shadowed:unused"] == 2


def dead(data: dict[str, object], stage: MonitorProcessor | None = None) -> list[bytes | None]:
    """Reasons of the dead letters that an event of this type and data makes."""
    envelope = {
        "specversion": "1.0",
        "id": "1",
        "source": "test",
        "type": "driftline.prediction.shadowed.v1",
        "data": data,
    }
    record = Record(7, T0, b"p", msgspec.json.encode(envelope))
    outputs = (stage or monitor()).apply(Batch("predictions", 0, [record]), FLEET)
    assert data_of(outputs, "examples") == []
    return [dict(output.headers)[HEADER_REASON] for output in outputs]


def test_what_was_paired_late_is_told_once() -> None:
    stage, made = monitor(), records(prediction("p", 5))
    stage.apply(Batch("predictions", 0, made), FLEET)
    stage.apply(Batch("feedback", 0, records(feedback("p", 300))), FLEET)
    outputs = shadow().apply(Batch("predictions", 0, made), FLEET)
    stage.apply(Batch("predictions", 0, written(outputs, 1)), FLEET)
    reports = [stage.advance(LATER_MS + 2_000 * n, True, FLEET) for n in range(2)]
    counted = [[one for one in summaries_of(report) if one.pairs] for report in reports]
    assert [len(some) for some in counted] == [2, 0]  # all, and its segment


def test_a_tick_is_that_in_which_both_were_there() -> None:
    made, said = prediction("p", 5), feedback("p", 300)
    outputs = shadow().apply(Batch("predictions", 0, records(made)), FLEET)
    late = [
        Record(9, T0 + 5_000, output.key, output.value) for output in outputs
    ]  # beyond the allowed lateness, so that it counts when it came
    counted = told(
        ("predictions", records(made)), ("feedback", records(said)), ("predictions", late)
    )
    ticks = {place[3] for place, total in counted.items() if "pairs" in total}
    assert ticks == {(T0 + 5_000 - 500) // TICK_MS}
