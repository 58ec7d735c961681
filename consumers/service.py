"""The trainer as a process: commands in, registry changed, lifecycle out, offsets last."""

from __future__ import annotations

import signal
import time
from types import FrameType

import structlog

from consumers import topics_admin
from consumers.fitting import Fit
from consumers.group import GroupReader
from consumers.loop import BrokerError, RangeReader
from consumers.places import Delivered, Span
from consumers.relay import Relay
from consumers.trainer import Trainer
from models.registry import Registry
from stream import logs
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import Command
from stream.settings import Settings
from stream.topics import TRAINER_GROUP

log = structlog.get_logger("driftline.trainer")
POLL_SECONDS = 0.2
RETRY_SECONDS = 2.0
WAIT_SECONDS = 5.0


class Stop:
    """Set by SIGTERM and SIGINT."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


def run(settings: Settings) -> int:
    """Serve until SIGTERM. A fit that still runs is ended; it begins again with the next trainer.

    Raises:
        RegistryError, BrokerError: going on makes no sense; nothing is lost, start it again.
    """
    logs.configure(settings.log_format, settings.log_level, service="trainer")
    stop = Stop()
    if settings.embedded_broker:
        topics_admin.apply(settings)  # its topics come up when they are asked for
    with Registry(settings.registry_url) as registry, RangeReader(settings) as ranges:

        def examples() -> list[Span]:
            return ranges.bounds("examples")

        registry.wait(WAIT_SECONDS)
        trainer = Trainer(registry, settings, examples, Fit)
        reader = GroupReader(settings, TRAINER_GROUP, "commands", trainer.lose)
        try:
            _serve(reader, trainer, Publishing(Relay(registry, settings)), settings, stop)
        finally:
            trainer.stop()
            reader.close()
    return 0


class Publishing:
    """The relay, called as often as one likes: a broker that is away is asked again, not often."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._not_before = 0.0

    def pump(self) -> None:
        if time.monotonic() < self._not_before:
            return
        try:
            self._relay.pump()
        except BrokerError as error:
            log.warning("outbox waits", reason=str(error))
            self._not_before = time.monotonic() + RETRY_SECONDS


def _serve(
    reader: GroupReader, trainer: Trainer, publishing: Publishing, settings: Settings, stop: Stop
) -> None:
    log.info("trainer serves", bootstrap=settings.bootstrap_servers, group=TRAINER_GROUP)
    while not stop.asked:
        for came in reader.poll(POLL_SECONDS):
            command = decode(came, settings.max_record_bytes)
            if command is None or trainer.take(command, came.place):
                reader.done(came.place)
            if stop.asked:
                break
        for place in trainer.collect():
            reader.done(place)
        publishing.pump()
        reader.commit()


def decode(came: Delivered, max_bytes: int) -> Command | None:
    """The command in a record; None, said aloud, for what is none."""
    try:
        opened = open_record("commands", came.record, max_bytes=max_bytes)
        command = read(opened, Command)
        if opened.type != f"driftline.command.{command.kind}.v1":
            raise Refused("bad-data", f"a {command.kind} in an event of type {opened.type}")
    except Refused as refused:
        log.error(
            "command refused",
            reason=str(refused),
            partition=came.place.partition,
            offset=came.place.offset,
        )
        return None
    return command
