"""One process that commits numbers: `python -m tests.faults.committing <bootstrap>`."""

from __future__ import annotations

import sys

from confluent_kafka import Consumer

from stream import transactions
from stream.core.processor import Output
from stream.settings import Settings
from tests.faults.transient import (
    CHECKPOINT_TOPIC,
    INPUT_TOPIC,
    OUTPUT_TOPIC,
    OUTPUTS,
    PARTITIONS,
    TRANSACTIONS,
)


def commit_all(bootstrap: str) -> None:
    group = Consumer({"bootstrap.servers": bootstrap, "group.id": "score"})
    writer = transactions.Transactor(Settings(bootstrap_servers=bootstrap), "score.0")
    writer.init()
    for number in range(TRANSACTIONS):
        numbers = range(number * OUTPUTS, (number + 1) * OUTPUTS)
        delta = transactions.Delta(
            [Output("numbers", b"k", b"%d" % n, n % PARTITIONS) for n in numbers],
            (CHECKPOINT_TOPIC, 0, {"next": b"%d" % numbers.stop}),
            {(INPUT_TOPIC, 0): numbers.stop},
        )
        writer.commit([delta], {"numbers": OUTPUT_TOPIC}, group.consumer_group_metadata())
    group.close()


if __name__ == "__main__":
    commit_all(sys.argv[1])
