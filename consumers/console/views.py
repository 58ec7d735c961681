"""What is shown, from what is known: pure functions from events to plain view-models.

Durations in sentences are in event time (the end of the newest window is "now"), so that a replay
reads like the day itself; only staleness is by the console's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from msgspec import Struct

from consumers.console.board import METRICS, Entry, first_metric
from stream.events import AccuracyMeasured, Alert, Measure, RetrainHeld

State = Literal["harmed", "broken", "stale", "unlabelled", "below", "changed", "waiting", "healthy"]

#: The worst first: how the fleet is sorted, and which of two states is shown.
STATES: Final[tuple[State, ...]] = (
    *("harmed", "broken", "stale", "unlabelled", "below", "changed", "waiting", "healthy"),
)
WORDS: Final[dict[State, str]] = {
    "harmed": "harmed",
    "broken": "data broken",
    "stale": "stale",
    "unlabelled": "no labels",
    "below": "below validated",
    "changed": "inputs changed",
    "waiting": "waiting",
    "healthy": "healthy",
}
STALE_TICKS: Final = 4
STALE_AT_LEAST_MS: Final = 60_000
RECENT_MS: Final = 86_400_000  # a command within this of "now" is told in the sentence


class Figure(Struct, frozen=True, kw_only=True):
    """One metric now, with its 95 % interval and what validation promised."""

    name: str
    value: float
    low: float | None
    high: float | None
    baseline: float | None
    more_is_better: bool


class FleetRow(Struct, frozen=True, kw_only=True):
    """One model in one line."""

    model: str
    state: State
    word: str
    sentence: str
    task: str
    owner: str
    champion: int | None
    challengers: list[int]
    previous: int | None
    pinned: bool
    figure: Figure | None
    predictions: int
    labelled: int
    coverage: float | None
    alerts: int
    as_of_ms: int | None  # event time
    heard_ms: int | None  # the console's clock
    window: str
    trend: list[float]


def fleet_row(entry: Entry, now_ms: int) -> FleetRow:
    """One model's line as of `now_ms` on the console's clock."""
    live = entry.lifecycle
    newest = champion_window(entry)
    state = state_of(entry, now_ms)
    return FleetRow(
        model=entry.model,
        state=state,
        word=WORDS[state],
        sentence=sentence(entry, now_ms),
        task=live.spec.task if live else "",
        owner=live.spec.owner if live else "",
        champion=entry.champion,
        challengers=list(live.challengers) if live else [],
        previous=live.previous if live else None,
        pinned=live.pinned if live else False,
        figure=figure(newest) if newest else None,
        predictions=newest.predictions if newest else 0,
        labelled=newest.labelled if newest else 0,
        coverage=newest.coverage if newest else None,
        alerts=len(entry.alerts),
        as_of_ms=newest.end_ms if newest else None,
        heard_ms=entry.heard_ms,
        window=newest.window if newest else "",
        trend=[value for _, value in entry.trend.get(newest.window if newest else "", ())],
    )


def champion_window(entry: Entry, window: str | None = None) -> AccuracyMeasured | None:
    """The champion's newest window: of one kind, or of the kind that its spec names first."""
    champion = entry.champion
    mine = {w: m for (w, version), m in entry.accuracy.items() if version == champion}
    if window is not None or not mine:
        return mine.get(window or "")
    first = windows(entry)
    return mine.get(first[0]) if first[0] in mine else max(mine.values(), key=lambda m: m.end_ms)


def windows(entry: Entry) -> list[str]:
    """Kinds of window, in the spec's order; those that only measurements know come last."""
    spec = entry.lifecycle.spec if entry.lifecycle else None
    named = [
        f"{w.seconds:.15g}s" if w.seconds is not None else f"{w.labels} labels"
        for w in (spec.windows if spec else ())
    ]
    seen = sorted({window for window, _ in entry.accuracy})
    known = [window for window in named if window in seen]
    return [*known, *(window for window in seen if window not in known)] or named


def metrics(entry: Entry) -> list[str]:
    """Names of the metrics that any of its windows has."""
    found = {name for measured in entry.accuracy.values() for name in measured.metrics}
    known = [name for name in METRICS if name in found]
    return [*known, *sorted(found - set(known))]


def figure(measured: AccuracyMeasured, name: str | None = None) -> Figure | None:
    """A metric of a window: the named one, or the first that it has."""
    chosen = name or first_metric(measured)
    if chosen is None or chosen not in measured.metrics:
        return None
    found = measured.metrics[chosen]
    return Figure(
        name=chosen,
        value=found.value,
        low=found.low,
        high=found.high,
        baseline=measured.baseline.get(chosen),
        more_is_better=METRICS.get(chosen, False),
    )


def state_of(entry: Entry, now_ms: int) -> State:
    """The worst that is true of a model. An open alert is told whatever else is missing."""
    verdicts = {alert.verdict for alert in entry.alerts.values()}
    newest = champion_window(entry)
    if "performance harmed" in verdicts:
        return "harmed"
    if verdicts & {"data broken", "operation failed"}:
        return "broken"
    if "data missing" in verdicts:
        problems = {alert.problem for alert in entry.alerts.values()}
        return "stale" if "stale" in problems else "unlabelled"
    if newest is None or entry.champion is None or not is_of_now(entry, newest):
        return "waiting"
    if is_stale(entry, now_ms):
        return "stale"
    if newest.labelled == 0:
        return "unlabelled"
    if is_below(figure(newest)):
        return "below"
    return "changed" if verdicts else "healthy"


def is_of_now(entry: Entry, newest: AccuracyMeasured) -> bool:
    """Whether a window is as new as any other of its kind: a version that went live again may
    only have been measured in its earlier reign."""
    kind = (m.end_ms for (window, _), m in entry.accuracy.items() if window == newest.window)
    return newest.end_ms >= max(kind, default=newest.end_ms)


def is_below(found: Figure | None) -> bool:
    """The whole interval is worse than what was validated. No alarm by itself: a window is looked
    at again and again, and the tests that decide are fair to that."""
    if found is None or found.baseline is None or found.low is None or found.high is None:
        return False
    return found.high < found.baseline if found.more_is_better else found.low > found.baseline


def is_stale(entry: Entry, now_ms: int) -> bool:
    """Nothing was measured for several ticks, or for a minute, whichever is longer."""
    if entry.heard_ms is None:
        return False
    tick_ms = entry.lifecycle.spec.tick_ms if entry.lifecycle else 0
    return now_ms - entry.heard_ms > max(STALE_AT_LEAST_MS, STALE_TICKS * tick_ms)


def sentence(entry: Entry, now_ms: int) -> str:
    """The verdict on a model, for a person in a hurry."""
    state, champion = state_of(entry, now_ms), entry.champion
    if champion is None:
        return f"{entry.model} is registered and has no version live yet."
    who = f"{entry.model} v{champion}"
    newest = champion_window(entry)
    if newest is None:
        return f"{who} is live; nothing was measured yet."
    if state == "waiting":
        return f"{who} is live{_afoot(entry, newest.end_ms)}; it was not measured yet since it is."
    worst = _worst(entry.alerts.values())
    since = f" for {duration(newest.end_ms - worst.opened_ms)}" if worst else ""
    head = {
        "harmed": f"{who} has done worse than validated{since}",
        "broken": f"{who} has had broken data{since}",
        "stale": f"{who}: nothing was measured for {duration(now_ms - (entry.heard_ms or now_ms))}",
        "unlabelled": f"{who} predicts, and no label has come for this window",
        "below": f"{who} raises no alarm, though it is below what was validated",
        "changed": f"{who} is healthy, though its inputs have differed{since}",
    }.get(state, f"{who} is healthy")
    if worst is not None and worst.verdict in ("operation failed", "data missing"):
        head = f"{who}: {worst.sentence}"
    return "".join([head, _figures(newest), _afoot(entry, newest.end_ms), "."])


def _figures(newest: AccuracyMeasured) -> str:
    found = figure(newest)
    if found is None:
        return ""
    interval = "" if found.low is None else f" ({number(found.low)}–{number(found.high)})"
    promised = "" if found.baseline is None else f" against {number(found.baseline)} validated"
    return f": {found.name.replace('_', ' ')} {number(found.value)}{interval}{promised}"


def _afoot(entry: Entry, now_ms: int) -> str:
    """What is being done about it, from what is live and what was commanded lately."""
    live = entry.lifecycle
    parts = []
    retrain = entry.commands.get("retrain")
    busy = live is not None and (live.challengers or live.probation)
    if retrain and not busy and 0 <= now_ms - retrain.issued_ms < RECENT_MS:
        parts.append(f"retrain requested {duration(now_ms - retrain.issued_ms)} ago")
    why_not = None if busy else held_back(entry)
    if why_not is not None:
        begun = retrain is not None and retrain.alert_id == why_not.alert_id
        parts.append(f"{'a further one' if begun else 'retrain'} held back: {why_not.reason}")
    if live is not None and live.challengers:
        names = ", ".join(f"v{version}" for version in live.challengers)
        parts.append(f"{names} on trial beside it")
    if live is not None and live.canary is not None:
        parts.append(f"v{live.canary} answers {live.spec.trial.canary_share:.0%}")
    if live is not None and live.probation and live.previous is not None:
        parts.append(f"on probation, v{live.previous} in shadow")
    if live is not None and live.pinned:
        parts.append("pinned")
    seen = sorted({a.handled_by for a in entry.alerts.values() if a.state == "acknowledged"})
    if seen:
        parts.append(f"{' and '.join(seen)} sees to it")
    return "".join(f"; {part}" for part in parts)


def held_back(entry: Entry) -> RetrainHeld | None:
    """Why nothing is done about an open alert: the newest retrain that was held back for it, where
    none was commanded since and what is live is what it was decided on."""
    retrain, live = entry.commands.get("retrain"), entry.lifecycle
    since_ms = retrain.issued_ms if retrain else 0
    found = [
        one
        for one in entry.held.values()
        if one.alert_id in entry.alerts
        and one.held_ms > since_ms
        and (live is None or live.generation == one.generation)
    ]
    return max(found, key=lambda one: one.held_ms, default=None)


def _worst(alerts: Iterable[Alert]) -> Alert | None:
    order = ("critical", "warning", "info")
    return min(alerts, key=lambda a: (order.index(a.severity), a.opened_ms), default=None)


def duration(ms: float) -> str:
    """
    >>> [duration(ms) for ms in (900, 61_000, 7_300_000, 200_000_000)]
    ['1 s', '1 min', '2 h', '2 d']
    """
    seconds = max(0.0, ms / 1000)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{round(seconds / size)} {unit}"
    return f"{max(1, round(seconds))} s"


def number(value: float | None) -> str:
    """Three digits that matter, as a person says them.

    >>> number(0.8349), number(12.5), number(1234.5), number(None)
    ('0.835', '12.5', '1,234', '–')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def summary(rows: Sequence[FleetRow]) -> dict[str, int]:
    """How many models are in each state, all of them named."""
    return {state: sum(row.state == state for row in rows) for state in STATES}


def point(measure: Measure | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if measure is None else (measure.value, measure.low, measure.high)
