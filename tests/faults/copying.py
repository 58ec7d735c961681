"""Copying workers in rows: brought to a point, halted, gone on with, read to the end.

Each output of theirs carries the count that the state had reached.
"""

from __future__ import annotations

import subprocess
import time
from typing import Any

from confluent_kafka import Producer

from tests.faults.world import Outcome, World, count_copies
from tests.kafka.copies import Workers, exact, send
from tests.kafka.loop import Offsets
from tests.topics import quiet_client

STILL_SECONDS = 20  # more than a held-up partition waits
HALT_SECONDS = 60  # a start on a busy machine, and a restore
HELD_MS = 8_000  # how long the broker lets a transaction stay open in these rows


def stopped_after(world: World, total: int) -> Workers:
    """A worker that has copied so much and has left."""
    workers = world.copying()
    worker = workers.start()
    send(world.settings, 0, total)
    exact(workers, total)
    assert workers.end(worker) == 0
    return workers


def halts(workers: Workers, words: str, code: int = 1) -> None:
    worker = workers.start()
    try:
        found = worker.wait(HALT_SECONDS)
    except subprocess.TimeoutExpired:
        raise AssertionError("it did not halt") from None
    assert found == code, f"ended with {found}"
    assert words in workers.logs, f"{words!r} is not what it said: {ending(workers)}"


def goes_on(world: World, workers: Workers, total: int) -> Outcome:
    """Start it again and send as much again."""
    workers.start()
    send(world.settings, total, total)
    until_read(workers)
    return count_copies(workers, 2 * total, 1)


def until_read(workers: Workers) -> None:
    """Until the group has committed all that there is, or has stood still for long."""
    offsets = Offsets(workers.settings, "score")
    try:
        behind, since = offsets.behind(), time.monotonic()
        while behind and time.monotonic() - since < STILL_SECONDS:
            time.sleep(0.2)
            before, behind = behind, offsets.behind()
            since = since if before == behind else time.monotonic()
    finally:
        offsets.close()


def ending(workers: Workers) -> str:
    """The last line of the logs that tells of an end."""
    told = [line for line in workers.logs.splitlines() if '"ends"' in line or "ends " in line]
    return told[-1] if told else "nothing"


def writer_of(world: World, name: str, held_ms: int = HELD_MS) -> Any:
    properties = {
        "transactional.id": f"{world.settings.topic_prefix}-{name}",
        "transaction.timeout.ms": held_ms,
    }
    writer = Producer(quiet_client(world.settings.bootstrap_servers, **properties))
    writer.init_transactions(30)
    return writer
