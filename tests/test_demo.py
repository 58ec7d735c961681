"""The demo's parts that need no broker: its data, its ledger, its report."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any, Literal, get_args

import pytest

from consumers.demo.datasets import HOUR_MS, Happening, bikes, flights, history_csv
from consumers.demo.director import Director, Pipeline
from consumers.demo.ledger import Ledger
from consumers.demo.report import summary
from consumers.demo.scenarios import DAY_MS, SCENARIOS
from models.spec import check
from stream.events import Alert, Command, LifecycleChanged, PredictionMade

BIKES = SCENARIOS["bikes"]
START = 1_300_000_000_000


def happenings(n: int) -> list[Happening]:
    return [
        Happening(
            prediction_id=f"h{i}",
            asked_ms=START + i * HOUR_MS,
            features={},
            known_ms=START + (i + 1) * HOUR_MS,
            label="busy" if i % 2 else "quiet",
        )
        for i in range(n)
    ]


def made(
    i: int, version: int, busy: float, shadow: dict[str, float | list[float]]
) -> PredictionMade:
    return PredictionMade(
        prediction_id=f"h{i}",
        model="bikes",
        version=version,
        output=busy,
        features={},
        shadow=shadow,
    )


Kind = Literal["retrain", "promote", "rollback"]


def command(kind: Kind, generation: int = 1) -> Command:
    return Command(
        command_id=f"{kind}-{generation}",
        kind=kind,
        model="bikes",
        generation=generation,
        reason="a test says so",
        issued_ms=START,
    )


def closed_ledger() -> Ledger:
    """Version 1 is wrong about everything, version 2 right; both on the second half."""
    ledger = Ledger(BIKES.spec, happenings(100))
    ledger.asked = {f"h{i}" for i in range(100)}
    ledger.labelled = 100
    ledger.champions = [1, 2]
    for i in range(50):
        ledger.take(made(i, 1, 0.1 if i % 2 else 0.9, {}))
    for i in range(50, 100):
        ledger.take(made(i, 2, 0.9 if i % 2 else 0.1, {"1": 0.1 if i % 2 else 0.9}))
    for kind in get_args(Kind):
        ledger.take(command(kind))
    return ledger


def test_every_scenario_has_a_sound_spec_and_data_in_time_order() -> None:
    for scenario in SCENARIOS.values():
        spec = check(scenario.spec)
        happening, *rest = scenario.happenings()
        assert set(happening.features) == set(spec.feature_names)
        for following in rest:
            assert following.asked_ms >= happening.asked_ms
            happening = following


def test_bikes_are_all_hours_and_their_truth_comes_an_hour_later() -> None:
    hours = bikes()
    assert len(hours) == 17_379
    assert {hour.label for hour in hours} == {"quiet", "busy"}
    assert all(hour.known_ms == hour.asked_ms + HOUR_MS for hour in hours)


def test_cancelled_flights_never_get_a_label_and_others_land_after_they_should_have_left() -> None:
    departures = flights()
    unlabelled = sum(flight.known_ms is None for flight in departures) / len(departures)
    assert unlabelled == pytest.approx(0.033, abs=0.001)
    assert all(flight.known_ms > flight.asked_ms for flight in departures if flight.known_ms)


def test_history_holds_each_labelled_happening_as_one_row() -> None:
    rows = list(csv.DictReader(io.StringIO(history_csv(bikes()[:48]))))
    assert len(rows) == 48
    assert set(rows[0]) == {"time", "label", *BIKES.spec.feature_names}


def test_loop_counts_as_closed_when_it_acted_and_the_new_version_is_better() -> None:
    figures = summary(BIKES, closed_ledger(), START, 1.0)
    assert figures["closed"]
    assert figures["loss_new_on_same_events"] < figures["loss_old_on_same_events"]
    assert (figures["accuracy_degraded"], figures["accuracy_after"]) == (0.0, 1.0)
    assert figures["versions"] == [1, 2]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_loop_is_not_closed_when_something_never_happened(kind: str) -> None:
    ledger = closed_ledger()
    del ledger.commands[f"{kind}-1"]
    assert not summary(BIKES, ledger, START, None)["closed"]


def test_a_lost_or_doubled_prediction_is_counted_and_keeps_the_loop_open() -> None:
    ledger = closed_ledger()
    ledger.take(made(3, 1, 0.5, {}))
    ledger.asked.add("never answered")
    figures = summary(BIKES, ledger, START, None)
    assert (figures["swap_lost"], figures["swap_duplicated"]) == (1, 1)
    assert not figures["closed"]


def test_loop_is_not_closed_when_the_new_version_is_worse_on_the_same_events() -> None:
    ledger = closed_ledger()
    for i in range(50, 100):
        scored = ledger.predictions[f"h{i}"]
        ledger.predictions[f"h{i}"] = scored._replace(
            output=scored.shadow["1"], shadow={"1": scored.output}
        )
    assert not summary(BIKES, ledger, START, None)["closed"]


def test_degraded_figures_are_of_the_first_version_and_before_ends_with_the_first_harm() -> None:
    ledger = closed_ledger()
    ledger.take(
        Alert(
            alert_id="a",
            model="bikes",
            problem="harm",
            verdict="performance harmed",
            state="open",
            severity="critical",
            sentence="",
            opened_ms=START,
            updated_ms=START,
        )
    )
    figures = summary(BIKES, ledger, START, None)
    assert figures["loss_before"] is None
    assert figures["alerts"] == 1


def test_a_command_is_outstanding_until_lifecycle_moves_past_its_generation() -> None:
    ledger = Ledger(BIKES.spec, [])

    def live(generation: int) -> LifecycleChanged:
        return LifecycleChanged(
            model="bikes",
            generation=generation,
            spec=BIKES.spec,
            spec_revision=1,
            champion=1,
            changed_ms=START,
        )

    ledger.take(live(1))
    ledger.take(command("retrain", generation=1))
    assert ledger.outstanding() is not None

    ledger.take(live(2))
    assert ledger.outstanding() is None


class Slow:
    """Services, watcher, replayer and story in one: all comes at once, the rollback a month in."""

    now_ms = 0

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def ask(self, until_ms: int) -> list[Happening]:
        self._ledger.evaluated_ms = until_ms
        if until_ms >= START + 30 * DAY_MS:
            for kind in get_args(Kind):
                self._ledger.take(command(kind, 0))
        return []

    def tell(self, until_ms: int, *, clock: bool = True) -> int:
        if clock:
            self.now_ms = until_ms
        return 0

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        return condition()

    def check(self) -> None: ...

    def show(self) -> None: ...


def test_a_slow_machine_plays_on_until_all_is_told_and_no_further() -> None:
    ledger = Ledger(BIKES.spec, [])
    ledger.champions = [1]
    slow: Any = Slow(ledger)

    Director(BIKES, Pipeline(slow, slow, slow, ledger, slow), -1000).play(
        START, START + 100 * DAY_MS
    )

    assert ledger.count("rollback") == 1
    assert ledger.evaluated_ms < START + 40 * DAY_MS
    assert slow.now_ms == ledger.evaluated_ms, "time went on without requests"


def test_version_one_sees_eight_weeks_of_winter_of_which_some_hours_were_never_recorded() -> None:
    every = BIKES.happenings()
    start_ms = every[0].asked_ms + BIKES.history_days * DAY_MS
    assert sum(happening.asked_ms < start_ms for happening in every) == 1268
