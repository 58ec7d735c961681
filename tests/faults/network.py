"""Rows about the network between stages and broker, which a proxy cuts, delays and silences.

Producers and the final count go to the broker directly.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.proxy import PIECE_BYTES, Proxy, broker_behind
from tests.faults.rows import EXACT, FENCING, TRANSACTION, Row
from tests.faults.world import Outcome, World

CUTS = 12
DELAY_SECONDS = 0.3
TRICKLE_BYTES, TRICKLE_SECONDS = 2_000, 0.02


@contextmanager
def _behind_a_proxy(world: World, seconds: float) -> Iterator[Proxy]:
    """The loop under load, its stages behind a proxy."""
    broker, proxy = broker_behind(world.directory / "behind")
    with broker, proxy:
        world.set(bootstrap_servers=broker.bootstrap)
        world.environment["DRIFTLINE_BOOTSTRAP_SERVERS"] = f"127.0.0.1:{proxy.port}"
        world.begin(20_000, seconds, score=2, monitor=2, evaluate=1)
        yield proxy
        world.stages.end()


def connections_cut(world: World) -> Outcome:
    dice = random.Random(world.seed)
    with _behind_a_proxy(world, 50) as proxy:
        for moment in sorted(dice.uniform(0.05, 0.95) for _ in range(CUTS)):
            world.at(moment)
            proxy.cut()
        return world.finish(CUTS, f"{proxy.cuts} connections cut")


def connections_slow(world: World) -> Outcome:
    """Every piece waits, each way, for half of the run."""
    with _behind_a_proxy(world, 50) as proxy:
        world.at(0.2)
        proxy.delay_seconds = DELAY_SECONDS
        world.at(0.7)
        proxy.delay_seconds = 0.0
        return world.finish(1, f"{DELAY_SECONDS} s each way")


def connections_trickle(world: World) -> Outcome:
    """Everything comes through, a few bytes at a time, for half of the run."""
    with _behind_a_proxy(world, 50) as proxy:
        world.at(0.2)
        proxy.piece_bytes, proxy.delay_seconds = TRICKLE_BYTES, TRICKLE_SECONDS
        world.at(0.7)
        proxy.piece_bytes, proxy.delay_seconds = PIECE_BYTES, 0.0
        return world.finish(1, f"{TRICKLE_BYTES / TRICKLE_SECONDS / 1000:.0f} kB/s a connection")


def connections_half_open(world: World) -> Outcome:
    """Nothing goes through and nobody is told, past the session timeout; twice."""
    with _behind_a_proxy(world, 60) as proxy:
        for fraction in (0.1, 0.5):
            world.at(fraction)
            proxy.silence()
            over = time.monotonic() + world.settings.session_timeout_seconds + 4
            world.until(lambda over=over: time.monotonic() > over)  # type: ignore[misc]
            proxy.speak()
        return world.finish(2)


ROWS = (
    Row(
        id="tcp-cut",
        run=connections_cut,
        done=f"all connections between stages and broker are reset {CUTS} times",
        invariant=EXACT,
        kept_by=f"{TRANSACTION}; the watchdog",
        seen="before there was a watchdog: keepers that a cut met in send_offsets_to_transaction "
        "hung for ever (librdkafka does not keep the time limit there), and their partitions "
        "stood still until the row gave up; so did workers in four runs of five while the watchdog "
        "saw no work in what had been applied since",
    ),
    Row(
        id="tcp-delay",
        run=connections_slow,
        done=f"{DELAY_SECONDS} s more each way for half of the run",
        invariant=EXACT,
        kept_by=TRANSACTION,
        seen="as broker-pause",
    ),
    Row(
        id="tcp-trickle",
        run=connections_trickle,
        done=f"{TRICKLE_BYTES / TRICKLE_SECONDS / 1000:.0f} kB/s a connection for half of the run",
        invariant=EXACT,
        kept_by=TRANSACTION,
        seen="as broker-pause",
    ),
    Row(
        id="tcp-half-open",
        run=connections_half_open,
        done="connections stay and nothing goes through, past the session timeout, twice",
        invariant=EXACT,
        kept_by=f"{TRANSACTION}; {FENCING}",
        seen="as zombies and broker-pause",
    ),
)
