"""A row about brokers that are well but busy: errors that pass, on every request a commit makes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from typing import Final

from confluent_kafka import KafkaError

from tests.faults.mock import BusyCluster
from tests.faults.rows import Row
from tests.faults.world import Outcome, World
from tests.kafka.loop import HERE
from tests.topics import read_all

TRANSACTIONS, OUTPUTS, PARTITIONS = 100, 20, 4
OUTPUT_TOPIC, CHECKPOINT_TOPIC, INPUT_TOPIC = "outputs", "checkpoints", "inputs"
LOADING = (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.NOT_COORDINATOR)
#: By request, as numbered in Kafka's protocol: errors that a healthy cluster gives now and then.
ERRORS: Final = {
    0: (  # Produce
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.LEADER_NOT_AVAILABLE,
    ),
    22: LOADING,  # InitProducerId
    24: (*LOADING, KafkaError.CONCURRENT_TRANSACTIONS),  # AddPartitionsToTxn
    25: (*LOADING, KafkaError.CONCURRENT_TRANSACTIONS),  # AddOffsetsToTxn
    26: (*LOADING, KafkaError.CONCURRENT_TRANSACTIONS),  # EndTxn
    28: (*LOADING, KafkaError.REQUEST_TIMED_OUT),  # TxnOffsetCommit
}
PAUSES_MS = (0, 0, 0, 40)
SHARE = 0.1  # of the requests, that are answered by an error


def busy_brokers(world: World) -> Outcome:
    """One process commits on and on; what it asks is answered by errors that pass, and slowly."""
    dice = random.Random(world.seed)
    with BusyCluster() as cluster:
        for topic in (OUTPUT_TOPIC, CHECKPOINT_TOPIC, INPUT_TOPIC):
            cluster.create(topic, PARTITIONS)
        pushed = 0
        for request, errors in ERRORS.items():
            answers = [
                dice.choice(errors) if dice.random() < SHARE else 0 for _ in range(TRANSACTIONS)
            ]
            cluster.answer(request, answers)
            pushed += sum(map(bool, answers))
        command = [sys.executable, *world.program, "tests.faults.committing", cluster.bootstrap]
        child = subprocess.Popen(command, env={**os.environ, **HERE})
        world.cleanup.callback(child.kill)
        while child.poll() is None:
            cluster.slow_down(dice.choice(PAUSES_MS))
            time.sleep(0.2)
        assert child.returncode == 0, f"the process ended with {child.returncode}"
        return _judge(cluster.bootstrap, pushed)


def _judge(bootstrap: str, pushed: int) -> Outcome:
    """Each number once, and in the order in which it was written."""
    found: dict[int, list[int]] = defaultdict(list)
    for record in read_all(bootstrap, OUTPUT_TOPIC):
        found[record.partition].append(int(record.value or b""))
    numbers = [number for listed in found.values() for number in listed]
    total = TRANSACTIONS * OUTPUTS
    ordered = all(listed == sorted(listed) for listed in found.values())
    return Outcome(
        faults=pushed,
        events=total,
        lost=total - len(set(numbers)),
        doubled=len(numbers) - len(set(numbers)),
        fold="equal" if ordered else "not in the order in which they were written",
    )


ROWS = (
    Row(
        id="busy-brokers",
        run=busy_brokers,
        done="three brokers (librdkafka's own) answer every kind of request of a commit with "
        "errors that pass, and slowly",
        invariant="every output once, in order",
        kept_by="the idempotent producer, and calls that are repeated while the error passes",
        sabotage="unordered",
    ),
)
