"""Rows about what comes in: as much poison as good events, and more than can be taken at once."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator

import psutil
from confluent_kafka import Producer

from stream.settings import Settings
from stream.topics import INPUTS, STAGES
from tests.faults.copying import until_read
from tests.faults.rows import EXACT, Row
from tests.faults.world import Outcome, World, count_copies
from tests.kafka import oracle
from tests.kafka.copies import Workers, send
from tests.kafka.logs import Logs
from tests.kafka.naive import Naive
from tests.kafka.traffic import POISONED
from tests.topics import quiet_client

POISON = (
    None,
    b"",
    b"no json at all",
    b"\xff\xfe\x00",
    b"[" * 5_000,
    b'{"prediction_id": "p", "model": "loans"}',
    b'{"prediction_id": "p", "model": "loans", "label": 1e999, "features": {"age": 1e999}}',
    b'{"prediction_id": "\\ud800", "model": "loans", "label": "paid", "features": {}}',
    b'{"prediction_id": "", "model": "loans", "label": "paid", "output": 0.5, "features": {}}',
    b'{"specversion": "9", "type": "x", "id": "", "source": ""}',
)
HUGE = b"x" * 300_000  # more than `max_event_bytes`
POISONED_ENTITIES = ("requests", *INPUTS["monitor"])
BACKLOG, RECORD_BYTES = 1_000_000, 500
GROWTH_MIB = 300  # the most that a worker may take for a backlog of any length


class Poisoner(threading.Thread):
    """Writes poison to every topic that producers write, until it is told to stop."""

    def __init__(self, settings: Settings, per_second: int) -> None:
        super().__init__(daemon=True)
        self.sent: Counter[tuple[str, bytes | None]] = Counter()
        self._settings = settings
        self._pause = 1 / per_second
        self._over = threading.Event()

    def run(self) -> None:
        properties = {"enable.idempotence": True, "partitioner": "murmur2_random"}
        writer = Producer(quiet_client(self._settings.bootstrap_servers, **properties))
        for entity, value in self._endless():
            key = b"%d" % self.sent.total() if self.sent.total() % 3 else None
            writer.produce(
                self._settings.names.topic(entity), value, key, headers=[(POISONED, b"")]
            )
            self.sent[entity, value] += 1
            writer.poll(0)
            if self._over.wait(self._pause):
                break
        writer.flush(60)

    def _endless(self) -> Iterator[tuple[str, bytes | None]]:
        for number in itertools.count():
            for value in (*POISON, *([HUGE] if number % 20 == 0 else [])):
                for entity in POISONED_ENTITIES:
                    yield entity, value

    def stop(self) -> None:
        self._over.set()
        self.join()


def poison(world: World) -> Outcome:
    """Half of what comes in can't be read; one process of each stage dies before a commit."""
    stages = world.prepare(score=2, monitor=2, evaluate=1)
    for stage in STAGES:
        stages.armed[stage, 0].append("before_commit:8")
    stages.start()
    world.all_at_work()
    poisoner = Poisoner(world.settings, per_second=600)
    poisoner.start()
    world.flow(12_000, 40)
    world.at(1.0)
    world.until(lambda: stages.kills.total() >= len(STAGES))
    poisoner.stop()

    def check(logs: Logs, requested: list[str], *, lateless: bool) -> Naive:
        letters = Counter(
            (entity, record.value)
            for entity in POISONED_ENTITIES
            for record in logs.of(f"{entity}.dlq")
        )
        assert letters == poisoner.sent, "dead letters are not the poison that was sent"
        oracle.check_progress(logs)
        oracle.check_replay(logs)
        naive = oracle.check_naive(logs, lateless=lateless)
        oracle.check_evaluate(logs)
        oracle.check_unique(logs)
        oracle.check_offsets(logs)
        return naive

    note = f"{poisoner.sent.total():,} poisoned records beside them, each one dead letter"
    return world.finish(len(STAGES), note, check)


def backlog(world: World) -> Outcome:
    """Two workers start on a million records: they take them in pieces, and keep their places."""
    workers = world.copying()
    send(world.settings, 0, BACKLOG, more=b":" + b"x" * RECORD_BYTES)
    watched = [psutil.Process(workers.start().pid) for _ in range(2)]
    highest = _highest_mib(workers, watched)
    until_read(workers)
    rebalances = workers.count('"assigned"')
    assert rebalances <= 6, f"the group was decided {rebalances} times"
    assert highest < GROWTH_MIB, f"a worker took {highest:.0f} MiB"
    return count_copies(workers, BACKLOG, 1, f"a worker took {highest:.0f} MiB at most")


def _highest_mib(workers: Workers, watched: list[psutil.Process]) -> float:
    """Of memory, until nothing was left to read."""
    highest = 0.0
    reading = threading.Thread(target=until_read, args=(workers,), daemon=True)
    reading.start()
    while reading.is_alive():
        highest = max(highest, *(one.memory_info().rss / 2**20 for one in watched))
        time.sleep(0.2)
    return highest


ROWS = (
    Row(
        id="poison",
        run=poison,
        done="as many records that nobody can read as good ones (no JSON, no UTF-8, deep, huge, "
        "tombstones, broken ids), on every topic that producers write; one process of each stage "
        "dies before a commit",
        invariant=f"{EXACT}; each poisoned record is one dead letter with its very bytes",
        kept_by="decoding refuses and never raises; dead letters are in the transaction",
        sabotage="plain",
    ),
    Row(
        id="backlog",
        run=backlog,
        done=f"two workers start on a backlog of {BACKLOG:,} records of {RECORD_BYTES} bytes",
        invariant=f"{EXACT}; memory stays under {GROWTH_MIB} MiB, the group is not decided again "
        "and again",
        kept_by="bounded queues: a partition whose queue is full is not fetched",
        sabotage="boundless",
    ),
)
