"""The drawing of a model's course: everything the topics say of it, once, and no more."""

from __future__ import annotations

import random

import pytest
from msgspec import Struct

from consumers.course import NothingToDraw, course_of, draw, unbroken
from stream.events import AccuracyMeasured, Alert, Command, DriftMeasured, Measure

DAY_MS = 86_400_000
NOW_MS = 1_700_000_000_000


def accuracy(day: int, loss: float, **more: object) -> AccuracyMeasured:
    fields = {
        "model": "churn",
        "version": 1,
        "window": "604800s",
        "start_ms": NOW_MS + (day - 7) * DAY_MS,
        "end_ms": NOW_MS + day * DAY_MS,
        "predictions": 100,
        "labelled": 50,
        "coverage": 0.5,
        "metrics": {"log_loss": Measure(value=loss, low=loss - 0.1, high=loss + 0.1)},
        "baseline": {"log_loss": 0.2},
        "champion": True,
    }
    return AccuracyMeasured(**{**fields, **more})  # type: ignore[arg-type]


def drift(day: int, psi: float, signal: str = "age") -> DriftMeasured:
    return DriftMeasured(
        model="churn",
        version=1,
        signal=signal,
        window="604800s",
        start_ms=NOW_MS + (day - 7) * DAY_MS,
        end_ms=NOW_MS + day * DAY_MS,
        n=100,
        psi=psi,
        psi_noise=0.0,
        psi_low=0.0,
        psi_high=1.0,
        js=0.0,
        js_noise=0.0,
        null_rate=0.0,
        unseen_rate=0.0,
        evidence=0.5,
    )


ALERT = Alert(
    alert_id="a1",
    model="churn",
    problem="harm",
    verdict="performance harmed",
    state="open",
    severity="critical",
    sentence="it harms",
    opened_ms=NOW_MS + 3 * DAY_MS,
    updated_ms=NOW_MS + 4 * DAY_MS,
)
COMMAND = Command(
    command_id="c1",
    kind="rollback",
    model="churn",
    generation=3,
    reason="harm",
    issued_ms=NOW_MS + 5 * DAY_MS,
    version=1,
)
TOLD: list[Struct] = [
    *(accuracy(day, 0.2 + day / 10) for day in range(8)),
    *(accuracy(day, 0.3, version=2, champion=False) for day in range(4, 8)),
    *(drift(day, day / 10, name) for day in range(8) for name in ("age", "$x^2")),
    ALERT,
    COMMAND,
]


def test_every_panel_says_what_was_live_wrong_and_done() -> None:
    drawn = draw(course_of("churn", TOLD)).decode()
    for words in ("version 1", "performance harmed", "rollback", "log loss, 7 days", "age"):
        assert f">{words}</text>" in drawn


def test_a_name_is_drawn_as_it_is_spelled() -> None:
    """A feature called like a formula is none."""
    assert ">$x^2</text>" in draw(course_of("churn", TOLD)).decode()


def test_the_order_of_events_does_not_show() -> None:
    mixed = random.Random(1).sample(TOLD, len(TOLD))
    assert draw(course_of("churn", mixed)) == draw(course_of("churn", TOLD))


def test_a_restated_window_is_drawn_once_as_it_is_now() -> None:
    restated = accuracy(3, 0.9, revision=1)
    for events in ([*TOLD, restated], [restated, *TOLD]):
        (found,) = [
            one
            for one in course_of("churn", events).accuracy
            if (one.version, one.end_ms) == (1, restated.end_ms)
        ]
        assert found is restated


def test_segments_other_models_and_longer_windows_are_left_out() -> None:
    others = [
        accuracy(3, 5.0, segment="plan=basic"),
        accuracy(3, 5.0, model="other"),
        accuracy(3, 5.0, window="2419200s", start_ms=NOW_MS - 25 * DAY_MS),
    ]
    assert course_of("churn", [*others, *TOLD]) == course_of("churn", TOLD)


def test_no_line_is_drawn_across_a_time_that_nobody_saw() -> None:
    whole = [accuracy(day, 0.5) for day in range(6)]
    later = [accuracy(day, 0.5) for day in (365, 366)]
    other = [accuracy(367, 0.5, version=2)]
    assert unbroken([*whole, *later, *other]) == [whole, later, other]
    assert unbroken([]) == []


def test_without_measurements_it_says_what_is_missing() -> None:
    with pytest.raises(NothingToDraw, match="nothing was measured of 'churn' yet"):
        course_of("churn", [ALERT, COMMAND])
