"""Rows about checkpoints and committed offsets that are lost, damaged, moved or held up."""

from __future__ import annotations

import signal
import time
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.faults.copying import ending, goes_on, halts, stopped_after, until_read, writer_of
from tests.faults.rows import Row
from tests.faults.world import Outcome, World, count_copies
from tests.kafka.copies import PARTITIONS, Workers, exact, outputs, send, until
from tests.topics import Sent, produce, quiet_client, read_all

PART = b"part/state"
HELD_SECONDS = 5


def held_checkpoint(world: World) -> Outcome:
    """Somebody's open transaction lies in the checkpoint topic before the newest checkpoints."""
    workers = world.copying()
    first = workers.start()
    send(world.settings, 0, 400)
    exact(workers, 400)
    writer = writer_of(world, "stranger", held_ms=300_000)
    writer.begin_transaction()
    for partition in range(PARTITIONS):
        writer.produce(world.settings.names.checkpoints("score"), b"", b"odd", partition)
    writer.flush()
    send(world.settings, 400, 400)
    until(lambda: _applied(workers) >= 800, workers)
    assigned = workers.count('"assigned"')
    workers.end(first, signal.SIGKILL)
    second = workers.start()
    until(lambda: second.poll() is not None or workers.count('"assigned"') > assigned, workers)
    time.sleep(HELD_SECONDS)
    assert second.poll() is None, f"it ended instead of waiting: {ending(workers)}"
    assert workers.count('"restored"') == PARTITIONS, "it restored without waiting"
    writer.abort_transaction()
    until(lambda: workers.count('"restored"') >= 2 * PARTITIONS, workers)
    send(world.settings, 800, 400)
    until_read(workers)
    return count_copies(workers, 1200, 1, f"restored once it was decided, {HELD_SECONDS} s later")


def _applied(workers: Workers) -> int:
    """Numbers that were copied, as far as any reader can see them."""
    return len(outputs(workers.settings))


def missing_part(world: World) -> Outcome:
    return _spoil(world, None, "part 'state' is missing")


def corrupt_part(world: World) -> Outcome:
    return _spoil(world, b"[7, 7]", "part 'state' is not the one the manifest names")


def _spoil(world: World, bytes_: bytes | None, words: str) -> Outcome:
    """A part of one partition is replaced; the worker halts, and goes on when it is put back."""
    workers = stopped_after(world, 400)
    settings = world.settings
    topic = settings.names.checkpoints("score")
    good = _newest(world, 1)
    produce(settings.bootstrap_servers, topic, [Sent(PART, bytes_, 1)])
    halts(workers, words)
    produce(settings.bootstrap_servers, topic, [Sent(PART, good, 1)])
    return goes_on(world, workers, 400)


def _newest(world: World, partition: int) -> bytes | None:
    topic = world.settings.names.checkpoints("score")
    records = read_all(world.settings.bootstrap_servers, topic)
    return [r.value for r in records if (r.partition, r.key) == (partition, PART)][-1]


def expired_offsets(world: World) -> Outcome:
    """The group and its offsets are gone, as after a long holiday: the checkpoint is enough."""
    workers = stopped_after(world, 400)
    admin = AdminClient(quiet_client(world.settings.bootstrap_servers))
    for future in admin.delete_consumer_groups([world.settings.names.group("score")]).values():
        future.result(30)
    return goes_on(world, workers, 400)


def moved_offsets(world: World) -> Outcome:
    """Somebody has reset the group's offsets by hand: halt, for both can't be right."""
    workers = stopped_after(world, 400)
    _commit(world, 10)
    halts(workers, "the group's offset is 10, the checkpoint's is")
    right = max(r.offset for r in _requests(world) if r.partition == 1) + 1
    _commit(world, right)
    return goes_on(world, workers, 400)


def _commit(world: World, offset: int) -> None:
    properties = {"group.id": world.settings.names.group("score"), "enable.auto.commit": False}
    client = Consumer(quiet_client(world.settings.bootstrap_servers, **properties))
    place = TopicPartition(world.settings.names.topic("requests"), 1, offset)
    client.commit(offsets=[place], asynchronous=False)
    client.close()


def _requests(world: World) -> Any:
    return read_all(world.settings.bootstrap_servers, world.settings.names.topic("requests"))


ROWS = (
    Row(
        id="held-checkpoint",
        run=held_checkpoint,
        done="somebody's open transaction lies in the checkpoint topic before the newest "
        "checkpoints, and the worker is killed",
        invariant="the restore waits until the transaction is decided",
        kept_by="a restore reads up to the end that includes open transactions",
        sabotage="impatient",
    ),
    Row(
        id="missing-part",
        run=missing_part,
        done="a part of a checkpoint is deleted, and put back",
        invariant="the worker halts and names the part; afterwards it goes on exactly",
        kept_by="the manifest names every part with its digest",
        sabotage="forgiving",
        long=False,
    ),
    Row(
        id="corrupt-part",
        run=corrupt_part,
        done="a part of a checkpoint is overwritten, and put back",
        invariant="the worker halts and names the part; afterwards it goes on exactly",
        kept_by="the manifest names every part with its digest",
        sabotage="forgiving",
    ),
    Row(
        id="expired-offsets",
        run=expired_offsets,
        done="the group's committed offsets are deleted while nobody runs",
        invariant="the worker goes on where its checkpoint says",
        kept_by="the checkpoint holds the next offsets itself",
        sabotage="trusting",
        long=False,
    ),
    Row(
        id="moved-offsets",
        run=moved_offsets,
        done="the group's offsets are set back by hand while nobody runs",
        invariant="the worker halts and names both; put right, it goes on exactly",
        kept_by="offsets and checkpoint are compared at every restore",
        sabotage="trusting",
    ),
)
