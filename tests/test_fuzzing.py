"""A short run of the fuzzing of every decoder; `python -m tests.fuzzing` goes on for longer."""

from __future__ import annotations

import pytest

from tests import fuzzing

INPUTS = {"artefact": 60, "evaluate": 1_000}
TARGETS = fuzzing.targets()


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_bytes_are_accepted_or_refused_and_nothing_else(name: str) -> None:
    """Both happen, so the run is neither all noise nor all good values."""
    became = fuzzing.run(name, TARGETS[name], INPUTS.get(name, 3_000), seed=1)

    assert set(became) == {"accepted", "refused"}
