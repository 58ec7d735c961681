"""What became of one version: each change of its part, who made it, and on what evidence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

from models.state import Entry

Part = Literal["champion", "canary", "challenger", "previous", "none"]


class Turn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From `changed_ms` on the version had this part.

    Attributes:
        part: champion serves, canary a share; challenger and previous score in shadow.
        action: what led to it: challenge, canary, promote, reject, rollback, settle.
        evidence: what the deciding test had seen; empty where a person decided.
    """

    part: Part
    changed_ms: int
    generation: int
    action: str
    who: str = ""
    reason: str = ""
    evidence: dict[str, Any] = {}


def career(entries: Iterable[Entry], version: int) -> list[Turn]:
    """The turns of a version's life, oldest first; empty if it never played a part.

    Args:
        entries: the model's history, oldest first.
    """
    turns: list[Turn] = []
    part: Part = "none"
    for entry in entries:
        now = part_of(entry, version)
        if now != part:
            part = now
            turns.append(
                Turn(
                    part=now,
                    changed_ms=entry.changed_ms,
                    generation=entry.generation,
                    action=entry.action,
                    who=entry.who,
                    reason=entry.reason,
                    evidence=entry.evidence,
                )
            )
    return turns


def part_of(entry: Entry, version: int) -> Part:
    """What a version did while this entry was in force."""
    if version == entry.champion:
        return "champion"
    if version == entry.canary:
        return "canary"
    if version in entry.challengers:
        return "challenger"
    return "previous" if version == entry.previous else "none"
