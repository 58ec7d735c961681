"""The rules of the join, each by its own small story."""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from models.spec import ModelSpec
from stream.core import batchjoin
from stream.core.batchjoin import BatchJoin, Labels, Predictions
from stream.core.joining import MAX_WAITING, Join
from stream.core.packing import Label, Prediction, kind_of
from tests.monitoring import CORRECTION_MS, EARLY_MS, HORIZON_MS, SPEC


class Story:
    """A join told in times after 0."""

    def __init__(self, spec: ModelSpec = SPEC) -> None:
        self.join = Join()
        self.kind = kind_of(spec, 1, (2,), 4.0)
        self.watermark_ms = 0

    def predict(self, at: int, output: float = 0.5, *, id_: str = "p", floor: int = 0) -> bool:
        made = Prediction(id_, at, floor, 7, b"\x01", (output, 0.25))
        return self.join.predict(self.join.packer(self.kind), made, self.watermark_ms)

    def label(self, at: int, label: float = 1.0, *, id_: str = "p", floor: int = 0) -> None:
        self.join.label("churn", Label(id_, at, floor, at + EARLY_MS, label, 1.0))

    def pass_to(self, watermark_ms: int) -> None:
        self.join.expire(watermark_ms, self.watermark_ms)
        self.watermark_ms = watermark_ms

    @property
    def counted(self) -> Counter[str]:
        return Counter(counted.name for counted in self.join.counted)

    @property
    def labels(self) -> list[tuple[int, int, float]]:
        """Revision, arrival and label of each join."""
        return [(one.revision, one.arrived_ms, one.label) for one in self.join.joined]


def test_a_label_joins_whichever_of_the_two_is_read_first() -> None:
    for early in (False, True):
        story = Story()
        if early:
            story.label(300)
        story.predict(100)
        if not early:
            story.label(300)
        joined = story.join.joined
        assert [(one.offset, one.predicted_ms, one.codes, one.values) for one in joined] == [
            (7, 100, b"\x01", (0.5, 0.25))
        ]
        assert story.labels == [(0, 300, 1.0)]
        assert not story.counted


def test_arrival_is_the_later_of_both_events_and_their_floors() -> None:
    story = Story()
    story.predict(100, id_="a")
    story.label(40, id_="a")
    story.predict(100, id_="b", floor=900)
    story.label(300, id_="b")
    story.predict(100, id_="c")
    story.label(300, id_="c", floor=800)
    assert [one.arrived_ms for one in story.join.joined] == [100, 900, 800]


def test_an_equal_label_is_a_duplicate_and_another_one_a_correction() -> None:
    story = Story()
    story.predict(100)
    for label in (1.0, 1.0, 0.0, 0.0, 1.0):
        story.label(300, label)
    assert story.labels == [(0, 300, 1.0), (1, 300, 0.0), (2, 300, 1.0)]
    assert [one.before for one in story.join.joined] == [None, 1.0, 0.0]
    assert story.counted == {"duplicates": 2, "corrections": 2}


def test_labels_that_wait_are_taken_in_the_order_in_which_they_came() -> None:
    story = Story()
    for label in (1.0, 0.0, 0.0):
        story.label(300, label)
    story.predict(100)
    assert story.labels == [(0, 300, 1.0), (1, 300, 0.0)]
    assert story.counted == {"corrections": 1, "duplicates": 1}


def test_labels_that_waited_are_counted_no_earlier_than_a_late_prediction_allows() -> None:
    story = Story()
    for label in (1.0, 0.0, 0.0):
        story.label(300, label)
    story.pass_to(2_000)
    story.predict(100, floor=2_000)
    assert [one.arrived_ms for one in story.join.joined] == [2_000, 2_000]
    assert [one.time_ms for one in story.join.counted] == [2_000, 2_000]


def test_a_second_prediction_is_a_duplicate_or_a_conflict_and_the_first_counts() -> None:
    story = Story()
    assert story.predict(100, 0.5)
    assert not story.predict(100, 0.5)
    assert not story.predict(100, 0.6)
    story.label(300)
    assert not story.predict(100, 0.5)
    assert not story.predict(100, 0.6)
    assert story.counted == {"duplicates": 2, "conflicts": 2}
    assert story.join.joined[0].values[0] == 0.5


def test_a_label_at_the_horizon_joins_and_one_after_it_does_not() -> None:
    story = Story()
    story.predict(100, id_="in")
    story.predict(100, id_="out")
    story.label(100 + HORIZON_MS, id_="in")
    story.label(101 + HORIZON_MS, id_="out")
    assert [one.id for one in story.join.joined] == ["in"]
    story.pass_to(10**6)
    assert story.counted == {"expired": 1, "orphans": 1}


def test_a_prediction_expires_when_the_watermark_is_past_its_horizon_and_not_before() -> None:
    story = Story()
    story.predict(100)
    story.pass_to(100 + HORIZON_MS)
    assert not story.counted
    story.pass_to(101 + HORIZON_MS)
    assert [one[1:] for one in story.join.counted] == [(1, "expired", 100 + HORIZON_MS, 1)]
    assert story.join.held == 0


def test_a_label_waits_for_its_prediction_until_the_watermark_is_past_its_patience() -> None:
    story = Story()
    story.label(300)
    story.pass_to(300 + EARLY_MS)
    assert story.join.early == 1
    story.pass_to(301 + EARLY_MS)
    assert [one[1:] for one in story.join.counted] == [(None, "orphans", 300 + EARLY_MS, 1)]
    assert story.join.early == 0


def test_a_correction_is_taken_until_its_horizon_after_the_first_arrival() -> None:
    story = Story()
    story.predict(100)
    story.label(300, 1.0)
    story.label(300 + CORRECTION_MS, 0.0)
    story.label(301 + CORRECTION_MS, 1.0)
    assert story.labels == [(0, 300, 1.0), (1, 300 + CORRECTION_MS, 0.0)]
    story.pass_to(10**6)
    assert story.counted == {"corrections": 1, "orphans": 1}


def test_a_prediction_too_old_to_tell_from_a_forgotten_one_is_not_counted() -> None:
    story = Story()
    story.pass_to(50_000)
    assert not story.predict(50_000 - CORRECTION_MS - 1, id_="old", floor=50_000)
    assert story.predict(50_000 - CORRECTION_MS, id_="late", floor=50_000)
    assert story.counted == {"too_late": 1}


def test_what_expires_is_counted_in_the_order_of_time_however_its_rows_lie() -> None:
    story = Story()
    for number in (3, 1, 2):
        story.predict(number, id_=f"p{number}")
        story.join.changes(complete=False)
    story.pass_to(10 + HORIZON_MS)
    times_ms = [one.time_ms for one in story.join.counted]
    assert times_ms == [1 + HORIZON_MS, 2 + HORIZON_MS, 3 + HORIZON_MS]


def test_what_expired_long_ago_is_counted_no_earlier_than_the_watermark_was() -> None:
    story = Story()
    story.pass_to(50_000)
    story.predict(50_000 - CORRECTION_MS, floor=50_000)
    story.label(40_000, id_="q", floor=50_000)
    story.pass_to(90_000)
    assert all(one.time_ms >= 50_000 for one in story.join.counted)


def test_a_flood_of_labels_for_one_id_is_bounded() -> None:
    story = Story()
    for _ in range(MAX_WAITING + 5):
        story.label(300)
    assert story.counted == {"orphans": 5}


def test_models_do_not_share_ids() -> None:
    story = Story()
    story.predict(100)
    story.join.label("other", Label("p", 300, 0, 300 + EARLY_MS, 1.0, 1.0))
    assert not story.join.joined
    assert story.join.early == 1


def test_a_restored_join_goes_on_where_it_was() -> None:
    story = Story()
    story.predict(100, id_="pending")
    story.predict(100, id_="finished")
    story.label(300, id_="finished")
    story.label(300, id_="early")
    stored = {name: data for name, data in story.join.changes(complete=False).items() if data}
    again = Story()
    again.join.restore(stored)
    again.label(400, id_="pending")
    again.label(400, 0.0, id_="finished")
    again.predict(100, id_="early")
    assert [(one.id, one.revision) for one in again.join.joined] == [
        ("pending", 0),
        ("finished", 1),
        ("early", 0),
    ]
    assert again.join.joined[1].before == 1.0


def test_a_batch_of_labels_none_of_which_is_taken_waits_whole() -> None:
    """One comes after the horizon of its prediction, the predictions of the others never came."""
    join, kind = BatchJoin(), kind_of(SPEC, 1, (), 4.0)
    count, times_ms = 40, np.zeros(40, dtype=np.int64)
    ids, codes, values = [f"p{n}" for n in range(count)], [b"\0"] * count, [(0.5,)] * count
    packers = [join.packer(kind)] * count
    made = Predictions(packers, ids, times_ms, times_ms, list(range(count)), codes, values)
    assert join.predict_all(made, 0) == [True] * count
    late_ms = np.full(count, HORIZON_MS + 1)
    some = [ids[0], *(f"q{n}" for n in range(1, count))]
    columns = ["churn"] * count, some, late_ms, late_ms, late_ms + EARLY_MS
    join.label_all(Labels(*columns, [1.0] * count, [1.0] * count))
    assert (join.joined, join.held, join.early) == ([], count, count)


IDS = st.sampled_from([f"id-{n}" for n in range(6)])
EVENT = st.tuples(IDS, st.integers(0, 12_000), st.integers(0, 3), st.sampled_from([0.0, 1.0]))
BATCHES = st.lists(st.tuples(st.booleans(), st.lists(EVENT, min_size=1, max_size=8)), max_size=8)


@settings(max_examples=200)
@given(BATCHES)
def test_many_joined_at_once_are_joined_as_each_in_turn(batches: Any) -> None:
    """New and known ids, twice in a batch, early, late, corrected and too late: the same state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batchjoin, "FEW", 1)
        together, apart = BatchJoin(), Join()
        kinds = [kind_of(SPEC, version, (2,), 4.0) for version in (1, 3)]
        for number, (of_labels, events) in enumerate(batches):
            ids, times, kind_of_, said = (list(column) for column in zip(*events, strict=True))
            times_ms = np.array(times)
            floors_ms = times_ms + np.array([max(0, of - 1) for of in kind_of_]) * number
            if of_labels:
                columns = ["churn"] * len(ids), ids, times_ms, floors_ms, times_ms + EARLY_MS
                labels = Labels(*columns, said, [1.0] * len(ids))
                together.label_all(labels)
                for place, model in enumerate(labels.models):
                    apart.label(model, labels.at(place))
                continue
            values = [(output, 0.25) for output in said]
            more = times_ms, floors_ms, list(range(len(ids))), [b"\x01"] * len(ids), values
            one, other = (
                Predictions([join.packer(kinds[of % 2]) for of in kind_of_], ids, *more)
                for join in (together, apart)
            )
            assert together.predict_all(one, 4_500) == [
                apart.predict(packer, other.at(place), 4_500)
                for place, packer in enumerate(other.packers)
            ]
    met = [row for one in together.met for row in one.rows()]
    assert sorted([*together.joined, *met], key=repr) == sorted(apart.joined, key=repr)
    assert Counter(together.counted) == Counter(apart.counted)
    assert together.changes(complete=True) == apart.changes(complete=True)
