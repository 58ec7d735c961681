"""How things stand now: what is live, what is wrong, how far behind anyone is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, TypeVar

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from consumers.deadletters import ENTITIES
from consumers.loop import RangeReader, log, open_consumer
from models.registry import LiveState, Registry
from stream.core.alerts import as_of
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import (
    AccuracyMeasured,
    Alert,
    Command,
    LifecycleChanged,
    ProgressReported,
    RetrainHeld,
)
from stream.settings import Settings
from stream.topics import EVERY_STAGE, INPUTS, SINK_GROUPS, STAGES, TRAINER_GROUP

S = TypeVar("S", AccuracyMeasured, Alert, Command, LifecycleChanged, ProgressReported, RetrainHeld)

NEWEST: Final = 2000  # records of a partition that are looked through
TIMEOUT_SECONDS: Final = 10.0
SILENT_MS: Final = 60_000  # without a report, what lies in a partition is not known to anyone
#: Stages that not every installation runs: where one never did, nothing waits for it.
OPTIONAL: Final = frozenset(EVERY_STAGE) - frozenset(STAGES)
READS: list[tuple[str, tuple[str, ...]]] = [*INPUTS.items(), (TRAINER_GROUP, ("commands",))]


class Lag(Struct, frozen=True):
    """Records of a topic that a group has not dealt with; None where the broker does not tell."""

    group: str
    entity: str
    records: int | None


class ModelStatus(Struct, frozen=True, kw_only=True):
    """One model: what is live, its newest figures, its alerts that are not resolved, and the
    newest retrain that was held back for one of them, if none was commanded since."""

    live: LiveState
    accuracy: AccuracyMeasured | None
    alerts: list[Alert]
    held: RetrainHeld | None = None


class Status(Struct, frozen=True, kw_only=True):
    """Everything at once.

    Attributes:
        outbox: changes of the registry that are not published yet.
        dead_letters: how many records lie in each, by entity.
        silent: partitions of monitor that have reported before and now do not, and when they last
            did: while any is silent no tick closes, so that no verdict is news.
    """

    models: list[ModelStatus]
    lags: list[Lag]
    dead_letters: dict[str, int]
    outbox: int
    silent: dict[int, int | None] = {}

    @property
    def breaches(self) -> list[str]:
        """What `--check` fails for, in sentences: not what somebody sees to, or has snoozed."""
        alerts = [
            f"{alert.model}: {alert.sentence}"
            for status in self.models
            for alert in status.alerts
            if alert.state == "open" and alert.severity != "info"
        ]
        waiting = f"{self.outbox} changes wait to be published; is a trainer running?"
        silence = f"monitor says nothing of partitions {', '.join(map(str, self.silent))}: stale"
        more = ((waiting, self.outbox), (silence, self.silent))
        return [*alerts, *(sentence for sentence, applies in more if applies)]


def collect(settings: Settings, registry: Registry) -> Status:
    """Raises:
    BrokerError, RegistryError, ConfigurationError: one of them cannot be asked.
    """
    with RangeReader(settings) as reader:
        alerts = [a for a in newest_alerts(reader, settings) if a.state != "resolved"]
        accuracy = _newest_accuracy(reader, settings)
        held = _held_back(reader, settings)
        silent = _silent(reader, settings)
        dead = {e: sum(span.length for span in reader.bounds(f"{e}.dlq")) for e in ENTITIES}
        waiting = lags(settings, reader)
    models = [
        ModelStatus(
            live=state,
            accuracy=accuracy.get((state.model, state.champion)),
            alerts=(mine := [alert for alert in alerts if alert.model == state.model]),
            held=_of(held.get(state.model), mine, state.generation),
        )
        for state in registry.models()
    ]
    pending = len(registry.outbox_pending(1000))
    return Status(models=models, lags=waiting, dead_letters=dead, outbox=pending, silent=silent)


def lags(settings: Settings, reader: RangeReader) -> list[Lag]:
    """How far behind each group is: those of the stages, the trainer's and one for each sink.

    A sink that is no longer configured shows until the broker forgets its group's offsets.
    """
    sinks = [(role, ("alerts",)) for role in sink_roles(settings)]
    found = [
        (role, Lag(settings.names.group(role), entity, _lag(settings, reader, role, entity)))
        for role, entities in [*READS, *sinks]
        for entity in entities
    ]
    return [lag for role, lag in found if lag.records is not None or role not in OPTIONAL]


def sink_roles(settings: Settings) -> list[str]:
    """The roles of the sinks' groups, as the broker knows them: the file of sinks may lie on
    another machine. None where the broker does not list groups (the embedded one) or none is seen.
    """
    admin = AdminClient(settings.client(), logger=log)
    try:
        listed = admin.list_consumer_groups(request_timeout=TIMEOUT_SECONDS).result()
    except KafkaException as error:
        log.debug("groups are not listed: %s", error)
        return []
    begin = settings.names.group("")
    roles = (group.group_id.removeprefix(begin) for group in listed.valid)
    return sorted(role for role in roles if role.startswith(SINK_GROUPS))


def published(settings: Settings, model: str) -> LifecycleChanged | None:
    """The newest that `lifecycle` says of a model, which the registry need not know.

    Raises:
        BrokerError, ConfigurationError: nobody answers, or there is no such topic.
    """
    with RangeReader(settings) as reader:
        told = _events(reader, settings, "lifecycle", LifecycleChanged, None)
        states = [state for state in told if state.model == model]
    return max(states, key=lambda state: state.generation, default=None)


def _silent(reader: RangeReader, settings: Settings) -> dict[int, int | None]:
    """Partitions of monitor without a report in the last minute, of those there are."""
    last: dict[int, int | None] = {}
    for report in _events(reader, settings, "summaries", ProgressReported, NEWEST):
        last = dict.fromkeys(range(report.partitions)) | last
        last[report.partition] = max(report.clock_ms, last.get(report.partition) or 0)
    since_ms = int(time.time() * 1000) - SILENT_MS
    return {p: at for p, at in sorted(last.items()) if at is None or at < since_ms}


def newest_alerts(reader: RangeReader, settings: Settings) -> list[Alert]:
    """The newest revision of each alert that the topic holds."""
    newest: dict[str, Alert] = {}
    for alert in _events(reader, settings, "alerts", Alert, None):
        known = newest.get(alert.alert_id)
        if known is None or alert.revision >= known.revision:
            newest[alert.alert_id] = alert
    now_ms = int(time.time() * 1000)
    return [as_of(alert, now_ms) for alert in newest.values()]


def _newest_accuracy(
    reader: RangeReader, settings: Settings
) -> dict[tuple[str, int | None], AccuracyMeasured]:
    """The last word on each version over its first window, without segments."""
    newest: dict[tuple[str, int | None], AccuracyMeasured] = {}
    for measured in _events(reader, settings, "accuracy", AccuracyMeasured, NEWEST):
        key = (measured.model, measured.version)
        known = newest.get(key)
        if not measured.segment and (known is None or _order(measured) >= _order(known)):
            newest[key] = measured
    return newest


def _held_back(reader: RangeReader, settings: Settings) -> dict[str, RetrainHeld]:
    """The last word on each model's retrains where it is that there is none, and why."""
    commanded_ms: dict[str, int] = {}
    for command in _events(reader, settings, "commands", Command, NEWEST):
        if command.kind == "retrain":
            before = commanded_ms.get(command.model, 0)
            commanded_ms[command.model] = max(before, command.issued_ms)
    newest: dict[str, RetrainHeld] = {}
    for held in _events(reader, settings, "decisions", RetrainHeld, NEWEST):
        known = newest.get(held.model)
        since_ms = known.held_ms if known else commanded_ms.get(held.model, 0)
        if held.alert_id is not None and held.held_ms > since_ms:
            newest[held.model] = held
    return newest


def _of(held: RetrainHeld | None, alerts: list[Alert], generation: int) -> RetrainHeld | None:
    """It, while what it is about still is so."""
    known = {alert.alert_id for alert in alerts}
    if held is None or held.alert_id not in known or held.generation != generation:
        return None
    return held


def _order(measured: AccuracyMeasured) -> tuple[int, int]:
    return measured.end_ms, measured.revision


def _events(
    reader: RangeReader, settings: Settings, entity: str, struct: type[S], newest: int | None
) -> Iterator[S]:
    spans = reader.bounds(entity)
    if newest is not None:
        spans = [s._replace(start=max(s.start, s.end - newest)) for s in spans]
    for _, record in reader.read(entity, spans):
        try:
            yield read(open_record(entity, record, max_bytes=settings.max_record_bytes), struct)
        except Refused:  # written by somebody else
            continue


def _lag(settings: Settings, reader: RangeReader, role: str, entity: str) -> int | None:
    spans = reader.bounds(entity)
    topic = settings.names.topic(entity)
    member = open_consumer(settings, **{"group.id": settings.names.group(role)})
    try:
        committed = member.committed(
            [TopicPartition(topic, s.partition) for s in spans], TIMEOUT_SECONDS
        )
    except KafkaException:
        return None
    finally:
        member.close()
    if all(place.offset < 0 for place in committed):
        return None
    next_offsets: dict[int, int] = {place.partition: max(place.offset, 0) for place in committed}
    return sum(max(s.end - max(next_offsets[s.partition], s.start), 0) for s in spans)
