"""How inputs go together: a changed dependence shows while every one of them is as before."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from models.crowd import Crowd, Sheet
from models.features import Row
from models.joint import NAME, Distance, joint
from models.profile import ReferenceProfile, Validation
from models.profiling import Binner, build_profile
from models.spec import Feature, ModelSpec
from stream.core.bets import distribution_table
from stream.core.detector import Detector
from stream.core.packing import kind_of
from stream.core.sources import Source

Array = NDArray[np.float64]

SPEC = ModelSpec(
    name="m",
    task="binary",
    classes=("n", "y"),
    features=(*(Feature(name=f"x{i}") for i in range(4)), Feature(name="c", type="categorical")),
)
VALIDATION = Validation(n=1, loss_bins=(1,) + (0,) * 19, loss_scale=4.0, metrics={})


def rows(rng: np.random.Generator, n: int, rho: float, category: float = 0.0) -> list[Row]:
    """x0 and x1 correlated by rho, the others independent; c follows x2 by `category`."""
    x = rng.standard_normal((n, 4))
    x[:, 1] = rho * x[:, 0] + (1 - rho**2) ** 0.5 * x[:, 1]
    own = category * x[:, 2] + (1 - category**2) ** 0.5 * rng.standard_normal(n)
    return [(*map(float, row), "a" if c > 0 else "b") for row, c in zip(x, own, strict=True)]


def outputs(made: list[Row]) -> Array:
    """What a model says that goes by x2, so that categories have a place."""
    return np.array([[1 / (1 + np.exp(-float(row[2] or 0)))] for row in made])


def profile(rng: np.random.Generator, rho: float, category: float = 0.0) -> ReferenceProfile:
    made = rows(rng, 5_000, rho, category)
    return build_profile(SPEC, made, outputs(made), VALIDATION)


def evidence(reference: ReferenceProfile, made: list[Row]) -> dict[str, float]:
    """The most of each signal in ticks of 100."""
    counts: dict[str, list[NDArray[np.int64]]] = {}
    binner = Binner(reference, SPEC)
    for start in range(0, len(made), 100):
        part = made[start : start + 100]
        for name, row in binner.counts(part, outputs(part)).items():
            counts.setdefault(name, []).append(row)
    most = {}
    for signal in reference.signals:
        table = distribution_table(signal, tolerance_psi=0.0, delta=0.01 / 6)
        detector = Detector(table)
        most[signal.name] = max(detector.update(row, 1.0) for row in counts[signal.name])
    return most


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((0.8, 0.0), (0.0, 0.0), id="a dependence breaks"),
        pytest.param((0.0, 0.0), (0.8, 0.0), id="a new one"),
        pytest.param((0.0, 0.9), (0.0, 0.0), id="of a category and a number"),
    ],
)
def test_a_change_of_dependence_alone_is_found_by_this_signal_alone(
    before: tuple[float, float], after: tuple[float, float]
) -> None:
    rng = np.random.default_rng(1)
    most = evidence(profile(rng, *before), rows(rng, 4_000, *after))
    assert most.pop(NAME) >= 1000
    assert max(most.values()) < 1000


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_nothing_is_found_where_nothing_changes(rho: float) -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        assert evidence(profile(rng, rho), rows(rng, 10_000, rho))[NAME] < 1000


def test_an_event_has_the_same_place_alone_and_in_any_batch() -> None:
    rng = np.random.default_rng(3)
    reference = profile(rng, 0.6, 0.5)
    made: list[Row] = [
        *rows(rng, 200, 0.2),
        (None, 9.0, -9.0, 0.0, None),
        (0.0, 0.0, 0.0, 0.0, "z"),
    ]
    said = outputs(made)
    binner = Binner(reference, SPEC)
    source = Source(kind_of(SPEC, 1, (), 4.0), SPEC, reference)
    together = binner.codes(made, said)
    for i, row in enumerate(made):
        assert binner.codes([row], said[i : i + 1]).tolist() == together[i : i + 1].tolist()
    crowd = Crowd([Sheet(binner, None)], np.zeros(len(made), dtype=np.int64))
    assert crowd.codes(made, said).tolist() == together.tolist()
    assert source.signal(int(together[0, -1]))[0] == NAME


def test_distances_are_whole_numbers_far_below_what_floats_can_count() -> None:
    rng = np.random.default_rng(4)
    bins = rng.integers(0, 13, (4_000, 60))
    bins[:, 1] = bins[:, 0]
    found = joint(bins, [np.append(np.arange(12.0), np.nan)] * 60)
    assert found is not None
    assert len(found.weights) == 16
    extreme = np.repeat(np.arange(13)[:, None], 60, axis=1)
    values = Distance(found).of(extreme)
    assert (values == np.floor(values)).all()
    assert values.max() < 2**50


def test_one_feature_or_few_rows_have_no_dependence_to_speak_of() -> None:
    line = [np.append(np.arange(12.0), np.nan)]
    bins = np.random.default_rng(5).integers(0, 13, (1_000, 30))
    assert joint(bins[:, :1], line) is None
    assert joint(bins, line * 30) is None
