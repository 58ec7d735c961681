"""How the service that sends alerts on is: ready or why not, alive, and its metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from consumers.probing import Probe
from consumers.sinks.courier import Courier
from stream.metrics import Families, registry_of
from stream.settings import Settings

#: Beyond an attempt, which has its own limit, a turn waits for nothing but the broker.
PATIENCE: Final = 4


class Standing(Collector):
    """Looks at the broker from a thread of its own, and at the couriers when it is asked.

    A sink that is down is not this service's illness: it stays ready, and the metrics tell.

    Attributes:
        doing: why the process as a whole is not ready; empty when it serves.
    """

    def __init__(self, settings: Settings) -> None:
        self.doing = "starting: looking for the broker"
        self.couriers: Mapping[str, Courier] = {}
        self._patience_seconds = settings.stall_seconds * PATIENCE
        self._probe = Probe(settings)

    def start(self) -> None:
        self._probe.start()

    def live(self) -> list[str]:
        """Which sinks' threads stand still."""
        now = time.monotonic()
        return [
            f"sink {name} stands for {now - courier.turned:.0f} s"
            for name, courier in self.couriers.items()
            if now - courier.turned > self._patience_seconds + courier.sender.sink.timeout_seconds
        ]

    def ready(self) -> list[str]:
        """Why not, in sentences."""
        reasons = [self.doing] if self.doing else []
        return reasons + self._probe.away() + self.live()

    def registry(self) -> CollectorRegistry:
        return registry_of(self)

    def collect(self) -> Iterator[Metric]:
        families = Families()
        families.add("driftline_alerts_ready", not self.ready())
        for name, courier in self.couriers.items():
            _courier(families, name, courier)
        yield from families


def _courier(families: Families, name: str, courier: Courier) -> None:
    counts = dict(courier.counts)
    for what, metric in (
        ("delivered", "driftline_alerts_delivered_total"),
        ("retried", "driftline_alerts_retried_total"),
        ("dead-lettered", "driftline_alerts_dead_lettered_total"),
    ):
        families.add(metric, counts.get(what, 0), sink=name)
    for counted, count in counts.items():
        what, _, why = counted.partition(":")
        if why:
            families.add(f"driftline_alerts_{what}_total", count, sink=name, why=why)
    families.add("driftline_alerts_waiting", courier.waiting, sink=name)
    families.add("driftline_alerts_waiting_seconds", courier.waiting_seconds, sink=name)
