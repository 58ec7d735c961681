"""What the trainer does with each command, once: the registry remembers command ids and runs.

Fits run beside it, so a rollback never waits for one. A retrain is done when its run has a verdict;
until then its offset stays uncommitted, and after a crash the run begins again on the same data.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog

from consumers.fitting import Fitted, Job
from consumers.futile import alert_after
from consumers.places import Place, Span
from consumers.spans import RetrainSpans, decision
from models.registry import Outcome, Registry
from models.runs import DataRange, OffsetRange, Run
from stream.events import Alert, Command
from stream.failpoints import failpoint
from stream.settings import Settings

log = structlog.get_logger("driftline.trainer")
WHO = "driftline"
LOOK_SECONDS = 1.0  # between two looks whether a run was cancelled


class RunningFit(Protocol):
    """What is needed of `consumers.fitting.Fit`."""

    @property
    def doing(self) -> str: ...

    def poll(self) -> Fitted | None: ...

    def cancel(self) -> None: ...


class Retrain(NamedTuple):
    """One run that waits for its fit, or has one."""

    command: Command
    place: Place
    run_id: int
    job: Job
    spans: RetrainSpans


class Trainer:
    """Handles commands against one registry.

    Args:
        bounds: what `examples` holds now, by partition; asked once for each retrain.
        start: starts a fit in a child process.
        clock: seconds that never go back.
        tell: writes an alert, before the offset of its command is done.
    """

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        bounds: Callable[[], Sequence[Span]],
        start: Callable[[Job], RunningFit],
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[Alert], None] = lambda _: None,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._bounds = bounds
        self._start = start
        self._clock = clock
        self._next_look = 0.0
        self._tell = tell
        self._waiting: deque[Retrain] = deque()
        self._fitting: list[tuple[Retrain, RunningFit]] = []
        self.commands: Counter[tuple[str, str]] = Counter()  # by kind and outcome, for metrics
        self.fits: Counter[str] = Counter()  # that ended, by verdict

    @property
    def fitting(self) -> tuple[int, int]:
        """Fits that run, and retrains that wait for their turn."""
        return len(self._fitting), len(self._waiting)

    def take(self, command: Command, place: Place) -> bool:
        """Carry a command out, or begin to. True: done, its offset may be committed."""
        if command.kind != "retrain":
            outcome = self._decide(command)
            self.commands[command.kind, _told(outcome)] += 1
            return True
        retrain = self._begin(command, place)
        self.commands["retrain", "refused" if retrain is None else "begun"] += 1
        if retrain is None:
            return True
        retrain.spans.begin("wait")
        self._waiting.append(retrain)
        self._start_waiting()
        return False

    def collect(self) -> list[Place]:
        """Conclude fits that have ended and start waiting ones; where the done commands lie."""
        done: list[Place] = []
        for retrain, fit in list(self._fitting):
            fitted = fit.poll()
            if fitted is not None:
                self._fitting.remove((retrain, fit))
                retrain.spans.begin("gate")
                retrain.spans.end(self._conclude(retrain, fitted), retrain.run_id)
                done.append(retrain.place)
        self._start_waiting()
        return done + self._cancelled()

    def _cancelled(self) -> list[Place]:
        """End the fits of runs that a person has cancelled; tell the others' progress."""
        now = self._clock()
        if now < self._next_look:
            return []
        self._next_look = now + LOOK_SECONDS
        fits = {retrain.run_id: fit for retrain, fit in self._fitting}
        begun = [*(retrain for retrain, _ in self._fitting), *self._waiting]
        over = {r.run_id: r for r in begun if not self._still_wanted(r.run_id, fits.get(r.run_id))}
        self._drop(lambda retrain: retrain.run_id in over)
        for retrain in over.values():
            self.fits["cancelled"] += 1
            log.info("retrain cancelled", model=retrain.command.model, run=retrain.run_id)
        return [retrain.place for retrain in over.values()]

    def _still_wanted(self, run_id: int, fit: RunningFit | None) -> bool:
        """Whether the run is still to have a verdict; what it is doing is told meanwhile."""
        doing = "waits for its turn" if fit is None else fit.doing
        run = self._registry.run(run_id)
        if run is None or run.verdict != "running":
            return False
        return doing in ("", run.reason) or self._registry.tell_run(run_id, doing)

    def lose(self, partition: int) -> None:
        """Another trainer has this partition now, and begins its retrains again."""
        self._drop(lambda retrain: retrain.place.partition == partition)

    def stop(self) -> None:
        """End every fit; their runs begin again when the commands are delivered again."""
        self._drop(lambda _: True)

    def _decide(self, command: Command) -> Outcome:
        with decision(command) as span:
            outcome = self._asked(command)
            span.set_attribute("driftline.outcome", _told(outcome))
        return outcome

    def _asked(self, command: Command) -> Outcome:
        outcome: Outcome = getattr(self._registry, command.kind)(
            command.model,
            command.version,
            expected_generation=command.generation,
            command_id=command.command_id,
            who=WHO,
            reason=command.reason,
            evidence=dict(command.evidence),
        )
        log.info(
            command.kind,
            model=command.model,
            version=command.version,
            applied=outcome.applied,
            generation=outcome.generation,
            refusal=outcome.reason,
            repeated=outcome.repeated,
        )
        return outcome

    def _begin(self, command: Command, place: Place) -> Retrain | None:
        """The run of a retrain; None if there is nothing to fit."""
        spans = RetrainSpans(command)
        live = self._registry.live(command.model)
        if live is None:
            log.error("retrain refused", model=command.model, reason="no such model is registered")
            spans.end("refused")
            return None
        run_id = self._registry.begin_run(
            command.model,
            cause=command.reason,
            command_id=command.command_id,
            alert_id=command.alert_id,
            who=WHO,
            evidence=command.evidence,
            seed=live.spec.training.seed,
            expected_generation=command.generation,
        )
        run = self._registry.record_run(run_id, data=self._range())
        if run.verdict != "running":
            log.info(
                "retrain", model=command.model, run=run_id, verdict=run.verdict, reason=run.reason
            )
            self._say(run)  # again, for whoever ended it may have died before it was said
            self._withdraw(run)
            spans.end(run.verdict, run_id)
            return None
        log.info("retrain begun", model=command.model, run=run_id, attempt=run.attempts)
        erased = self._registry.erased(command.model)
        champion = live.card(live.champion)
        job = Job.of(live.spec, self._settings, _examples(run), erased, champion)
        return Retrain(command, place, run_id, job, spans)

    def _range(self) -> DataRange:
        """Everything that is labelled by now: the run says later how much of it the fit used."""
        topic = self._settings.names.topic("examples")
        return DataRange(
            ranges=[
                OffsetRange(topic=topic, partition=span.partition, first=span.start, end=span.end)
                for span in self._bounds()
            ]
        )

    def _start_waiting(self) -> None:
        while self._waiting and len(self._fitting) < self._settings.fits:
            retrain = self._waiting.popleft()
            retrain.spans.begin("fit")
            self._fitting.append((retrain, self._start(retrain.job)))
            failpoint("fit")

    def _conclude(self, retrain: Retrain, fitted: Fitted) -> str:
        """Propose what was fitted; the verdict comes last, so a crash before it repeats this.

        Returns:
            The verdict.
        """
        verdict, reason = fitted.verdict, fitted.reason
        run = self._registry.run(retrain.run_id)
        if run is not None and run.verdict == "cancelled":
            self.fits["cancelled"] += 1
            return "cancelled"
        if verdict == "accepted" and (refusal := self._propose(retrain, fitted)):
            verdict, reason = "refused", refusal
        self._registry.finish_run(
            retrain.run_id,
            verdict,
            reason=reason,
            data=fitted.data,
            parameters=fitted.parameters,
            candidates=fitted.candidates,
            artefact_digest=fitted.artefact_digest,
            profile_digest=fitted.profile_digest,
        )
        ended = self._registry.run(retrain.run_id)
        if ended is None:
            return verdict
        self.fits[ended.verdict] += 1
        log.info(
            "retrain ended",
            model=ended.model,
            run=ended.run_id,
            verdict=ended.verdict,
            reason=ended.reason,
        )
        self._say(ended)
        self._withdraw(ended)
        return ended.verdict

    def _say(self, run: Run) -> None:
        """An alert, if this run came to nothing or ends those that did."""
        alert = alert_after(run, self._registry.runs(run.model))
        if alert is not None:
            self._tell(alert)

    def _propose(self, retrain: Retrain, fitted: Fitted) -> str:
        """Register a version and let it challenge; why it may not, or nothing."""
        command = retrain.command
        version = self._registry.register_version(
            command.model,
            run_id=retrain.run_id,
            artefact_url=fitted.artefact_url,
            artefact_digest=fitted.artefact_digest,
            profile_url=fitted.profile_url,
            profile_digest=fitted.profile_digest,
            metrics=fitted.metrics,
            who=WHO,
        )
        failpoint("registered")
        outcome = self._registry.challenge(
            command.model,
            version,
            command_id=command.command_id,
            who=WHO,
            reason=f"run {retrain.run_id}: {command.reason}",
            evidence={
                name: command.evidence[name] for name in ("traces",) if name in command.evidence
            },
        )
        return "" if outcome.applied else f"version {version} does not challenge: {outcome.reason}"

    def _withdraw(self, run: Run) -> None:
        """A run may be cancelled after its version has begun to challenge: then that ends, too."""
        live = self._registry.live(run.model)
        if run.verdict != "cancelled" or live is None:
            return
        for version in self._registry.versions(run.model):
            if version.run_id == run.run_id and version.version in live.challengers:
                reason = f"run {run.run_id} was {run.reason}"
                self._registry.reject(run.model, version.version, who=WHO, reason=reason)

    def _drop(self, which: Callable[[Retrain], bool]) -> None:
        for retrain, fit in list(self._fitting):
            if which(retrain):
                fit.cancel()
                retrain.spans.end("dropped", retrain.run_id)
                self._fitting.remove((retrain, fit))
        for retrain in filter(which, self._waiting):
            retrain.spans.end("dropped", retrain.run_id)
        self._waiting = deque(retrain for retrain in self._waiting if not which(retrain))


def _told(outcome: Outcome) -> str:
    if outcome.repeated:
        return "repeated"
    return "applied" if outcome.applied else "refused"


def _examples(run: Run) -> list[Span]:
    ranges = run.data.ranges if run.data is not None else []
    return [Span(part.partition, part.first, part.end) for part in ranges]
