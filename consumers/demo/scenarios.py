"""The stories that the demo can tell: which data, which model, when it starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import structs

from consumers.demo.datasets import Happening, bikes, flights
from models.spec import (
    DAY_SECONDS,
    Feature,
    Labels,
    ModelSpec,
    Policy,
    Ticks,
    Training,
    Trial,
    Window,
)

DAY_MS = 86_400_000
HOUR_SECONDS = 3600.0


class Scenario(NamedTuple):
    """One real stream and the model that lives on it.

    Attributes:
        history_days: how much of the beginning version 1 is trained on.
        mistake: what the version is that an operator force-promotes in the last chapter.
    """

    name: str
    input: str
    question: str
    spec: ModelSpec
    happenings: Callable[[], list[Happening]]
    history_days: int
    mistake: str


def _numeric(*names: str) -> tuple[Feature, ...]:
    return tuple(Feature(name=name) for name in names)


def _categorical(*names: str) -> tuple[Feature, ...]:
    return tuple(Feature(name=name, type="categorical") for name in names)


BIKES = ModelSpec(
    name="bikes",
    task="binary",
    classes=("quiet", "busy"),
    description="Will this hour see more than 150 rides? Asked when it begins.",
    features=(
        *_numeric("hour", "temp", "feels_like", "humidity", "windspeed"),
        *_categorical("weekday", "workingday", "weather"),
    ),
    segments=("workingday",),
    windows=(Window(seconds=28 * DAY_SECONDS), Window(labels=336)),
    labels=Labels(horizon_seconds=2 * DAY_SECONDS, correction_horizon_seconds=DAY_SECONDS),
    ticks=Ticks(seconds=DAY_SECONDS, allowed_lateness_seconds=HOUR_SECONDS, minimum_events=24),
    trial=Trial(
        alpha=0.05,  # a year's replay has too few hours to be surer
        minimum_pairs=150,  # less than a week of hours: the first whole week may decide
        maximum_pairs=90 * 24,
        cycle_seconds=7 * DAY_SECONDS,  # a city's business cycle is its week
        probation_pairs=90 * 24,
    ),
    training=Training(window_seconds=28 * DAY_SECONDS, minimum_rows=300),
    policy=Policy(cooldown_seconds=14 * DAY_SECONDS, rollback_cooloff_seconds=7 * DAY_SECONDS),
)

BIKES_COUNT = structs.replace(
    BIKES,
    name="bikes-count",
    task="regression",
    classes=(),
    description="How many rides will this hour see? Asked when it begins.",
)

FLIGHTS = ModelSpec(
    name="flights",
    task="binary",
    classes=("in time", "late"),
    description="Will this flight arrive more than 15 minutes late? Asked when it should leave.",
    features=(
        *_numeric("hour", "distance"),
        *_categorical("weekday", "carrier", "origin", "destination"),
    ),
    segments=("origin",),
    windows=(Window(seconds=7 * DAY_SECONDS), Window(labels=5000)),
    labels=Labels(horizon_seconds=2 * DAY_SECONDS, correction_horizon_seconds=DAY_SECONDS),
    ticks=Ticks(
        seconds=6 * HOUR_SECONDS, allowed_lateness_seconds=HOUR_SECONDS, minimum_events=200
    ),
    trial=Trial(
        alpha=0.05,
        minimum_pairs=2000,
        maximum_pairs=30_000,
        cycle_seconds=7 * DAY_SECONDS,
        probation_pairs=30_000,
    ),
    training=Training(window_seconds=14 * DAY_SECONDS, minimum_rows=2000),
    policy=Policy(cooldown_seconds=7 * DAY_SECONDS, rollback_cooloff_seconds=7 * DAY_SECONDS),
)

SCENARIOS = {
    "bikes": Scenario(
        name="bikes",
        input="UCI Bike Sharing, Washington D.C. 2011-2012, hourly (CC BY 4.0)",
        question="will this hour see more than 150 rides?",
        spec=BIKES,
        happenings=bikes,
        history_days=56,
        mistake="version 1, trained on the first winter only",
    ),
    "bikes-count": Scenario(
        name="bikes-count",
        input="UCI Bike Sharing, Washington D.C. 2011-2012, hourly (CC BY 4.0)",
        question="how many rides will this hour see?",
        spec=BIKES_COUNT,
        happenings=lambda: bikes("regression"),
        history_days=56,
        mistake="version 1, trained on the first winter only",
    ),
    "flights": Scenario(
        name="flights",
        input="NYC flights, January to June 2013 (CC0)",
        question="will this flight arrive more than 15 minutes late?",
        spec=FLIGHTS,
        happenings=flights,
        history_days=17,
        mistake="version 1, trained on the first seventeen days only",
    ),
}
