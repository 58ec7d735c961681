"""Rows about three brokers: replication factor 3, two in-sync replicas at least."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from tests.broker import Broker, free_ports
from tests.faults.rows import EXACT, Row
from tests.faults.world import Outcome, World
from tests.topics import quiet_client

NODES = (1, 2, 3)
HEAP = "400m"
VOTERS = {  # ids of their directories, 16 bytes in base64
    1: "ZHJpZnRsaW5lLXRlc3RzMQ",
    2: "ZHJpZnRsaW5lLXRlc3RzMg",
    3: "ZHJpZnRsaW5lLXRlc3RzMw",
}
PROPERTIES = """
node.id={node}
controller.quorum.bootstrap.servers={controllers}
broker.session.timeout.ms=5000
controlled.shutdown.enable=false
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
"""


class Cluster:
    """Three brokers, each a controller too; a context manager."""

    def __init__(self, directory: Path) -> None:
        ports = {node: (free_ports(1)[0], free_ports(1)[0]) for node in NODES}
        controllers = {node: f"127.0.0.1:{port}" for node, (_, port) in ports.items()}
        voters = ",".join(f"{n}@{controllers[n]}:{VOTERS[n]}" for n in NODES)
        self.nodes = {
            node: Broker(
                directory / f"broker-{node}",
                heap=HEAP,
                ports=ports[node],
                voters=("--initial-controllers", voters),
                properties=PROPERTIES.format(node=node, controllers=",".join(controllers.values())),
            )
            for node in NODES
        }
        self.bootstrap = ",".join(node.bootstrap for node in self.nodes.values())

    def __enter__(self) -> Cluster:
        for node in self.nodes.values():
            node.launch()
        for node in self.nodes.values():
            node.wait()
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            node.kill()

    def led_by(self, node: int) -> int:
        """How many partitions this one leads."""
        return sum(p.leader == node for p in self._partitions())

    def is_whole(self) -> bool:
        """Every partition has all its replicas in sync."""
        return all(len(p.isrs) == len(p.replicas) for p in self._partitions())

    def _partitions(self) -> list[Any]:
        topics = AdminClient(quiet_client(self.bootstrap)).list_topics(timeout=20).topics
        return [p for topic in topics.values() for p in topic.partitions.values()]


@contextmanager
def _cluster(world: World, seconds: float) -> Iterator[Cluster]:
    """The loop under load on three brokers."""
    with Cluster(world.directory / "cluster") as cluster:
        world.set(bootstrap_servers=cluster.bootstrap, replication_factor=3)
        world.begin(20_000, seconds, score=2, monitor=2, evaluate=1)
        yield cluster
        world.stages.end()


def each_broker_killed(world: World) -> Outcome:
    """One after the other, so leader, controller and coordinator are lost, whoever they are."""
    led = []
    with _cluster(world, 120) as cluster:
        for number, (node, broker) in enumerate(cluster.nodes.items()):
            world.at(0.1 + 0.3 * number)
            led.append(cluster.led_by(node))
            broker.kill()
            over = time.monotonic() + 10
            world.until(lambda over=over: time.monotonic() > over)  # type: ignore[misc]
            broker.start()
            world.until(cluster.is_whole)
        return world.finish(len(NODES), f"they led {led} partitions")


def too_few_replicas(world: World) -> Outcome:
    """Two of three stand still: nothing may be acknowledged; then they go on."""
    with _cluster(world, 60) as cluster:
        world.at(0.3)
        for node in (1, 2):
            cluster.nodes[node].pause()
        time.sleep(10)
        for node in (1, 2):
            cluster.nodes[node].resume()
        world.until(cluster.is_whole)
        return world.finish(2)


ROWS = (
    Row(
        id="each-of-three-brokers",
        run=each_broker_killed,
        done="three brokers, replication factor 3, min.insync.replicas 2: each is killed in turn, "
        "so every leader, the controller and every coordinator is lost",
        invariant=EXACT,
        kept_by="acknowledged by all in-sync replicas; a failed commit ends the process",
        seen="as broker-pause",
    ),
    Row(
        id="too-few-replicas",
        run=too_few_replicas,
        done="two of three brokers stand still for 10 s",
        invariant=EXACT,
        kept_by="acknowledged by all in-sync replicas; a failed commit ends the process",
        seen="as broker-pause",
    ),
)
