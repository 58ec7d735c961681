"""Counts do not depend on how events are cut into folds, nor on which of two ways counted them."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from models.estimating import fit_estimator
from models.features import Row
from models.profile import SegmentProfile
from models.profiling import build_profile
from models.slicing import slices
from models.spec import Feature
from stream.core.deltas import Deltas
from stream.core.folding import FEW, Made, block, fold_labels, fold_predictions
from stream.core.joining import Joined
from stream.core.labelled import Labelled
from stream.core.packing import Kind, kind_of
from stream.core.sources import Segment, Source
from stream.core.ticks import added_pairs
from stream.events import SummaryComputed
from tests.monitoring import SPEC, reference

PROFILE = reference()
SOURCE = Source(kind_of(SPEC, 1, (2, 3), 4.0), SPEC, PROFILE)
EDGES = PROFILE.signals[0].edges
AGES = st.one_of(st.none(), st.sampled_from([*EDGES, -1e9, 1e9]), st.floats(-50, 50))
ROWS = st.tuples(AGES, st.sampled_from(["a", "b", "zzz", None]))
OUTPUTS = st.floats(0, 1)
TIMES = st.integers(0, 3_000)


Event = tuple[int, bytes, Row, tuple[float, ...]]  # a row of the columns of `Made`


@st.composite
def made(draw: st.DrawFn) -> Event:
    row: Row = draw(ROWS)
    return draw(TIMES), SOURCE.codes(row), row, (draw(OUTPUTS),)


def columns(events: Sequence[Event], source: Source = SOURCE) -> Made:
    return Made([source] * len(events), *map(list, zip(*events, strict=True)))


@st.composite
def joined(draw: st.DrawFn) -> Joined:
    labels = st.sampled_from([0.0, 1.0])
    before = draw(st.one_of(st.none(), labels))
    values = tuple(draw(OUTPUTS) for _ in range(3 if before is None else 1))
    codes = SOURCE.codes(draw(ROWS))
    times = (draw(TIMES), draw(TIMES), draw(TIMES))
    id_ = draw(st.text(max_size=5))
    revision = 0 if before is None else 1
    return Joined(id_, SOURCE.kind, 0, *times, codes, values, draw(labels), 1.0, revision, before)


def folded(predictions: list[Event], labels: list[Joined], cut: int) -> list[SummaryComputed]:
    """Deltas of two folds: of what lies before the cut, and after it."""
    deltas = Deltas()
    for some in (predictions[:cut], predictions[cut:]):
        if some:
            fold_predictions(columns(some), deltas)
    for labelled in (labels[:cut], labels[cut:]):
        if labelled:
            fold_labels(Labelled.gathered(labelled, lambda _: SOURCE), deltas)
    return deltas.take(0)


@settings(max_examples=100)
@given(
    st.lists(made(), min_size=FEW + 1, max_size=FEW + 12),
    st.lists(joined(), max_size=20),
    st.integers(0, FEW + 12),
)
def test_where_events_are_cut_changes_no_count(
    predictions: list[Event], labels: list[Joined], cut: int
) -> None:
    assert folded(predictions, labels, cut) == folded(predictions, labels, len(predictions))


def numeric() -> Source:
    """A version all of whose features are numbers, with all that may be counted of one."""
    spec = replace(SPEC, features=(Feature(name="age"), Feature(name="income")), segments=())
    rows: list[Row] = [(float(n % 40), n % 7 - 3.0) for n in range(200)]
    outputs, labels = np.linspace(0.0, 1.0, 200).reshape(-1, 1), (np.arange(200) % 3 == 0) * 1.0
    profile = build_profile(spec, rows, outputs, PROFILE.validation, labels=labels)
    looked_at = spec, profile, rows, outputs, labels
    profile = replace(profile, estimator=fit_estimator(*looked_at), slices=slices(*looked_at))
    facets = len(profile.slices.facets) if profile.slices else 0
    return Source(kind_of(spec, 1, (), 4.0, facets), spec, profile)


def test_columns_are_coded_and_counted_as_their_rows_one_by_one() -> None:
    source, together, apart = numeric(), Deltas(), Deltas()
    ages = [None, *EDGES, -1e9, 1e9, 7.5]
    rows: list[Row] = [(age, income) for age in ages for income in (None, -3.0, 0.5, 3.0, 9.0)]
    outputs = [(n % 11 / 10,) for n in range(len(rows))]
    times_ms, codes = range(0, 40 * len(rows), 40), [source.codes(row) for row in rows]
    inputs = source.inputs(rows)
    assert isinstance(inputs, np.ndarray)
    assert source.all_codes(rows, inputs) == codes
    assert any(codes)
    cut = 13
    some = [
        block(source, times_ms[part], codes[part], inputs[:, part], outputs[part])
        for part in (slice(cut), slice(cut, None))
    ]
    fold_predictions(Made(blocks=[(source, one) for one in some]), together)
    for event in zip(times_ms, codes, rows, outputs, strict=True):
        fold_predictions(columns([event], source), apart)
    told = together.take(0)
    assert told == apart.take(0)
    assert sum(delta.predictions for delta in told) == len(rows)


def test_many_predictions_of_one_version_beside_few_of_others_are_counted_as_apart() -> None:
    """In columns or blocks, and among those of a version that has both."""
    others = [Source(kind_of(SPEC, version, (), 4.0), SPEC, PROFILE) for version in (2, 3)]
    rows: list[Row] = [(float(n % 40), "a" if n % 3 else None) for n in range(3 * FEW)]
    of = [others[n // 8 % 2] if n % 8 == 0 else SOURCE for n in range(len(rows))]
    together, apart, mixed = Deltas(), Deltas(), Made()
    for n, (source, row) in enumerate(zip(of, rows, strict=True)):
        code, output = source.codes(row), (n % 11 / 10,)
        mixed.add([source], [n * 40], [code], [row], [output])
        fold_predictions(columns([(n * 40, code, row, output)], source), apart)
    many = [(n * 40, SOURCE.codes(row), row, (0.25,)) for n, row in enumerate(rows[: FEW + 1])]
    times_ms, codes, inputs, outputs = zip(*many, strict=True)
    mixed.add_many(SOURCE, times_ms, codes, SOURCE.inputs(inputs), outputs)
    fold_predictions(columns(many), apart)
    fold_predictions(mixed, together)
    told = together.take(0)
    assert told == apart.take(0)
    assert {delta.version for delta in told} == {1, 2, 3}


def test_labels_of_one_stratum_add_up_over_folds() -> None:
    labels = [
        Joined(str(i), SOURCE.kind, 0, 0, 0, 0, b"\x00", (0.5, 0.5, 0.5), 1.0, 1.0)
        for i in range(3)
    ]
    one_by_one = folded([], labels, 1)
    assert one_by_one == folded([], labels, 3)
    assert [some.n for delta in one_by_one for some in delta.outcomes.values()] == [3, 3]


def test_models_are_judged_each_by_its_own_scale_and_shadows() -> None:
    kinds = [kind_of(SPEC, 1, (), 4.0), kind_of(SPEC, 2, (9,), 1.0)]
    sources = [Source(kind, SPEC, PROFILE) for kind in kinds]
    labels = [
        Joined("p", kind, 0, 0, 0, 0, b"\x00", (0.5, 0.5)[: n + 1], 1.0, 1.0)
        for n, kind in enumerate(kinds)
    ]
    deltas = Deltas()
    fold_labels(
        Labelled.gathered(labels, dict(zip(kinds, sources, strict=True)).__getitem__), deltas
    )
    one, other = [delta for delta in deltas.take(0) if not delta.segment]
    assert (one.sums["loss"], other.sums["loss"]) == (173_287, 693_147)
    assert (list(one.pairs), list(other.pairs)) == ([], ["9"])


def test_labels_of_a_class_and_of_a_number_are_judged_apart() -> None:
    """Folded together they add up to what they are folded alone."""
    specs = SPEC, replace(SPEC, name="amount", task="regression", classes=())
    kinds = [kind_of(spec, 1, (), 4.0) for spec in specs]
    sources = {k: Source(k, spec, None) for k, spec in zip(kinds, specs, strict=True)}
    labels = [
        Joined(str(i), kinds[i % 2], 0, 0, 0, 0, b"\x00", (0.25,), float(i % 4 // 2), 1.0)
        for i in range(8)
    ]
    together, apart = Deltas(), Deltas()
    fold_labels(Labelled.gathered(labels, sources.__getitem__), together)
    for kind in kinds:
        mine = [one for one in labels if one.kind == kind]
        fold_labels(Labelled.gathered(mine, sources.__getitem__), apart)
    told = together.take(0)
    assert told == apart.take(0)
    assert {frozenset(delta.sums) for delta in told} == {
        frozenset({"correct", "log_loss", "loss"}),
        frozenset({"absolute_error", "squared_error", "loss"}),
    }


def test_pairs_of_segments_add_up_to_those_of_all() -> None:
    rows: list[Row] = [(3.0, "a"), (3.0, "b"), (3.0, "b")]
    labels = [
        Joined(str(i), SOURCE.kind, 0, 0, 0, 0, SOURCE.codes(row), values, 1.0, 1.0)
        for i, row in enumerate(rows)
        for values in [(0.5, 0.9, 0.1 * (i + 1))]
    ]
    deltas = Deltas()
    fold_labels(Labelled.gathered(labels, lambda _: SOURCE), deltas)
    pairs = {delta.segment: delta.pairs for delta in deltas.take(0) if delta.pairs}
    assert {name: part["3"].n for name, part in pairs.items()} == {"": 3, "plan=a": 1, "plan=b": 2}
    assert pairs[""] == {
        version: added_pairs(pairs["plan=a"][version], pairs["plan=b"][version])
        for version in ("2", "3")
    }
    # A certainty of 0.9 on what came true is off by -0.1; one of 0.9 on what did not, by 0.9.
    assert (pairs["plan=a"]["2"].off, pairs["plan=a"]["2"].shadow_off) == (-500_000, -100_000)
    assert pairs["plan=a"]["3"].shadow_off == 900_000


@pytest.mark.parametrize("together", [True, False])
def test_inputs_are_counted_for_the_segments_that_are_judged_apart(*, together: bool) -> None:
    part = SegmentProfile(name="plan=a", signals=(), validation=PROFILE.validation)
    source = Source(SOURCE.kind, SPEC, replace(PROFILE, segments=(part,)))
    rows: list[Row] = [(3.0, "a"), (4.0, "b")] * FEW
    events: list[Event] = [(0, source.codes(row), row, (0.5,)) for row in rows]
    deltas = Deltas()
    for some in [events] if together else [[event] for event in events]:
        fold_predictions(columns(some, source), deltas)
    signals = {delta.segment: set(delta.signals) for delta in deltas.take(0)}
    assert signals["plan=a"] == {"age", "plan", "prediction"}
    assert signals["plan=b"] == {"prediction"}


def test_labels_are_counted_once_in_the_tick_of_their_arrival() -> None:
    """A correction restates sums, never what the tests have seen."""
    said = Joined("p", SOURCE.kind, 0, 100, 900, 1_200, b"\x00", (0.5, 0.5, 0.5), 1.0, 1.0)
    again = Joined("p", SOURCE.kind, 0, 100, 900, 1_900, b"\x00", (0.5,), 0.0, 1.0, 1, 1.0)
    deltas = Deltas()
    fold_labels(Labelled.gathered([said, again], lambda _: SOURCE), deltas)
    counted = {
        (delta.segment, delta.tick): delta.signals["labels"]
        for delta in deltas.take(0)
        if "labels" in delta.signals
    }
    assert counted == {("", 1_200 // SPEC.tick_ms): [0, 1, 0, 0]}


def test_segments_beyond_the_fifty_most_frequent_values_share_one_place() -> None:
    segment = Segment("city", 0, [f"c{n}" for n in range(60)])
    assert segment.names[segment.code("c49")] == "city=c49"
    assert segment.names[segment.code("c50")] == "city=(other)"


@pytest.mark.parametrize("profile", [PROFILE, None])
def test_a_source_without_a_profile_still_counts_events(profile: object) -> None:
    kind: Kind = SOURCE.kind
    source = Source(kind, SPEC, PROFILE if profile else None)
    for some in (1, FEW + 1):
        deltas = Deltas()
        event: Event = (0, b"\xff", (1.0, None), (0.5,))
        fold_predictions(columns([event] * some, source), deltas)
        whole, null = deltas.take(0)
        assert (whole.predictions, null.predictions) == (some, some)
        assert null.segment == "plan=(null)"
        assert bool(whole.signals) is (profile is not None)
