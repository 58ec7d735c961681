"""What the console says of a model: pure, from events to sentences."""

from __future__ import annotations

import pytest

from consumers.console import views
from stream.events import Measure
from tests.consoles import HOUR, START, alert, command, entry, held, lifecycle, measured

NOW = START + 24 * HOUR


def test_a_model_that_does_as_validated_is_healthy() -> None:
    row = views.fleet_row(entry(lifecycle(), measured(0.91)), NOW)

    assert row.state == "healthy"
    assert row.sentence == "churn v1 is healthy: accuracy 0.91 (0.89–0.93) against 0.91 validated."


def test_the_verdict_on_a_harmed_model_says_since_when_how_much_and_what_is_done() -> None:
    harmed = entry(lifecycle(), measured(0.83), alert("harm"), command(hour=23))

    assert views.sentence(harmed, NOW) == (
        "churn v1 has done worse than validated for 4 h: accuracy 0.83 (0.81–0.85) against 0.91 "
        "validated; retrain requested 1 h ago."
    )


def test_a_harmed_model_says_why_nothing_is_done_while_that_is_so() -> None:
    """Not after a command, not about an alert that is over, not of what was live before."""
    harmed = [lifecycle(), measured(0.83), alert("harm")]
    why_not = "held back: the week's budget of 2 is spent."
    assert views.sentence(entry(*harmed, held(hour=23)), NOW).endswith(f"; retrain {why_not}")
    again = entry(*harmed, command(hour=20, alert_id="alert-harm"), held(hour=23))
    assert views.sentence(again, NOW).endswith(f"requested 4 h ago; a further one {why_not}")

    for events in (
        [*harmed, held(hour=20), command(hour=23)],
        [*harmed, held(hour=23, generation=1)],
        [*harmed, held("clock", hour=23)],
        [*harmed[:2], held(hour=23)],
        [lifecycle(challengers=[2]), *harmed[1:], held(hour=23)],
    ):
        assert "held back" not in views.sentence(entry(*events), NOW)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([lifecycle(), measured(0.91)], "healthy"),
        ([lifecycle(), measured(0.91), alert("drift")], "changed"),
        ([lifecycle(), measured(0.91), alert("drift"), alert("data")], "broken"),
        ([lifecycle(), measured(0.91), alert("data"), alert("harm")], "harmed"),
        ([lifecycle(), measured(0.91), alert("harm", state="acknowledged")], "harmed"),
        ([lifecycle(), measured(0.91), alert("stale")], "stale"),
        ([lifecycle(), measured(0.91), alert("unlabelled")], "unlabelled"),
        ([lifecycle(), measured(0.85)], "below"),
        ([lifecycle(), measured(0.85), alert("harm", state="resolved")], "below"),
        ([lifecycle(), measured(labelled=0, metrics={}, coverage=0.0)], "unlabelled"),
        ([lifecycle()], "waiting"),
        ([lifecycle(champion=None)], "waiting"),
        ([lifecycle(), measured(0.9, version=2, champion=False)], "waiting"),
        ([lifecycle(), measured(0.9, hour=23), measured(0.9, version=2)], "waiting"),
    ],
)
def test_a_model_is_in_the_worst_state_that_holds(events: list[object], state: str) -> None:
    """An alert is told before silence, silence before what the last window says."""
    assert views.state_of(entry(*events), NOW) == state  # type: ignore[arg-type]


def test_silence_is_stale_and_neither_healthy_nor_an_alarm() -> None:
    """By the console's clock, after several ticks; an open alert stays what it is."""
    silent = entry(lifecycle(), measured(0.91), heard_ms=NOW)
    patience = 4 * 30_000

    assert views.state_of(silent, NOW + patience) == "healthy"
    assert views.state_of(silent, NOW + patience + 1) == "stale"
    assert "nothing was measured for 2 min" in views.sentence(silent, NOW + patience + 1)
    harmed = entry(lifecycle(), measured(0.8), alert("harm"), heard_ms=NOW)
    assert views.state_of(harmed, NOW + HOUR) == "harmed"


@pytest.mark.parametrize(
    ("better", "value", "below"), [(True, 0.88, True), (True, 0.9, False), (False, 0.9, False)]
)
def test_below_validated_means_the_whole_interval(better: bool, value: float, below: bool) -> None:
    figure = views.Figure(
        name="x", value=value, low=value - 0.02, high=value + 0.02, baseline=0.91,
        more_is_better=better,
    )  # fmt: skip

    assert views.is_below(figure) is below


def test_a_loss_is_worse_when_it_is_higher() -> None:
    window = measured(metrics={"log_loss": Measure(value=0.5, low=0.4, high=0.6)})

    assert views.state_of(entry(lifecycle(), window), NOW) == "below"


def test_a_trial_and_a_pin_are_told() -> None:
    told = views.sentence(
        entry(lifecycle(challengers=[2], pinned=True), measured(0.91), command(hour=23)), NOW
    )

    assert told.endswith("; v2 on trial beside it; pinned.")


def test_who_sees_to_an_alert_is_told() -> None:
    seen = alert("harm", state="acknowledged", handled_by="ann")

    assert views.sentence(entry(lifecycle(), measured(0.8), seen), NOW).endswith(
        "; ann sees to it."
    )


def test_windows_come_in_the_order_of_the_spec() -> None:
    seen = entry(
        lifecycle(),
        measured(window="1000 labels"),
        measured(window="86400s"),
        measured(window="7s"),
    )

    assert views.windows(seen) == ["86400s", "1000 labels", "7s"]
    assert views.champion_window(seen) == measured(window="86400s")


def test_the_trend_is_of_champions_each_end_once() -> None:
    """A restated window replaces itself, a shadow is not part of it."""
    seen = entry(
        lifecycle(), measured(0.9, hour=24), measured(0.8, hour=25),
        measured(0.81, hour=25, revision=1), measured(0.1, hour=25, version=2, champion=False),
    )  # fmt: skip

    assert views.fleet_row(seen, NOW).trend == [0.9, 0.81]
