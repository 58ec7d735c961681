"""Events of many versions at once fall in the bins in which their own `Binner` puts them."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from msgspec.structs import replace

from models.crowd import Crowd, Sheet
from models.features import Row
from models.profile import ReferenceProfile, Validation
from models.profiling import Binner, build_profile
from models.spec import Feature, ModelSpec, check

SPEC = check(
    ModelSpec(
        name="m",
        task="binary",
        classes=("no", "yes"),
        features=(
            Feature(name="age"),
            Feature(name="plan", type="categorical"),
            Feature(name="income", optional=True),
        ),
    )
)
VALIDATION = Validation(n=400, loss_bins=(20,) * 20, loss_scale=4.0, metrics={})


def profile(seed: int, *, fine: bool, categories: str, income: bool = True) -> ReferenceProfile:
    """A reference of its own edges and categories; not fine: of few values, which are bins."""
    rng = np.random.default_rng(seed)
    ages = rng.normal(40, 10, 400) if fine else rng.integers(0, 4, 400) * 1.0
    incomes = rng.normal(seed, 1, 400).round(3)
    rows: list[Row] = [
        (float(age), categories[i % len(categories)], float(incomes[i]) if income else None)
        for i, age in enumerate(ages)
    ]
    return build_profile(SPEC, rows, rng.random((400, 1)), VALIDATION)


PROFILES = (
    profile(1, fine=True, categories="ab"),
    profile(2, fine=False, categories="bcd"),
    replace(profile(3, fine=True, categories="a"), joint=None),
    profile(4, fine=True, categories="xyz", income=False),
)
BINNERS = [Binner(one, SPEC) for one in PROFILES]
SHEETS = [Sheet(binner, None) for binner in BINNERS]
VALUES = [value for binner in BINNERS for edges in binner.edges for value in edges.tolist()]
NUMBERS = st.one_of(st.none(), st.sampled_from([*VALUES, 1e300, -1e300]), st.floats(-60, 60))
EVENTS = st.tuples(
    st.integers(0, len(BINNERS) - 1),
    st.tuples(NUMBERS, st.sampled_from(["a", "b", "c", "x", "new", None]), NUMBERS),
    st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)),
)


@settings(max_examples=200)
@given(st.lists(EVENTS, min_size=1, max_size=12))
def test_events_fall_in_the_bins_of_their_own_version(
    events: list[tuple[int, Row, float]],
) -> None:
    layouts: dict[object, list[tuple[int, Row, float]]] = {}
    for event in events:
        layouts.setdefault(SHEETS[event[0]].layout, []).append(event)
    for alike in layouts.values():
        versions = sorted({version for version, _, _ in alike})
        of = np.array([versions.index(version) for version, _, _ in alike])
        crowd = Crowd([SHEETS[version] for version in versions], of)
        codes = crowd.codes([row for _, row, _ in alike], np.array([[o] for _, _, o in alike]))
        for (version, row, output), found in zip(alike, codes, strict=True):
            assert found.tolist() == BINNERS[version].codes([row], np.array([[output]]))[0].tolist()


def test_versions_of_other_edges_and_categories_are_put_together() -> None:
    assert SHEETS[0].layout == SHEETS[1].layout
    assert len({SHEETS[0].layout, SHEETS[2].layout, SHEETS[3].layout}) == 3
