"""The score stage: requests in, predictions out.

Every batch is predicted once per model and version, champion and shadows on the same rows; without
shadows where too much waits (`shedding`), and a slow model's rows in their turn (`shares`). Where
there is a canary, its output is the answer for a share of the keys. A row that the champion has no
finite output for is refused; a shadow that fails is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import repeat

import numpy as np

from models.features import Row
from models.losses import MAX_VALUE, fractions
from stream.core.accepted import Events
from stream.core.deadletters import dead_letters
from stream.core.decoding import Decoded, decode
from stream.core.parking import Parking
from stream.core.partitioning import partitions_of
from stream.core.processor import Batch, Context, Fleet, LiveModel, Output, Parts, Record
from stream.core.refusals import Refusals
from stream.core.scored import Columns, Said, encoded
from stream.core.shares import Shares
from stream.core.shedding import Shedding
from stream.core.timings import Timings
from stream.errors import Refused
from stream.events import LifecycleChanged

_ENTITY = "requests"
_PREDICTIONS, _NO_HEADERS, _NO_STAMPS = repeat("predictions"), repeat(()), repeat(None)
_CANNOT = (ArithmeticError, TypeError, ValueError)  # what a model may raise for odd rows
_NO_OUTPUT = Refused("bad-output", "the model has no finite output for these features")


class ScoreProcessor:
    """One partition of the score stage. Its only state is what waits: for an unknown model, or in
    the line of a slow one."""

    def __init__(self, context: Context) -> None:
        self._partition = context.partition
        self._settings = context.settings
        self._count = context.partitions["predictions"]
        self._parking = Parking(context.settings.unknown_model_wait_ms)
        self._refusals = Refusals()
        self._timings = Timings(context)
        self._shedding = Shedding(context)
        self._shares = Shares(context, _ENTITY)
        self._summaries = context.partitions.get("summaries", 1)
        self._fleet: Fleet = {}
        self._generations: dict[str, int] = {}
        self._counters: Counter[str] = Counter()

    def restore(self, parts: Mapping[str, bytes]) -> None:
        self._parking.restore(parts)
        self._shares.lines.restore(parts)

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        self._fleet = fleet
        self._shedding.begin(batch)
        self._shares.begin()
        decoded = decode(_ENTITY, batch.records, fleet, self._settings)
        outputs = self._retry(fleet) + self._work(decoded, fleet)
        return outputs + self._from_lines(batch.ahead, fleet)

    def proceed(self, fleet: Fleet) -> list[Output]:
        self._fleet = fleet
        self._shares.begin()
        return self._from_lines(0, fleet)

    def advance(self, clock_ms: int, caught_up: bool, fleet: Fleet) -> list[Output]:
        self._fleet = fleet
        outputs = self._retry(fleet)
        expired = self._parking.expired(clock_ms)
        outputs += self._refuse([(parked.record, parked.refused) for parked in expired])
        outputs += self._refusals.told(self._partition, self._summaries)
        return [*outputs, *self._timings.told(clock_ms), *self._shedding.told(clock_ms)]

    def changes(self, *, complete: bool) -> Parts:
        waiting = self._shares.lines.changes(complete=complete)
        return self._parking.changes(complete=complete) | waiting

    @property
    def generations(self) -> Mapping[str, int]:
        return self._generations

    @property
    def counters(self) -> Mapping[str, int]:
        return self._counters

    @property
    def gauges(self) -> Mapping[str, int]:
        return {"parked": len(self._parking), "put-off": self.backlog}

    @property
    def backlog(self) -> int:
        return len(self._shares.lines)

    @property
    def model_seconds(self) -> Mapping[str, float]:
        return self._shares.busy.seconds

    @property
    def model_backlog(self) -> Mapping[str, int]:
        return self._shares.lines.lengths

    def _retry(self, fleet: Fleet) -> list[Output]:
        retried = self._parking.retry(fleet, self._settings)
        return [output for _, decoded in retried for output in self._work(decoded, fleet)]

    def _from_lines(self, ahead: int, fleet: Fleet) -> list[Output]:
        """Predictions of what stood in line, as many as there is time for."""
        outputs: list[Output] = []
        for records in self._shares.due(ahead):
            decoded = decode(_ENTITY, records, fleet, self._settings)
            outputs += self._aside(decoded) + self._predictions(decoded.events, fleet)
        return outputs

    def _work(self, decoded: Decoded, fleet: Fleet) -> list[Output]:
        admitted = self._shares.admitted(decoded.events)
        return self._aside(decoded) + self._predictions(admitted, fleet)

    def _aside(self, decoded: Decoded) -> list[Output]:
        """Dead letters of what is refused; what is not known yet is parked."""
        unfit = decoded.refused + [pair for pair in decoded.unknown if not self._park(*pair)]
        return self._refuse(unfit) if unfit else []

    def _park(self, record: Record, refused: Refused) -> bool:
        if not self._parking.park(_ENTITY, record, refused):
            return False
        self._counters["parked"] += 1
        return True

    def _refuse(self, unfit: Sequence[tuple[Record, Refused]]) -> list[Output]:
        """Dead letters, in the order of the records."""
        for reason, count in Counter([refused.reason for _, refused in unfit]).items():
            self._counters[f"refused:{reason}"] += count
        self._refusals.note(_ENTITY, self._partition, unfit, self._fleet)
        return dead_letters(_ENTITY, unfit, "score", self._partition)

    def _predictions(self, events: Events, fleet: Fleet) -> list[Output]:
        """Predictions in the order of the events, whatever models they are for."""
        if not events:
            return []
        keys = [id_.encode() for id_ in events.ids]
        partitions = partitions_of(keys, self._count, self._settings.partitioner).tolist()
        values = self._values(events, fleet)
        self._counters["predictions"] += len(events)
        # Where a replayer is the clock, a prediction happened when its request did.
        of_request = self._settings.clock == "event"
        stamps = events.records.stamps_ms if of_request else _NO_STAMPS
        outputs = list(map(Output, _PREDICTIONS, keys, values, partitions, _NO_HEADERS, stamps))
        if not all(values):
            places = [i for i, value in enumerate(values) if value is None]
            letters = self._refuse([(one, _NO_OUTPUT) for one in events.records.take(places)])
            for i, letter in zip(places, letters, strict=True):
                outputs[i] = letter
        return outputs

    def _values(self, events: Events, fleet: Fleet) -> list[bytes | None]:
        """Encoded predictions; None where the model has no output."""
        models = {one.model for one in events.data}
        if len(models) == 1:
            return self._timed(events, fleet[models.pop()])
        values: list[bytes | None] = [None] * len(events)
        for name, places in _by_model(events).items():
            scored = self._timed(events.take(places), fleet[name])
            for i, value in zip(places, scored, strict=True):
                values[i] = value
        return values

    def _timed(self, events: Events, live: LiveModel) -> list[bytes | None]:
        since = self._shares.now()
        values = self._score(events, live)
        seconds = self._shares.now() - since
        self._shares.busy.note(live.lifecycle.model, len(events), seconds)
        return values

    def _score(self, events: Events, live: LiveModel) -> list[bytes | None]:
        """The predictions of one model, encoded; None where it has no output."""
        lifecycle = live.lifecycle
        self._generations[lifecycle.model] = lifecycle.generation
        if lifecycle.champion is None:
            raise ValueError(f"{lifecycle.model!r} has no champion; decode() parks such requests")
        said = self._said(events, live, lifecycle.champion)
        if lifecycle.canary not in said or lifecycle.canary == lifecycle.champion:
            return self._encoded(events, lifecycle, lifecycle.champion, said)
        lines: list[bytes | None] = [None] * len(events)
        for version, places in answering(events.ids, lifecycle, said).items():
            some = {v: [column[i] for i in places] for v, column in said.items()}
            encoded_ones = self._encoded(events.take(places), lifecycle, version, some)
            for i, line in zip(places, encoded_ones, strict=True):
                lines[i] = line
        return lines

    def _said(self, events: Events, live: LiveModel, champion: int) -> dict[int, list[Said]]:
        """Outputs by version: of the champion, and of its shadows unless they are shed."""
        lifecycle, rows, timings = live.lifecycle, events.rows, self._timings
        shadows = self._shedding.left(lifecycle)
        missing = set(lifecycle.shadows) - set(shadows)
        if missing:
            self._shedding.note(lifecycle, events, missing)
            self._counters["shadow_shed"] += len(events) * len(missing)
        timings.begin(live, events)
        said = {champion: outputs_of(live, champion, rows)}
        timings.end(champion)
        for version in shadows:
            said[version] = self._shadow(live, version, rows)
            timings.end(version)
        return said

    def _encoded(
        self,
        events: Events,
        lifecycle: LifecycleChanged,
        version: int,
        said: Mapping[int, Sequence[Said]],
    ) -> list[bytes | None]:
        """Predictions by one version, and beside them what the others said."""
        if not events:
            return []
        own = said[version]
        others = {str(v): column for v, column in said.items() if v != version}
        columns = Columns(
            events.records.offsets,
            events.times_ms,
            events.ids,
            own,
            [one.features for one in events.data],
            _beside(others) if others else [],
            events.traceparents,
        )
        lines: list[bytes | None] = [*encoded(columns, lifecycle, version, self._partition)]
        if None in own:
            lines = [None if one is None else line for one, line in zip(own, lines, strict=True)]
        return lines

    def _shadow(self, live: LiveModel, version: int, rows: Sequence[Row]) -> list[Said]:
        """A shadow's outputs. Its failure must not touch the champion's predictions."""
        try:
            said = outputs_of(live, version, rows)
        except LookupError:  # not loaded
            said = [None] * len(rows)
        self._counters["shadow_outputs"] += len(rows)
        self._counters["shadow_missing"] += said.count(None)
        return said


def answering(
    ids: Sequence[str], lifecycle: LifecycleChanged, said: Mapping[int, Sequence[Said]]
) -> dict[int, list[int]]:
    """Places of the requests that the champion answers, and of those that the canary does.

    A hash of the key decides, another one for each canary, so that an id has the same answer
    whoever scores it. What the canary has no output for, the champion answers.
    """
    canary, champion = lifecycle.canary or 0, lifecycle.champion or 0
    hashes = fractions([f"canary/{canary}/{id_}" for id_ in ids])
    takes = (hashes < lifecycle.spec.trial.canary_share).tolist()
    found: dict[int, list[int]] = {champion: [], canary: []}
    for i, (is_taken, output) in enumerate(zip(takes, said[canary], strict=True)):
        found[canary if is_taken and output is not None else champion].append(i)
    return found


def _by_model(events: Events) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for i, data in enumerate(events.data):
        places.setdefault(data.model, []).append(i)
    return places


def _beside(shadows: Mapping[str, Sequence[Said]]) -> list[dict[str, Said]]:
    """What the shadows said, event by event, without those that said nothing."""
    return [
        {version: said for version, said in zip(shadows, column, strict=True) if said is not None}
        for column in zip(*shadows.values(), strict=True)
    ]


def outputs_of(live: LiveModel, version: int, rows: Sequence[Row]) -> list[Said]:
    """One version's outputs; where the batch as a whole fails, row by row."""
    try:
        outputs = live.predict(version, rows)
    except _CANNOT:
        if len(rows) == 1:
            return [None]
        return [said for row in rows for said in outputs_of(live, version, [row])]
    said: list[Said] = (outputs[:, 0] if outputs.shape[1] == 1 else outputs).tolist()
    finite = np.all(np.abs(outputs) <= MAX_VALUE, axis=1).tolist()
    if not all(finite):
        said = [one if ok else None for one, ok in zip(said, finite, strict=True)]
    return said
