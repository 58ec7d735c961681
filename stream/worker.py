"""One stage as a process, from its first look at the broker to the last flush.

`python -m stream.worker score` runs it until SIGTERM. Exit codes: 0 drained; 1 failed, start it
again; 2 a setting is wrong, which another start would not mend.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from stream import logs
from stream import settings as settings_module
from stream.errors import ConfigurationError, DriftlineError
from stream.settings import Settings
from stream.supervising import SUPERVISOR, supervise
from stream.topics import BY_ENTITY, STAGES, Stage

if TYPE_CHECKING:
    from stream.app import Factory, StageApp
    from stream.lifecycle import Lifecycle
    from stream.partitions import World
    from stream.reading import LogReader
    from stream.runtime import Runtime

__all__ = ["main", "supervise"]

log = structlog.get_logger(__name__)

OK, FAILED, USAGE = 0, 1, 2
LEAVE_SECONDS = 2.0  # after a failure: to tell the group, so that others need not wait for us
WATCH_SECONDS = 0.2


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
        self._parent = int(os.environ.get(SUPERVISOR, "0"))

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._loop = loop
        connecting = asyncio.create_task(asyncio.to_thread(self._connect))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({connecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            return self._exit(OK)  # nothing is held yet
        try:
            world, lifecycle = connecting.result()
        except DriftlineError:
            raise
        except Exception as error:
            self._fail(error)
            return self._die()
        runtime, app = self._build(world)
        _calm_collector()
        lifecycle.start()
        starting = asyncio.create_task(app.start())
        await self._watch(app, starting)
        if self._failure is not None:
            runtime.drop_all()
            await _stop(app, LEAVE_SECONDS)
            return self._die()
        return await self._drain(runtime, app, lifecycle)

    def _connect(self) -> tuple[World, Lifecycle]:
        """All that waits for the broker or imports for long; not on the event loop."""
        from stream import app as apps
        from stream.lifecycle import alert_record, build
        from stream.reading import LogReader, Tail
        from stream.transactions import Announcer

        settings, names = self._settings, self._settings.names
        reader = LogReader(settings, names.group(self._stage))
        counts = _counts(self._stage, settings, reader)
        announcer = Announcer(settings)
        lifecycle = build(
            self._stage,
            settings,
            Tail(settings, names.topic("lifecycle")),
            lambda alert: announcer.send(names.topic("alerts"), *alert_record(alert)),
            self._fail,
        )
        factory = self._factory or apps.factory(self._stage)
        return _world(self._stage, settings, factory, counts, reader, lifecycle), lifecycle

    def _build(self, world: World) -> tuple[Runtime, StageApp]:
        from stream import app as apps
        from stream import metrics
        from stream.runtime import Runtime
        from stream.transport import Intake

        settings = self._settings
        runtime = Runtime(world, Intake(settings.queue_batches), self._fail)
        app = apps.build(self._stage, settings, runtime, self._fail)
        if settings.metrics_port is not None:
            metrics.serve(runtime, settings.metrics_port)
        return runtime, app

    async def _watch(self, app: StageApp, starting: asyncio.Task[None]) -> None:
        """Return when there is a reason to end."""
        while not self._stopping.is_set():
            if starting.done() and starting.exception() is not None:
                self._fail(starting.exception())
            if app.crashed:
                self._fail(app.crash_reason)
            if self._parent and os.getppid() != self._parent:
                log.warning("the supervisor is gone")
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
        await _stop(app, max(0.1, deadline - self._loop.time()))
        log.info("drained" if flushed else "not drained in time")
        return self._exit(OK if flushed and self._failure is None else FAILED)

    def _fail(self, error: BaseException | None) -> None:
        """From any thread: this process must end."""
        if self._failure is None:
            self._failure = error or RuntimeError("unknown")
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stopping.set)

    def _die(self) -> int:
        log.error("ends", error=str(self._failure), kind=type(self._failure).__name__)
        return self._exit(FAILED)

    @staticmethod
    def _exit(code: int) -> int:
        """Threads may stand in the broker's calls, so don't wait for them."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _calm_collector() -> None:
    """Records make hundreds of thousands of containers and hardly a cycle: look for them rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


async def _stop(app: StageApp, timeout_seconds: float) -> None:
    """Leave the group, if that is possible in time; Faust may swallow a cancellation."""
    await asyncio.wait({asyncio.create_task(app.stop())}, timeout=timeout_seconds)


def _counts(stage: Stage, settings: Settings, reader: LogReader) -> dict[str, int]:
    """Partition counts by entity.

    Raises:
        ConfigurationError: topics are missing or do not fit together.
    """
    from stream.reading import same_counts

    names = settings.names
    entities = {names.topic(entity): entity for entity in BY_ENTITY}
    counts = reader.counts(entities)
    missing = sorted(entities.keys() - counts.keys())
    if missing:
        raise ConfigurationError(
            f"{settings.bootstrap_servers} has no topics {', '.join(missing)}: "
            "make them by `driftline topics apply`"
        )
    same_counts(counts, (*names.inputs(stage), names.checkpoints(stage)))
    return {entities[topic]: count for topic, count in counts.items()}


def _world(
    stage: Stage,
    settings: Settings,
    factory: Factory,
    counts: dict[str, int],
    reader: LogReader,
    lifecycle: Lifecycle,
) -> World:
    from stream.partitions import World
    from stream.transactions import Transactor

    return World(
        stage=stage,
        settings=settings,
        factory=factory,
        counts=counts,
        reader=reader,
        writer=lambda transactional_id: Transactor(settings, transactional_id),
        fleets=lifecycle,
    )


if __name__ == "__main__":
    try:
        chosen = next(stage for stage in STAGES if sys.argv[1:] == [stage])
        raise SystemExit(main(chosen, settings_module.load()))
    except StopIteration:
        raise SystemExit(f"usage: python -m stream.worker {{{'|'.join(STAGES)}}}") from None
    except ConfigurationError as wrong:
        print(wrong, file=sys.stderr)
        raise SystemExit(USAGE) from wrong
