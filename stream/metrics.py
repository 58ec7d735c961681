"""Prometheus metrics, read from the runtime when they are scraped: nothing to pay per record."""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.runtime import Runtime

log = structlog.get_logger(__name__)
LOOPBACK = "127.0.0.1"


class StageCollector(Collector):
    """
    `driftline_partition_<name>_total{stage,partition}`: records, outputs, commits, commit_us.
    `driftline_<name>_total{stage,partition[,label]}`: the processor's own counters.
    `driftline_runtime_<name>_total{stage}`: fences, late_revocations.
    `driftline_lag_records{stage,partition,entity}`: records not applied yet.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def collect(self) -> Iterator[Metric]:
        runtime, stage = self._runtime, self._runtime.world.stage
        lag = GaugeMetricFamily(
            "driftline_lag_records", "Not applied yet.", labels=["stage", "partition", "entity"]
        )
        families: dict[str, CounterMetricFamily] = {}
        for name, count in list(runtime.counts.items()):
            _add(families, f"driftline_runtime_{name}", {"stage": stage}, count)
        for keeper in list(runtime.keepers.values()):
            partition = keeper.partition
            if partition is None:
                continue
            where = {"stage": stage, "partition": str(keeper.number)}
            for entity, ahead in list(partition.ahead.items()):
                lag.add_metric([stage, where["partition"], entity], ahead)
            for name, count in list(partition.counts.items()):
                _add(families, f"driftline_partition_{name}", where, count)
            for name, count in list(partition.processor.counters.items()):
                plain, _, label = name.partition(":")
                _add(families, f"driftline_{plain}", {**where, "label": label}, count)
        yield lag
        yield from families.values()


def _add(
    families: dict[str, CounterMetricFamily], name: str, labels: dict[str, str], count: int
) -> None:
    family = families.get(name)
    if family is None:
        plain = name.replace("-", "_").replace(".", "_")
        family = families[name] = CounterMetricFamily(plain, plain, labels=list(labels))
    family.add_metric(list(labels.values()), count)


def serve(runtime: Runtime, port: int) -> None:
    """Serve on loopback, from a daemon thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StageCollector(runtime))
    start_http_server(port, addr=LOOPBACK, registry=registry)
    log.info("metrics", url=f"http://{LOOPBACK}:{port}/metrics")
