"""One stage as a process, from its first look at the broker to the last flush.

`python -m stream.worker score` runs it until SIGTERM. Exit codes: 0 drained; 1 failed, start it
again; 2 a setting is wrong, which another start would not mend.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from stream import collector, logs, tracing
from stream import settings as settings_module
from stream.doors import open_doors
from stream.ends import of_broker
from stream.errors import ConfigurationError, DriftlineError, explained
from stream.health import Health, die
from stream.metrics import registry
from stream.settings import Settings
from stream.supervising import SUPERVISOR, supervise
from stream.topics import EVERY_STAGE, Stage

if TYPE_CHECKING:
    from stream.app import Factory, StageApp
    from stream.lifecycle import Lifecycle
    from stream.partitions import World
    from stream.runtime import Runtime

__all__ = ["main", "supervise"]

log = structlog.get_logger(__name__)

OK, FAILED, USAGE = 0, 1, 2
LEAVE_SECONDS = 2.0  # after a failure: to tell the group, so that others need not wait for us
WATCH_SECONDS = 0.2
LATE_SECONDS = 1.0  # after `drain_seconds`, a drain that hangs is ended


def main(stage: Stage, settings: Settings, factory: Factory | None = None) -> int:
    """Run one stage until SIGTERM or SIGINT and return its exit code.

    A failure ends the process at once, with code 1, without returning.

    Args:
        factory: makes the processors; None: the stage's own.
    """
    logs.configure(settings.log_format, settings.log_level, stage=stage)
    try:
        return asyncio.run(_Worker(stage, settings, factory).run())
    except ConfigurationError as error:
        log.error("configuration", error=str(error))
        return USAGE


class _Worker:
    def __init__(self, stage: Stage, settings: Settings, factory: Factory | None) -> None:
        self._stage = stage
        self._settings = settings
        self._factory = factory
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._asked = False
        self._health = Health(stage, settings, self._fail)
        self._parent = int(os.environ.get(SUPERVISOR, "0"))
        self._send_spans = tracing.configure(f"driftline-{stage}")

    async def run(self) -> int:
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        health = self._health
        doors = open_doors(
            self._settings, health.live, health.ready, registry(health), stage=self._stage
        )
        health.start()
        try:
            return await self._run()
        finally:
            if doors is not None:
                doors.close()

    async def _run(self) -> int:
        connecting = asyncio.create_task(asyncio.to_thread(self._connect))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            log.info("stopped before it began")
            return self._exit(OK)  # nothing is held yet
        try:
            world, lifecycle = connecting.result()
        except DriftlineError:
            raise
        except Exception as error:
            self._fail(error)
            return self._die()
        runtime, app = self._build(world)
        collector.calm()
        lifecycle.start()
        runtime.start()
        self._health.watch(runtime)
        starting = asyncio.create_task(app.start())
        await self._watch(app, starting)
        self._health.doing = "ending" if self._failure else "draining"
        if self._failure is not None:
            runtime.drop_all()
            await _leave(app, LEAVE_SECONDS)
            return self._die()
        return await self._drain(runtime, app, lifecycle)

    def _connect(self) -> tuple[World, Lifecycle]:
        """All that waits for the broker or imports for long; not on the event loop."""
        from stream.connecting import connect

        return connect(self._stage, self._settings, self._factory, self._fail)

    def _build(self, world: World) -> tuple[Runtime, StageApp]:
        from stream import app as apps
        from stream.runtime import Runtime
        from stream.transport import Intake

        settings, stage = self._settings, self._stage
        intake = Intake(settings.queue_batches, settings.commit_interval_seconds(stage, 1))
        runtime = Runtime(world, intake, self._fail)
        return runtime, apps.build(stage, settings, runtime, self._fail)

    async def _watch(self, app: StageApp, starting: asyncio.Task[None]) -> None:
        """Return when there is a reason to end."""
        while not self._stopping.is_set():
            self._health.beat = time.monotonic()
            if starting.done() and starting.exception() is not None:
                self._fail(starting.exception())
            if app.crashed:
                self._fail(app.crash_reason)
            if self._parent and os.getppid() != self._parent:
                log.warning("the supervisor is gone")
                self._stop()
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), WATCH_SECONDS)

    async def _drain(self, runtime: Runtime, app: StageApp, lifecycle: Lifecycle) -> int:
        """Flush everything and leave the group, within `drain_seconds`."""
        total = self._settings.drain_seconds
        deadline = self._loop.time() + total
        runtime.closing = True
        flushed = await runtime.revoke(total * 0.6)
        runtime.drop_all()
        lifecycle.stop()
        await _leave(app, max(0.1, deadline - self._loop.time()))
        return self._ended(flushed)

    def _ended(self, flushed: bool) -> int:
        """We were asked to end: a broker that is away makes that no failure, for nothing is lost.
        What was not flushed will be read again."""
        if self._failure is not None and not of_broker(self._failure):
            return self._die()
        if flushed and self._failure is None:
            log.info("drained")
        else:
            log.warning("not drained in time: the last records will be read again")
        return self._exit(OK)

    def _stop(self, *_: object) -> None:
        """SIGTERM or SIGINT: drain; should that hang, end all the same."""
        if self._asked:
            return
        self._asked = True
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._end_by_all_means("the drain hangs; the last records will be read again", OK)

    def _end_by_all_means(self, why: str, code: int) -> None:
        """In a while, from a thread of its own: what should end this process may be what hangs.
        Should it keep that thread from running or from logging, too, health's timer ends it."""
        seconds = self._settings.drain_seconds + LATE_SECONDS
        self._health.judge_no_more(seconds + LATE_SECONDS)
        late = threading.Timer(seconds, die, (why, code))
        late.daemon = True
        late.start()

    def _fail(self, error: BaseException | None) -> None:
        """From any thread: this process must end."""
        if self._failure is None:
            self._failure = error or RuntimeError("unknown")
            why = explained(self._failure)
            self._end_by_all_means(f"the end hangs; it failed with: {why}", FAILED)
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stopping.set)

    def _die(self) -> int:
        log.error("ends", error=explained(self._failure), kind=type(self._failure).__name__)
        return self._exit(FAILED)

    def _exit(self, code: int) -> int:
        """Threads may stand in the broker's calls, so don't wait for them."""
        self._send_spans()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


async def _leave(app: StageApp, timeout_seconds: float) -> None:
    """Leave the group, if that is possible in time; Faust may swallow a cancellation."""
    await asyncio.wait({asyncio.create_task(app.stop())}, timeout=timeout_seconds)


if __name__ == "__main__":
    faulthandler.enable()  # a crash of C code says where it stood
    try:
        chosen = next(stage for stage in EVERY_STAGE if sys.argv[1:] == [stage])
        raise SystemExit(main(chosen, settings_module.load()))
    except StopIteration:
        raise SystemExit(f"usage: python -m stream.worker {{{'|'.join(EVERY_STAGE)}}}") from None
    except ConfigurationError as wrong:
        print(wrong, file=sys.stderr)
        raise SystemExit(USAGE) from wrong
