"""What a stage learns of the broker before it begins: topics, their counts and ids, lifecycle."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from stream import app as apps
from stream.ends import Ends, of_broker
from stream.errors import ConfigurationError
from stream.lifecycle import Lifecycle, alert_record, build
from stream.partitions import World, Writer
from stream.reading import LogReader, Tail, same_counts
from stream.settings import Settings
from stream.signing import SigningWriter, signer
from stream.topics import INPUTS, Stage
from stream.transactions import Announcer, Fencer, Transactor

if TYPE_CHECKING:
    from stream.app import Factory

log = structlog.get_logger(__name__)


def connect(
    stage: Stage,
    settings: Settings,
    factory: Factory | None,
    fail: Callable[[BaseException], None],
) -> tuple[World, Lifecycle]:
    """Wait for the broker, for as long as it takes, and look around. Blocks; any thread.

    Raises:
        ConfigurationError: topics are missing or do not fit together.
    """
    while True:
        # New clients each time: one that a cut met in a wrong moment may time out for ever.
        ends = Ends(settings)
        ends.wait()
        try:
            return _look_around(stage, settings, factory, fail, ends)
        except Exception as error:
            if not of_broker(error):
                raise
            log.warning("broker away again", error=str(error))


def _look_around(
    stage: Stage,
    settings: Settings,
    factory: Factory | None,
    fail: Callable[[BaseException], None],
    ends: Ends,
) -> tuple[World, Lifecycle]:
    names = settings.names
    reader = LogReader(settings, names.group(stage))
    counts = _counts(stage, settings, reader)
    ends.see(names.group(stage))
    announcer = Announcer(settings)
    lifecycle = build(
        stage,
        settings,
        Tail(settings, names.topic("lifecycle")),
        lambda alert: announcer.send(names.topic("alerts"), *alert_record(alert)),
        fail,
    )
    world = World(
        stage=stage,
        settings=settings,
        factory=factory or apps.factory(stage, settings),
        counts=counts,
        reader=reader,
        writer=_writer(stage, settings),
        fencer=Fencer(settings),
        fleets=lifecycle,
        ids=_ids(stage, settings, ends),
    )
    return world, lifecycle


def _writer(stage: Stage, settings: Settings) -> Writer:
    """Under an id that no process had before. Evaluate signs the commands that it gives."""
    writer = Transactor(settings, settings.names.worker_id(stage, secrets.token_hex(8)))
    key = signer(settings, "commands") if stage == "evaluate" else None
    return writer if key is None else SigningWriter(writer, key)


def _counts(stage: Stage, settings: Settings, reader: LogReader) -> dict[str, int]:
    """Partition counts by entity."""
    names = settings.names
    entities = names.touched(stage)
    counts = reader.counts(entities)
    missing = sorted(entities.keys() - counts.keys())
    if missing:
        raise ConfigurationError(
            f"{settings.bootstrap_servers} has no topics {', '.join(missing)}: "
            "make them by `driftline topics apply`"
        )
    same_counts(counts, (*names.inputs(stage), names.checkpoints(stage)))
    return {entities[topic]: count for topic, count in counts.items()}


def _ids(stage: Stage, settings: Settings, ends: Ends) -> dict[str, str]:
    """Of the inputs, by entity; none on the embedded broker."""
    topics = {settings.names.topic(entity): entity for entity in INPUTS[stage]}
    return {topics[topic]: one.id for topic, one in ends.identities(topics).items()}
