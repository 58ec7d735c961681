"""The console's metrics, and its doors beside its pages, for whoever watches processes."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from consumers.console.feed import Feed
from consumers.console.reader import Reader
from stream.doors import Doors, open_doors
from stream.metrics import Families, registry_of
from stream.settings import Settings


class Told(Collector):
    """`CONSOLE_METRICS` of one process."""

    def __init__(self, reader: Reader, feed: Feed) -> None:
        self._reader = reader
        self._feed = feed

    def ready(self) -> list[str]:
        """Why the console does not follow the topics."""
        standing = self._reader.standing
        return [] if standing.state == "following" else [standing.problem or standing.state]

    def collect(self) -> Iterator[Metric]:
        families = Families()
        families.add("driftline_console_ready", not self.ready())
        families.add("driftline_console_read_total", self._reader.read)
        families.add("driftline_console_refused_total", self._reader.refused)
        families.add("driftline_console_streams", self._feed.open)
        yield from families


def open_beside(settings: Settings, reader: Reader, feed: Feed) -> Doors | None:
    """Where `metrics_port` asks for them."""
    told = Told(reader, feed)
    return open_doors(settings, list, told.ready, registry_of(told), service="console")
