"""The present of every model, in memory: bounded by the models there are, not by their events."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from consumers.console.history import TREND, Came, Point, Present
from stream.events import AccuracyMeasured, Alert, Command, LifecycleChanged, RetrainHeld

MAX_ALERTS: Final = 50  # open ones of one model that are held
MAX_VERSIONS: Final = 24  # of one model whose newest windows are held
MAX_MODELS: Final = 20_000


#: Metrics in the order in which one is chosen to be shown, and whether more is better.
METRICS: Final[dict[str, bool]] = {
    "accuracy": True,
    "absolute_error": False,
    "log_loss": False,
    "squared_error": False,
    "loss": False,
}


@dataclass(slots=True)
class Entry:
    """One model as it is now.

    Attributes:
        accuracy: the newest window by (window, version).
        trend: by kind of window, the champions' newest (end, first metric), oldest first.
        heard_ms: when a measurement of it last came, by the console's clock; None: never.
        commands: the newest command of each kind.
        held: by cause, the newest retrain that was asked for and held back.
        sequence: of the board, when something here last changed.
    """

    model: str
    lifecycle: LifecycleChanged | None = None
    accuracy: dict[tuple[str, int], AccuracyMeasured] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)
    held: dict[str, RetrainHeld] = field(default_factory=dict)
    trend: dict[str, tuple[tuple[int, float], ...]] = field(default_factory=dict)
    heard_ms: int | None = None
    sequence: int = 0

    @property
    def champion(self) -> int | None:
        if self.lifecycle is not None:
            return self.lifecycle.champion
        live = [m for m in self.accuracy.values() if m.champion]
        return max(live, key=lambda m: m.end_ms).version if live else None


def first_metric(measured: AccuracyMeasured | Point) -> str | None:
    """The metric that stands for a window where nobody chose one."""
    return next(
        (name for name in (*METRICS, *sorted(measured.metrics)) if name in measured.metrics), None
    )


class Board:
    """Entries by model; `sequence` counts changes. Safe to share between threads."""

    def __init__(self) -> None:
        self.sequence = 0
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def begin(self, present: Present) -> None:
        """What the last run of the console knew."""
        told = [*present.lifecycles, *present.alerts, *present.commands, *present.held]
        self.take([*(Came(0, event) for event in told), *present.accuracies])
        for (model, window), points in present.trends.items():
            entry = self._entries.get(model)
            if entry is not None:
                shown = [
                    (p.end_ms, p.metrics[name].value) for p in points if (name := first_metric(p))
                ]
                entry.trend = {**entry.trend, window: tuple(shown)}

    def take(self, batch: Iterable[Came]) -> None:
        with self._lock:
            self.sequence += 1
            for came in batch:
                model = getattr(came.event, "model", "")
                entry = self._entries.get(model)
                if entry is None:
                    if len(self._entries) >= MAX_MODELS:
                        continue
                    entry = self._entries[model] = Entry(model)
                entry.sequence = self.sequence
                _take(entry, came)

    def entries(self) -> list[Entry]:
        with self._lock:
            return list(self._entries.values())

    def entry(self, model: str) -> Entry | None:
        return self._entries.get(model)

    def changed(self, since: int) -> list[Entry]:
        """Entries that changed after a sequence number."""
        with self._lock:
            return [entry for entry in self._entries.values() if entry.sequence > since]


def _take(entry: Entry, came: Came) -> None:
    event = came.event
    match event:
        case LifecycleChanged():
            if entry.lifecycle is None or event.generation >= entry.lifecycle.generation:
                entry.lifecycle = event
        case AccuracyMeasured(segment="") if not event.window.startswith("paired"):
            _measure(entry, event)
            entry.heard_ms = max(entry.heard_ms or 0, came.heard_ms)
        case Alert():
            _alert(entry, event)
        case Command():
            known = entry.commands.get(event.kind)
            if known is None or event.issued_ms >= known.issued_ms:
                entry.commands = {**entry.commands, event.kind: event}
        case RetrainHeld():
            before = entry.held.get(event.cause)
            if before is None or event.held_ms >= before.held_ms:
                entry.held = {**entry.held, event.cause: event}


def _measure(entry: Entry, event: AccuracyMeasured) -> None:
    shown = first_metric(event)
    if event.champion and shown is not None:
        past = [p for p in entry.trend.get(event.window, ()) if p[0] < event.end_ms]
        trend = (*past, (event.end_ms, event.metrics[shown].value))[-TREND:]
        entry.trend = {**entry.trend, event.window: trend}
    key = (event.window, event.version)
    known = entry.accuracy.get(key)
    if known is not None and (event.end_ms, event.revision) < (known.end_ms, known.revision):
        return
    # Replaced as a whole: a request may be reading the one that is there.
    accuracy = {**entry.accuracy, key: event}
    if len(accuracy) > MAX_VERSIONS:
        del accuracy[min(accuracy, key=lambda k: accuracy[k].end_ms)]
    entry.accuracy = accuracy


def _alert(entry: Entry, event: Alert) -> None:
    known = entry.alerts.get(event.alert_id)
    if known is not None and event.revision < known.revision:
        return
    alerts = {**entry.alerts, event.alert_id: event}
    if event.state == "resolved":
        del alerts[event.alert_id]
    if len(alerts) > MAX_ALERTS:
        del alerts[min(alerts, key=lambda i: alerts[i].updated_ms)]
    entry.alerts = alerts
