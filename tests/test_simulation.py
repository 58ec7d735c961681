"""Every seed keeps every promise: nothing lost, nothing twice, whatever dies, stops or lies when.

The simulator runs the real partitions, processors and lifecycle on a pretended broker, registry and
clock, and holds what is left in the end against a straight fold of the log
(`tests/simulation/oracle.py`). A seed that fails is named, and runs again by itself.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.breaks import BREAKS
from tests.simulation.run import run_one
from tests.simulation.schedule import STEPS
from tests.simulation.world import PLACES

QUICK_SEEDS, LONG_SEEDS = 2_000, 10_000
BLOCK = 100  # seeds in one test, so that all processes of a test run get some


def promises_kept(seeds: range, *, harsh: bool) -> None:
    again = "python -m tests.simulation --trace --seed"
    for seed in seeds:
        run = run_one(seed, harsh=harsh)
        assert not run.error, f"{again} {seed}{' --harsh' * harsh}\n{run.error}"


@pytest.mark.parametrize("first", range(0, QUICK_SEEDS, BLOCK))
def test_every_seed_keeps_every_promise(first: int) -> None:
    """One in four under every kind of fault, and more of them."""
    mild = 3 * BLOCK // 4
    promises_kept(range(first, first + mild), harsh=False)
    promises_kept(range(first + mild, first + BLOCK), harsh=True)


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("first", range(QUICK_SEEDS, QUICK_SEEDS + LONG_SEEDS, 5 * BLOCK))
def test_many_seeds_keep_every_promise(first: int) -> None:
    middle = first + 5 * BLOCK // 2
    promises_kept(range(first, middle), harsh=False)
    promises_kept(range(middle, first + 5 * BLOCK), harsh=True)


@pytest.mark.parametrize("without", BREAKS)
def test_a_protection_that_is_taken_away_is_noticed(without: str) -> None:
    """Each within so many seeds; a simulator that notices nothing would prove nothing."""
    within = BREAKS[without][1]
    assert any(run_one(seed, without=without).error for seed in range(within))


def test_a_seed_replays() -> None:
    """Twice the same steps and the same end, so what one machine finds another can look at."""
    for seed in (3, 4):
        first, second = (run_one(seed, trace=True, harsh=True) for _ in range(2))
        assert first.trace == second.trace
        assert first.seen == second.seen
        assert first.seen["steps"] == STEPS >= 300


def test_everything_that_can_go_wrong_does() -> None:
    """Processes die and stand still at every failpoint; producers, labels and people do all that
    the simulator knows of."""
    seen: Counter[str] = Counter()
    for seed in range(80):
        seen += run_one(seed, harsh=seed % 2 == 0).seen
    places = {place for places in PLACES.values() for place in places}
    expected = {f"{action} at {place}" for action in ("crash", "pause") for place in places}
    expected |= {f"trouble: {trouble}" for trouble in ("again", "failed", "answer lost")}
    expected |= {
        "killed",
        "stopped",
        "fenced",
        "expelled",
        "superseded",
        "timed out",
        "offsets expired",
    }
    expected |= {"lies found", "commands delivered again", "commands that took effect"}
    expected |= {f"sent {kind}" for kind in ("requests", "predictions", "feedback", "poison")}
    missing = expected - seen.keys()
    assert not missing
