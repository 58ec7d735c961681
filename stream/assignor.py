"""Who gets which partitions: the same numbers of every topic, evenly, and kept where they were.

A stage joins records of several topics by partition number, so a member must own the same numbers
of all of them; round-robin breaks that with three members, and range moves partitions (and so
restores state) whenever member ids sort differently.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)


def share(count: int, claims: Mapping[str, Iterable[int]]) -> dict[str, list[int]]:
    """Divide partitions 0..count-1 among members, each keeping what it held if that is even.

    A partition that several members claim stays with the first of them by name: at most one of
    them is right, and the transactional id finds out which.

    >>> share(5, {"a": [0, 1, 2, 3, 4], "b": []})
    {'a': [0, 1, 2], 'b': [3, 4]}
    >>> share(4, {"b": [2, 3], "c": [], "a": [0, 1]})
    {'a': [0, 1], 'b': [2], 'c': [3]}
    """
    free = set(range(count))
    held: dict[str, list[int]] = {}
    for member in sorted(claims):
        held[member] = sorted(free.intersection(claims[member]))
        free.difference_update(held[member])
    least, extra = divmod(count, len(held))
    for position, member in enumerate(sorted(held, key=lambda name: (-len(held[name]), name))):
        quota = least + (position < extra)
        free.update(held[member][quota:])
        held[member] = held[member][:quota]
    rest = sorted(free)
    for position, member in enumerate(sorted(held, key=lambda name: (-len(held[name]), name))):
        missing = least + (position < extra) - len(held[member])
        held[member] = sorted(held[member] + rest[:missing])
        rest = rest[missing:]
    return held


class CoPartitioned(AbstractPartitionAssignor):  # type: ignore[misc]
    """`share` as aiokafka's coordinator calls it; members tell the leader what they hold."""

    name = "driftline"
    version = 0

    def __init__(self) -> None:
        self.held: list[int] = []

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        # Counts are compared at start; if they differ by now, the restore halts and says so.
        count = max(len(cluster.partitions_for_topic(topic) or ()) for topic in topics)
        claims = {name: _numbers(member.user_data) for name, member in members.items()}
        return {
            name: ConsumerProtocolMemberAssignment(
                self.version, [(topic, numbers) for topic in topics] if numbers else [], b""
            )
            for name, numbers in share(count, claims).items()
        }

    def metadata(self, topics: Iterable[str]) -> Any:
        return ConsumerProtocolMemberMetadata(
            self.version, sorted(topics), msgspec.json.encode(self.held)
        )

    def on_assignment(self, assignment: Any) -> None:
        self.held = sorted({tp.partition for tp in assignment.partitions()})


def _numbers(user_data: bytes | None) -> list[int]:
    try:
        return msgspec.json.decode(user_data or b"[]", type=list[int])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return []
