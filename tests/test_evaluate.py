"""The stage evaluate, end to end on made-up summaries."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest

from models.spec import Policy
from stream.core.processor import Record
from stream.events import AccuracyMeasured, Alert, Command, RetrainHeld
from tests.summaries import DAY_MS, SPEC, Monitor, Trainer, batch, facts, processor, verdicts


class World:
    """One model's days, told to the processor one by one; commands are obeyed if `obedient`."""

    def __init__(self, *, obedient: bool = True, **spec: Any) -> None:
        self.trainer = Trainer(msgspec.structs.replace(SPEC, **spec))
        self.monitor = Monitor()
        self.core = processor()
        self.obedient = obedient
        self.tick = 100
        self.log: list[Alert | Command] = []
        self.facts: list[Any] = []

    def days(self, count: int, bad: float = 0.05, **traffic: Any) -> None:
        for _ in range(count):
            lifecycle = self.trainer.lifecycle
            qualities = {v: traffic.get(f"v{v}", 0.05) for v in lifecycle.shadows}
            champion = traffic.get(f"v{lifecycle.champion}", bad)
            rest = {name: value for name, value in traffic.items() if name[1:].isdigit() is False}
            assert lifecycle.champion is not None
            self.monitor.day(self.tick, lifecycle.champion, bad=champion, shadows=qualities, **rest)
            self.tick += 1
            self.monitor.progress(self.tick)
            outputs = self.core.advance(0, True, self.trainer.fleet)
            outputs += self.core.apply(batch(self.monitor.drain()), self.trainer.fleet)
            found = verdicts(outputs)
            self.facts += facts(outputs)
            self.log += found
            for fact in found:
                if self.obedient and isinstance(fact, Command):
                    self.trainer.obey(fact)

    def alerts(self, problem: str) -> list[str]:
        return [
            fact.state for fact in self.log if isinstance(fact, Alert) and fact.problem == problem
        ]

    def newest(self, problem: str) -> Alert:
        return [f for f in self.log if isinstance(f, Alert) and f.problem == problem][-1]

    @property
    def commands(self) -> list[str]:
        return [fact.kind for fact in self.log if isinstance(fact, Command)]


def test_a_healthy_model_has_no_verdicts() -> None:
    world = World()
    world.days(200)
    assert world.log == []


def test_harm_opens_one_alert_and_asks_for_one_retrain() -> None:
    world = World(obedient=False)
    world.days(60)
    world.days(12, bad=0.6)
    assert world.commands == ["retrain"]
    assert len({f.alert_id for f in world.log if isinstance(f, Alert)}) == 1
    alert = world.newest("harm")
    assert (alert.state, alert.severity, alert.verdict) == (
        "open",
        "critical",
        "performance harmed",
    )
    assert str(alert.evidence["action"]).startswith("held: the command to retrain")


def test_the_loop_closes_and_the_harm_alert_ends_with_the_new_champion() -> None:
    world = World()
    world.days(60)
    world.days(30, bad=0.6, v2=0.05)
    assert world.commands[:2] == ["retrain", "promote"]
    assert world.trainer.lifecycle.champion == 2
    harm = world.newest("harm")
    assert harm.state == "resolved"
    assert "version 2 went live in place of version 1" in harm.sentence
    world.log.clear()
    world.days(60, v1=0.6, v2=0.05)
    assert world.commands == ["settle"]
    assert world.alerts("harm") == []


def test_a_champion_that_recovers_by_itself_resolves_its_alert() -> None:
    world = World(policy=Policy(retrain=False))
    world.days(30)
    world.days(12, bad=0.6)
    assert world.newest("harm").state == "open"
    assert world.newest("harm").evidence["action"] == "held: the policy leaves retraining to people"
    world.days(20)
    assert world.newest("harm").state == "resolved"
    assert world.commands == []


def test_a_forced_bad_champion_is_rolled_back_and_not_retrained() -> None:
    world = World()
    world.days(30)
    world.trainer.newest = 2
    world.trainer.promote(2)
    world.days(20, v1=0.05, v2=0.7)
    assert world.commands == ["rollback"]
    assert world.trainer.lifecycle.champion == 1
    assert world.newest("probation").state == "resolved"
    rollback = next(f for f in world.log if isinstance(f, Command))
    assert rollback.version == 1
    assert rollback.evidence["shadow_loss"] < rollback.evidence["champion_loss"]  # type: ignore[operator]
    world.days(60)
    assert world.commands == ["rollback"]


@pytest.mark.parametrize("retrain", [False, True])
def test_versions_that_are_better_in_turn_for_10_000_events_do_not_make_the_champion_flap(
    *, retrain: bool
) -> None:
    """Odd versions are good for three weeks, then even ones: nothing that is live stays good."""
    world = World(policy=msgspec.structs.replace(SPEC.policy, retrain=retrain))
    world.days(30)
    world.trainer.newest = 2
    world.trainer.promote(2)
    champions = [1, 2]
    for day in range(10_000 // 24 + 1):
        odd = day // 21 % 2 == 0
        world.days(1, **{f"v{v}": 0.05 if v % 2 == odd else 0.5 for v in range(1, 60)})
        champion = world.trainer.lifecycle.champion
        if champion != champions[-1] and champion is not None:
            champions.append(champion)
    rollbacks = [f for f in world.log if isinstance(f, Command) and f.kind == "rollback"]
    waits_ms = [after.issued_ms - before.issued_ms for before, after in pairwise(rollbacks)]
    assert all(wait_ms >= 7 * DAY_MS for wait_ms in waits_ms)
    gone = [before for before, after in pairwise(champions) if after < before]
    assert all(champions.count(version) == 1 for version in gone)  # it does not come back
    if retrain:
        assert 2 < len(champions) <= 2 + 2 * (10_000 // 24 // 14 + 1)  # one fit in two weeks
    else:
        assert (champions, world.commands) == ([1, 2, 1], ["rollback"])


def test_a_pinned_champion_is_not_rolled_back_but_alerted_about() -> None:
    world = World()
    world.days(30)
    world.trainer.newest = 2
    world.trainer.promote(2)
    world.trainer.change(pinned=True)
    world.days(20, v1=0.05, v2=0.7)
    assert world.commands == []
    assert world.newest("probation").state == "open"
    assert world.newest("probation").evidence["action"] == "held: a person pinned this version"
    assert world.newest("harm").evidence["action"] == "held: a person pinned this version"


def test_harm_with_nothing_to_roll_back_to_is_an_alert_and_a_retrain_never_a_rollback() -> None:
    world = World(obedient=False)
    world.days(20, bad=0.7)
    assert world.alerts("harm")[0] == "open"
    assert "rollback" not in world.commands


def test_drift_without_harm_is_information_and_commands_nothing() -> None:
    world = World()
    world.days(30)
    world.days(60, shift=3)
    assert world.newest("drift").severity == "info"
    assert world.newest("drift").evidence["names"] == ["x"]
    assert world.alerts("data") == []
    assert world.commands == []
    assert world.alerts("harm") == []
    world.days(60)
    assert world.newest("drift").state == "resolved"


def test_missing_inputs_are_broken_data_and_no_reason_to_retrain() -> None:
    world = World()
    world.days(30)
    world.days(10, missing=0.5)
    assert world.newest("data").verdict == "data broken"
    assert world.newest("data").evidence["missing"] == ["x"]
    world.days(20, missing=0.5, bad=0.7)
    assert world.newest("harm").state == "open"
    assert world.commands == []


BY_THE_CLOCK = Policy(retrain_every_seconds=30 * 86_400, cooldown_seconds=0)


def test_by_the_clock_a_healthy_champion_is_challenged_and_stays_unless_proven_worse() -> None:
    world = World(policy=BY_THE_CLOCK)
    world.days(100)
    retrains = [f for f in world.log if isinstance(f, Command) and f.kind == "retrain"]
    apart = [b.issued_ms - a.issued_ms for a, b in pairwise(retrains)]
    assert len(retrains) >= 2
    assert min(apart) >= 30 * DAY_MS
    assert retrains[0].issued_ms == (100 + 30) * DAY_MS
    assert set(world.commands) == {"retrain", "reject"}
    assert not [fact for fact in world.log if isinstance(fact, Alert)]
    world.days(40, v1=0.3, v5=0.05)
    assert "promote" in world.commands


def test_by_the_clock_nothing_is_asked_for_that_harm_or_a_person_already_decides() -> None:
    """Beside harm there is one retrain, not two; a pinned version is left alone."""
    world = World(policy=BY_THE_CLOCK, obedient=False)
    world.days(28)
    world.days(6, bad=0.6)
    assert world.commands.count("retrain") == 1
    assert world.newest("harm").alert_id == next(
        fact.alert_id for fact in world.log if isinstance(fact, Command)
    )
    pinned = World(policy=BY_THE_CLOCK)
    pinned.trainer.change(pinned=True)
    pinned.days(60)
    assert pinned.commands == []


def test_after_so_many_new_labels_a_healthy_champion_is_challenged_and_they_are_counted_anew() -> (
    None
):
    world = World(
        policy=Policy(retrain_after_labels=240, cooldown_seconds=0, promote=False), obedient=False
    )
    world.days(9)
    assert world.commands == []
    world.days(2)
    assert world.commands == ["retrain"]
    (command,) = [fact for fact in world.log if isinstance(fact, Command)]
    assert command.reason == "240 new labels: nothing is wrong"
    world.trainer.change()  # that fit came to nothing
    world.days(8)
    assert world.commands == ["retrain"]
    world.days(2)
    assert world.commands == ["retrain", "retrain"]


def held(world: World) -> list[tuple[str, str]]:
    """Cause and reason of each retrain that was recorded as held."""
    return [(f.cause, f.reason) for f in world.facts if isinstance(f, RetrainHeld)]


PINNED = "a person pinned this version"


def test_what_the_clock_asks_for_and_does_not_get_is_recorded_once_a_period() -> None:
    world = World(policy=BY_THE_CLOCK)
    world.trainer.change(pinned=True)
    world.days(100)
    assert held(world) == [("clock", PINNED)] * 3  # 30, 60 and 90 days after the first
    assert not [fact for fact in world.facts if isinstance(fact, Alert)]
    world.trainer.change(pinned=False)
    world.days(1)
    assert world.commands == ["retrain"]


def test_what_new_labels_ask_for_and_do_not_get_is_recorded_once_for_each_reason() -> None:
    policy = Policy(retrain_after_labels=240, retrain_minimum_labels=290, cooldown_seconds=0)
    world = World(policy=policy, obedient=False)
    world.days(11)
    too_few = "the policy asks for 290 new labels, there are fewer"
    assert held(world) == [("labels", too_few)]
    world.trainer.change(pinned=True)
    world.days(6)
    assert held(world) == [("labels", too_few), ("labels", PINNED)]
    world.days(5)  # so many labels came again
    assert held(world) == [("labels", too_few), ("labels", PINNED), ("labels", PINNED)]


def test_a_retrain_that_harm_asks_for_and_does_not_get_is_recorded_with_its_alert() -> None:
    world = World(policy=Policy(retrain=False))
    world.days(30)
    world.days(12, bad=0.6)
    (one,) = [f for f in world.facts if isinstance(f, RetrainHeld)]
    assert (one.cause, one.reason) == ("harm", "the policy leaves retraining to people")
    assert one.alert_id == world.newest("harm").alert_id
    assert one.version == 1
    world.days(20)
    assert world.newest("harm").state == "resolved"
    world.days(12, bad=0.6)
    assert len(held(world)) == 2  # it is another harm


def test_drift_retrains_only_where_the_policy_asks_and_its_alert_says_so() -> None:
    asking = World(policy=Policy(retrain_on_drift=True), obedient=False)
    asking.days(30)
    asking.days(20, shift=3)
    (command,) = [f for f in asking.log if isinstance(f, Command)][:1]
    assert (command.kind, command.alert_id) == ("retrain", asking.newest("drift").alert_id)
    assert command.reason.startswith("the policy asks for it on drift")
    assert asking.newest("drift").severity == "info"
    assert str(asking.newest("drift").evidence["action"]).startswith(("held:", "retrain:"))


def test_the_week_s_budget_holds_whatever_asks() -> None:
    world = World(
        policy=Policy(retrain_after_labels=1, retrains_per_week=2, cooldown_seconds=0),
        obedient=False,
    )
    for _ in range(60):
        world.days(1)
        world.trainer.change()  # each fit comes to nothing at once
    times = [f.issued_ms for f in world.log if isinstance(f, Command)]
    assert len(times) == 2 * 60 // 7 + 1
    assert all(c - a >= 7 * DAY_MS for a, c in zip(times, times[2:], strict=False))


def test_missing_labels_command_nothing_and_show_as_coverage() -> None:
    world = World()
    world.days(20)
    world.days(60, labelled=False, bad=0.9)
    assert {f.problem for f in world.log if isinstance(f, Alert)} == {"unlabelled"}
    assert world.commands == []
    newest = [
        f for f in world.facts if getattr(f, "window", "") == "604800s" and hasattr(f, "coverage")
    ]
    assert newest[-1].coverage == 0.0


def test_an_equal_challenger_is_rejected_at_the_latest_at_the_maximum_and_never_promoted() -> None:
    world = World(trial=msgspec.structs.replace(SPEC.trial, margin=0.001))
    world.days(10)
    challenger = world.trainer.challenge()
    world.days(100, v1=0.05, v2=0.05)
    assert world.commands == ["reject"]
    rejected = next(f for f in world.log if isinstance(f, Command) and f.kind == "reject")
    assert rejected.version == challenger
    assert rejected.evidence["pairs"] >= 2000  # type: ignore[operator]


@pytest.mark.parametrize("cycle_days", [0, 7])
def test_a_trial_is_judged_at_whole_cycles_only(cycle_days: int) -> None:
    trial = msgspec.structs.replace(SPEC.trial, cycle_seconds=cycle_days * 86_400.0)
    world = World(trial=trial)
    world.days(10)
    world.trainer.challenge()
    world.days(40, v1=0.5, v2=0.02)
    promoted = next(f for f in world.log if isinstance(f, Command) and f.kind == "promote")
    days = (promoted.evidence["until_ms"] - promoted.evidence["since_ms"]) / 86_400_000  # type: ignore[operator]
    assert days >= 5
    assert cycle_days == 0 or days % cycle_days == 0


def test_a_worse_challenger_is_rejected_before_the_maximum() -> None:
    world = World()
    world.days(10)
    world.trainer.challenge()
    world.days(60, v1=0.05, v2=0.3)
    assert world.commands == ["reject"]


NEWER = msgspec.structs.replace(SPEC.trial, to_prove="not worse")


def test_where_the_newer_is_wanted_an_equal_challenger_goes_live_and_back_if_it_fails_there() -> (
    None
):
    """`to_prove`: not worse in its trial, and worse afterwards than the version before."""
    world = World(trial=NEWER)
    world.days(10)
    challenger = world.trainer.challenge()
    while not world.commands and world.tick < 200:
        world.days(1)
    (promoted,) = [f for f in world.log if isinstance(f, Command)]
    assert (promoted.kind, promoted.version) == ("promote", challenger)
    assert promoted.reason == "it is newer, and is not worse by 0.02"
    assert promoted.evidence["test"] == "not worse"
    assert world.alerts("harm") == []
    world.days(60, bad=0.3, v1=0.05, **{f"v{challenger}": 0.3})
    assert "rollback" in world.commands
    assert world.trainer.lifecycle.champion == 1


def test_where_the_newer_is_wanted_a_worse_challenger_is_rejected() -> None:
    world = World(trial=NEWER)
    world.days(10)
    world.trainer.challenge()
    world.days(60, v1=0.05, v2=0.3)
    assert world.commands == ["reject"]


def test_sparse_ticks_and_a_long_gap_raise_no_false_alarm_and_harm_is_still_found() -> None:
    """Three events a day, months of silence, then three bad ones a day."""
    world = World()
    world.days(60, n=3)
    world.tick += 120
    world.days(60, n=3)
    assert world.commands == []
    assert {f.problem for f in world.log if isinstance(f, Alert)} == {"stale"}
    world.days(60, n=3, bad=0.7, v2=0.05)
    assert world.commands[:2] == ["retrain", "promote"]


def test_ticks_of_the_old_champion_that_come_late_do_not_judge_the_new_one() -> None:
    world = World()
    world.days(30)
    world.trainer.newest = 2
    world.trainer.promote(2)
    for _ in range(20):
        world.monitor.day(world.tick, 1, bad=0.9)
        world.days(1, v1=0.05, v2=0.05)
    assert world.log == []


def test_a_model_that_lifecycle_shows_late_loses_no_summary() -> None:
    world = World()
    early = processor()
    world.monitor.day(100, 1, n=50)
    world.monitor.progress(101)
    events = world.monitor.drain()
    assert early.apply(batch(events), {}) == []
    early.advance(0, True, world.trainer.fleet)
    world.monitor.day(107, 1, n=30)
    world.monitor.progress(108)
    found = facts(early.apply(batch(world.monitor.drain()), world.trainer.fleet))
    windows = [f for f in found if isinstance(f, AccuracyMeasured) and f.window == "604800s"]
    assert [(w.end_ms // DAY_MS, w.predictions) for w in windows] == [(101, 50), (108, 30)]


def test_a_record_that_is_no_summary_is_counted_and_skipped() -> None:
    core = processor()
    junk = batch([])._replace(records=[Record(0, 0, b"k", b"junk"), Record(1, 0, None, None)])
    assert core.apply(junk, {}) == []
    assert core.counters == {"refused:bad-json": 1, "refused:null-value": 1}


def test_shadows_and_champion_are_measured_on_the_same_events() -> None:
    world = World()
    world.days(5)
    world.trainer.challenge()
    world.days(5, v1=0.5, v2=0.05)
    pair = [f for f in world.facts if getattr(f, "window", "").startswith("paired")][-2:]
    assert [(f.version, f.window, f.champion) for f in pair] == [
        (1, "paired with 2", True),
        (2, "paired with 1", False),
    ]
    assert pair[0].labelled == pair[1].labelled == 120
    assert pair[0].metrics["log_loss"].value > pair[1].metrics["log_loss"].value


class Canary(World):
    """A world in which version 2 has been proven, and answers a third of the requests."""

    def __init__(self, *, canary_pairs: int = 300) -> None:
        trial = msgspec.structs.replace(
            SPEC.trial, canary_share=0.3, canary_pairs=canary_pairs, cycle_seconds=0.0
        )
        super().__init__(trial=trial)
        self.days(5)
        self.trainer.challenge()
        self.until("canary", v1=0.5, v2=0.02)

    def until(self, command: str, **traffic: float) -> None:
        for _ in range(60):
            canary, champion = self.trainer.lifecycle.canary, self.trainer.lifecycle.champion
            if canary is not None and champion is not None:
                bad = {v: traffic[f"v{v}"] for v in (canary, champion)}
                shadows = {champion: bad[champion]}
                self.monitor.day(self.tick, canary, n=8, bad=bad[canary], shadows=shadows)
            self.days(1, **traffic)
            if self.commands[-1:] == [command]:
                return
        raise AssertionError(self.commands)


def test_what_is_proven_answers_a_share_first_and_then_all() -> None:
    world = Canary()
    assert world.commands == ["canary"]
    assert (world.trainer.lifecycle.champion, world.trainer.lifecycle.canary) == (1, 2)
    world.until("promote", v1=0.5, v2=0.02)
    assert (world.trainer.lifecycle.champion, world.trainer.lifecycle.canary) == (2, None)
    promoted = [f for f in world.log if isinstance(f, Command)][-1]
    assert world.commands == ["canary", "promote"]
    assert promoted.evidence["pairs"] >= 300  # type: ignore[operator]
    assert promoted.evidence["champion_loss"] < promoted.evidence["shadow_loss"]  # type: ignore[operator]


def test_a_canary_that_does_worse_where_it_answers_is_rejected() -> None:
    """Answers may change what happens, which no shadow shows."""
    world = Canary(canary_pairs=5_000)
    world.until("reject", v1=0.05, v2=0.9)
    assert world.commands == ["canary", "reject"]
    assert (world.trainer.lifecycle.champion, world.trainer.lifecycle.canary) == (1, None)
    rejected = [f for f in world.log if isinstance(f, Command)][-1]
    assert "on the requests that it answers" in rejected.reason


def test_while_a_canary_answers_nobody_else_is_promoted() -> None:
    world = Canary(canary_pairs=5_000)
    world.trainer.challenge()
    for _ in range(10):
        world.days(1, v1=0.5, v2=0.3, v3=0.02)
    assert world.commands == ["canary"]


def test_a_challenger_that_stays_begins_a_new_trial_beside_a_new_champion() -> None:
    world = World()
    world.days(5)
    world.trainer.challenge()
    world.trainer.challenge()
    world.days(7, v1=0.6, v2=0.05, v3=0.6)
    assert world.commands == ["promote"]
    world.facts.clear()
    world.days(1, v1=0.6, v2=0.05, v3=0.6)
    beside = [f for f in world.facts if getattr(f, "window", "") == "paired with 3"]
    assert [(f.version, f.labelled) for f in beside] == [(2, 24)]
