"""Reference profiles and live rows on their bins."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models import profile as profiles
from models.features import Row
from models.joint import NAME as JOINT
from models.profile import ReferenceProfile, SignalProfile, Validation
from models.profiling import AT_ONCE, BUFFER, Binner, Edges, build_profile, label_bins
from models.rhythms import deflation
from models.spec import Feature, ModelSpec

SPEC = ModelSpec(
    name="m",
    task="binary",
    classes=("n", "y"),
    features=(
        Feature(name="x"),
        Feature(name="hour"),
        Feature(name="plan", type="categorical"),
    ),
)
COLOURS = ModelSpec(
    name="c", task="multiclass", classes=("r", "g", "b"), features=(Feature(name="x"),)
)
VALIDATION = Validation(n=1, loss_bins=(1,) + (0,) * 19, loss_scale=4.0, metrics={})


def reference(n: int = 2_000, seed: int = 5) -> tuple[list[Row], np.ndarray]:
    noise = np.random.default_rng(seed)
    x, hour = noise.normal(size=n), noise.integers(0, 8, n)
    plan = noise.choice(["gold", "free"], n, p=[0.3, 0.7])
    rows: list[Row] = [
        (float(a) if i % 50 else None, float(b), str(c))
        for i, (a, b, c) in enumerate(zip(x, hour, plan, strict=True))
    ]
    return rows, noise.uniform(size=(n, 1))


def built() -> ReferenceProfile:
    return build_profile(SPEC, *reference(), VALIDATION)


PROFILE = built()
EDGES = (
    st.lists(st.floats(-5, 5), min_size=1, max_size=12)
    .map(lambda cuts: sorted(set(cuts)))
    .map(lambda cuts: cuts if len(cuts) > 1 else cuts * 2)
)


def test_the_reference_binned_again_gives_its_own_counts() -> None:
    rows, outputs = reference()

    counts = Binner(built(), SPEC).counts(rows, outputs)

    assert sum(counts.pop(JOINT)) == len(rows)
    assert {s.name: list(s.counts) for s in built().signals if s.name != JOINT} == {
        name: count.tolist() for name, count in counts.items()
    }


def test_only_rows_that_did_not_define_the_distance_are_its_reference() -> None:
    rows, outputs = reference()
    odd = Binner(built(), SPEC).counts(rows[1::2], outputs[1::2])[JOINT]

    signal = built().signal(JOINT)
    assert signal
    assert list(signal.counts) == odd.tolist()


def test_labels_have_a_reference_of_their_own() -> None:
    rows, outputs = reference()
    labels = np.arange(len(rows)) % 4 == 0
    signal = build_profile(SPEC, rows, outputs, VALIDATION, labels=labels.astype(float)).signal(
        "labels"
    )

    assert signal
    assert (signal.categories, signal.counts) == (("n", "y"), (1500, 500, 0, 0))
    assert label_bins(SPEC, signal, np.array([1.0, 0.0])).tolist() == [1, 0]


def test_numeric_bins_are_deciles_and_nulls_have_their_own() -> None:
    x = built().signal("x")

    assert x
    assert len(x.edges) == 11
    assert (x.counts[0], x.counts[-2], x.counts[-1]) == (0, 0, 40)
    assert max(x.counts[1:11]) - min(x.counts[1:11]) <= 2


def test_a_signal_of_few_values_has_a_bin_for_each() -> None:
    hour = built().signal("hour")

    assert hour
    assert hour.edges == (0, 1, 2, 3, 4, 5, 6, 7, 7)
    assert all(count > 150 for count in hour.counts[1:9])


def test_live_values_beyond_the_reference_fall_outside_and_unseen() -> None:
    binner = Binner(built(), SPEC)
    rows: list[Row] = [(-99.0, 99.0, "new"), (None, None, None)]

    counts = binner.counts(rows, np.array([[-1.0], [2.0]]))

    assert (counts["x"][0], counts["x"][-1]) == (1, 1)
    assert (counts["hour"][-2], counts["hour"][-1]) == (1, 1)
    assert counts["plan"].tolist() == [0, 0, 1, 1]
    assert (counts["prediction"][0], counts["prediction"][-2]) == (1, 1)


def test_counts_of_groups_add_up_to_counts_of_all() -> None:
    """Partitions and ticks split events as they like; merging is adding."""
    rows, outputs = reference(300)
    binner = Binner(built(), SPEC)
    codes = binner.codes(rows, outputs)

    total = sum(binner.count(codes[start : start + 70]) for start in range(0, 300, 70))

    np.testing.assert_array_equal(total, binner.count(codes))
    assert binner.count(codes).sum() == 300 * len(binner.names)
    assert set(binner.split(binner.count(codes))) == {"x", "hour", "plan", "prediction", JOINT}


def test_multiclass_outputs_are_one_signal_per_class() -> None:
    rows: list[Row] = [(float(i),) for i in range(100)]
    outputs = np.random.default_rng(0).dirichlet([1, 1, 1], 100)

    built_colours = build_profile(COLOURS, rows, outputs, VALIDATION)

    assert [s.name for s in built_colours.signals] == [
        "x", "prediction:r", "prediction:g", "prediction:b",
    ]  # fmt: skip
    assert Binner(built_colours, COLOURS).names[1:] == tuple(
        s.name for s in built_colours.signals[1:]
    )


def test_a_feature_that_was_never_there_has_a_profile_all_the_same() -> None:
    rows: list[Row] = [(None, 1.0, None)] * 50

    empty = build_profile(SPEC, rows, np.full((50, 1), 0.5), VALIDATION)

    counts = Binner(empty, SPEC).counts([(3.0, 1.0, "gold")], np.array([[0.5]]))
    assert counts["x"].tolist() == [0, 0, 1, 0]
    assert counts["plan"].tolist() == [1, 0]
    assert counts["prediction"].tolist() == [0, 1, 0, 0]


def test_a_profile_survives_its_encoding() -> None:
    assert profiles.decode(profiles.encode(built())) == built()


@st.composite
def rulers(draw: st.DrawFn) -> tuple[list[list[float]], np.ndarray]:
    """Edges of a few signals, and values of each: many are edges, or next to one."""
    edges = draw(st.lists(EDGES, min_size=1, max_size=4))
    n = draw(st.sampled_from([1, BUFFER // 2, BUFFER // 2 + 1]) | st.integers(1, 9))
    told = [value for some in edges for edge in some for value in _around(edge)]
    values = st.sampled_from([*told, math.nan, math.inf, -math.inf, -0.0]) | st.floats(width=64)
    found = draw(st.lists(values, min_size=1, max_size=12))
    table = np.resize(found, (n, len(edges))).T  # every value meets more than one signal's edges
    return edges, np.ascontiguousarray(table) if draw(st.booleans()) else table


@given(rulers())
def test_bins_follow_the_layout_that_profiles_promise(
    example: tuple[list[list[float]], np.ndarray],
) -> None:
    """The look-up for all signals at once agrees with the words of `models.profile`."""
    edges, values = example

    bins = Edges(edges).bins(values)

    assert bins.tolist() == [
        [_by_words(some, value) for value in column]
        for some, column in zip(edges, values.tolist(), strict=True)
    ]


def _around(edge: float) -> list[float]:
    return [math.nextafter(edge, -math.inf), edge, math.nextafter(edge, math.inf)]


NUMBERS = st.none() | st.floats(-4, 9) | st.sampled_from([0.0, 7.0, 1e300, -1e300])
PLANS = st.sampled_from(["gold", "free", "new", None])


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, PLANS, st.floats(0, 1)), min_size=1, max_size=9),
    st.sampled_from([1, BUFFER]),
)
def test_codes_are_what_each_value_says_by_itself(
    events: list[tuple[float | None, float | None, str | None, float]], times: int
) -> None:
    """However many events come at once, of numbers and categories side by side."""
    events = events * times
    signals = {signal.name: signal for signal in PROFILE.signals}
    binner = Binner(PROFILE, SPEC)

    bins = binner.bins([event[:3] for event in events], np.array([[event[3]] for event in events]))

    for place, name in enumerate(("x", "hour", "plan", "prediction")):
        wanted = [_bin_of(signals[name], event[place]) for event in events]
        assert bins[name].tolist() == wanted
    features = np.column_stack([bins[name] for name in ("x", "hour", "plan")])
    assert bins[JOINT].tolist() == binner.joint_bins(features).tolist()


def _bin_of(signal: SignalProfile, value: object) -> int:
    if signal.kind == "numeric":
        assert not isinstance(value, str)
        return _by_words([*signal.edges], math.nan if value is None else float(value))  # type: ignore[arg-type]
    known: list[object] = [*signal.categories]
    return len(known) + 1 if value is None else [*known, value].index(value)


def test_codes_do_not_depend_on_how_many_events_are_put_on_bins_at_once() -> None:
    rows, outputs = reference(2 * AT_ONCE // len(Binner(PROFILE, SPEC).names) + 9)
    binner = Binner(PROFILE, SPEC)
    cuts = range(0, len(rows), 7_000)
    parts = [binner.codes(rows[cut : cut + 7_000], outputs[cut : cut + 7_000]) for cut in cuts]
    assert np.array_equal(binner.codes(rows, outputs), np.concatenate(parts))


def _by_words(edges: list[float], value: float) -> int:
    last = len(edges) - 1
    if math.isnan(value):
        return last + 2
    if value < edges[0]:
        return 0
    if value > edges[-1]:
        return last + 1
    return next((i + 1 for i in range(last) if edges[i] <= value < edges[i + 1]), last)


def test_independent_rows_have_hardly_any_deflation() -> None:
    noise = np.random.default_rng(1).normal(size=(20_000, 3))

    assert 1.0 <= deflation(noise) < 2.0


def test_dependence_shows_in_time_order_only() -> None:
    """AR(1) with 0.9: block means vary 19 times as much; shuffled, the evidence is gone."""
    noise = np.random.default_rng(2)
    series = np.zeros(40_000)
    for i, shock in enumerate(noise.normal(size=len(series) - 1)):
        series[i + 1] = 0.9 * series[i] + shock

    assert 12 < deflation(series) < 26
    assert deflation(noise.permutation(series)) < 2.0


def test_too_few_rows_or_a_constant_say_nothing_of_dependence() -> None:
    assert deflation(np.arange(60.0)) == 1.0
    assert deflation(np.full(5_000, 3.0)) == 1.0
