"""What the demo saw on the topics, counted: the only source of its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from consumers.demo.datasets import Happening
from models.losses import correct, encode_label, losses
from models.spec import ModelSpec
from stream.events import (
    AccuracyMeasured,
    Alert,
    Command,
    DriftMeasured,
    LifecycleChanged,
    PredictionMade,
)

PHASE_MS = 28 * 86_400_000


class Figures(NamedTuple):
    """Mean loss (log loss, or absolute error) and accuracy (None for regression)."""

    n: int
    loss: float
    accuracy: float | None


class Scored(NamedTuple):
    """One prediction as it was seen."""

    version: int
    output: Any
    shadow: Mapping[str, Any]


class Ledger:
    """A fold over all that Driftline published. Knows the truth, which the demo itself sent."""

    def __init__(self, spec: ModelSpec, happenings: Iterable[Happening]) -> None:
        self.spec = spec
        self.truth = {happening.prediction_id: happening for happening in happenings}
        self.asked: set[str] = set()
        self.labelled = 0
        self.predictions: dict[str, Scored] = {}
        self.doubled = 0
        self.accuracy: dict[tuple[int, str, str], AccuracyMeasured] = {}
        self.drift: dict[str, DriftMeasured] = {}
        self.alerts: dict[str, Alert] = {}
        self.commands: dict[str, Command] = {}
        self.lifecycle: LifecycleChanged | None = None
        self.champions: list[int] = []  # in the order in which they went live
        self.evaluated_ms = 0  # event time up to which ticks were closed
        self.told: list[Struct] = []  # all accuracy, drift, alerts and commands, as they came

    def take(self, event: Struct) -> None:
        """Fold one event in; those of other models are ignored."""
        if getattr(event, "model", self.spec.name) != self.spec.name:
            return
        if isinstance(event, AccuracyMeasured | DriftMeasured | Alert | Command):
            self.told.append(event)
        match event:
            case PredictionMade():
                self._predicted(event)
            case AccuracyMeasured():
                self.accuracy[event.version, event.segment, event.window] = event
                self.evaluated_ms = max(self.evaluated_ms, event.end_ms)
            case DriftMeasured():
                self.drift[event.signal] = event
            case Alert():
                self.alerts[event.alert_id] = event
            case Command():
                self.commands.setdefault(event.command_id, event)
            case LifecycleChanged() if self._is_newer(event):
                self.lifecycle = event
                if event.champion is not None and self.champions[-1:] != [event.champion]:
                    self.champions.append(event.champion)

    def _is_newer(self, event: LifecycleChanged) -> bool:
        return self.lifecycle is None or event.generation > self.lifecycle.generation

    def _predicted(self, event: PredictionMade) -> None:
        if event.prediction_id in self.predictions:
            self.doubled += 1
            return
        self.predictions[event.prediction_id] = Scored(event.version, event.output, event.shadow)

    @property
    def lost(self) -> int:
        return len(self.asked - self.predictions.keys())

    def count(self, kind: str) -> int:
        return sum(command.kind == kind for command in self.commands.values())

    def outstanding(self) -> Command | None:
        """A command that lifecycle has not answered yet."""
        generation = self.lifecycle.generation if self.lifecycle else 0
        waiting = [c for c in self.commands.values() if c.generation >= generation]
        return waiting[-1] if waiting else None

    # --- figures, computed once at the end -----------------------------------------------------

    def versions(self) -> list[int]:
        """Versions that made predictions."""
        return sorted({scored.version for scored in self.predictions.values()})

    def first_asked_ms(self, version: int) -> int | None:
        """When the first prediction of a version was asked for; partitions swap one by one."""
        asked = [
            self.truth[i].asked_ms for i, s in self.predictions.items() if s.version == version
        ]
        return min(asked, default=None)

    def between(
        self,
        version: int,
        first_ms: float = -inf,
        last_ms: float = inf,
        *,
        shadow: int | None = None,
    ) -> Figures:
        """How `version` did on labelled events asked in [first, last].

        With `shadow`: how that version would have done, on those of the events that it shadowed.
        """
        outputs, labels = [], []
        for prediction_id, scored in self.predictions.items():
            happening = self.truth[prediction_id]
            if scored.version != version or not first_ms <= happening.asked_ms <= last_ms:
                continue
            output = scored.output if shadow is None else scored.shadow.get(str(shadow))
            if output is None or happening.label is None:
                continue
            outputs.append(np.atleast_1d(output))
            labels.append(encode_label(self.spec, happening.label))
        return self._figures(outputs, labels)

    def same_events(self, new: int, old: int) -> tuple[Figures, Figures]:
        """New and old version on the same labelled events: made by the new, shadowed by the old."""
        both = Ledger(self.spec, self.truth.values())
        both.predictions = {
            i: s for i, s in self.predictions.items() if s.version == new and str(old) in s.shadow
        }
        return both.between(new), both.between(new, shadow=old)

    def _figures(self, outputs: list[Any], labels: list[float]) -> Figures:
        if not outputs:
            return Figures(0, float("nan"), None)
        said, truth = np.vstack(outputs), np.asarray(labels)
        hits = (
            None
            if self.spec.task == "regression"
            else float(np.mean(correct(self.spec, said, truth)))
        )
        return Figures(len(truth), float(np.mean(losses(self.spec, said, truth))), hits)
