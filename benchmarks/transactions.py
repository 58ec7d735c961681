"""One transaction per partition or one per worker (KIP-447): what each costs client and broker.

    python -m benchmarks.transactions [--quick] [--json] [--partitions 4,16,64]

One process of librdkafka writes the same records to the same partitions at the same rate, with a
checkpoint record and an offset of each partition in the same transaction as its outputs. Either one
producer holds all partitions in one transaction, as the stages do it; or each partition has a
producer of its own, whose transactions are spread over the interval, as release 0.1 did. Nothing is
read or computed: what is measured is the price of commits. Both ways keep to the interval that a
worker of so many partitions has; a way that can't falls behind, which `interval ms` shows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.reporting import parser, report, say, spread
from benchmarks.workers import kafka
from stream.settings import Settings
from tests.broker import Broker
from tests.topics import create, delete_topics, quiet_client

PARTITIONS: Final = (4, 16, 64)
RATE: Final = 2_000  # records a second, over all partitions
VALUE: Final = b"v" * 300
MANIFEST: Final = b"m" * 400
THREADS: Final = 64  # at most so many commits at once, as a worker of 0.1 had threads for them


class Cost(NamedTuple):
    """What it took.

    Attributes:
        client, broker: CPU in microseconds a record.
        interval: mean milliseconds from one commit of a partition to the next.
        commit: mean milliseconds that a commit took.
    """

    client: float
    broker: float
    interval: float
    commit: float


class Writer:
    """One transactional producer and the partitions that are its."""

    def __init__(self, bootstrap: str, prefix: str, name: str, partitions: Sequence[int]) -> None:
        settings = Settings(bootstrap_servers=bootstrap)
        properties = {"transactional.id": f"{prefix}.{name}", "linger.ms": 5, "log_level": 3}
        properties["queue.buffering.max.messages"] = 1_000_000
        self._producer: Any = Producer({**properties, **settings.client()})
        self._partitions = partitions
        self._prefix = prefix
        self._offset = 0
        self._producer.init_transactions(60)

    def commit(self, count: int, metadata: object) -> float:
        """Write so many records to each partition; seconds that it took."""
        started = time.monotonic()
        producer, prefix = self._producer, self._prefix
        producer.begin_transaction()
        self._offset += count
        for partition in self._partitions:
            for _ in range(count):
                producer.produce(f"{prefix}.outputs", VALUE, b"key", partition)
            producer.produce(f"{prefix}.checkpoints", MANIFEST, b"manifest", partition)
        places = [TopicPartition(f"{prefix}.inputs", one, self._offset) for one in self._partitions]
        producer.send_offsets_to_transaction(places, metadata, 60)
        producer.commit_transaction(60)
        return time.monotonic() - started


def measure(broker: Broker, prefix: str, partitions: int, seconds: float, *, each: bool) -> Cost:
    """
    Args:
        each: a producer and a transaction for each partition, else one for all.
    """
    topics = [f"{prefix}.{name}" for name in ("inputs", "outputs", "checkpoints")]
    create(broker.bootstrap, dict.fromkeys(topics, partitions))
    consumer = Consumer(quiet_client(broker.bootstrap, **{"group.id": f"{prefix}.group"}))
    metadata = consumer.consumer_group_metadata()
    numbers = range(partitions)
    held = [[number] for number in numbers] if each else [list(numbers)]
    writers = [Writer(broker.bootstrap, prefix, str(some[0]), some) for some in held]
    interval = Settings().commit_interval_seconds("score", partitions)
    count = max(1, round(RATE * interval / partitions))
    ours, theirs = psutil.Process(), psutil.Process(broker.pid)
    rounds = max(3, round(seconds / interval))
    taken: list[float] = []

    def spread_out(place: int, due: float) -> float:
        time.sleep(max(0.0, due + interval * place / len(writers) - time.monotonic()))
        return writers[place].commit(count, metadata)

    with ThreadPoolExecutor(min(THREADS, len(writers))) as pool:
        list(pool.map(lambda writer: writer.commit(1, metadata), writers))
        started, cpu = time.monotonic(), (_cpu(ours), _cpu(theirs))
        for number in range(rounds):
            due = max(started + number * interval, time.monotonic())
            taken += pool.map(spread_out, range(len(writers)), [due] * len(writers))
        used = _cpu(ours) - cpu[0], _cpu(theirs) - cpu[1]
        elapsed = time.monotonic() - started
    consumer.close()
    delete_topics(broker.bootstrap, prefix)
    records = rounds * count * partitions
    client, broker_us = (1e6 * one / records for one in used)
    return Cost(client, broker_us, 1000 * elapsed / rounds, 1000 * sum(taken) / len(taken))


def _cpu(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def main() -> None:
    one = parser("CPU of client and broker, by one transaction per partition or one per worker.")
    one.add_argument("--partitions", help="numbers of them, by commas", default="4,16,64")
    one.add_argument("--seconds", type=float, help="of each measurement")
    one.add_argument("--rounds", type=int)
    given = one.parse_args()
    numbers = [4] if given.quick else [int(text) for text in given.partitions.split(",")]
    seconds = given.seconds or (3.0 if given.quick else 15.0)
    rounds = given.rounds or (1 if given.quick else 3)
    rows, figures = [], dict[str, object](rate=RATE, rounds=rounds, seconds=seconds)
    with kafka(heap="2g", optimised=not given.quick) as (broker, _):
        for partitions in numbers:
            found: dict[str, list[Cost]] = {"partition": [], "worker": []}
            for number in range(rounds):
                for way, costs in found.items():
                    prefix = f"tx-{partitions}-{number}-{way}"
                    each = way == "partition"
                    costs.append(measure(broker, prefix, partitions, seconds, each=each))
                    say(f"{partitions} partitions, one per {way}: {costs[-1]}")
            for way, costs in found.items():
                row = [str(partitions), f"one per {way}"]
                for field in Cost._fields:
                    values = spread([getattr(cost, field) for cost in costs])
                    row.append(f"{values:.1f}")
                    figures[f"{way}_{partitions}_{field}"] = round(values.median, 2)
                rows.append(row)
    columns = ["partitions", "transactions", "client us", "broker us", "interval ms", "commit ms"]
    title = f"CPU a record at {RATE:,} records/s; median (lowest-highest) of the rounds"
    report(title, columns, rows, figures, as_json=given.json)


if __name__ == "__main__":
    main()
