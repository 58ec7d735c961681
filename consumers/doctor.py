"""Looking for what would go wrong: broker, topics, rights, clocks, registry, artefacts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from consumers import acls, topics_admin
from consumers.loop import BrokerError, RangeReader
from consumers.status import published
from models.artefacts import ArtefactError, fetch
from models.database import now_ms
from models.registry import LiveState, Registry, RegistryError
from stream.errors import ConfigurationError
from stream.settings import Settings
from stream.topics import BY_ENTITY, INPUTS

SKEW_SECONDS: Final = 2.0  # a record may take a second to come
CLOCK_SECONDS: Final = 3.0  # within which monitor reports, if it runs


class Check(NamedTuple):
    """One thing that was looked at; `note` says what was found, or what to do."""

    what: str
    state: Literal["ok", "bad", "skipped"]
    note: str = ""


def examine(settings: Settings, service: str = "reader") -> list[Check]:
    """Every check, in the order in which to repair things.

    Args:
        service: whose rights these settings are to have, by name in `acls.TABLE`.
    """
    found, states = _live(settings)
    broker = list(_broker(settings))
    if broker[0].state == "ok":
        broker += [*_rights(settings, service), *_broker_clock(settings)]
        found += _told(settings, states)
    return [*broker, *found, *_models(settings, states)]


def _broker(settings: Settings) -> Iterator[Check]:
    try:
        rows = topics_admin.listing(settings)
    except BrokerError as error:
        yield Check("broker", "bad", str(error))
        yield Check("topics", "skipped", "the broker must answer first")
        return
    yield Check("broker", "ok", settings.bootstrap_servers)
    if settings.embedded_broker:
        yield Check("topics", "skipped", topics_admin.EMBEDDED_NOTE)
    else:
        yield from (
            Check(f"topic {row.topic}", "bad", row.note) for row in rows if row.state != "ok"
        )
    counts = {row.entity: row.partitions for row in rows}
    yield from _joined(counts)


def _joined(counts: dict[str, int]) -> Iterator[Check]:
    """Topics that are read together have one partition count."""
    joined = [entity for entity, topic in BY_ENTITY.items() if topic.joined]
    for name, entities in (("joined topics", joined), *INPUTS.items()):
        found = {counts[entity] for entity in entities}
        if len(found) > 1:
            listed = ", ".join(f"{entity} {counts[entity]}" for entity in entities)
            yield Check(name, "bad", f"partition counts differ: {listed}; make them anew, replay")
        elif name == "joined topics":
            yield Check(name, "ok", f"{found.pop()} partitions each")


def _rights(settings: Settings, service: str) -> Iterator[Check]:
    """Whoever we log in as may do what the service must."""
    what = f"rights of {service}"
    if settings.embedded_broker:
        yield Check(what, "skipped", "the embedded broker lets everybody do everything")
        return
    try:
        found = acls.lacking(settings, service)
    except BrokerError as error:
        yield Check(what, "skipped", str(error))
        return
    for lack in found:
        note = f"no {', '.join(lack.operations)} on {lack.resource} {lack.name}"
        yield Check(what, "bad", f"{note}; `driftline topics acls` lists the rights")
    if not found:
        yield Check(what, "ok", "on topics and groups; transactional ids cannot be asked about")


def _broker_clock(settings: Settings) -> Iterator[Check]:
    """By the stamp of a record that comes just now: monitor reports several times a second."""
    what = "clock of the broker"
    if settings.embedded_broker or settings.clock == "event":
        yield Check(what, "skipped", "the broker stamps nothing here")
        return
    deadline = time.monotonic() + CLOCK_SECONDS
    try:
        with RangeReader(settings) as reader:
            ends = [span._replace(start=span.end) for span in reader.bounds("summaries")]
            came = reader.follow_from({"summaries": ends}, lambda: time.monotonic() > deadline)
            stamp_ms = next((one.record.timestamp_ms for _, one in came), None)
    except (BrokerError, ConfigurationError) as error:
        yield Check(what, "skipped", str(error))
        return
    if stamp_ms is None:
        yield Check(what, "skipped", "no record came to tell it; start `driftline worker`")
    else:
        yield compared(what, stamp_ms, now_ms())


def compared(what: str, theirs_ms: int, ours_ms: int) -> Check:
    """
    >>> compared("clock", 10_000, 9_000)
    Check(what='clock', state='ok', note='1.0 s ahead of this machine')
    >>> compared("clock", 10_000, 15_000).state
    'bad'
    """
    apart = (theirs_ms - ours_ms) / 1000
    note = f"{abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} this machine"
    if abs(apart) <= SKEW_SECONDS:
        return Check(what, "ok", note)
    return Check(what, "bad", f"{note}: delays and times of what happened are wrong; run NTP")


def _live(settings: Settings) -> tuple[list[Check], list[LiveState]]:
    try:
        with Registry(settings.registry_url) as registry:
            health = registry.ping()
            if not health.current:
                note = f"schema {health.revision or 'missing'}, not {health.head}"
                return [Check("registry", "bad", f"{note}; run `driftline migrate`")], []
            pending = len(registry.outbox_pending(1000))
            note = f"{pending} changes wait to be published; start a trainer" if pending else ""
            outbox = Check("outbox", "bad" if pending else "ok", note)
            told_ms = registry.clock_ms()
            clock = (
                [] if told_ms is None else [compared("clock of the registry", told_ms, now_ms())]
            )
            return [Check("registry", "ok", health.url), *clock, outbox], registry.models()
    except RegistryError as error:
        return [Check("registry", "bad", str(error))], []


def _told(settings: Settings, states: list[LiveState]) -> Iterator[Check]:
    """What lifecycle tells is no newer than the registry, as after one was restored."""
    for state in states:
        try:
            told = published(settings, state.model)
        except (BrokerError, ConfigurationError) as error:
            yield Check(f"lifecycle of {state.model}", "skipped", str(error))
            continue
        if told is not None and told.generation > state.generation:
            yield Check(
                f"lifecycle of {state.model}",
                "bad",
                f"the topic tells of generation {told.generation}, the registry of "
                f"{state.generation}: was it restored? `driftline models republish {state.model}`",
            )


def _models(settings: Settings, states: list[LiveState]) -> Iterator[Check]:
    for state in states:
        yield from _retention(settings, state)
        named = {state.champion, state.previous, *state.challengers}
        for card in state.versions:
            if card.version not in named:
                continue
            what = f"{state.model} version {card.version}"
            try:
                fetch(card.artefact_url, card.artefact_digest, settings.max_artefact_bytes)
                fetch(card.profile_url, card.profile_digest, settings.max_artefact_bytes)
            except ArtefactError as error:
                yield Check(what, "bad", f"{error}; restore the store, or roll back")
            else:
                yield Check(what, "ok", "artefact and profile are as they were registered")


def _retention(settings: Settings, state: LiveState) -> Iterator[Check]:
    labels, training = state.spec.labels, state.spec.training
    needed = max(
        labels.horizon_seconds + labels.correction_horizon_seconds,
        labels.horizon_seconds + training.window_seconds,
    )
    hours = needed / 3600
    if 0 <= settings.retention_hours < hours and settings.clock == "append":
        yield Check(
            f"retention for {state.model}",
            "bad",
            f"topics keep {settings.retention_hours:g} hours, labels and retraining look back "
            f"{hours:g}; raise DRIFTLINE_RETENTION_HOURS and run `driftline topics apply`",
        )
