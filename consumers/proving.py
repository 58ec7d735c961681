"""History held against predictions: did what was served agree with what the registry says was live?

Every prediction that was made here carries the version that made it and the generation in force in
its worker, and the broker stamped it. The registry says since when a generation is in force and
which version is its champion. Neither knows of the other, so where they agree, `live-at` can be
trusted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from consumers.dataset import Reader
from consumers.places import Place, Span
from models.state import Entry
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import PredictionMade

SKEW_MS: Final = 2_000  # how far the registry's and the broker's clocks may differ
SHOWN: Final = 20  # contradictions told one by one


class Made(NamedTuple):
    """What a prediction says of its origin. `stamp_ms` is the broker's."""

    place: Place
    stamp_ms: int
    generation: int
    version: int


class Served(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What predictions say of one generation.

    Attributes:
        behind_ms: for how long it still served when the next one was in force already.
    """

    generation: int
    version: int
    predictions: int
    first_ms: int
    last_ms: int
    behind_ms: int = 0


class Proof(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of it.

    Attributes:
        elsewhere: predictions without a generation: they were not made here, and prove nothing.
        contradictions: predictions that cannot be if the history is right.
        examples: the first of them, one sentence each.
    """

    served: list[Served]
    elsewhere: int = 0
    contradictions: int = 0
    examples: list[str] = []

    @property
    def behind_ms(self) -> int:
        """The longest time that an older generation still served."""
        return max((one.behind_ms for one in self.served), default=0)


def predictions(
    reader: Reader, model: str, spans: Sequence[Span], max_bytes: int
) -> Iterator[Made]:
    """A model's predictions in the order of each partition."""
    for place, record in reader.read("predictions", spans):
        with contextlib.suppress(Refused):
            made = read(open_record("predictions", record, max_bytes=max_bytes), PredictionMade)
            if made.model == model:
                yield Made(place, record.timestamp_ms, made.generation, made.version)


def prove(entries: Sequence[Entry], made: Iterable[Made], *, dated: bool = True) -> Proof:
    """Hold predictions against a model's history.

    Args:
        entries: the history, oldest first.
        made: in the order of each partition.
        dated: whether stamps tell when a prediction was written; replayers stamp otherwise.
    """
    known = {entry.generation: entry for entry in entries}
    served: dict[int, Served] = {}
    newest: dict[int, int] = {}  # partition -> generation
    elsewhere, wrong = 0, 0
    examples: list[str] = []
    for one in made:
        if one.generation == 0:
            elsewhere += 1
            continue
        problem = _problem(one, known.get(one.generation), newest, dated)
        if problem:
            wrong += 1
            if len(examples) < SHOWN:
                partition, offset = one.place
                examples.append(f"partition {partition} offset {offset}: {problem}")
        newest[one.place.partition] = max(one.generation, newest.get(one.place.partition, 0))
        counted = _as_champion(one, known.get(one.generation))
        served[one.generation] = _with(served.get(one.generation), counted)
    return Proof(
        served=[_behind(served[number], entries, dated) for number in sorted(served)],
        elsewhere=elsewhere,
        contradictions=wrong,
        examples=examples,
    )


def _problem(one: Made, entry: Entry | None, newest: dict[int, int], dated: bool) -> str:
    """Why the history cannot be right if this prediction is; empty if it can."""
    before = newest.get(one.place.partition, 0)
    if entry is None:
        return f"generation {one.generation} is in no history"
    if one.version not in (entry.champion, entry.canary):
        return (
            f"version {one.version} in generation {one.generation}, whose champion is "
            f"{entry.champion}"
        )
    if one.generation < before:
        return f"generation {one.generation} after {before}"
    if dated and one.stamp_ms < entry.changed_ms - SKEW_MS:
        return (
            f"generation {one.generation} {entry.changed_ms - one.stamp_ms} ms before it was made"
        )
    return ""


def _as_champion(one: Made, entry: Entry | None) -> Made:
    """A canary serves beside the champion, whose generation it is."""
    if entry is None or entry.champion is None or one.version != entry.canary:
        return one
    return one._replace(version=entry.champion)


def _with(served: Served | None, one: Made) -> Served:
    if served is None:
        return Served(
            generation=one.generation,
            version=one.version,
            predictions=1,
            first_ms=one.stamp_ms,
            last_ms=one.stamp_ms,
        )
    return replace(
        served,
        predictions=served.predictions + 1,
        first_ms=min(served.first_ms, one.stamp_ms),
        last_ms=max(served.last_ms, one.stamp_ms),
    )


def _behind(served: Served, entries: Sequence[Entry], dated: bool) -> Served:
    """With the time since the first later generation that another version is champion of."""
    later = [
        entry.changed_ms
        for entry in entries
        if entry.generation > served.generation and entry.champion != served.version
    ]
    return replace(served, behind_ms=max(0, served.last_ms - later[0]) if later and dated else 0)
