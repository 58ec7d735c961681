"""Rows about what others do to the topics: transactions, retention, partitions, deletion."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from tests.faults.copying import halts, stopped_after, until_read, writer_of
from tests.faults.rows import Row
from tests.faults.world import Outcome, World, count_copies
from tests.kafka.copies import PARTITIONS, exact, outputs, send, until
from tests.topics import make_topics, quiet_client

NEVER = 1_000_000  # numbers from here on must not be seen
LIVENESS_SECONDS = 40  # the watchdog's thirty, and a look


def upstream_transactions(world: World) -> Outcome:
    """Committed, aborted and hanging transactions of a producer, among plain records."""
    workers = world.copying()
    workers.start()
    writer = writer_of(world, "upstream")
    total = 0
    for number in range(40):
        _write(world, writer, range(total, total + 20))
        writer.commit_transaction()
        _write(world, writer, range(NEVER + 10 * number, NEVER + 10 * number + 10))
        writer.abort_transaction()
        send(world.settings, total + 20, 20)
        total += 40
    begun = time.monotonic()
    _write(world, writer, range(2 * NEVER, 2 * NEVER + PARTITIONS))  # and never says more
    send(world.settings, total, 400)
    total += 400
    until_read(workers)
    held = time.monotonic() - begun
    return count_copies(workers, total, 41, f"held up for {held:.0f} s by the hanging one")


def _write(world: World, writer: Any, numbers: range) -> None:
    writer.begin_transaction()
    for number in numbers:
        where = number % PARTITIONS
        writer.produce(world.settings.names.topic("requests"), b"%d" % number, b"k", where)
    writer.flush()


def retention_overtakes(world: World) -> Outcome:
    """What a stopped worker had still to read is deleted: halt and say how much is gone."""
    workers = stopped_after(world, 400)
    send(world.settings, 400, 400)
    admin = AdminClient(quiet_client(world.settings.bootstrap_servers))
    place = TopicPartition(world.settings.names.topic("requests"), 1, 150)
    for future in admin.delete_records([place]).values():
        future.result(30)
    halts(workers, "the log begins at 150: 50 offsets are gone")
    copies = Counter(number for number, _, _ in outputs(world.settings))
    jumped = [number for number in copies if number >= 400 and number % PARTITIONS == 1]
    return Outcome(
        faults=1,
        events=800,
        lost=sum(copies[number] == 0 for number in range(400)),
        doubled=sum(count - 1 for count in copies.values()) + len(jumped),
        note="halted, and said that 50 offsets are gone; the partitions beside it lost nothing",
    )


def partitions_added(world: World) -> Outcome:
    """A topic has more partitions than its checkpoints know: a restart refuses, with code 2."""
    workers = stopped_after(world, 400)
    admin = AdminClient(quiet_client(world.settings.bootstrap_servers))
    topic = world.settings.names.topic("requests")
    for future in admin.create_partitions([NewPartitions(topic, PARTITIONS + 2)]).values():
        future.result(30)
    until(lambda: len(admin.list_topics(topic).topics[topic].partitions) > PARTITIONS, workers)
    halts(workers, "must have the same number of partitions", code=2)
    return count_copies(workers, 400, 1, "refused to start")


def topic_recreated(world: World) -> Outcome:
    """Deleted and made anew while nobody runs, and longer by now than the checkpoint."""
    workers = stopped_after(world, 400)
    _recreate(world)
    send(world.settings, 0, 800)
    halts(workers, "was deleted and made anew")
    return count_copies(workers, 400, 1, "halted, and said what to do")


def topic_recreated_under_way(world: World) -> Outcome:
    """The same while a worker runs: it must not go on as if nothing had happened."""
    workers = world.copying()
    worker = workers.start()
    send(world.settings, 0, 400)
    exact(workers, 400)
    _recreate(world)
    begun = time.monotonic()
    until(lambda: worker.poll() is not None, workers, LIVENESS_SECONDS)
    took = time.monotonic() - begun
    assert worker.returncode == 1
    send(world.settings, 0, 800)
    halts(workers, "was deleted and made anew")
    return count_copies(workers, 400, 1, f"halted after {took:.0f} s")


def _recreate(world: World) -> None:
    topic = world.settings.names.topic("requests")
    admin = AdminClient(quiet_client(world.settings.bootstrap_servers))
    for future in admin.delete_topics([topic]).values():
        future.result(30)
    deadline = time.monotonic() + 30
    while topic in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline, "the topic does not go"
        time.sleep(0.1)
    make_topics(world.settings)


ROWS = (
    Row(
        id="upstream-transactions",
        run=upstream_transactions,
        done="a producer's committed and aborted transactions among plain records, and one that "
        "it leaves open",
        invariant="aborted records are not counted; the open one holds its partitions up until "
        "the broker aborts it, and nothing is lost",
        kept_by="stages read committed",
        sabotage="uncommitted",
        long=False,
    ),
    Row(
        id="retention",
        run=retention_overtakes,
        done="records that a stopped worker has not read are deleted (`delete_records`)",
        invariant="the worker halts and says how many offsets are gone; no silent reset",
        kept_by="the log's beginning is compared with the checkpoint's next offset",
        sabotage="jumping",
    ),
    Row(
        id="topic-recreated",
        run=topic_recreated,
        done="a topic is deleted and made anew while nobody runs, and has more records than before",
        invariant="the worker halts and says what to do; it never reads on at the old offset",
        kept_by="the checkpoint holds the topic's id",
        sabotage="unidentified",
    ),
    Row(
        id="topic-recreated-live",
        run=topic_recreated_under_way,
        done="a topic is deleted and made anew under a running worker",
        invariant="the worker halts within 40 s, and at every start",
        kept_by="the topic's id is looked at beside the stage",
        sabotage="unidentified",
    ),
    Row(
        id="partitions-added",
        run=partitions_added,
        done="a topic gets two more partitions while nobody runs",
        invariant="the worker refuses to start, with exit code 2 and what to do",
        kept_by="partition counts are compared at start, and are part of the manifest",
        sabotage="uncounted",
    ),
)
