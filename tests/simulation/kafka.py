"""The clients that the real code talks to: a librdkafka producer and `stream.reading.LogReader`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal

from confluent_kafka import KafkaError, KafkaException

from stream.checkpoints import MANIFEST_KEY, PART_PREFIX
from stream.core.partitioning import partition_of
from stream.core.processor import Headers
from stream.transactions import Membership
from tests.simulation.log import ABORTED, COMMITTED, Log, Place, Refused, Transaction
from tests.simulation.operations import failpoint, sleep

Trouble = Literal["", "again", "failed", "answer lost"]
Lie = Literal["", "part missing", "part corrupt", "retention", "recreated", "offset"]
LIES: Final[tuple[Lie, ...]] = ("part missing", "part corrupt", "retention", "recreated", "offset")


class Producer:
    """What `stream.transactions.Transactor` needs of `confluent_kafka.Producer`.

    Args:
        counts: partitions by topic.
        trouble: what is to go wrong with a call.
        on_commit: told when a transaction is decided, before the caller is.

    Attributes:
        source: which partition's records are being produced.
    """

    def __init__(
        self,
        log: Log,
        owner: str,
        counts: Mapping[str, int],
        trouble: Callable[[], Trouble],
        on_commit: Callable[[], None],
    ) -> None:
        self._log = log
        self.source = ""
        self._owner = owner
        self._counts = counts
        self._trouble = trouble
        self._on_commit = on_commit
        self._epoch = -1
        self._transaction: Transaction | None = None

    def init_transactions(self, _: float) -> None:
        self._meet(self._trouble())
        self._epoch = self._log.init(self._owner)

    def begin_transaction(self) -> None:
        try:
            self._transaction = self._log.begin(self._owner, self._epoch)
        except Refused as error:
            raise _error(KafkaError._FENCED) from error

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        headers: list[tuple[str, bytes | None]] | None = None,
        timestamp: int | None = None,
    ) -> None:
        del timestamp  # the broker stamps
        if partition < 0:
            partition = by_key(key, self._counts[topic])
        all_headers: Headers = tuple(headers or ())
        inside = self._mine() if self._log.atomic else None
        self._log.append((topic, partition), key, value, all_headers, inside, self.source)

    def send_offsets_to_transaction(
        self, positions: list[Any], group: tuple[str, Membership], _: float
    ) -> None:
        self._meet(self._trouble())
        transaction = self._mine()
        if not self._log.is_current(*group):
            raise _error(KafkaError.ILLEGAL_GENERATION)
        transaction.group = group[0]
        transaction.offsets = {(tp.topic, tp.partition): tp.offset for tp in positions}

    def commit_transaction(self, _: float) -> None:
        trouble = self._trouble()
        self._meet(trouble)
        transaction = self._mine()
        self._on_commit()
        self._log.decide(transaction, COMMITTED)
        if trouble == "answer lost":
            raise _error(KafkaError._TIMED_OUT)

    def abort_transaction(self, _: float) -> None:
        self._meet(self._trouble())
        self._log.decide(self._mine(), ABORTED)

    def poll(self, _: float) -> int:
        return 0

    def _mine(self) -> Transaction:
        """The open transaction, if this producer still may write to it."""
        transaction = self._transaction
        try:
            self._log.check(self._owner, self._epoch)
        except Refused as error:
            raise _error(KafkaError.INVALID_PRODUCER_EPOCH) from error
        if transaction is None or transaction.decided:
            raise _error(KafkaError.INVALID_TXN_STATE)
        return transaction

    def _meet(self, trouble: Trouble) -> None:
        if trouble == "again":
            raise _error(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, retriable=True)
        if trouble == "failed":
            raise _error(KafkaError._TIMED_OUT)


@lru_cache(maxsize=4096)
def by_key(key: bytes | None, count: int) -> int:
    return partition_of(key or b"", count, "murmur2")


def _error(code: int, *, retriable: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, "simulated", retriable=retriable))


class Fencer:
    """What `stream.transactions.Fencer` does."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def fence(self, transactional_id: str) -> None:
        self._log.init(transactional_id)

    bury = fence


class Reader:
    """What `stream.reading.LogReader` offers to one partition, and lies it may be told to tell.

    Attributes:
        lied: it told one that must halt the restore.
    """

    def __init__(self, log: Log, group: str, number: int, rng: random.Random) -> None:
        self.lie: Lie = ""
        self.lied = False
        self._log = log
        self._group = group
        self._number = number
        self._rng = rng
        self._checkpoint: dict[bytes, bytes] | None = None

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        failpoint("bounds")
        end = self._log.partitions[topic, partition].end
        if self.lie in ("retention", "recreated") and self._resumes_at_least(1):
            self.lied = True
            return (end + 1, end + 1) if self.lie == "retention" else (0, 0)
        return 0, end

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        failpoint("ends")
        return {place: self._log.partitions[place].end for place in places}

    def committed(self, places: list[Place]) -> dict[Place, int]:
        failpoint("committed")
        while self._log.is_unstable(self._group, places):
            sleep(0)
        known = self._log.offsets[self._group]
        found = {place: known[place] for place in places if place in known}
        if self.lie == "offset" and found:
            self.lied = True
            place = self._rng.choice(list(found))
            found[place] += self._rng.choice((-1, 1))
        return found

    def members(self) -> set[str]:
        return self._log.clients[self._group]

    def newest(self, topic: str, partition: int, key: bytes) -> bytes | None:
        records = reversed(self._log.partitions[topic, partition].records)
        return next((one.value for one in records if one is not None and one.key == key), None)

    def latest(self, topic: str, partition: int, end: int) -> dict[bytes, bytes]:
        failpoint("latest")
        while self._log.holds_up((topic, partition)):
            sleep(0)
        latest = latest_of(self._log, (topic, partition), end)
        self._checkpoint = latest
        if self.lie in ("part missing", "part corrupt"):
            latest = self._damaged(latest)
        return latest

    def _damaged(self, latest: dict[bytes, bytes]) -> dict[bytes, bytes]:
        names = list(json.loads(latest.get(MANIFEST_KEY.encode(), b"{}")).get("parts", {}))
        if not names:
            return latest
        self.lied = True
        key = (PART_PREFIX + self._rng.choice(names)).encode()
        if self.lie == "part missing":
            return {k: v for k, v in latest.items() if k != key}
        return {**latest, key: latest[key][:-1] + bytes([latest[key][-1] ^ 1])}

    def _resumes_at_least(self, offset: int) -> bool:
        """The checkpoint that was read goes on at this offset or later, in every input."""
        if self._checkpoint is None:
            return False
        manifest = json.loads(self._checkpoint.get(MANIFEST_KEY.encode(), b"{}"))
        places = manifest.get("next", {}).values()
        return bool(places) and min(places) >= offset


def latest_of(log: Log, place: Place, end: int | None = None) -> dict[bytes, bytes]:
    """The newest committed value of every key."""
    latest: dict[bytes, bytes] = {}
    for record in log.partitions[place].visible(0, end):
        key = record.key or b""
        if record.value is None:
            latest.pop(key, None)
        else:
            latest[key] = record.value
    return latest
