"""A past range of a model, read from Kafka outside any consumer group; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from consumers.loop import RangeReader
from consumers.places import Span
from consumers.replay.fleets import Lifecycles, in_force, published
from consumers.replay.journal import Journal, read_journal
from consumers.replay.verdicts import ENTITIES, Verdicts, of_model, of_records
from stream.core.partitioning import partition_of
from stream.core.processor import Record
from stream.core.replaying import Adoption
from stream.envelope import open_record, read
from stream.errors import ConfigurationError, DriftlineError, Refused
from stream.events import GenerationAdopted
from stream.settings import Settings
from stream.signing import trust
from stream.topics import INPUTS


class ReplayError(DriftlineError):
    """The range can't be replayed; the message says why."""


class Bounds(NamedTuple):
    """Which part: by the stamps of `summaries`, or by offsets of the model's partition of it.

    None: as far as the log goes.
    """

    from_ms: int | None = None
    until_ms: int | None = None
    first: int | None = None
    end: int | None = None


class Past(NamedTuple):
    """What Kafka holds of a range.

    Attributes:
        home: the partition of `summaries` that is the model's.
        partitions: counts by entity.
        span: offsets of that partition.
        lifecycles: what is still on that topic, of all models.
        adoptions: when evaluate followed them, in the order of offsets.
        followed: whether evaluate told so itself; else it is assumed by the registry's clock.
    """

    model: str
    home: int
    partitions: dict[str, int]
    span: Span
    journal: Journal
    lifecycles: Lifecycles
    adoptions: list[Adoption]
    followed: bool

    @property
    def before(self) -> dict[str, int]:
        """Generations in force as the range begins, by model."""
        if self.journal.is_complete:
            return {}
        found = in_force(self.lifecycles, self.journal.clock_ms)
        if self.adoptions:
            found[self.model] = self.adoptions[0].generation
        return found

    @property
    def wanted(self) -> set[tuple[str, int]]:
        """Models and generations that the range was counted and judged by."""
        mine = {(self.model, adoption.generation) for adoption in self.adoptions}
        return mine | set(self.before.items()) | self.journal.generations


def read_past(settings: Settings, model: str, bounds: Bounds) -> Past:
    """
    Raises:
        ReplayError: the range is too short, or empty.
        ConfigurationError, BrokerError: topics can't be read.
    """
    with RangeReader(settings) as reader:
        partitions = {
            entity: len(reader.partitions(entity)) for entity in (*INPUTS["monitor"], "summaries")
        }
        home = partition_of(model.encode(), partitions["summaries"], "murmur2")
        span = _span(reader, bounds, home)
        lying = (record for _, record in reader.read("summaries", [span]))
        journal = read_journal(lying, model, settings.max_record_bytes)
        if journal.reports.keys() != set(range(partitions["predictions"])):
            raise ReplayError(
                f"{settings.names.topic('summaries')}/{home} from {span.start} to {span.end} holds "
                "no report of some partitions of monitor: take a longer range"
            )
        lifecycles = _lifecycles(reader, settings)
        told = list(_told(reader, settings, model, home))
    adoptions = _within(told, span) or _assumed(lifecycles, journal, model)
    return Past(model, home, partitions, span, journal, lifecycles, adoptions, bool(told))


def recorded(settings: Settings, past: Past) -> Verdicts:
    """What was told in the range, as far as topics still hold it."""
    start_ms = None if past.journal.is_complete else past.journal.first_watermark_ms
    wanted = of_model(past.model, start_ms, past.journal.watermark_ms)
    with RangeReader(settings) as reader:
        lying = (
            (entity, record)
            for entity in ENTITIES
            for _, record in reader.read(
                entity, _decisions(reader) if entity == "decisions" else reader.bounds(entity)
            )
        )
        return of_records(lying, wanted, settings.max_record_bytes)


def _span(reader: RangeReader, bounds: Bounds, home: int) -> Span:
    (span,) = (one for one in reader.bounds("summaries") if one.partition == home)
    starts, ends = [span.start], [span.end]
    for time_ms, limits in ((bounds.from_ms, starts), (bounds.until_ms, ends)):
        if time_ms is not None:
            since = reader.since("summaries", time_ms)
            limits += [one.start for one in since if one.partition == home]
    starts += [] if bounds.first is None else [bounds.first]
    ends += [] if bounds.end is None else [bounds.end]
    span = Span(home, max(starts), min(ends))
    if not span.length:
        raise ReplayError("the range is empty")
    return span


def _lifecycles(reader: RangeReader, settings: Settings) -> Lifecycles:
    lying = (record for _, record in reader.read("lifecycle", reader.bounds("lifecycle")))
    states = published(lying, trust(settings, "lifecycle"))
    return {(state.model, state.generation): state for state in states}


def _told(reader: RangeReader, settings: Settings, model: str, home: int) -> Iterator[Adoption]:
    """When evaluate says that it followed lifecycle."""
    for _, record in reader.read("decisions", _decisions(reader)):
        said = _adopted(record, settings.max_record_bytes)
        if said is not None and (said.model, said.partition) == (model, home):
            yield Adoption(said.offset, said.generation)


def _decisions(reader: RangeReader) -> list[Span]:
    """What that topic holds; nothing where the log is older than it (releases before 0.2)."""
    try:
        return reader.bounds("decisions")
    except ConfigurationError:
        return []


def _adopted(record: Record, max_bytes: int) -> GenerationAdopted | None:
    try:
        opened = open_record("decisions", record, max_bytes=max_bytes)
        return read(opened, GenerationAdopted) if "adopted" in opened.type else None
    except Refused:
        return None


def _within(told: list[Adoption], span: Span) -> list[Adoption]:
    """Those of the range, and the one that was in force as it begins."""
    before = [one._replace(offset=span.start) for one in told if one.offset <= span.start]
    return [*before[-1:], *(one for one in told if span.start < one.offset <= span.end)]


def _assumed(lifecycles: Lifecycles, journal: Journal, model: str) -> list[Adoption]:
    """As if evaluate had followed at once: logs of releases before 0.2 do not tell."""
    changes = sorted(
        (state.changed_ms, n) for (name, n), state in lifecycles.items() if name == model
    )
    stamps = [(record.timestamp_ms, record.offset) for record in journal.recorded]
    return [
        Adoption(next((offset for at, offset in stamps if at >= ms), stamps[-1][1] + 1), number)
        for ms, number in changes
    ]
