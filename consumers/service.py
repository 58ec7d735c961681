"""The trainer as a process: commands in, registry changed, lifecycle out, offsets last."""

from __future__ import annotations

import signal
import socket
import threading
import time
from types import FrameType

import structlog
from confluent_kafka import KafkaException

from consumers import topics_admin
from consumers.cluster import Cluster
from consumers.fitting import Fit
from consumers.gate import Gate, teller
from consumers.gate import gate as open_gate
from consumers.group import GroupReader
from consumers.loop import BrokerError, RangeReader
from consumers.places import Span
from consumers.producing import Publisher
from consumers.relay import Relay
from consumers.standing import Standing
from consumers.trainer import Trainer
from models.registry import Registry, RegistryUnavailable
from stream import logs, tracing
from stream.doors import open_doors
from stream.errors import explained
from stream.health import die
from stream.settings import Settings
from stream.topics import TRAINER_GROUP

log = structlog.get_logger("driftline.trainer")
POLL_SECONDS = 0.2
RETRY_SECONDS = 2.0
WAIT_SECONDS = 5.0
MANY = 1000  # pending changes are counted up to this


class Stop:
    """Set by SIGTERM and SIGINT, also while the main thread stands in a call that takes long.

    Should the end itself hang, the process ends all the same, with 0: commands whose offset was not
    committed are delivered again, and are known.
    """

    def __init__(self, within_seconds: float) -> None:
        self.asked = False
        self._within_seconds = within_seconds
        self._ear, mouth = socket.socketpair()
        mouth.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
        # Handlers run when the main thread comes back to Python; this is written at once.
        signal.set_wakeup_fd(mouth.detach(), warn_on_full_buffer=False)
        threading.Thread(target=self._hear, name="stop", daemon=True).start()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True

    def _hear(self) -> None:
        self._ear.recv(1)
        self.asked = True
        time.sleep(self._within_seconds)
        die("the end hangs; what was not done is delivered again", 0)


def run(settings: Settings) -> int:
    """Serve until SIGTERM. A fit that still runs is ended; it begins again with the next trainer.

    Raises:
        RegistryError, BrokerError: going on makes no sense; nothing is lost, start it again.
    """
    logs.configure(settings.log_format, settings.log_level, service="trainer")
    send_spans = tracing.configure("driftline-trainer")
    stop = Stop(settings.drain_seconds)
    standing = Standing(settings)
    standing.start()
    doors = open_doors(
        settings, standing.live, standing.ready, standing.registry(), service="trainer"
    )
    if settings.embedded_broker:
        topics_admin.apply(settings)  # its topics come up when they are asked for
    try:
        with Registry(settings.registry_url) as registry, RangeReader(settings) as ranges:
            _wait(registry, standing, stop)
            if not stop.asked:
                _work(registry, ranges, settings, standing, stop)
            standing.ends("ending")
    finally:
        send_spans()
        if doors is not None:
            doors.close()
    return 0


def _wait(registry: Registry, standing: Standing, stop: Stop) -> None:
    """Until the registry answers: a trainer may be started before its database."""
    while not stop.asked:
        standing.turned()
        try:
            registry.wait(WAIT_SECONDS)
        except RegistryUnavailable as error:
            log.warning("registry away", error=str(error))
        else:
            return


def _work(
    registry: Registry, ranges: RangeReader, settings: Settings, standing: Standing, stop: Stop
) -> None:
    def examples() -> list[Span]:
        return ranges.bounds("examples")

    address = settings.dask_scheduler
    start = Fit if address is None else Cluster(address, settings).start
    trainer = Trainer(registry, settings, examples, start, tell=teller(Publisher(settings)))
    gate = open_gate(settings)
    publishing = Publishing(Relay(registry, settings), registry)
    reader = GroupReader(settings, TRAINER_GROUP, "commands", trainer.lose)
    standing.serves(trainer, publishing)
    log.info("trainer serves", bootstrap=settings.bootstrap_servers, group=TRAINER_GROUP)
    try:
        while not stop.asked:
            standing.turned()
            _turn(reader, gate, trainer, publishing, standing, stop)
    finally:
        standing.ends("draining")
        trainer.stop()
        reader.close()


class Publishing:
    """The relay, called as often as one likes: a broker that is away is asked again, not often.

    Attributes:
        sent: changes published so far.
        pending: changes that wait for the broker, as of the last attempt.
    """

    def __init__(self, relay: Relay, registry: Registry) -> None:
        self.sent = 0
        self.pending = 0
        self._relay = relay
        self._registry = registry
        self._not_before = 0.0
        self._since = 0.0

    @property
    def age_seconds(self) -> float:
        """For how long something has been pending."""
        return time.monotonic() - self._since if self.pending else 0.0

    def pump(self) -> None:
        now = time.monotonic()
        if now < self._not_before:
            return
        try:
            self.sent += self._relay.pump()
            self.pending = 0
        except BrokerError as error:
            log.warning("outbox waits", reason=explained(error))
            self._since = self._since if self.pending else now
            self.pending = len(self._registry.outbox_pending(MANY))
            self._not_before = time.monotonic() + RETRY_SECONDS


def _turn(
    reader: GroupReader,
    gate: Gate,
    trainer: Trainer,
    publishing: Publishing,
    standing: Standing,
    stop: Stop,
) -> None:
    for came in reader.poll(POLL_SECONDS):
        command = gate.command(came)
        standing.refused = gate.refused
        if command is None or trainer.take(command, came.place):
            reader.done(came.place)
        if stop.asked:
            break
    for place in trainer.collect():
        reader.done(place)
    gate.suspects.settle()
    publishing.pump()
    try:
        reader.commit()
    except KafkaException as error:  # tried again at the next turn; at worst they come again
        log.warning("offsets not committed", error=str(error))
