"""Performance without labels: right under a shift of the inputs, and says when it cannot know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from models.crowd import Crowd, Sheet
from models.estimating import FEWEST_ROWS, fit_estimator
from models.features import Row
from models.losses import measures
from models.profile import Estimator, ReferenceProfile, Validation, decode, encode
from models.profiling import Binner, build_profile
from models.scorecard import Scorecard
from models.spec import Feature, ModelSpec
from models.strata import Strata
from stream.core.estimates import against, estimate
from stream.events import Estimate, Measure

Floats = NDArray[np.float64]
FEATURES = (Feature(name="a"), Feature(name="b"), Feature(name="kind", type="categorical"))
BINARY = ModelSpec(name="m", task="binary", classes=("no", "yes"), features=FEATURES)
REGRESSION = ModelSpec(name="m", task="regression", features=FEATURES)
VALIDATION = Validation(n=1, loss_bins=(1,) * 20, loss_scale=4.0, metrics={})
Events = tuple[list[Row], Floats, Floats]  # rows, outputs, labels


def classified(n: int, seed: int, shift: float = 0.0, flipped: bool = False) -> Events:
    """A calibrated model of x = a; `shift` moves a, `flipped` turns the concept round."""
    draw = np.random.default_rng(seed)
    a, b = draw.normal(shift, 1, n), draw.normal(0, 1, n)
    kinds = draw.choice(["u", "v"], n)
    p = 1 / (1 + np.exp(-2 * a))
    labels = (draw.random(n) < (1 - p if flipped else p)).astype(float)
    return _rows(a, b, kinds), p[:, None], labels


def measured(n: int, seed: int, rough: float = 0.5) -> Events:
    """A regression that errs four times as much for kind v, which is `rough` of the events."""
    draw = np.random.default_rng(seed)
    a, b = draw.normal(0, 1, n), draw.normal(0, 1, n)
    kinds = np.where(draw.random(n) < rough, "v", "u")
    labels = a + draw.normal(0, 1, n) * np.where(kinds == "v", 2.0, 0.5)
    return _rows(a, b, kinds), a[:, None], labels


def _rows(a: Floats, b: Floats, kinds: NDArray[np.str_]) -> list[Row]:
    return list(zip(a.tolist(), b.tolist(), kinds.tolist(), strict=True))


def learnt(spec: ModelSpec, events: Events) -> ReferenceProfile:
    rows, outputs, labels = events
    profile = build_profile(spec, rows, outputs, VALIDATION)
    return replace(profile, estimator=fit_estimator(spec, profile, rows, outputs, labels))


def told(spec: ModelSpec, profile: ReferenceProfile, events: Events) -> Estimate:
    rows, outputs, _ = events
    found = estimate(_of(profile), counts(spec, profile, rows, outputs))
    assert found is not None
    return found


def counts(
    spec: ModelSpec, profile: ReferenceProfile, rows: Sequence[Row], outputs: Floats
) -> list[int]:
    binner = Binner(profile, spec)
    card = Scorecard(_of(profile), binner)
    bins, outside = card.bins(
        binner.codes(rows, outputs), Strata(spec, profile).of_outputs(outputs)
    )
    return [*np.bincount(bins, minlength=card.size).tolist(), int(outside.sum())]


def _of(profile: ReferenceProfile) -> Estimator:
    assert profile.estimator is not None
    return profile.estimator


def truth(spec: ModelSpec, events: Events, name: str) -> float:
    _, outputs, labels = events
    return float(measures(spec, outputs, labels, VALIDATION.loss_scale)[name].mean())


def covers(one: Measure, value: float) -> bool:
    assert one.low is not None
    assert one.high is not None
    return one.low <= value <= one.high


@pytest.mark.parametrize("shift", [0.0, 0.5, -1.0])
def test_under_a_shift_of_the_inputs_the_estimate_is_near_and_its_interval_covers(
    shift: float,
) -> None:
    covered, off = [], []
    for seed in range(10):
        profile = learnt(BINARY, classified(4_000, seed))
        for n in range(8):
            live = classified(2_000, 100 + 10 * seed + n, shift)
            accuracy = truth(BINARY, live, "correct")
            found = told(BINARY, profile, live).metrics["accuracy"]
            covered.append(covers(found, accuracy))
            off.append(abs(found.value - accuracy))
    assert np.mean(covered) >= 0.9
    assert np.mean(off) < 0.012
    assert max(off) < 0.04


def test_a_regression_s_errors_are_expected_where_the_reference_had_them() -> None:
    profile = learnt(REGRESSION, measured(4_000, 1))
    live = measured(4_000, 2, rough=0.9)
    found = told(REGRESSION, profile, live).metrics["absolute_error"]
    assert found.value == pytest.approx(truth(REGRESSION, live, "absolute_error"), abs=0.1)
    assert found.value > truth(REGRESSION, measured(4_000, 3), "absolute_error") + 0.3


def test_a_feature_is_looked_at_only_if_it_helps_on_time_that_was_not_learnt_from() -> None:
    """`b` says nothing, so it gets no points; which of the two kinds erred changes with time."""
    points = _of(learnt(REGRESSION, measured(4_000, 1))).points
    assert "kind" in points
    assert "b" not in points
    early, late = measured(2_000, 1, rough=0.0), measured(2_000, 2, rough=1.0)
    drawn = np.random.default_rng(3).choice(["u", "v"], 4_000)
    rows: list[Row] = [(*row[:2], str(k)) for row, k in zip(early[0] + late[0], drawn, strict=True)]
    outputs, labels = np.vstack([early[1], late[1]]), np.concatenate([early[2], late[2]])
    assert "kind" not in _of(learnt(REGRESSION, (rows, outputs, labels))).points


def test_values_that_the_reference_hardly_had_make_the_estimate_unreliable() -> None:
    profile = learnt(BINARY, classified(4_000, 1))
    assert told(BINARY, profile, classified(2_000, 2)).reliable
    far = told(BINARY, profile, classified(2_000, 3, shift=4.0))
    assert not far.reliable
    assert "values that the reference hardly had" in far.reason


def test_labels_that_say_otherwise_make_the_estimate_unreliable_and_its_error_is_told() -> None:
    """A change of the concept, which no look at inputs and outputs can see."""
    profile, live = learnt(BINARY, classified(4_000, 1)), classified(2_000, 2, flipped=True)
    found = told(BINARY, profile, live)
    assert found.reliable
    value = truth(BINARY, live, "correct")
    known = {"accuracy": Measure(value=value, low=value - 0.02, high=value + 0.02)}
    judged = against(found, known, 0.6, {})
    assert not judged.reliable
    assert judged.error["accuracy"] == pytest.approx(found.metrics["accuracy"].value - value)
    assert against(found, known, 0.4, {}) == found  # too few labels to be the truth
    assert against(found, {}, 0.0, known) == judged  # but weighted ones are


def test_predictions_of_many_versions_are_scored_as_those_of_one_are() -> None:
    profile = learnt(BINARY, classified(1_000, 1))
    rows, outputs, _ = classified(300, 2, shift=2.0)
    rows[0] = (None, 0.0, "never seen")
    binner, strata = Binner(profile, BINARY), Strata(BINARY, profile)
    card = Scorecard(_of(profile), binner)
    codes = binner.codes(rows, outputs)
    bins, outside = card.bins(codes, strata.of_outputs(outputs))
    crowd = Crowd([Sheet(binner, card)], np.zeros(len(rows), dtype=np.int64))
    alone = crowd.estimates(codes, strata.of_outputs(outputs))
    assert [one.tolist() for one in alone] == [bins.tolist(), outside.tolist()]
    assert outside[0]


def test_few_rows_teach_nothing_and_counts_of_another_estimator_are_not_read() -> None:
    assert learnt(BINARY, classified(FEWEST_ROWS - 1, 1)).estimator is None
    profile = learnt(BINARY, classified(1_000, 1))
    assert estimate(_of(profile), [1, 2, 0]) is None
    assert estimate(_of(profile), [0] * len(_of(profile).counts)) is None


def test_an_estimator_is_plain_data_in_the_profile() -> None:
    profile = learnt(BINARY, classified(1_000, 1))
    assert decode(encode(profile)) == profile
