"""Kafka as far as its promises matter: partitions, transactions, fencing, groups and offsets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from stream.core.processor import Headers, Record
from stream.transactions import Membership

Place = tuple[str, int]  # topic, partition


def source(stage: str, number: int) -> str:
    """What wrote a record."""
    return f"{stage}[{number}]"


OPEN, COMMITTED, ABORTED, MARKER = range(4)


class Refused(Exception):
    """The broker refuses a producer whose epoch is over."""


@dataclass
class Transaction:
    """From begin to the last of its markers."""

    owner: str
    began_ms: int
    records: dict[Place, list[int]] = field(default_factory=dict)
    offsets: dict[Place, int] = field(default_factory=dict)
    group: str = ""
    decided: int = OPEN
    unmarked: list[Place] = field(default_factory=list)


class Partition:
    """Records by offset, and what became of the transaction each is in."""

    def __init__(self) -> None:
        self.records: list[Record | None] = []  # None: a marker
        self.owners: list[str] = []  # partitions of stages, as `source` calls them
        self.states = bytearray()
        self.open: dict[int, Transaction] = {}  # by the offset of its first record here

    @property
    def end(self) -> int:
        return len(self.records)

    @property
    def stable_end(self) -> int:
        """The last stable offset: no reader of committed data gets beyond."""
        return min(self.open) if self.open else len(self.records)

    def visible(self, start: int = 0, end: int | None = None) -> list[Record]:
        """Committed records."""
        stop = self.stable_end if end is None else min(end, self.stable_end)
        states = self.states
        return [
            record
            for record in self.records[start:stop]
            if record is not None and states[record.offset] == COMMITTED
        ]

    def visible_of(self, owner: str) -> list[Record]:
        """Committed records that one partition of a stage wrote."""
        owners = self.owners
        return [record for record in self.visible() if owners[record.offset] == owner]


class Log:
    """One cluster. Every method is one atomic step of the broker.

    Attributes:
        highest: by group and place, the furthest offset that was ever committed.
        went_back: commits of an offset below that.
        lagging: whether a decided transaction's markers wait for `mark`.
        generations, members: of each group, by the newest rebalance; clients: what they call
            themselves.
        fencing, generational, atomic, isolated, stable: promises, that a test may break.
    """

    fencing = generational = atomic = isolated = stable = True

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.partitions: dict[Place, Partition] = defaultdict(Partition)
        self.offsets: dict[str, dict[Place, int]] = defaultdict(dict)
        self.highest: dict[tuple[str, Place], int] = {}
        self.went_back: list[str] = []
        self.epochs: dict[str, int] = {}
        self.transactions: dict[str, Transaction] = {}  # the newest of each transactional id
        self.generations: dict[str, int] = defaultdict(int)
        self.members: dict[str, set[str]] = defaultdict(set)
        self.clients: dict[str, set[str]] = defaultdict(set)
        self.lagging = False
        self._now_ms = now_ms

    def append(
        self,
        place: Place,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        transaction: Transaction | None = None,
        owner: str = "",
    ) -> Record:
        partition = self.partitions[place]
        offset = len(partition.records)
        record = Record(offset, self._now_ms(), key, value, headers)
        partition.records.append(record)
        partition.owners.append(owner)
        if transaction is None:
            partition.states.append(COMMITTED)
            return record
        if place not in transaction.records:
            partition.open[offset] = transaction
        transaction.records.setdefault(place, []).append(offset)
        partition.states.append(OPEN)
        return record

    # Producers:

    def init(self, owner: str) -> int:
        """Fence whoever held this transactional id; its transaction is aborted or completed."""
        before = self.transactions.get(owner)
        if before is not None:
            if before.decided == OPEN:
                self.decide(before, ABORTED)
            self.mark(before)
        self.epochs[owner] = self.epochs.get(owner, -1) + 1
        return self.epochs[owner]

    def check(self, owner: str, epoch: int) -> None:
        if self.fencing and epoch != self.epochs[owner]:
            raise Refused(owner)

    def begin(self, owner: str, epoch: int) -> Transaction:
        """Raises:
        Refused: fenced.
        """
        self.check(owner, epoch)
        before = self.transactions.get(owner)
        if before is not None:
            self.mark(before)
        transaction = Transaction(owner, self._now_ms())
        self.transactions[owner] = transaction
        return transaction

    def decide(self, transaction: Transaction, how: int) -> None:
        """Commit or abort for good; readers see it when the markers are written."""
        transaction.decided = how
        transaction.unmarked = list(transaction.records)
        if how == COMMITTED:
            self.commit_offsets(transaction.group, transaction.offsets)
        if not self.lagging or how == ABORTED:
            self.mark(transaction)

    def mark(self, transaction: Transaction, places: list[Place] | None = None) -> None:
        """Write markers, all that are still missing or those of `places`."""
        for place in list(transaction.unmarked if places is None else places):
            transaction.unmarked.remove(place)
            partition = self.partitions[place]
            offsets = transaction.records[place]
            for offset in offsets:
                partition.states[offset] = transaction.decided
            partition.open.pop(offsets[0], None)
            partition.records.append(None)
            partition.owners.append(transaction.owner)
            partition.states.append(MARKER)

    def abort_open(self, older_than_ms: int) -> list[Transaction]:
        """What the coordinator does when `transaction.timeout.ms` is over: abort and fence."""
        found = [
            transaction
            for transaction in self.transactions.values()
            if transaction.decided == OPEN and transaction.began_ms <= older_than_ms
        ]
        for transaction in found:
            self.epochs[transaction.owner] += 1
            self.decide(transaction, ABORTED)
        return found

    @property
    def unmarked(self) -> list[Transaction]:
        return [one for one in self.transactions.values() if one.unmarked]

    def holds_up(self, place: Place) -> bool:
        """An open transaction keeps readers of committed records from the end. Markers are on their
        way: who waits for them gets them."""
        for transaction in self.unmarked:
            if place in transaction.unmarked:
                self.mark(transaction, [place])
        partition = self.partitions[place]
        return self.stable and partition.stable_end < partition.end

    # Groups:

    def rebalanced(self, group: str, members: dict[str, str]) -> int:
        """The group decides anew; by member, what it calls itself. Its new generation."""
        self.generations[group] += 1
        self.members[group], self.clients[group] = set(members), set(members.values())
        return self.generations[group]

    def is_current(self, group: str, membership: Membership) -> bool:
        current = membership.generation == self.generations[group]
        return (current and membership.member in self.members[group]) or not self.generational

    def is_unstable(self, group: str, places: list[Place]) -> bool:
        """An open transaction holds offsets of these places."""
        for transaction in self.unmarked:
            if transaction.group == group:
                self.mark(transaction)
        return self.stable and any(
            one.decided == OPEN and one.group == group and one.offsets.keys() & set(places)
            for one in self.transactions.values()
        )

    def commit_offsets(self, group: str, offsets: dict[Place, int]) -> None:
        known = self.offsets[group]
        for place, offset in offsets.items():
            if offset < self.highest.get((group, place), 0):
                self.went_back.append(f"{group} {place}: to {offset}")
            self.highest[group, place] = max(offset, self.highest.get((group, place), 0))
            known[place] = offset

    # Readers of committed data:

    def fetch(self, place: Place, start: int, most: int) -> tuple[list[Record], int]:
        """Up to `most` records from `start` on, and the position after them."""
        partition = self.partitions[place]
        stop = partition.stable_end if self.isolated else partition.end
        found: list[Record] = []
        position = start
        while position < stop and len(found) < most:
            record = partition.records[position]
            if record is not None and (
                partition.states[position] == COMMITTED or not self.isolated
            ):
                found.append(record)
            position += 1
        while position < stop and partition.states[position] in (MARKER, ABORTED):
            position += 1
        return found, position
