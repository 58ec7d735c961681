"""Rows about processes of the stages: killed at each step, stopped, woken, added, removed."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter

import psutil

from stream.topics import STAGES, Stage
from tests.faults.rows import EXACT, FENCING, TRANSACTION, Row
from tests.faults.world import Outcome, World
from tests.kafka.loop import until

SIGTERM_SECONDS = 10
#: A list for each process of a stage, died through in this order. Where a step comes often, not
#: the first hit: by then there is state to lose. A revocation needs the death of the other one.
EVERY_STEP = (
    ("begin:5", "assign:2", "revoke", "restore", "send_offsets:3"),
    ("produce:5", "init", "before_commit:4", "apply:6", "after_commit:3"),
)
QUICK_STEPS = (("after_commit:8",), ("before_commit:8",))


def die_at_every_step(world: World) -> Outcome:
    return _die_at(world, EVERY_STEP, 40_000, 400)


def die_around_the_commit(world: World) -> Outcome:
    return _die_at(world, QUICK_STEPS, 5_000, 100)


def _die_at(
    world: World, steps: tuple[tuple[str, ...], ...], requests: int, seconds: float
) -> Outcome:
    """Traffic flows for at most so many seconds: until all have died, then the rest at once."""
    stages = world.prepare(**dict.fromkeys(STAGES, len(steps)))
    for stage in STAGES:
        for number, failpoints in enumerate(steps):
            stages.armed[stage, number].extend(failpoints)
    stages.start()
    world.restored(world.settings.partitions, "score")  # a backlog would take too few commits
    world.flow(requests, seconds)
    deaths = len(STAGES) * sum(map(len, steps))
    world.until(lambda: stages.kills.total() >= deaths, seconds)
    world.feed.hurry()
    return world.finish(deaths, _told(stages.kills))


def hundred_kills(world: World) -> Outcome:
    return _kill(world, kills=100, requests=270_000, seconds=360)


def _kill(world: World, kills: int, requests: int, seconds: float) -> Outcome:
    """SIGKILL random processes at random moments, two or three of each stage."""
    dice = random.Random(world.seed)
    world.begin(requests, seconds, score=3, monitor=3, evaluate=2)
    world.stages.patience = 2 * kills  # who is fenced ends, and is started again
    for moment in sorted(dice.uniform(0.01, 0.99) for _ in range(kills)):
        world.at(moment)
        time.sleep(dice.uniform(0, 1))
        world.stages.kill(*dice.choice(sorted(world.stages.running)))
    return world.finish(kills, _told(world.stages.kills))


def _told(kills: Counter[str]) -> str:
    return ", ".join(f"{kills[stage]} of {stage}" for stage in STAGES) + " died"


def zombies(world: World) -> Outcome:
    """One process of each stage stops itself with records applied and not committed."""
    stages = world.prepare(score=2, monitor=2, evaluate=2)
    steps = {"score": "begin:8:stop", "monitor": "send_offsets:8:stop", "evaluate": "begin:8:stop"}
    for stage in STAGES:
        stages.armed[stage, 0].append(steps[stage])
    stages.start()
    world.all_at_work()  # one that comes late would find nothing left to stop at
    world.flow(12_000, 30)
    sleepers = [stages.running[stage, 0] for stage in STAGES]
    _until_stopped(world, sleepers)
    time.sleep(2 * world.settings.session_timeout_seconds)  # what they held was taken over
    for sleeper in sleepers:
        sleeper.send_signal(signal.SIGCONT)
    return world.finish(len(sleepers))


def zombie_that_inits_late(world: World) -> Outcome:
    """A third process of each stage stops before it fences, and goes on when others own all."""
    world.begin(12_000, 30, score=2, monitor=2, evaluate=2)
    stages = world.stages
    world.at(0.1)
    for stage in STAGES:
        stages.armed[stage, 2].append("init:1:stop")
        stages.start_one(stage, 2)
    late = [stages.running[stage, 2] for stage in STAGES]
    _until_stopped(world, late)
    time.sleep(2 * world.settings.session_timeout_seconds)  # the group has given them up
    for process in late:
        process.send_signal(signal.SIGCONT)
    return world.finish(len(late))


def _until_stopped(world: World, processes: list[subprocess.Popen[bytes]]) -> None:
    ours = [psutil.Process(process.pid) for process in processes]
    world.until(lambda: all(one.status() == psutil.STATUS_STOPPED for one in ours))


def stop_and_wake_at_random(world: World) -> Outcome:
    """SIGSTOP past the session timeout and SIGCONT, three rounds, one process of each stage."""
    dice = random.Random(world.seed)
    world.begin(20_000, 75, score=2, monitor=2, evaluate=2)
    for fraction in (0.1, 0.4, 0.7):
        world.at(fraction)
        sleepers = [world.stages.running[stage, dice.randrange(2)] for stage in STAGES]
        _signal(sleepers, signal.SIGSTOP)
        moment = time.monotonic() + world.settings.session_timeout_seconds + dice.uniform(1, 6)
        world.until(lambda moment=moment: time.monotonic() > moment)  # type: ignore[misc]
        _signal(sleepers, signal.SIGCONT)
    return world.finish(9)


def _signal(processes: list[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def rolling_restart(world: World) -> Outcome:
    """1 -> 3 -> 1 processes of each stage, the first ones gone in the end."""
    world.begin(20_000, 60, score=1, monitor=1, evaluate=1)
    stages = world.stages
    for number, fraction in ((1, 0.1), (2, 0.25)):
        world.at(fraction)
        for stage in STAGES:
            stages.start_one(stage, number)
    slowest = 0.0
    for number, fraction in ((0, 0.6), (1, 0.75)):
        world.at(fraction)
        slowest = max(slowest, *(_leave(world, stage, number) for stage in STAGES))
    for stage in STAGES:
        stages.running[stage, 0] = stages.running.pop((stage, 2))
    return world.finish(12, f"slowest SIGTERM {slowest:.1f} s")


def _leave(world: World, stage: Stage, number: int) -> float:
    """SIGTERM; how long it took, in seconds."""
    process = world.stages.running.pop((stage, number))
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    until(lambda: process.poll() is not None, world.stages, 20)
    took = time.monotonic() - begun
    assert process.returncode == 0, f"{stage} {number} ended with {process.returncode}"
    assert took <= SIGTERM_SECONDS, f"{stage} {number} took {took:.1f} s to end"
    return took


def more_workers_than_partitions(world: World) -> Outcome:
    """Three processes of each stage for two partitions; whoever holds one is killed."""
    world.set(partitions=2)
    world.begin(12_000, 45, score=3, monitor=3, evaluate=3)
    world.at(0.2)
    for number in range(2):
        for stage in STAGES:
            world.stages.kill(stage, number)
        world.at(0.5 + 0.2 * number)
    return world.finish(6)


ROWS = (
    Row(
        id="commit-kills",
        run=die_around_the_commit,
        done="both processes of each stage die, one before and one after its commit",
        invariant=EXACT,
        kept_by=TRANSACTION,
        sabotage="plain",
        long=False,
    ),
    Row(
        id="failpoints",
        run=die_at_every_step,
        done="both processes of each stage die in turn at all ten steps: assign, init, restore, "
        "apply, begin, produce, send_offsets, before_commit, after_commit, revoke",
        invariant=EXACT,
        kept_by=TRANSACTION,
        seen="as commit-kills",
    ),
    Row(
        id="hundred-kills",
        run=hundred_kills,
        done="SIGKILL of a random process at a random moment, 100 times, 3 score, 3 monitor and 2 "
        "evaluate processes, 270,000 requests with their feedback",
        invariant=EXACT,
        kept_by=TRANSACTION,
        seen="as commit-kills",
        limit_seconds=1800,
    ),
    Row(
        id="zombies",
        run=zombies,
        done="one process of each stage stops (SIGSTOP) between apply and commit, others take "
        "over, it wakes (SIGCONT) and goes on where it stood",
        invariant=f"{EXACT}; what the sleeper held is not written",
        kept_by=FENCING,
        sabotage="unfenced",
    ),
    Row(
        id="random-stops",
        run=stop_and_wake_at_random,
        done="SIGSTOP past the session timeout, then SIGCONT, of one process a stage, three rounds",
        invariant=EXACT,
        kept_by=FENCING,
        seen="as zombies, whose stops it repeats at random moments",
    ),
    Row(
        id="late-init",
        run=zombie_that_inits_late,
        done="a third process of each stage stops right before it fences, and goes on when the "
        "partitions are others' again",
        invariant=f"{EXACT}; nobody who lives is fenced",
        kept_by="only who is no member of the group is fenced, and offsets go with its generation",
        seen="as zombies",
    ),
    Row(
        id="rolling-restart",
        run=rolling_restart,
        done="1 -> 3 -> 1 processes of each stage under load; the first two leave by SIGTERM",
        invariant=f"{EXACT}; SIGTERM ends with 0 within {SIGTERM_SECONDS} s",
        kept_by="the flush at revocation, and the restore from the checkpoint",
        sabotage="amnesiac",
    ),
    Row(
        id="crowd",
        run=more_workers_than_partitions,
        done="three processes of each stage for two partitions; four of the six holders are killed",
        invariant=f"{EXACT}; who stands by takes over",
        kept_by=TRANSACTION,
        seen="as commit-kills",
    ),
)
