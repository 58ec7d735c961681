"""Labels and losses."""

import numpy as np
import pytest

from models import losses
from models.losses import bounded, correct, encode_label, loss_bin, measures
from models.spec import Feature, ModelSpec
from stream import events

X = (Feature(name="x"),)
BINARY = ModelSpec(name="b", task="binary", classes=("quiet", "busy"), features=X)
MULTI = ModelSpec(name="m", task="multiclass", classes=("a", "b", "c"), features=X)
REAL = ModelSpec(name="r", task="regression", features=X)


@pytest.mark.parametrize(
    ("label", "encoded"),
    [
        ("busy", 1),
        ("quiet", 0),
        ("1", 1),
        (True, 1),
        (False, 0),
        (1, 1),
        (0, 0),
        (1.0, 1),
        (0.0, 0),
    ],
)
def test_a_binary_label_is_a_class_or_true_or_one(label: str | bool | float, encoded: int) -> None:
    assert encode_label(BINARY, label) == encoded


def test_a_class_name_wins_over_the_meaning_of_numbers() -> None:
    spec = ModelSpec(name="b", task="binary", classes=("1", "2"), features=X)

    assert encode_label(spec, 1) == 0
    assert encode_label(spec, 2) == 1


@pytest.mark.parametrize(
    ("spec", "label"),
    [
        (BINARY, "maybe"),
        (BINARY, 2),
        (BINARY, 0.5),
        (BINARY, "True"),
        (BINARY, 10**30),
        (MULTI, 1),
        (MULTI, True),
        (REAL, "3"),
        (REAL, True),
        (REAL, float("nan")),
        (REAL, 10**30),
        (REAL, -1e13),
    ],
)
def test_what_is_no_label_of_the_task_is_refused(
    spec: ModelSpec, label: str | bool | float
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        encode_label(spec, label)


def test_log_loss_is_that_of_the_class_that_happened() -> None:
    outputs = np.array([[0.9], [0.9]])

    np.testing.assert_allclose(
        losses.losses(BINARY, outputs, np.array([1.0, 0.0])), [-np.log(0.9), -np.log(0.1)]
    )
    probabilities = np.array([[0.2, 0.3, 0.5]])
    np.testing.assert_allclose(losses.losses(MULTI, probabilities, np.array([2.0])), [-np.log(0.5)])


def test_a_certain_mistake_costs_a_finite_loss() -> None:
    assert losses.losses(BINARY, np.array([[0.0]]), np.array([1.0]))[0] == -np.log(1e-6)


def test_measures_carry_the_names_of_summaries() -> None:
    outputs, labels = np.array([[2.0]]), np.array([5.0])

    assert {k: v.item() for k, v in measures(REAL, outputs, labels, 10.0).items()} == {
        "absolute_error": 3.0,
        "squared_error": 9.0,
        "loss": 0.3,
    }
    assert set(measures(BINARY, outputs, np.array([1.0]), 4.0)) == {"correct", "log_loss", "loss"}


def test_the_likeliest_class_counts() -> None:
    assert correct(BINARY, np.array([[0.5], [0.49]]), np.array([1.0, 1.0])).tolist() == [
        True,
        False,
    ]
    assert correct(MULTI, np.array([[0.2, 0.3, 0.5]]), np.array([2.0])).tolist() == [True]


def test_rounding_to_bins_keeps_the_mean() -> None:
    """The mean of bin values is the mean loss within sampling error, at every loss."""
    ids = [f"r-{i:07d}" for i in range(40_000)]
    for loss in (0.0, 0.013, 0.25, 0.52, 0.999, 1.0):
        bins = loss_bin(np.full(len(ids), loss), ids)
        assert abs(bins.mean() / (losses.LOSS_BINS - 1) - loss) < 4 * 0.5 / 19 / 200
        assert np.ptp(bins) <= 1


def test_the_bin_of_an_event_depends_on_nothing_but_its_loss_and_id() -> None:
    values, ids = np.array([0.3, 0.7, 0.11]), ["a", "b", "c"]

    alone = [loss_bin(values[i : i + 1], ids[i : i + 1])[0] for i in range(3)]

    assert loss_bin(values, ids).tolist() == alone


def test_the_draws_of_neighbouring_ids_are_independent() -> None:
    """Sequential ids must not round in step, or sums of neighbouring events would not average."""
    ids = [f"order-{i}" for i in range(20_000)]
    draws = losses.fractions(ids)
    lagged = [np.corrcoef(draws[:-lag], draws[lag:])[0, 1] for lag in (1, 2, 4, 8, 10, 100)]

    assert np.abs(lagged).max() < 0.03
    blocks = draws.reshape(-1, 100).mean(axis=1)
    assert 0.7 < blocks.var() / (1 / 12 / 100) < 1.4


def test_bounded_losses_lie_between_0_and_1() -> None:
    assert bounded(np.array([0.0, 2.0, 99.0]), 4.0).tolist() == [0.0, 0.5, 1.0]


def test_models_and_events_agree_on_the_number_of_bins() -> None:
    """The two layers name it apart, since models may not import stream."""
    assert losses.LOSS_BINS == events.LOSS_BINS
