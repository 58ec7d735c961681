"""Segments that the spec declares: judged apart, under the same budget; the worst one is named."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from models.features import Row
from models.profile import ReferenceProfile, SegmentProfile
from models.profiling import build_profile
from models.slicing import FEWEST_ROWS, segment_profiles
from stream.core import describing
from stream.core.ticks import Group, Pending, Tick
from stream.core.watching import Kit, Signal, Watch, observe
from stream.events import LOSS_BINS, SummaryComputed
from tests.summaries import BAD, DAY_MS, GOOD, SPEC, profile

SEGMENTED = msgspec.structs.replace(SPEC, segments=("c",))


def reference(rows: int = 2_000) -> ReferenceProfile:
    """Segment c=b is half of all, and validated worse than the whole."""
    whole = profile(rows=rows)
    parts = tuple(
        SegmentProfile(
            name=f"c={value}",
            signals=(msgspec.structs.replace(whole.signals[2], counts=(0, 500, 500, 0, 0)),),
            validation=profile(bad=bad, rows=rows // 2).validation,
        )
        for value, bad in (("a", 0.02), ("b", 0.08))
    )
    return msgspec.structs.replace(whole, segments=parts)


KIT = Kit(SEGMENTED, reference())


def bets(n: int, bad: int) -> list[int]:
    counts = [0] * LOSS_BINS
    counts[GOOD], counts[BAD] = n - bad, bad
    return counts


def day(number: int, bad_a: int, bad_b: int, low_b: int = 25) -> Group:
    parts = {
        f"c={value}": Tick(
            predictions=50, bets=bets(50, bad), signals={"prediction": [0, low, 50 - low, 0, 0]}
        )
        for value, bad, low in (("a", bad_a, 25), ("b", bad_b, low_b))
    }
    tick = Tick(predictions=100, bets=bets(100, bad_a + bad_b), segments=parts)
    return Group(number * DAY_MS, (number + 1) * DAY_MS, tick)


def alarmed(watch: Watch) -> list[str]:
    return [key for key, s in sorted(watch.sightings.items()) if s.opened_ms is not None]


def test_segments_have_lines_of_the_budget_and_the_whole_has_half_of_each() -> None:
    shares = KIT._shares
    assert shares["harm/loss"] == pytest.approx(0.2)
    assert shares["harm/loss in c=a"] == shares["harm/loss in c=b"] == pytest.approx(0.1)
    assert shares["prediction/prediction in c=a"] == pytest.approx(0.15 / 2 / 4)
    assert sum(shares.values()) == pytest.approx(1)
    assert KIT.promise.signals == len(KIT.signals)


def test_harm_in_one_segment_is_found_though_the_whole_looks_well() -> None:
    """What c=b loses c=a gains: the whole stays where it was."""
    watch = Watch(version=1)
    for number in range(40):
        observe(watch, KIT, day(number, bad_a=1, bad_b=4))
    assert alarmed(watch) == []
    for number in range(40, 80):
        observe(watch, KIT, day(number, bad_a=0, bad_b=9 if number % 2 else 6))
    assert "harm/loss in c=b" in alarmed(watch)
    assert "harm/loss in c=a" not in alarmed(watch)
    sentence, evidence = describing.harm(watch, KIT)
    assert evidence["slices"][0]["segment"] == "c=b"
    assert "c=b" in sentence


def test_an_alert_on_the_whole_names_the_worst_slice() -> None:
    watch = Watch(version=1)
    for number in range(3):
        observe(watch, KIT, day(number, bad_a=1, bad_b=45))
    assert "harm/loss" in alarmed(watch)
    sentence, evidence = describing.harm(watch, KIT)
    assert "worst in c=b: " in sentence
    assert [one["segment"] for one in evidence["slices"]] == ["c=b", "c=a"]
    worst = evidence["slices"][0]
    assert worst["loss"] > 0.5 > worst["validated"]
    assert msgspec.json.encode(evidence)


def test_predictions_of_one_segment_are_compared_with_that_segment() -> None:
    watch = Watch(version=1)
    for number in range(10):
        observe(watch, KIT, day(number, bad_a=1, bad_b=4, low_b=45))
    assert alarmed(watch) == ["prediction/prediction in c=b"]
    _, evidence = describing.changed(watch, KIT, "prediction")
    assert evidence["signals"]["prediction in c=b"]["before"] == [0, 500, 500, 0, 0]


def test_counts_of_segments_lie_within_their_tick_and_add_up() -> None:
    pending = Pending()
    for segment, n in (("", 60), ("c=a", 20), ("c=b", 40), ("", 50), ("c=a", 50)):
        delta = SummaryComputed(
            model="m",
            version=1,
            segment=segment,
            tick=3,
            partition=0,
            predictions=n,
            bets=bets(n, 1),
        )
        pending.add(delta, closed=0)
    (group,) = pending.close(4, tick_ms=10, minimum_events=100)
    assert (group.counts.predictions, group.counts.labels) == (110, 110)
    assert {name: part.predictions for name, part in group.counts.segments.items()} == {
        "c=a": 70,
        "c=b": 40,
    }


def test_only_segments_with_enough_rows_that_were_not_fitted_on_have_a_reference() -> None:
    rng = np.random.default_rng(1)
    names = rng.choice(["a", "b", "rare"], 1_000, p=[0.6, 0.35, 0.05])
    rows: list[Row] = [
        (float(x), str(c)) for x, c in zip(rng.normal(size=1_000), names, strict=True)
    ]
    outputs = rng.uniform(size=(1_000, 1))
    labels = (rng.random(1_000) < np.where(names == "b", 0.9, 0.5)).astype(float)
    whole = build_profile(SEGMENTED, rows, outputs, profile().validation)

    parts = segment_profiles(SEGMENTED, whole, rows, outputs, labels)

    assert [part.name for part in parts] == ["c=a", "c=b"]
    assert all(part.validation.n >= FEWEST_ROWS for part in parts)
    assert [signal.name for signal in parts[0].signals] == ["x", "prediction"]
    assert sum(parts[0].signals[0].counts) == parts[0].validation.n == int((names == "a").sum())
    assert parts[1].validation.metrics["log_loss"] != parts[0].validation.metrics["log_loss"]
    assert segment_profiles(SPEC, whole, rows, outputs, labels) == ()


def test_a_signal_of_a_segment_is_told_by_its_name() -> None:
    assert Signal("harm", "loss in c=a") in KIT.signals
    assert (
        KIT.harm_bound(Signal("harm", "loss in c=b")).mean
        > KIT.harm_bound(Signal("harm", "loss in c=a")).mean
    )
