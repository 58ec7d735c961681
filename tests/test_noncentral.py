"""Interpolated noncentralities are those that roots give."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import example, given, settings
from scipy import special

from stream.core.noncentral import LARGEST, noncentralities


@settings(max_examples=50)
@example(47, 1e-6, 0.995)
@given(
    st.integers(1, 60),
    st.floats(1e-6, 1.0),
    st.sampled_from([0.005, 0.025, 0.5, 0.975, 0.995]),
)
def test_they_are_what_root_finding_gives(freedom: int, way: float, share: float) -> None:
    """From the least value that has one to beyond the largest that is interpolated."""
    least = special.chdtri(freedom, 1 - share)
    value = least + way**4 * 2 * LARGEST
    there = np.array([[True]])
    ((found,),) = noncentralities(np.array([value]), np.array([freedom]), (share,), there)
    root = special.chndtrinc(value, freedom, share)
    root = 0.0 if np.isnan(root) else root  # rounding has put the value below the least
    assert abs(found - root) <= 1e-9 * value + 1e-12


def test_one_is_the_same_alone_and_among_others() -> None:
    rng = np.random.default_rng(1)
    values, freedoms = rng.uniform(60, 400, 30), rng.integers(1, 30, 30)
    there = rng.random((2, 30)) < 0.8
    together = noncentralities(values, freedoms, (0.975, 0.025), there)
    for i in range(30):
        alone = noncentralities(values[i], freedoms[i], (0.975, 0.025), there[:, i])
        assert alone.tolist() == together[:, i].tolist()
    assert (together[~there] == 0).all()
