"""What the trainer does with commands: each once, none behind a fit, all of it recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers.fitting import Fitted, Job
from consumers.gate import decode
from consumers.places import Delivered, Place, Span
from consumers.trainer import LOOK_SECONDS, Trainer
from models.registry import Outcome, Registry
from stream.core.processor import Record
from stream.envelope import write
from stream.errors import Refused
from stream.events import Alert, Command
from stream.settings import Settings
from tests.registries import CHURN, DIGEST, register

ACCEPTED = Fitted(
    verdict="accepted",
    artefact_digest="a" * 64,
    artefact_url="file:artefacts/a",
    profile_digest="b" * 64,
    profile_url="file:artefacts/b",
    metrics={"log_loss": 0.3},
)


class FakeFit:
    """A fit that ends when the test says so."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.result: Fitted | None = None
        self.cancelled = False
        self.doing = ""

    def poll(self) -> Fitted | None:
        return self.result

    def cancel(self) -> None:
        self.cancelled = True


class Log:
    """The commands topic: delivers from the committed offset on, whatever was taken before."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.settings = settings
        self.registry = registry
        self.commands: list[Command] = []
        self.end = 10  # of `examples`, partition 0
        self.fits: list[FakeFit] = []
        self.seconds = 0.0
        self.alerts: list[Alert] = []

    def trainer(self) -> Trainer:
        return Trainer(
            self.registry,
            self.settings,
            lambda: [Span(0, 0, self.end)],
            self._start,
            lambda: self.seconds,
            self.alerts.append,
        )

    def later(self, trainer: Trainer) -> list[Place]:
        """What is done once the trainer has looked at its runs again."""
        self.seconds += LOOK_SECONDS
        return trainer.collect()

    def deliver(self, trainer: Trainer, command: Command, offset: int = 0) -> bool:
        return trainer.take(command, Place(0, offset))

    def _start(self, job: Job) -> FakeFit:
        self.fits.append(FakeFit(job))
        return self.fits[-1]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    settings = Settings(registry_url=f"sqlite:///{tmp_path}/r.db", artefact_url=f"file:{tmp_path}")
    with Registry(settings.registry_url) as registry:
        registry.upgrade()
        registry.add_model(CHURN, who="test")
        version = register(registry)
        registry.promote("churn", version, who="test")
        yield Log(settings, registry)


def command(log: Log, kind: str, command_id: str = "c1", **more: object) -> Command:
    state = log.registry.live("churn")
    assert state is not None
    fields = {"generation": state.generation, "reason": "harm", "issued_ms": 1, "model": "churn"}
    return Command(command_id=command_id, kind=kind, **(fields | more))  # type: ignore[arg-type]


def live(log: Log) -> tuple[int | None, list[int]]:
    state = log.registry.live("churn")
    assert state is not None
    return state.champion, state.challengers


def test_a_retrain_ends_as_a_challenger_and_its_offset_is_done_only_then(log: Log) -> None:
    trainer = log.trainer()
    assert not log.deliver(trainer, command(log, "retrain"), 7)
    assert trainer.collect() == []
    log.fits[0].result = ACCEPTED
    assert trainer.collect() == [Place(0, 7)]
    assert live(log) == (1, [2])
    (run,) = log.registry.runs("churn")
    assert (run.verdict, run.version, run.cause) == ("accepted", 2, "harm")


def test_a_fit_is_told_where_the_champion_lies(log: Log) -> None:
    """An online learner goes on from it."""
    log.deliver(log.trainer(), command(log, "retrain"))

    champion = log.fits[0].job.champion
    assert champion is not None
    assert (champion.version, champion.artefact_digest) == (1, DIGEST)


def test_a_rollback_does_not_wait_behind_a_fit(log: Log) -> None:
    log.registry.promote("churn", register(log.registry), who="test")
    trainer = log.trainer()
    assert not log.deliver(trainer, command(log, "retrain"))
    assert log.deliver(trainer, command(log, "rollback", "c2", version=1))
    assert live(log)[0] == 1
    assert trainer.collect() == []


def test_a_refused_retrain_is_recorded_with_its_reason_and_changes_nothing(log: Log) -> None:
    trainer = log.trainer()
    log.deliver(trainer, command(log, "retrain"))
    log.fits[0].result = Fitted(verdict="refused", reason="3 labelled examples, at least 200")
    assert trainer.collect() == [Place(0, 0)]
    (run,) = log.registry.runs("churn")
    assert (run.verdict, run.reason) == ("refused", "3 labelled examples, at least 200")
    assert live(log) == (1, [])


def test_a_retrain_decided_on_an_old_generation_is_void_and_not_fitted(log: Log) -> None:
    assert log.deliver(log.trainer(), command(log, "retrain", generation=1))
    assert log.registry.runs("churn")[0].verdict == "void"
    assert log.fits == []


def test_a_decision_on_an_old_generation_changes_nothing(log: Log) -> None:
    register(log.registry)
    log.registry.challenge("churn", 2, who="test")
    stale = command(log, "promote", version=2, generation=1)
    assert log.deliver(log.trainer(), stale)
    assert live(log) == (1, [2])


def test_every_command_is_carried_out_once_however_often_it_comes(log: Log) -> None:
    register(log.registry)
    log.registry.challenge("churn", 2, who="test")
    promote = command(log, "promote", version=2)
    trainers = log.trainer(), log.trainer()
    for trainer in (*trainers, *trainers):
        assert log.deliver(trainer, promote)
    assert [d.command_id for d in log.registry.decisions("churn")].count("c1") == 1
    assert live(log) == (2, [])


def test_a_retrain_that_comes_again_after_its_verdict_is_not_fitted_again(log: Log) -> None:
    retrain = command(log, "retrain")
    trainer = log.trainer()
    log.deliver(trainer, retrain)
    log.fits[0].result = ACCEPTED
    trainer.collect()
    assert log.deliver(log.trainer(), retrain)
    assert len(log.fits) == 1
    assert live(log) == (1, [2])


def test_after_a_crash_the_same_run_begins_again_on_the_same_examples(log: Log) -> None:
    retrain = command(log, "retrain")
    log.deliver(log.trainer(), retrain)  # and this trainer dies
    log.end = 99
    second = log.trainer()
    assert not log.deliver(second, retrain)
    assert log.fits[1].job.examples == log.fits[0].job.examples == [Span(0, 0, 10)]
    log.fits[1].result = ACCEPTED
    second.collect()
    (run,) = log.registry.runs("churn")
    assert (run.attempts, run.verdict, run.version) == (2, "accepted", 2)


def test_two_trainers_with_one_retrain_yield_one_version_and_one_challenger(log: Log) -> None:
    retrain = command(log, "retrain")
    trainers = [log.trainer(), log.trainer()]
    for trainer in trainers:
        log.deliver(trainer, retrain)
    for fit, trainer in zip(log.fits, trainers, strict=True):
        fit.result = ACCEPTED
        trainer.collect()
    assert live(log) == (1, [2])
    assert len(log.registry.versions("churn")) == 2
    assert log.registry.runs("churn")[0].verdict == "accepted"


def test_a_crash_between_challenge_and_verdict_is_healed_by_the_next_delivery(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrain = command(log, "retrain")
    first = log.trainer()
    log.deliver(first, retrain)
    log.fits[0].result = ACCEPTED
    with monkeypatch.context() as broken:
        broken.setattr(Registry, "finish_run", lambda *_a, **_k: False)
        first.collect()
    assert log.registry.runs("churn")[0].verdict == "running"
    second = log.trainer()
    log.deliver(second, retrain)
    log.fits[1].result = ACCEPTED
    assert second.collect() == [Place(0, 0)]
    (run,) = log.registry.runs("churn")
    assert (run.verdict, run.version) == ("accepted", 2)
    assert live(log) == (1, [2])


def test_a_fit_of_a_partition_that_went_away_is_ended_and_leaves_its_run_open(log: Log) -> None:
    trainer = log.trainer()
    trainer.take(command(log, "retrain"), Place(3, 0))
    trainer.lose(2)
    assert not log.fits[0].cancelled
    trainer.lose(3)
    assert log.fits[0].cancelled
    assert trainer.collect() == []
    assert log.registry.runs("churn")[0].verdict == "running"


def test_fits_wait_for_each_other_when_only_one_may_run(log: Log) -> None:
    trainer = log.trainer()
    first = command(log, "retrain")
    log.deliver(trainer, first, 0)
    log.deliver(trainer, command(log, "retrain", "c2"), 1)
    assert len(log.fits) == 1
    log.fits[0].result = Fitted(verdict="failed", reason="broke")
    assert trainer.collect() == [Place(0, 0)]
    assert len(log.fits) == 2


def test_a_running_retrain_says_what_it_is_doing(log: Log) -> None:
    trainer = log.trainer()
    log.deliver(trainer, command(log, "retrain"), 0)
    log.deliver(trainer, command(log, "retrain", "c2"), 1)
    log.fits[0].doing = "fitting linear (1 of 2)"
    assert log.later(trainer) == []
    assert [run.reason for run in log.registry.runs("churn")] == [
        "waits for its turn",
        "fitting linear (1 of 2)",
    ]


@pytest.mark.parametrize("number", [1, 2])
def test_a_cancelled_run_ends_its_fit_and_changes_nothing(log: Log, number: int) -> None:
    """Also one that waits for its turn; the other goes on."""
    trainer = log.trainer()
    log.deliver(trainer, command(log, "retrain"), 0)
    log.deliver(trainer, command(log, "retrain", "c2"), 1)
    assert log.registry.cancel_run(number, who="ada", reason="wrong data")

    assert log.later(trainer) == [Place(0, number - 1)]
    log.later(trainer)

    assert log.fits[0].cancelled == (number == 1)
    run = log.registry.run(number)
    assert run is not None
    assert (run.verdict, run.reason) == ("cancelled", "cancelled by ada: wrong data")
    log.fits[-1].result = ACCEPTED
    trainer.collect()
    assert log.registry.runs("churn")[number - 1].verdict == "accepted"


def test_a_fit_that_ends_just_after_it_was_cancelled_yields_no_version(log: Log) -> None:
    trainer = log.trainer()
    log.deliver(trainer, command(log, "retrain"))
    log.registry.cancel_run(1, who="ada")
    log.fits[0].result = ACCEPTED

    assert trainer.collect() == [Place(0, 0)]

    assert live(log) == (1, [])
    assert len(log.registry.versions("churn")) == 1
    assert not log.registry.cancel_run(1, who="ada")


@pytest.mark.parametrize("dies", [False, True])
def test_a_run_that_is_cancelled_while_it_proposes_leaves_no_challenger(
    log: Log, monkeypatch: pytest.MonkeyPatch, *, dies: bool
) -> None:
    """Also if the trainer dies before it sees that: the next one takes the version back."""
    trainer, challenge = log.trainer(), log.registry.challenge

    def cancelled(*args: Any, **audit: Any) -> Outcome:
        outcome = challenge(*args, **audit)
        log.registry.cancel_run(1, who="ada")
        if dies:
            raise KeyboardInterrupt
        return outcome

    retrain = command(log, "retrain")
    log.deliver(trainer, retrain)
    log.fits[0].result = ACCEPTED
    monkeypatch.setattr(log.registry, "challenge", cancelled)
    if dies:
        with pytest.raises(KeyboardInterrupt):
            trainer.collect()
        assert live(log) == (1, [2])
        assert log.deliver(log.trainer(), retrain)
    else:
        assert trainer.collect() == [Place(0, 0)]

    assert live(log) == (1, [])
    assert log.registry.runs("churn")[0].verdict == "cancelled"
    newest = log.registry.history("churn")[-1]
    assert (newest.action, newest.reason) == ("reject", "run 1 was cancelled by ada")


def test_a_retrain_of_an_unknown_model_is_done_and_leaves_no_run(log: Log) -> None:
    assert log.deliver(log.trainer(), command(log, "retrain", model="nobody"))
    assert log.registry.runs() == []


def test_a_version_that_may_not_challenge_is_a_refused_run(log: Log) -> None:
    for _ in range(8):
        log.registry.challenge("churn", register(log.registry), who="test")
    trainer = log.trainer()
    log.deliver(trainer, command(log, "retrain"))
    log.fits[0].result = ACCEPTED
    trainer.collect()
    run = log.registry.runs("churn")[0]
    assert run.verdict == "refused"
    assert "version 10 does not challenge" in run.reason


def record(value: bytes | None) -> Record:
    return Record(0, 0, b"churn", value)


def test_what_is_no_command_is_refused() -> None:
    good = Command(
        command_id="c", kind="promote", model="m", generation=1, reason="r", issued_ms=1, version=2
    )
    fields = {"id": "c", "source": "evaluate", "time_ms": 1}
    right = write("driftline.command.promote.v1", good, **fields)  # type: ignore[arg-type]
    other = write("driftline.command.rollback.v1", good, **fields)  # type: ignore[arg-type]
    assert decode(Delivered(Place(0, 0), record(right)), 10_000) == good
    for value in (other, b"{", b"{}", None):
        with pytest.raises(Refused):
            decode(Delivered(Place(0, 0), record(value)), 10_000)


def ended(log: Log, trainer: Trainer, number: int, result: Fitted) -> None:
    """One retrain, from its command to its verdict."""
    log.deliver(trainer, command(log, "retrain", f"c{number}"), number)
    log.fits[-1].result = result
    trainer.collect()


REFUSED = Fitted(verdict="refused", reason="3 labelled examples, at least 200")
FAILED = Fitted(verdict="failed", reason="took more than 600 s")


def test_retrains_that_come_to_nothing_are_one_alert_until_one_is_accepted(log: Log) -> None:
    trainer = log.trainer()
    ended(log, trainer, 1, ACCEPTED)
    assert log.alerts == []
    for number, result in ((2, REFUSED), (3, FAILED), (4, ACCEPTED), (5, REFUSED)):
        ended(log, trainer, number, result)
    told = [(alert.state, alert.revision) for alert in log.alerts]
    assert told == [("open", 0), ("open", 1000), ("resolved", 2000), ("open", 0)]
    first, *_, other = (alert.alert_id for alert in log.alerts)
    assert len({alert.alert_id for alert in log.alerts[:3]}) == 1
    assert first != other
    assert {alert.severity for alert in log.alerts} == {"info"}
    assert "at least 200" in log.alerts[0].sentence
    assert log.alerts[2].resolved_ms is not None


def test_a_trainer_that_died_before_it_said_so_says_the_very_same_afterwards(log: Log) -> None:
    trainer = log.trainer()
    retrain = command(log, "retrain")
    log.deliver(trainer, retrain)
    log.fits[0].result = REFUSED
    trainer.collect()
    assert log.deliver(log.trainer(), retrain)  # its offset was not committed
    assert len(log.alerts) == 2
    assert log.alerts[0] == log.alerts[1]


def test_a_run_that_was_void_or_cancelled_is_no_news(log: Log) -> None:
    trainer = log.trainer()
    stale = command(log, "retrain", generation=99)
    assert log.deliver(trainer, stale)
    assert log.alerts == []
