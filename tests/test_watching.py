"""The champion under watch: one budget over its signals, hysteresis, what an alarm is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

import msgspec
import numpy as np
import pytest

from models.profile import SegmentProfile
from models.spec import Labels, ModelSpec, Ticks
from stream.core import watching
from stream.core.bets import BetTable
from stream.core.detector import Detector
from stream.core.risks import bounded_loss
from stream.core.ticks import Group, Tick
from stream.core.watching import LOW, Kind, Kit, Sighting, Watch, observe
from stream.events import LOSS_BINS
from tests.summaries import BAD, DAY_MS, GOOD, SPEC, profile

KIT = Kit(SPEC, profile())


def bets(n: int, bad: int) -> list[int]:
    counts = [0] * LOSS_BINS
    counts[GOOD], counts[BAD] = n - bad, bad
    return counts


def day(number: int, n: int = 100, bad: int = 5, missing: int = 0) -> Group:
    x = [0, *[(n - missing) // 10] * 10, 0, missing]
    signals = {"x": x, "c": [n // 2, n // 2, 0, 0], "prediction": [0, n // 2, n // 2, 0, 0]}
    tick = Tick(predictions=n, signals=signals, bets=bets(n, bad))
    return Group(number * DAY_MS, (number + 1) * DAY_MS, tick)


def alarmed(watch: Watch) -> list[str]:
    return [key for key, s in sorted(watch.sightings.items()) if s.opened_ms is not None]


def test_every_feature_has_a_place_in_the_budget_for_drift_and_for_broken_data() -> None:
    assert [signal.key for signal in KIT.signals] == [
        "harm/loss",
        "estimate/loss",
        "schema/records",
        "broken/x",
        "feature/x",
        "broken/c",
        "feature/c",
        "prediction/prediction",
    ]


def test_an_alarm_says_since_when_and_on_what_counts() -> None:
    watch = Watch(version=1)
    for number in range(10):
        observe(watch, KIT, day(number))
    for number in range(10, 13):
        observe(watch, KIT, day(number, bad=60))
    assert alarmed(watch) == ["harm/loss"]
    sighting = watch.open("harm")["loss"]
    assert sighting.since_ms >= 9 * DAY_MS
    assert bounded_loss(sighting.counts) > bounded_loss(bets(100, 30))
    assert sighting.level == 1.0


def test_a_signal_that_stays_bad_stays_open_and_one_that_is_good_again_starts_afresh() -> None:
    watch = Watch(version=1)
    for number in range(60):
        observe(watch, KIT, day(number, bad=60))
    assert alarmed(watch) == ["harm/loss"]
    assert (watch.open("harm")["loss"].opened_ms or 0) <= 3 * DAY_MS
    for number in range(60, 70):
        observe(watch, KIT, day(number))
    assert alarmed(watch) == []
    assert watch.level("harm/loss") < LOW


def test_recovery_takes_some_groups_however_clear_it_is() -> None:
    watch = Watch(version=1)
    observe(watch, KIT, day(0, n=1000, bad=800))
    assert alarmed(watch) == ["harm/loss"]
    open_groups = 0
    while alarmed(watch):
        open_groups += 1
        observe(watch, KIT, day(open_groups, n=1000, bad=50))
    assert open_groups == 3


def test_recovery_adds_up_over_groups_that_are_too_small_to_show_it() -> None:
    watch = Watch(version=1)
    observe(watch, KIT, day(0, bad=60))
    for number in range(1, 6):
        observe(watch, KIT, day(number, n=2, bad=0))
        assert alarmed(watch) == ["harm/loss"]
    for number in range(6, 80):
        observe(watch, KIT, day(number, n=2, bad=0))
    assert alarmed(watch) == []


def test_broken_data_is_told_apart_from_drift() -> None:
    watch = Watch(version=1)
    for number in range(20):
        observe(watch, KIT, day(number, missing=10))
    assert "broken/x" in alarmed(watch)
    assert "broken/c" not in alarmed(watch)


@pytest.mark.parametrize("wrong", [[], [1, 2], [0] * 13, [1] * 30])
def test_counts_that_do_not_fit_the_reference_are_not_bet_on(wrong: list[int]) -> None:
    watch = Watch(version=1)
    observe(watch, KIT, Group(0, DAY_MS, Tick(predictions=3, signals={"x": wrong}, bets=wrong)))
    assert set(watch.sightings) == {"schema/records"}


def test_a_budget_twice_as_large_alarms_no_later() -> None:
    """Evidence is the same, the threshold is halved."""
    looser = Kit(
        msgspec.structs.replace(
            SPEC, budget=msgspec.structs.replace(SPEC.budget, false_alarms_per_month=2.0)
        ),
        profile(),
    )
    one, two = Watch(version=1), Watch(version=1)
    observe(one, KIT, day(0, bad=8))
    observe(two, looser, day(0, bad=8))
    assert two.level("harm/loss") == pytest.approx(2 * one.level("harm/loss"))


def test_a_spec_with_other_tables_takes_over_an_open_alarm() -> None:
    """A spec's revision may change how many bets there are, in the middle of everything."""
    watch = Watch(version=1)
    observe(watch, KIT, day(0, n=1000, bad=800, missing=300))
    observe(watch, KIT, day(1, n=1000, bad=800, missing=300))
    other = msgspec.structs.replace(
        SPEC, tolerances=msgspec.structs.replace(SPEC.tolerances, psi=0.5, loss=0.3)
    )
    observe(watch, Kit(other, profile(rows=200)), day(2, n=1000, bad=800, missing=300))
    assert "harm/loss" in alarmed(watch)


def test_healthy_years_stay_within_the_budget() -> None:
    """Eight models, a year each, one false alarm a month allowed: far fewer come."""
    draw = np.random.default_rng(5)
    alarms = 0
    for _ in range(8):
        watch = Watch(version=1)
        for number in range(365):
            group = day(number, bad=int(draw.binomial(100, 0.05)))
            group.counts.signals["x"] = [0, *draw.multinomial(100, [0.1] * 10).tolist(), 0, 0]
            observe(watch, KIT, group)
        alarms += len(alarmed(watch))
    assert alarms <= 1


HOUR_MS = 3_600_000
WHOLE, CELL = profile(rows=24_000), (0, *[100] * 10, 0, 0)
SEASONAL = msgspec.structs.replace(
    WHOLE.signals[0], season="hour of day", cells=(CELL,) * 24, counts=(0, *[2_400] * 10, 0, 0)
)
SURENESS = (95, 5)  # of predictions: that are as good as sure, that are a guess
EVERYTHING = msgspec.structs.replace(
    WHOLE,
    signals=(SEASONAL, *WHOLE.signals[1:]),
    segments=(
        SegmentProfile(
            name="c=a",
            signals=(SEASONAL, WHOLE.signals[2]),
            validation=profile(rows=12_000).validation,
        ),
    ),
)


def stable(spec: ModelSpec, ticks: int, events: int) -> Iterator[Group]:
    """Hours that are exactly as the reference, of every signal that there is."""
    draw = np.random.default_rng(15)

    def counts(reference: Sequence[int], n: int) -> list[list[int]]:
        law = np.array(reference, dtype=float)
        found: list[list[int]] = draw.multinomial(n, law / law.sum(), ticks).tolist()
        return found

    aged, parts = spec.labels.judged_after_seconds is not None, []
    for n, validation in (
        (events, EVERYTHING.validation),
        (events // 2, EVERYTHING.segments[0].validation),
    ):
        signals = {s.name: counts(s.counts, n) for s in EVERYTHING.signals}
        lost, expected = counts(validation.loss_bins, n), counts(SURENESS, n)
        parts.append(
            [
                Tick(
                    predictions=n,
                    signals={name: rows[t] for name, rows in signals.items()},
                    bets=[] if aged else lost[t],
                    judged={"0/0": lost[t]} if aged else {},
                    estimates=[*expected[t], 0],
                )
                for t in range(ticks)
            ]
        )
    weights = {"": {"0/0": 1.0}, "c=a": {"0/0": 1.0}} if aged else {}
    for t, (whole, part) in enumerate(zip(*parts, strict=True), start=24):
        whole.segments["c=a"] = part
        yield Group(t * HOUR_MS, (t + 1) * HOUR_MS, whole, weights)


@pytest.mark.parametrize("age", [None, 86_400.0], ids=["as they come", "at an age"])
def test_on_a_million_stable_events_no_signal_s_evidence_grows_with_time(
    age: float | None,
) -> None:
    """Of every kind: harm (of segments, too), expected harm, broken data, schema, inputs with a
    season and without, predictions. A bet that stood still would grow by as much every hour."""
    spec = msgspec.structs.replace(
        SPEC,
        segments=("c",),
        ticks=Ticks(seconds=3_600.0, minimum_events=1),
        labels=Labels(judged_after_seconds=age),
    )
    kit, watch, levels = Kit(spec, EVERYTHING), Watch(version=1), []
    assert {signal.kind for signal in kit.signals} == set(get_args(Kind))
    for group in stable(spec, ticks=4_000, events=250):
        observe(watch, kit, group)
        levels.append(kit.bank.levels())
    assert not [key for key, sighting in watch.sightings.items() if sighting.opened_ms]
    for signal in kit.signals:
        course = np.array([level[signal.key] for level in levels])
        early, late = np.median(course[100:1_100]), np.median(course[-1_000:])
        assert 0 < late < 2 * early, (signal.key, early, late)


def test_every_recovery_begins_without_what_another_gained() -> None:
    """They share a detector, as long as what was seen at the alarm is the same."""
    detector = Detector(BetTable("coin", np.log([[0.5, 1.5]]), np.ones(1)))
    first, second = Sighting(since_ms=0), Sighting(since_ms=0)

    for sighting in (first, second):
        watching._recovers(sighting, detector, [0, 2])

    assert first.recovery == second.recovery
