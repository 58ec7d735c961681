"""A copying worker one of whose parts stops for ever: `python -m tests.kafka.stuck_worker <part>`.

Parts: `agent` (the event loop stands), `fetcher` (nothing is handed on), `consumer` (the consumer's
own loop stands), `interpreter` (a thread never lets go of it), `end` (it fails, and leaving the
group never lets go of the interpreter). Each stops once 100 records came.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from stream import settings, transport, worker
from stream.core.processor import Batch, Fleet, Output
from stream.runtime import Runtime
from tests.kafka.copy_worker import Copying

AFTER = 100
LONG_SECONDS = 600
came = 0


def stand(slices: Iterable[Any]) -> bool:
    global came  # noqa: PLW0603  one process, one part
    came += sum(len(piece.records) for piece in slices)
    return came > AFTER


def agent() -> None:
    offer = Runtime.offer

    def stuck(self: Runtime, slices: Any) -> None:
        if stand(slices):
            time.sleep(LONG_SECONDS)
        offer(self, slices)

    Runtime.offer = stuck  # type: ignore[method-assign]


def fetcher() -> None:
    getmany = transport.BatchConsumer.getmany

    async def stuck(self: Any, timeout: float) -> AsyncIterator[Any]:
        async for message in getmany(self, timeout):
            if stand(message[1].value):
                await asyncio.sleep(LONG_SECONDS)
            yield message

    transport.BatchConsumer.getmany = stuck  # type: ignore[method-assign]


def consumer() -> None:
    drain = transport.ConsumerThread._drain

    def stuck(self: transport.ConsumerThread, of: Any) -> list[transport.Slice]:
        pieces = drain(self, of)
        if stand(pieces):
            time.sleep(LONG_SECONDS)
        return pieces

    transport.ConsumerThread._drain = stuck  # type: ignore[method-assign, assignment]


class Holding(Copying):
    """Calls C and does not let go of the interpreter."""

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        ctypes.PyDLL(None).sleep(LONG_SECONDS)
        return super().apply(batch, fleet)


class Failing(Copying):
    """Can't go on."""

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        raise RuntimeError("a fault of the test")


async def held(app: Any, timeout_seconds: float) -> None:
    ctypes.PyDLL(None).sleep(LONG_SECONDS)


class Slow(Copying):
    """Computes for long without moving on, as a slow estimator does: for four times as long as a
    stall, and until the file of that name is there."""

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        until = time.monotonic() + 4 * settings.load().stall_seconds
        while time.monotonic() < until or not Path(os.environ["SLOW_UNTIL"]).exists():
            sum(range(1000))
        return super().apply(batch, fleet)


if __name__ == "__main__":
    part = sys.argv[1]
    factory = {"interpreter": Holding, "slow": Slow, "end": Failing}.get(part, Copying)
    if part == "end":
        worker._leave = held
    if part in ("agent", "fetcher", "consumer"):
        {"agent": agent, "fetcher": fetcher, "consumer": consumer}[part]()
    raise SystemExit(worker.main("score", settings.load(), factory))
