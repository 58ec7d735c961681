"""Reference profiles and live rows on their bins."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models import profile as profiles
from models.features import Row
from models.joint import NAME as JOINT
from models.profile import ReferenceProfile, Validation
from models.profiling import AT_ONCE, Binner, Edges, build_profile, label_bins
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


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=2, max_size=12), min_size=1, max_size=4),
    st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=1, max_size=30),
)
def test_bins_follow_the_layout_that_profiles_promise(
    cuts: list[list[float]], values: list[float]
) -> None:
    """The look-up for all signals at once agrees with the words of `models.profile`."""
    edges = [sorted(set(some)) for some in cuts]
    edges = [some if len(some) > 1 else [some[0], some[0]] for some in edges]

    bins = Edges(edges).bins(np.array([values] * len(edges)))

    assert bins.tolist() == [[_by_words(some, value) for value in values] for some in edges]


def test_bins_do_not_depend_on_how_many_values_are_compared_at_once() -> None:
    values = np.random.default_rng(1).normal(size=(3, AT_ONCE))
    edges = Edges([(-1.0, 0.0, 1.0), (0.0, 0.5), (-2.0, 2.0)])
    some = slice(AT_ONCE // 2 - 9, AT_ONCE // 2 + 9)
    assert np.array_equal(edges.bins(values)[:, some], edges.bins(values[:, some]))


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
