"""Leads the demo through its chapters: replay, hold while the trainer works, one human mistake."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from consumers.demo.ledger import PHASE_MS, Ledger
from consumers.demo.replayer import Replayer
from consumers.demo.scenarios import DAY_MS, Scenario
from consumers.demo.stack import Stack
from consumers.demo.story import Story
from consumers.demo.watcher import Watcher
from stream.errors import DriftlineError

ANSWER_SECONDS = 25.0  # how long event time stands still for a command; a fit takes seconds here
VISIBLE_SECONDS = 30.0
STEP_DAYS_MIN, STEP_DAYS_MAX = 1.0, 7.0
CALM_DAYS = 45  # after a promotion, before the operator's mistake
WARM_MONTHS = range(4, 11)  # a winter model is only a mistake when it is not winter


class Pipeline(NamedTuple):
    """What the director acts through."""

    stack: Stack
    replayer: Replayer
    watcher: Watcher
    ledger: Ledger
    story: Story


class LoopStalled(DriftlineError):
    """The services run, but nothing more comes out of them."""


class Director:
    """Advances event time step by step; never further than the services have come."""

    def __init__(self, scenario: Scenario, pipeline: Pipeline, seconds: float) -> None:
        self._scenario = scenario
        self._on = pipeline
        self._started = time.monotonic()
        self._seconds = seconds
        self._step_seconds = 0.3
        self._answered: set[str] = set()
        self._mistake_ms: int | None = None
        self._champion: int | None = None
        self._crowned_ms = 0
        self._start_ms = 0
        self.first_alert_seconds: float | None = None

    def play(self, start_ms: int, end_ms: int) -> None:
        """Replay from `start_ms` to `end_ms`, or until the time given is over and all is told.

        A slow machine takes longer: a story that breaks off would say that the loop did not close.
        """
        now_ms = self._start_ms = start_ms
        while now_ms < end_ms and not (self._left() <= 0 and self._told()):
            now_ms = min(end_ms, now_ms + self._step_ms(end_ms - now_ms))
            begun = time.monotonic()
            self._step(now_ms)
            self._step_seconds = 0.7 * self._step_seconds + 0.3 * (time.monotonic() - begun)
            self._hold()
            self._look_who_is_live(now_ms)
            if self._is_time_for_mistake(now_ms, start_ms, end_ms):
                self._make_mistake(now_ms)
        self._close(now_ms)

    def _left(self) -> float:
        return self._seconds - (time.monotonic() - self._started)

    def _told(self) -> bool:
        return self._on.ledger.count("promote") > 0 and self._on.ledger.count("rollback") > 0

    def _step_ms(self, left_ms: int) -> int:
        """As large as it must be to reach the end in time, within bounds."""
        steps = max(1.0, 0.7 * self._left() / self._step_seconds)
        days = left_ms / DAY_MS / steps
        return round(min(max(days, STEP_DAYS_MIN), STEP_DAYS_MAX) * DAY_MS)

    def _step(self, until_ms: int) -> None:
        _, replayer, _, ledger, story = self._on
        asked = {happening.prediction_id for happening in replayer.ask(until_ms)}
        ledger.asked |= asked
        self._wait(lambda: asked <= ledger.predictions.keys(), "predictions")
        ledger.labelled += replayer.tell(until_ms)
        story.now_ms = until_ms
        # Labels are a step behind; evaluate may be a few ticks behind those.
        due_ms = until_ms - 3 * round(STEP_DAYS_MAX) * DAY_MS
        if due_ms > self._start_ms:
            self._wait(lambda: ledger.evaluated_ms >= due_ms, "closed ticks")
        story.show()
        if self.first_alert_seconds is None and ledger.alerts:
            self.first_alert_seconds = time.monotonic() - self._started

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        if not self._on.watcher.wait(condition, VISIBLE_SECONDS):
            self._on.stack.check()
            folder = self._on.stack.folder
            raise LoopStalled(f"no {what} for {VISIBLE_SECONDS:.0f} s; the logs are in {folder}")
        self._on.stack.check()

    def _hold(self) -> None:
        """Event time stands still while a command is carried out: a real fit takes no hours."""
        ledger = self._on.ledger
        command = ledger.outstanding()
        if command is None or command.command_id in self._answered:
            return
        self._on.watcher.wait(lambda: ledger.outstanding() is not command, ANSWER_SECONDS)
        self._answered.add(command.command_id)

    def _look_who_is_live(self, now_ms: int) -> None:
        champion = self._on.ledger.champions[-1]
        if champion != self._champion:
            self._champion, self._crowned_ms = champion, now_ms

    def _is_time_for_mistake(self, now_ms: int, start_ms: int, end_ms: int) -> bool:
        state = self._on.ledger.lifecycle
        if self._mistake_ms is not None or state is None or state.champion in (None, 1):
            return False
        calm = now_ms - self._crowned_ms >= CALM_DAYS * DAY_MS
        late = (now_ms - start_ms) > 0.6 * (end_ms - start_ms) or self._left() < 0.5 * self._seconds
        warm = datetime.fromtimestamp(now_ms / 1000, tz=UTC).month in WARM_MONTHS
        return calm and late and warm and self._on.ledger.outstanding() is None

    def _make_mistake(self, now_ms: int) -> None:
        self._mistake_ms = now_ms
        self._on.story.line(
            f"an operator force-promotes a bad version by mistake: {self._scenario.mistake}"
        )
        generation = self._on.ledger.lifecycle.generation if self._on.ledger.lifecycle else 0
        self._on.stack.run(
            *("models", "promote", self._scenario.spec.name, "1", "--force", "--yes"),
            *("--reason", "forced by an operator in the demo"),
        )
        self._on.watcher.wait(
            lambda: bool(
                self._on.ledger.lifecycle and self._on.ledger.lifecycle.generation > generation
            ),
            ANSWER_SECONDS,
        )

    def _close(self, now_ms: int) -> None:
        """Let the last labels through. No time goes on: nobody asks for predictions any more."""
        self._on.ledger.labelled += self._on.replayer.tell(now_ms + PHASE_MS // 14, clock=False)
        self._on.watcher.wait(lambda: False, 2.0)
        self._hold()
