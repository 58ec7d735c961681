"""Detectors and the bank: exact bookkeeping, and the rules that the budget's proof needs."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.core.bets import BetTable
from stream.core.detector import Bank, Detector

COIN = BetTable("coin", np.log([[0.8, 1.2], [1.5, 0.5]]), np.array([0.5, 0.5]))


def bank(**more: str) -> Bank:
    tables = [COIN._replace(name=name) for name in "abc"]
    return Bank(tables, dict.fromkeys("abc", 0.2), alarms=5.0, groups=more)


def test_capital_is_what_the_bets_pay_on_the_old_capital_and_the_growth() -> None:
    detector = Detector(COIN)
    detector.update([1, 3], growth=2.0)
    first = np.array([0.8 * 1.2**3, 1.5 * 0.5**3]) * 2.0
    assert detector.snapshot() == pytest.approx(first)
    detector.update([4, 0], growth=0.5)
    assert detector.snapshot() == pytest.approx(np.array([0.8**4, 1.5**4]) * (first + 0.5))
    assert detector.evidence == pytest.approx(np.mean(detector.snapshot()))
    detector.reset()
    assert detector.evidence == 0


@given(st.lists(st.integers(0, 50), min_size=2, max_size=2), st.integers(1, 4), st.randoms())
def test_counts_split_over_workers_and_merged_give_the_same_bits(
    counts: list[int], workers: int, random: object
) -> None:
    rng = np.random.default_rng(sum(counts))
    parts = rng.multinomial(counts, np.full((2, workers), 1 / workers)).T
    whole, merged = Detector(COIN), Detector(COIN)
    for _ in range(3):
        whole.update(counts, 0.01)
        merged.update(sum(parts), 0.01)
    assert whole.snapshot() == merged.snapshot()


def test_snapshots_are_plain_data_and_continue_to_the_same_bits() -> None:
    one, other = bank(), bank()
    one.update({"a": [2, 9], "b": [4, 4]}, 0.001)
    one.suspend("c")
    written = msgspec.json.encode(one.snapshot())
    other.restore(msgspec.json.decode(written, type=dict[str, bytes | None]))
    for each in (one, other):
        each.update({"a": [3, 9], "b": [1, 4], "c": [0, 9]}, 0.001)
    assert one.snapshot() == other.snapshot()
    assert one.levels()["a"] > 0
    assert one.snapshot()["c"] is None


def test_a_snapshot_of_other_bets_is_refused_by_a_detector_and_forgotten_by_a_bank() -> None:
    with pytest.raises(ValueError, match="other bets"):
        Detector(COIN).restore([1.0, 2.0, 3.0])
    restored = bank()
    restored.restore({"a": [0.1, 0.1], "b": [0.1, 0.1, 0.1], "gone": [0.1]})
    assert restored.levels() == pytest.approx({"a": 0.1, "b": 0.0, "c": 0.0})


def test_a_bank_takes_over_again_what_was_taken_from_its_last_snapshot() -> None:
    watch = bank()
    watch.update({"a": [2, 9], "b": [2, 9]}, 0.001)
    told = watch.snapshot()
    level = watch.levels()["b"]
    watch.restore(told)
    assert watch.levels()["b"] == level
    del told["b"]  # as is done when an alert is closed by hand
    watch.restore(told)
    assert watch.levels()["b"] == 0
    again = bank()
    again.restore(told)
    watch.update({"a": [2, 9]}, 0.001)
    watch.restore(told)
    assert watch.levels() == again.levels()


def test_a_snapshot_of_release_0_1_is_numbers_and_is_taken_over() -> None:
    restored = bank()
    restored.restore({"a": [0.5, 0.7], "b": None})
    assert restored.levels() == pytest.approx({"a": 0.6, "b": 0.0, "c": 0.0})
    assert restored.snapshot()["b"] is None


def test_counts_on_other_bins_and_budgets_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="coin"):
        Detector(COIN).update([1, 2, 3], 0.1)
    with pytest.raises(ValueError, match="b: "):
        bank().update({"b": [1, 2, 3]}, 0.1)
    with pytest.raises(ValueError, match="name of its own"):
        Bank([COIN, COIN], {"coin": 0.1}, alarms=1)
    with pytest.raises(ValueError, match="a share"):
        Bank([COIN], {}, alarms=1)
    with pytest.raises(ValueError, match="more than the budget"):
        Bank([COIN], {"coin": 1.1}, alarms=1)


def test_a_bank_without_signals_and_a_table_without_bets_stay_silent() -> None:
    assert Bank([], {}, alarms=1).update({}, 1.0) == ()
    blind = BetTable("blind", np.empty((0, 2)), np.empty(0))
    mute = Bank([blind, COIN], {"blind": 0.5, "coin": 0.5}, alarms=1)
    assert mute.update({"blind": [0, 10_000], "coin": [1, 1]}, 1.0) == ()
    assert mute.levels()["blind"] == 0
    assert Detector(blind).update([1, 1], 1.0) == 0


def test_capital_stays_finite_under_overwhelming_evidence_and_recovers_from_nothing() -> None:
    detector = Detector(COIN)
    detector.update([0, 10**6], 1.0)
    detector.update([0, 10**6], 1.0)
    assert np.isfinite(detector.snapshot()).all()
    detector.reset()
    detector.update([500, 500], 1.0)
    detector.update([0, 60], 1.0)
    assert detector.evidence > 100


# --- the rules of the bank ------------------------------------------------------------------------


def test_a_signal_that_reaches_its_threshold_alarms_alone_and_restarts() -> None:
    watch = bank()
    assert watch.update({"a": [0, 100], "b": [5, 5]}, 1.0) == ("a",)
    assert watch.levels()["a"] == 0
    assert watch.levels()["b"] > 0


def test_weak_signals_alarm_together_and_all_that_was_summed_restarts() -> None:
    watch = bank()
    watch.restore({"a": [0.7, 0.7], "b": [0.5, 0.5], "c": [0.01, 0.01]})
    assert watch.update({"c": [1, 1]}, 0.0) == ("a", "b")[:1]  # a alone carries half of it
    assert set(watch.levels().values()) == {0.0}


def test_signals_of_different_groups_never_alarm_on_each_others_evidence() -> None:
    watch = bank(a="harm")
    watch.restore({"a": [0.9, 0.9], "b": [0.6, 0.6], "c": [0.3, 0.3]})
    assert watch.update({"c": [1, 1]}, 0.0) == ()
    watch.restore({"a": [0.9, 0.9], "b": [0.6, 0.6], "c": [0.55, 0.55]})
    assert watch.update({"c": [1, 1]}, 0.0) == ("b",)
    assert watch.levels()["a"] == pytest.approx(0.9)


def test_a_suspended_signal_neither_bets_nor_counts_until_it_resumes_from_nothing() -> None:
    watch = bank()
    watch.restore({"a": [0.9, 0.9]})
    watch.suspend("a")
    assert watch.update({"a": [0, 100]}, 1.0) == ()
    assert watch.levels()["a"] == 0
    watch.resume("a")
    watch.update({"a": [0, 1]}, 1e-6)
    assert 0 < watch.levels()["a"] < 1e-5


def test_time_without_events_never_alarms() -> None:
    silent = bank()
    for _ in range(100):
        assert silent.update({"a": [0, 0]}, 1.0) == ()
    assert set(silent.levels().values()) == {0.0}
    assert Detector(COIN).update([0, 0], 1.0) == 0


def test_deflated_counts_bet_as_that_many_fewer_events() -> None:
    plain, deflated = Detector(COIN), Detector(COIN._replace(deflation=4.0))
    plain.update([3, 5], 0.1)
    deflated.update([12, 20], 0.1)
    assert plain.snapshot() == deflated.snapshot()
