"""River's detectors beside the verdict: from bounded plain data, the same after every restart."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import drift

from models.spec import DETECTORS, read_spec
from stream.core import advisors
from stream.core.advisors import KEPT, MOST, Advisors, Memory, events, readings, update
from stream.events import LOSS_BINS, AccuracyMeasured
from tests.summaries import processor
from tests.test_evaluate import World

QUICK = ("ADWIN", "DDM", "PageHinkley", "HDDM_W")


def group(chance: np.random.Generator, bad: float, n: int = 60) -> list[int]:
    """A group's counts of the bounded loss: wrong ones lose much."""
    wrong = int(chance.binomial(n, bad))
    counts = [0] * LOSS_BINS
    counts[1], counts[15] = n - wrong, wrong
    return counts


def test_every_detector_that_a_spec_may_name_is_there_and_finds_a_gross_change() -> None:
    assert set(advisors._FACTORIES) == DETECTORS
    memory, chance = Memory(), np.random.default_rng(1)
    told = Advisors(sorted(DETECTORS - {"KSWIN"}))
    for number in range(60):
        told.take(memory, group(chance, 0.05 if number < 30 else 0.9), number)
    found = readings(sorted(DETECTORS), memory)
    assert found["KSWIN"].alarms == 0  # was not asked
    for name in DETECTORS - {"KSWIN", "PageHinkley"}:  # its threshold is 50 whatever the scale
        last_ms = found[name].last_ms
        assert last_ms is not None, name
        assert last_ms >= 30, name


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.sets(st.integers(0, 3 * KEPT), max_size=4))
def test_rebuilt_from_plain_data_they_go_on_as_if_nothing_had_happened(
    seed: int, restarts: set[int]
) -> None:
    chance = np.random.default_rng(seed)
    straight, crashed = Memory(), Memory()
    one, other = Advisors(QUICK), Advisors(QUICK)
    for number in range(3 * KEPT):
        counts = group(chance, 0.05 + 0.3 * (number // 50 % 2), 40)
        if number in restarts:
            other = Advisors(QUICK)
            crashed = msgspec.json.decode(msgspec.json.encode(crashed), type=Memory)
        one.take(straight, counts, number)
        other.take(crashed, counts, number)
        assert straight == crashed
    assert len(straight.groups) < 2 * KEPT
    assert straight.taken == 3 * KEPT


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_does_not_blind_a_detector(bad: float) -> None:
    """One NaN is enough to silence these for ever, unguarded."""
    for make in (drift.ADWIN, lambda: drift.PageHinkley(threshold=5.0)):
        chance = np.random.default_rng(2)
        guarded: Any = make()
        found = [update(guarded, value) for value in chance.normal(size=300)]
        assert not update(guarded, bad)
        found += [update(guarded, value) for value in chance.normal(3.0, size=300)]
        assert any(found[300:])


def test_a_large_group_costs_no_more_than_a_small_one_and_keeps_its_mean() -> None:
    counts = [0] * LOSS_BINS
    counts[0], counts[19] = 90_000, 10_000
    assert len(events(counts)) == MOST
    assert events(counts).mean() == pytest.approx(0.1)
    assert sorted(events([3, 2])) == pytest.approx([0, 0, 0, 1 / 19, 1 / 19])


def test_a_spec_names_them_and_one_that_does_not_exist_is_refused() -> None:
    text = '{"name":"m","task":"regression","features":[{"name":"x"}],"detectors":["%s"]}'
    assert read_spec(text % "ADWIN").detectors == ("ADWIN",)
    with pytest.raises(ValueError, match="detectors: choose from ADWIN, DDM"):
        read_spec(text % "Oracle")


def test_they_are_shown_beside_the_verdict_and_change_none() -> None:
    plain, advised = World(obedient=False), World(obedient=False, detectors=("ADWIN", "DDM"))
    for world in (plain, advised):
        world.days(60)
        world.days(30, bad=0.7)
    assert plain.commands == advised.commands
    assert advised.alerts("harm") == plain.alerts("harm")
    shown = [f for f in advised.facts if isinstance(f, AccuracyMeasured) and f.window == "604800s"]
    assert set(shown[-1].detectors) == {"ADWIN", "DDM"}
    assert shown[-1].detectors["DDM"].alarms >= 1
    told: Any = advised.newest("harm").evidence["detectors"]
    assert set(told) == {"ADWIN", "DDM"}
    parts = {n: d for n, d in advised.core.changes(complete=True).items() if d}
    advised.core = processor()
    advised.core.restore(parts)
    advised.days(1, bad=0.7)
