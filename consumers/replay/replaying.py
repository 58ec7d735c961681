"""A past range of a model folded again by the core, under its own spec or another policy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from consumers.replay.counting import Job, count_all
from consumers.replay.fleets import Fleets, Known, Lifecycles, complete
from consumers.replay.journal import Laid, laid_out
from consumers.replay.past import Past
from consumers.replay.verdicts import Verdicts, of_outputs
from models.profile import ReferenceProfile
from models.spec import ModelSpec
from stream.core.processor import Context, LiveModel, Output, Record
from stream.core.replaying import Adoption, judged
from stream.events import LifecycleChanged
from stream.settings import Settings
from stream.signing import trust


class Basis(NamedTuple):
    """What evaluate is folded from; the same for every policy.

    Attributes:
        laid: `summaries`, in order.
        lives: the model by generation.
        events: records that monitor applied again, by topic; none if its counts were taken as they
            are.
    """

    model: str
    context: Context
    laid: Laid
    adoptions: Sequence[Adoption]
    lives: Mapping[int, LiveModel]
    events: dict[str, int]
    check: Callable[[Record], None]


class Folded(NamedTuple):
    """
    Attributes:
        digest: of every record that evaluate made, and of those it read.
    """

    verdicts: Verdicts
    digest: str


class _Respecified(NamedTuple):
    """A live model under another spec."""

    lifecycle: LifecycleChanged
    live: LiveModel

    def predict(self, version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        return self.live.predict(version, rows)

    def profile(self, version: int) -> ReferenceProfile | None:
        return self.live.profile(version)


def prepare(
    settings: Settings,
    past: Past,
    *,
    registry: Known | None,
    processes: int = 1,
    counts_only: bool = False,
) -> Basis:
    """Fold monitor again, or take the counts that it wrote as they are.

    Raises:
        ConfigurationError: what was live is not known any more.
        ReplayError: predictions or feedback are gone.
    """
    lifecycles = complete(past.lifecycles, past.wanted, registry)
    records, events = past.journal.recorded, dict[str, int]()
    laid = Laid(records, 0, 0)
    if not counts_only:
        jobs = _jobs(past, lifecycles)
        done = count_all(settings, jobs, processes)
        laid = laid_out(
            past.journal, {job.partition: d.made for job, d in zip(jobs, done, strict=True)}
        )
        events = {name: sum(one.events[name] for one in done) for name in done[0].events}
    fleets = Fleets(lifecycles, settings)
    trusted = trust(settings, "lifecycle")._replace(topic=settings.names.topic("summaries"))
    return Basis(
        past.model,
        Context(past.home, past.partitions, settings.core),
        laid,
        past.adoptions,
        {one.generation: fleets.live(past.model, one.generation) for one in past.adoptions},
        events,
        trusted.check,
    )


def fold(basis: Basis, respecify: Callable[[ModelSpec], ModelSpec] = lambda spec: spec) -> Folded:
    """What evaluate says of the range, under the specs that were in force, or these in their place.

    What was live stays what it was: nobody knows what else would have been trained.
    """
    lives = {number: _under(live, respecify) for number, live in basis.lives.items()}
    outputs = list(
        judged(basis.context, basis.model, basis.laid.records, basis.adoptions, lives, basis.check)
    )
    return Folded(of_outputs(outputs), _digest(basis.laid.records, outputs))


def _under(live: LiveModel, respecify: Callable[[ModelSpec], ModelSpec]) -> LiveModel:
    lifecycle = live.lifecycle
    spec = respecify(lifecycle.spec)
    if spec == lifecycle.spec:
        return live
    return _Respecified(replace(lifecycle, spec=spec), live)


def _jobs(past: Past, lifecycles: Lifecycles) -> list[Job]:
    needed = [lifecycles[place] for place in sorted(past.wanted)]
    return [
        Job(
            model=past.model,
            partition=partition,
            home=past.home,
            partitions=past.partitions,
            reports=[report.said for report in reports],
            lifecycles=needed,
            before=past.before,
        )
        for partition, reports in sorted(past.journal.reports.items())
    ]


def _digest(records: Sequence[Record], outputs: Sequence[Output]) -> str:
    """sha256 over every record, each with its length."""
    found = hashlib.sha256()
    for value in (*(one.value for one in records), *(one.value for one in outputs)):
        found.update(len(value or b"").to_bytes(8) + (value or b""))
    return found.hexdigest()
