"""What monitor writes about labels: the examples of a version, together."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stream.core import reporting
from stream.core.joining import Joined
from stream.core.packing import Kind, kind_of
from stream.core.processor import Output
from stream.core.reporting import examples
from stream.events import ExampleLabelled, ExamplesLabelled
from stream.settings import Settings
from tests.labelled import example, together
from tests.monitoring import SPEC, data_of, examples_in

FIRST, SECOND = (kind_of(SPEC, version, (), 4.0) for version in (1, 2))
CLASSES = {SPEC.name: SPEC.classes}


def joined(number: int, kind: Kind = FIRST, **more: object) -> Joined:
    """The label of a prediction, 5 ms after it."""
    at = (number, 1000 + number, 1005 + number, 1005 + number)
    return replace(Joined(f"p{number}", kind, *at, b"", (0.5,), number % 2, 1.0), **more)


def told(one: Joined) -> ExampleLabelled:
    """What must be said of it."""
    return ExampleLabelled(
        prediction_id=one.id,
        model=one.kind.model,
        version=one.kind.version,
        partition=3,
        offset=one.offset,
        predicted_ms=one.predicted_ms,
        labelled_ms=one.labelled_ms,
        label=SPEC.classes[int(one.label)],
        weight=one.weight,
        revision=one.revision,
    )


def loose(rows: list[Joined]) -> list[Output]:
    """A record for each, made as those are that hold many."""
    return [reporting._together(reporting._Columns.joined([row]), CLASSES, 3) for row in rows]


def ids(outputs: list[Output]) -> list[str]:
    return [msgspec.json.decode(output.value or b"")["id"] for output in outputs]


ROWS = st.lists(
    st.builds(
        joined,
        st.integers(0, 50),
        st.sampled_from([FIRST, SECOND]),
        weight=st.sampled_from([1.0, 0.5]),
        revision=st.integers(0, 2),
    ),
    max_size=30,
)


@given(ROWS)
def test_each_label_is_told_once_with_all_that_belongs_to_it(rows: list[Joined]) -> None:
    assert Counter(examples_in(examples(rows, CLASSES, 3))) == Counter(map(told, rows))


def test_the_examples_of_a_version_share_a_record_in_the_order_they_came() -> None:
    rows = [joined(n, (FIRST, SECOND)[n % 2]) for n in range(10)]
    outputs = examples(rows, CLASSES, 3)
    told = data_of(outputs, "examples")
    assert [(data["version"], data["prediction_ids"]) for data in told] == [
        (1, ["p0", "p2", "p4", "p6", "p8"]),
        (2, ["p1", "p3", "p5", "p7", "p9"]),
    ]
    assert {(output.key, output.partition) for output in outputs} == {(b"churn", 3)}
    assert [msgspec.json.decode(o.value or b"")["time"] for o in outputs] == [
        "1970-01-01T00:00:01.013000Z",  # of the newest label
        "1970-01-01T00:00:01.014000Z",
    ]


def test_few_of_a_version_come_one_by_one_in_the_bytes_that_one_alone_would_have() -> None:
    """Of any number of models at once, which is what makes them cheap."""
    rows = [joined(1, SECOND), joined(2), joined(3, SECOND), joined(4)]
    assert examples(rows, CLASSES, 3) == loose(rows)
    (number,) = data_of(examples([joined(1, label=0.25)], {SPEC.name: ()}, 3), "examples")
    assert number["labels"] == [0.25]


def test_a_label_is_told_before_its_correction() -> None:
    """For those to whom the last record of a prediction is what holds."""
    rows = [joined(1), joined(2), joined(1, label=0, revision=1)]
    told = data_of(examples(rows, CLASSES, 3), "examples")
    of_it = [data for data in told if data["prediction_ids"] == ["p1"]]
    assert [data.get("revisions", [0]) for data in of_it] == [[0], [1]]


def test_weights_and_revisions_are_written_where_they_say_something() -> None:
    """Also of few of a version."""
    many = [*map(joined, range(4)), joined(4, weight=0.5)]
    weighted, corrected = data_of(
        examples([*many, joined(5, SECOND, revision=1)], CLASSES, 3), "examples"
    )
    assert (weighted["weights"], "revisions" in weighted) == ([1.0] * 4 + [0.5], False)
    assert ("weights" in corrected, corrected["revisions"]) == (False, [1])


def test_a_record_has_at_most_a_thousand_examples_and_fits_with_the_longest_ids() -> None:
    """With characters that JSON escapes, in a topic at its smallest."""
    rows = [replace(joined(n), id=f"{n:04}" + '"' * 252, weight=1 / 3) for n in range(2001)]
    outputs = examples(rows, CLASSES, 3)
    assert [len(one["prediction_ids"]) for one in data_of(outputs, "examples")] == [1000, 1000, 1]
    smallest = Settings.model_fields["max_record_bytes"].metadata[0].ge
    assert max(len(output.value or b"") for output in outputs) < smallest


def test_records_have_different_ids_and_the_same_examples_the_same() -> None:
    """Another split of the same labels is another event, for it says something else."""
    rows = [joined(n) for n in range(10)]
    splits = [ids(examples(rows[:5], CLASSES, 3)), ids(examples(rows[5:], CLASSES, 3))]
    again = ids(examples([replace(row, revision=1) for row in rows], CLASSES, 3))
    whole = ids(examples(rows, CLASSES, 3))
    others = ids(examples([*rows[:4], joined(11), *rows[5:]], CLASSES, 3))
    assert len({*whole, *again, *others, *splits[0], *splits[1]}) == 5
    assert whole == ids(examples(rows, CLASSES, 3))


@pytest.mark.parametrize("column", ["offsets", "labels", "weights", "revisions", "prediction_ids"])
def test_columns_of_different_length_are_no_examples(column: str) -> None:
    data = msgspec.to_builtins(together(example("a"), example("b")))
    short = {"prediction_ids": ["a"], "labels": ["yes"]}.get(column, [1])
    with pytest.raises(msgspec.ValidationError, match="prediction ids"):
        msgspec.convert(data | {column: short}, ExamplesLabelled)
