"""Rows about trainer and registry: killed in each step, two at once, a database that fails."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing

from models.registry import Registry
from tests import postgres
from tests.faults.rows import Row
from tests.faults.trainers import MODEL, Trainers
from tests.faults.world import Outcome, World
from tests.kafka.loop import HERE
from tests.registries import CHURN, register

TRAINER_STEPS = ("fit", "registered", "publishing")
LOCK_SECONDS = 20  # longer than the registry waits for a lock
AGAIN = 10
RACERS = 4
ROUNDS = 40


def trainer_dies_at_every_step(world: World) -> Outcome:
    """In training, between registering and proposing, and between publishing and noting it."""
    trainers = Trainers(world)
    for number, step in enumerate(TRAINER_STEPS, start=1):
        trainers.launch(step)
        trainers.command("retrain")
        trainers.until(lambda number=number: trainers.deaths == number)  # type: ignore[misc]
        trainers.until(trainers.handled)
        for process in trainers.running:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        trainers.running.clear()
    return trainers.judge(len(TRAINER_STEPS))


def two_trainers(world: World) -> Outcome:
    """One stops in a fit, another takes over; the first wakes with its own fit done."""
    trainers = Trainers(world)
    trainers.launch("fit:1:stop")
    trainers.command("retrain")
    trainers.until(lambda: "retrain begun" in trainers.log)
    trainers.launch()
    trainers.until(trainers.handled)
    trainers.running[0].send_signal(signal.SIGCONT)
    version = trainers.challengers[-1]
    trainers.command("promote", version)
    trainers.until(lambda: trainers.live().champion == version)
    trainers.command("retrain")
    trainers.until(trainers.handled)
    time.sleep(2)  # the one that woke may still say something
    return trainers.judge(1, f"{trainers.log.count('retrain begun')} fits begun for 2 retrains")


def commands_again(world: World) -> Outcome:
    """As evaluate's topic may hold them after an operator's replay: again, and in another order."""
    trainers = Trainers(world)
    trainers.launch()
    trainers.command("retrain")
    trainers.until(trainers.handled)
    version = trainers.challengers[-1]
    generation = trainers.live().generation
    trainers.command("promote", version)
    trainers.until(lambda: trainers.live().champion == version)
    dice = random.Random(world.seed)
    again = [("retrain", "retrain-0"), ("promote", "promote-0")] * AGAIN
    dice.shuffle(again)
    for kind, command_id in again:
        told = version if kind == "promote" else None
        trainers.tell(kind, command_id, dice.choice((generation, generation + 1)), told)
    trainers.command("rollback")
    trainers.until(trainers.handled)
    return trainers.judge(len(again))


def registry_locked(world: World) -> Outcome:
    """Somebody holds SQLite's lock for longer than anybody waits for it."""
    trainers = Trainers(world)
    trainers.launch()
    trainers.until(lambda: "trainer serves" in trainers.log)
    path = world.settings.registry_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        generation = trainers.live().generation
        holder.execute("BEGIN EXCLUSIVE")
        trainers.sent["retrain"].append("retrain-0")
        trainers.tell("retrain", "retrain-0", generation)
        time.sleep(LOCK_SECONDS)
        holder.execute("ROLLBACK")
    trainers.until(trainers.handled)
    return trainers.judge(1)


def registry_down(world: World) -> Outcome:
    """PostgreSQL ends at once in a fit, and is started again."""
    with postgres.Server() as server:
        world.set(registry_url=server.database("faults"))
        trainers = Trainers(world)
        trainers.launch()
        for _ in range(2):
            begun = trainers.log.count("retrain begun")
            trainers.command("retrain")
            trainers.until(lambda begun=begun: trainers.log.count("retrain begun") > begun)  # type: ignore[misc]
            server.halt()
            time.sleep(5)
            server.launch()
            trainers.until(trainers.handled)
        outcome = trainers.judge(2)
        world.close()
    return outcome


def registry_read_only(world: World) -> Outcome:
    """PostgreSQL takes no writes for a while, as a replica or a full disk makes it."""
    with postgres.Server() as server:
        world.set(registry_url=server.database("faults"))
        trainers = Trainers(world)
        trainers.launch()
        trainers.until(lambda: "trainer serves" in trainers.log)
        generation = trainers.live().generation
        server.execute("alter system set default_transaction_read_only = on")
        server.execute("select pg_reload_conf()")
        trainers.sent["retrain"].append("retrain-0")
        trainers.tell("retrain", "retrain-0", generation)
        trainers.until(lambda: trainers.failures.total() > 0)
        server.execute("alter system reset default_transaction_read_only")
        server.execute("select pg_reload_conf()")
        trainers.until(trainers.handled)
        outcome = trainers.judge(1)
        world.close()
    return outcome


def race_on_sqlite(world: World) -> Outcome:
    return _race(world)


def race_on_postgres(world: World) -> Outcome:
    with postgres.Server() as server:
        world.set(registry_url=server.database("faults"))
        outcome = _race(world)
        world.close()
    return outcome


def _race(world: World) -> Outcome:
    """Processes that promote, roll back and pin at the same moments, each on what it has seen."""
    registry = world.registry()
    registry.upgrade()
    registry.add_model(CHURN, who="test")
    for _ in range(3):
        register(registry)
    registry.promote(MODEL, 1, who="test")
    racers = [
        subprocess.Popen(
            [sys.executable, *world.program, "tests.faults.racing", *arguments],
            env={**os.environ, **HERE},
        )
        for arguments in (
            (world.settings.registry_url, str(world.seed + number), str(ROUNDS))
            for number in range(RACERS)
        )
    ]
    codes = [racer.wait(240) for racer in racers]
    assert codes == [0] * RACERS, f"racers ended with {codes}"
    return judge_race(registry)


def judge_race(registry: Registry) -> Outcome:
    """One change a generation, each on the one before; refused ones say why; all are in order."""
    history, decisions = registry.history(MODEL), registry.decisions(MODEL, 100_000)
    asked = [one for one in decisions if one.expected_generation is not None]
    applied = Counter(one.expected_generation for one in asked if one.applied)
    late = sum(one.generation != (one.expected_generation or 0) + 1 for one in asked if one.applied)
    generations = [entry.generation for entry in history]
    published = [row.state.generation for row in registry.outbox_pending(100_000)]
    whole = generations == list(range(1, len(history) + 1)) == published
    return Outcome(
        faults=RACERS * ROUNDS,
        events=len(decisions),
        lost=RACERS * (ROUNDS - ROUNDS // 3) - len(asked),
        doubled=sum(count - 1 for count in applied.values()) + late,
        fold="equal" if whole else "history and outbox are not 1, 2, 3, ...",
        note=f"{applied.total()} of {len(asked)} commands applied, the others stale or refused",
    )


ONCE = "each command has one run, one version and one effect; `lifecycle` tells the history"

ROWS = (
    Row(
        id="trainer-kills",
        run=trainer_dies_at_every_step,
        done="the trainer dies in training, between registering and proposing a version, and "
        "between publishing and noting it",
        invariant=ONCE,
        kept_by="the registry remembers command ids and runs; the outbox is noted last",
        sabotage="forgetful",
    ),
    Row(
        id="two-trainers",
        run=two_trainers,
        done="a trainer stops in a fit, another takes the command over, the first wakes with its "
        "own fit done",
        invariant=ONCE,
        kept_by="the registry remembers command ids and runs",
        sabotage="forgetful",
    ),
    Row(
        id="commands-again",
        run=commands_again,
        done=f"a retrain and a promotion that were carried out come {AGAIN} times again, in any "
        "order, also under the newest generation",
        invariant=ONCE,
        kept_by="the registry remembers command ids",
        sabotage="forgetful",
    ),
    Row(
        id="registry-locked",
        run=registry_locked,
        done=f"somebody holds SQLite's write lock for {LOCK_SECONDS} s",
        invariant=f"{ONCE}; the trainer ends and is started again",
        kept_by="offsets of commands are committed last",
        seen="as trainer-kills",
    ),
    Row(
        id="registry-down",
        run=registry_down,
        done="PostgreSQL ends at once while a fit runs, twice, and is started again after 5 s",
        invariant=f"{ONCE}; the trainer ends and is started again",
        kept_by="offsets of commands are committed last",
        sabotage="forgetful",
    ),
    Row(
        id="registry-read-only",
        run=registry_read_only,
        done="PostgreSQL takes no writes for a while",
        invariant=f"{ONCE}; the trainer ends and is started again",
        kept_by="offsets of commands are committed last",
        seen="as trainer-kills",
    ),
    Row(
        id="race-sqlite",
        run=race_on_sqlite,
        done=f"{RACERS} processes promote, roll back, challenge and pin at once, "
        f"{ROUNDS} times each, SQLite",
        invariant="at most one command acts on a generation; history and outbox have no hole",
        kept_by="compare-and-set on the generation",
        sabotage="blind",
        long=False,
    ),
    Row(
        id="race-postgres",
        run=race_on_postgres,
        done=f"{RACERS} processes promote, roll back, challenge and pin at once, "
        f"{ROUNDS} times each, PostgreSQL",
        invariant="at most one command acts on a generation; history and outbox have no hole",
        kept_by="compare-and-set on the generation",
        sabotage="blind",
    ),
)
