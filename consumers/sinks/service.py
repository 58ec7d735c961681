"""The service that sends alerts on, as a process: a thread and a consumer group for each sink.

So a sink that hangs holds up nothing but itself, and where each of them is Kafka knows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from confluent_kafka import KafkaException

from consumers.group import GroupReader, begin
from consumers.producing import Publisher
from consumers.service import Stop
from consumers.sinks.configured import Sinks, load
from consumers.sinks.courier import Courier
from consumers.sinks.senders import Sender, build
from consumers.sinks.standing import Standing
from stream import logs, tracing
from stream.core.processor import Output
from stream.doors import open_doors
from stream.errors import explained
from stream.health import FAILED, die
from stream.settings import Settings
from stream.supervising import orphaned
from stream.topics import SINK_GROUPS

log = structlog.get_logger("driftline.alerts")

RETRY_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.2
#: What librdkafka holds beside the alerts that wait; the topic holds the rest.
PROPERTIES: Final[dict[str, Any]] = {"queued.max.messages.kbytes": 1024}


def run(settings: Settings) -> int:
    """Serve until SIGTERM; alerts that are under way then are delivered by the next start.

    Raises:
        ConfigurationError: the file of sinks, a secret or the topic is not there.
    """
    logs.configure(settings.log_format, settings.log_level, service="alerts")
    send_spans = tracing.configure("driftline-alerts")
    configured = load(settings.alert_sinks)
    senders = [build(name, sink) for name, sink in configured.sinks.items()]
    stop = Stop(settings.drain_seconds)
    standing = Standing(settings)
    standing.start()
    doors = open_doors(
        settings, standing.live, standing.ready, standing.registry(), service="alerts"
    )
    try:
        return Service(settings, configured, senders, stop, standing).serve()
    finally:
        send_spans()
        if doors is not None:
            doors.close()


class Service:
    """The threads of one process. One that fails ends them all: it is started again."""

    def __init__(
        self,
        settings: Settings,
        configured: Sinks,
        senders: list[Sender],
        stop: Stop,
        standing: Standing,
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._standing = standing
        self._failed: list[BaseException] = []
        lay_down = _layer(Publisher(settings))
        self._couriers: Mapping[str, Courier] = {
            sender.name: Courier(
                sender,
                lay_down,
                self._ending,
                max_bytes=settings.max_record_bytes,
                console_url=configured.console_url,
            )
            for sender in senders
        }

    def serve(self) -> int:
        self._begin()
        threads = [
            threading.Thread(target=self._carry, args=(courier,), name=name, daemon=True)
            for name, courier in self._couriers.items()
        ]
        for courier in self._couriers.values():
            courier.turned = time.monotonic()
        self._standing.couriers = self._couriers
        self._standing.doing = ""
        for thread in threads:
            thread.start()
        log.info("alerts are sent on", sinks=list(self._couriers))
        while not self._ending():
            time.sleep(LOOK_SECONDS)
            standing_still = self._standing.live()
            if standing_still:
                die("; ".join(standing_still))
        self._standing.doing = "draining"
        for thread in threads:
            thread.join()
        for error in self._failed:
            log.error("ends", error=explained(error))
        return FAILED if self._failed else 0

    def _ending(self) -> bool:
        return self._stop.asked or bool(self._failed) or orphaned()

    def _begin(self) -> None:
        """Give each sink's group its place on the topic; waits for the broker, however long."""
        open_ = list(self._couriers.values())
        while open_ and not self._ending():
            sender = open_[0].sender
            try:
                begin(self._settings, SINK_GROUPS + sender.name, "alerts", sender.sink.begin)
            except (KafkaException, TimeoutError) as error:
                log.warning("cannot begin", sink=sender.name, error=explained(error))
                time.sleep(RETRY_SECONDS)
            else:
                del open_[0]

    def _carry(self, courier: Courier) -> None:
        try:
            role = SINK_GROUPS + courier.sender.name
            reader = GroupReader(self._settings, role, "alerts", courier.lose, **PROPERTIES)
            try:
                while not self._ending():
                    courier.turn(reader)
            finally:
                reader.close()
        except Exception as error:
            log.exception("sink failed", sink=courier.sender.name)
            self._failed.append(error)


def _layer(publisher: Publisher) -> Callable[[Output], None]:
    """Writes one dead letter at a time, whichever thread it comes from."""
    lock = threading.Lock()

    def lay_down(output: Output) -> None:
        with lock:
            publisher.send(output.entity, output.key, output.value, headers=output.headers)
            publisher.flush()

    return lay_down
