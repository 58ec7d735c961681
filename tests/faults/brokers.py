"""Rows about the broker itself: killed, stopped, started again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from tests.faults.rows import EXACT, Row
from tests.faults.world import Outcome, World
from tests.kafka.loop import HERE

DEMO_SECONDS = 100


def broker_killed(world: World) -> Outcome:
    """SIGKILL under load, and a start on the same data, three times."""
    world.begin(20_000, 75, score=2, monitor=2, evaluate=1)
    for fraction in (0.15, 0.45, 0.75):
        world.at(fraction)
        world.broker.kill()
        time.sleep(1)
        world.broker.start()
    return world.finish(3)


def broker_paused(world: World) -> Outcome:
    """It stands still past the session and transaction timeouts, and goes on, three times: what is
    under way when it stops decides which of them strikes."""
    world.set(transaction_timeout_ms=6_000)
    world.begin(16_000, 65, score=2, monitor=2, evaluate=1)
    for fraction in (0.2, 0.5, 0.8):
        world.at(fraction)
        world.broker.pause()
        time.sleep(12)
        world.broker.resume()
    return world.finish(3)


def broker_killed_in_the_demo(world: World) -> Outcome:
    """`driftline demo --bootstrap`: the broker is killed and started again in the middle."""
    command = ["demo", "--headless", "--json", "--seconds", str(DEMO_SECONDS)]
    with (world.directory / "demo.log").open("wb") as log:
        demo = subprocess.Popen(
            [sys.executable, "-m", "consumers", *command, "--bootstrap", world.broker.bootstrap],
            cwd=world.directory,
            env={**os.environ, "PYTHONPATH": HERE["PYTHONPATH"]},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    world.cleanup.callback(demo.kill)
    time.sleep(DEMO_SECONDS / 2)
    assert demo.poll() is None, "the demo ended early"
    world.broker.kill()
    time.sleep(1)
    world.broker.start()
    told, _ = demo.communicate(timeout=4 * DEMO_SECONDS)
    found = json.loads(told.splitlines()[-1])
    assert demo.returncode == 0, f"the loop did not close: {found}"
    assert found["closed"]
    return Outcome(
        faults=1,
        events=found["events"],
        lost=found["swap_lost"],
        doubled=found["swap_duplicated"],
        note=f"closed, {found['retrains']} retrains, {found['promotions']} promotions",
    )


ROWS = (
    Row(
        id="broker-kills",
        run=broker_killed,
        done="SIGKILL of the only broker under load, three times, started again on its data",
        invariant=EXACT,
        kept_by="the same transaction is committed when the broker is back, or the process ends",
        seen="as broker-pause; when it is back in seconds, most commits end as they began",
        own_broker=True,
    ),
    Row(
        id="broker-pause",
        run=broker_paused,
        done="the broker stands still (SIGSTOP) three times for 12 s, past session and transaction "
        "timeouts",
        invariant=EXACT,
        kept_by="a failed commit ends the process; the transaction decides what happened",
        sabotage="deaf",
        own_broker=True,
    ),
    Row(
        id="demo-broker-kill",
        run=broker_killed_in_the_demo,
        done="`driftline demo --bootstrap`, its broker killed and started again in the middle",
        invariant="the loop closes, with nothing lost or doubled at the swap",
        kept_by="as broker-kills",
        seen="as broker-pause",
        own_broker=True,
    ),
)
