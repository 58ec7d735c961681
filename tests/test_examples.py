"""What a candidate may see before it is judged."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from models.examples import Examples, TrainingRefused, split
from models.spec import ModelSpec
from tests.streams import HOUR_MS, examples, spec


def limited(**fields: object) -> ModelSpec:
    return msgspec.structs.replace(
        spec(), training=msgspec.structs.replace(spec().training, **fields)
    )


def rare(of: Examples, every: int) -> Examples:
    return of._replace(labels=(np.arange(len(of.rows)) % every == 0).astype(float))


def test_the_newest_quarter_is_held_out() -> None:
    found = split(spec(), examples())

    assert (len(found.older.rows), len(found.newest.rows), found.late) == (450, 150, 0)
    assert found.start_ms == 450 * HOUR_MS
    assert found.older.times_ms[-1] < found.start_ms


def test_events_of_one_time_are_not_torn_apart() -> None:
    """What happened at the same moment may be one thing seen twice."""
    known = examples()
    found = split(spec(), known._replace(times_ms=known.times_ms // (100 * HOUR_MS)))

    assert (len(found.older.rows), len(found.newest.rows)) == (400, 200)


@pytest.mark.parametrize(("delay_hours", "late"), [(0, 0), (1, 0), (2, 1), (101, 100), (400, 399)])
def test_labels_that_came_after_the_slice_began_are_left_out(delay_hours: int, late: int) -> None:
    known = examples()
    delayed = known._replace(known_ms=known.times_ms + delay_hours * HOUR_MS)

    assert split(spec(), delayed).late == late
    assert split(limited(late_labels="use"), delayed).late == 0


def test_labels_that_all_come_late_are_a_refusal_that_says_what_to_change() -> None:
    known = examples()
    delayed = known._replace(known_ms=known.times_ms + 440 * HOUR_MS)

    with pytest.raises(TrainingRefused, match=r"11 rows to fit on.*439 more were labelled only"):
        split(spec(), delayed)


def test_too_few_of_a_class_are_refused_with_the_counts() -> None:
    with pytest.raises(TrainingRefused, match=r"441 of 'no', 9 of 'yes'.*at least 10 each"):
        split(spec(), rare(examples(), 50))

    assert split(limited(minimum_per_class=9), rare(examples(), 50))


def test_a_class_that_is_absent_is_no_hindrance_where_two_others_are_there() -> None:
    known = examples("multiclass")
    two = known._replace(labels=np.where(known.labels == 2, 1.0, known.labels))

    assert split(spec("multiclass"), two)
