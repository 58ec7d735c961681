"""What was, or would have been, told and decided of one model: alerts, commands, held retrains."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
from msgspec import Struct

from stream.core.alerts import MEANING
from stream.core.processor import Output, Record
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import EVENT_TYPES, Alert, Command, RetrainHeld

ENTITIES = ("alerts", "commands", "decisions")


class Verdicts(Struct, frozen=True, kw_only=True):
    """In the order in which they were told; `alerts` are revisions.

    Attributes:
        told: records by topic, measurements among them.
    """

    alerts: list[Alert] = []
    commands: list[Command] = []
    held: list[RetrainHeld] = []
    told: dict[str, int] = {}

    @property
    def opened(self) -> list[Alert]:
        """Each alert as it stands in the end."""
        newest: dict[str, Alert] = {}
        for alert in self.alerts:
            if alert.revision >= newest.get(alert.alert_id, alert).revision:
                newest[alert.alert_id] = alert
        return list(newest.values())

    def commanded(self, kind: str) -> int:
        return sum(command.kind == kind for command in self.commands)


class Difference(NamedTuple):
    """What is in one and not in the other, one sentence each."""

    missing: list[str]
    more: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.more)


def of_outputs(outputs: Iterable[Output]) -> Verdicts:
    """What evaluate made."""
    told: Counter[str] = Counter()
    pairs = []
    for output in outputs:
        told[output.entity] += 1
        if output.entity in ENTITIES:
            pairs.append((output.entity, Record(0, 0, output.key, output.value)))
    found = of_records(pairs, lambda fact: True, 2**31)
    return msgspec.structs.replace(found, told=dict(told))


def of_records(
    records: Iterable[tuple[str, Record]],
    wanted: Callable[[Alert | Command | RetrainHeld], bool],
    max_bytes: int,
) -> Verdicts:
    """What lies in topics, by entity, as evaluate wrote it; what others raise is left out."""
    found = Verdicts(alerts=[], commands=[], held=[])
    for entity, record in records:
        with contextlib.suppress(Refused):
            opened = open_record(entity, record, max_bytes=max_bytes)
            fact = read(opened, EVENT_TYPES[opened.type][0])
            if isinstance(fact, Alert) and fact.problem in MEANING and wanted(fact):
                found.alerts.append(fact)
            elif isinstance(fact, Command) and wanted(fact):
                found.commands.append(fact)
            elif isinstance(fact, RetrainHeld) and wanted(fact):
                found.held.append(fact)
    return found


def difference(recorded: Verdicts, again: Verdicts) -> Difference:
    """Of alerts and commands, to the last bit of their evidence.

    The topic `alerts` is compacted: that an older revision is gone from it is no difference.
    """
    newest = {alert.alert_id: alert.revision for alert in recorded.opened}
    there = Counter(_encoded(fact) for fact in (*recorded.alerts, *recorded.commands))
    here = Counter(_encoded(fact) for fact in (*again.alerts, *again.commands))
    gone = [
        alert for alert in again.alerts if alert.revision < newest.get(alert.alert_id, 0)
    ]  # may be
    more = here - there - Counter(map(_encoded, gone))
    return Difference(_sentences(there - here), _sentences(more))


def when(fact: Alert | Command | RetrainHeld) -> int:
    """Event time at which it was told, in ms."""
    if isinstance(fact, Alert):
        return fact.updated_ms
    return fact.issued_ms if isinstance(fact, Command) else fact.held_ms


def of_model(
    model: str, start_ms: int | None, end_ms: int
) -> Callable[[Alert | Command | RetrainHeld], bool]:
    """Whether a fact is of this model and was told in these ticks."""

    def wanted(fact: Alert | Command | RetrainHeld) -> bool:
        return fact.model == model and (start_ms or 0) <= when(fact) <= end_ms

    return wanted


def _encoded(fact: Struct) -> bytes:
    # Evidence comes back from a topic as plain data: encoded, both are the same.
    return type(fact).__name__.encode() + b" " + msgspec.json.encode(fact)


def _sentences(facts: Counter[bytes]) -> list[str]:
    return sorted(fact.decode()[:300] for fact in facts.elements())
