"""The shadow stage: models that are served elsewhere, beside what is held of them here.

It reads `predictions`, predicts the same features with the versions that lifecycle names, and
writes what they would have said behind the prediction, in the same partition: so monitor pairs them
on the same labels as it does where score predicts with all versions at once. A stage of its own,
because score would otherwise have to read all that it writes itself. It has no state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from models.features import Row
from stream.core.busy import Busy
from stream.core.checking import check_id
from stream.core.known import named_in
from stream.core.partitioning import partition_of
from stream.core.processor import Batch, Context, Fleet, LiveModel, Output, Parts, Record
from stream.core.scored import Said
from stream.core.scoring import outputs_of
from stream.core.shadowed import KIND, MARK
from stream.core.shapes import BROKEN, shape_of
from stream.envelope import derived_id, open_record, write
from stream.errors import Refused
from stream.events import DEFAULT_TYPES, PredictionShadowed
from stream.topics import HEADER_REROUTED

SOURCE: Final = "driftline/shadow"
_ENTITY: Final = "predictions"


class _Head(Struct):
    version: int


class _Made(NamedTuple):
    """A prediction that was made elsewhere."""

    record: Record
    id: str
    version: int
    row: Row
    time_ms: int
    traceparent: str | None


class ShadowProcessor:
    """One partition of the shadow stage."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._generations: dict[str, int] = {}
        self._counters: Counter[str] = Counter()
        self._busy = Busy(0.0)

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """There is nothing to take over."""

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        outputs: dict[int, Output] = {}
        now = self._context.stopwatch or float
        for name, made in self._by_model(batch.records, fleet).items():
            since = now()
            outputs |= self._beside(made, fleet[name])
            self._busy.note(name, len(made), now() - since)
        return [outputs[offset] for offset in sorted(outputs)]

    def advance(self, clock_ms: int, caught_up: bool, fleet: Fleet) -> list[Output]:
        return []

    def changes(self, *, complete: bool) -> Parts:
        return {}

    @property
    def generations(self) -> Mapping[str, int]:
        return self._generations

    @property
    def counters(self) -> Mapping[str, int]:
        return self._counters

    @property
    def model_seconds(self) -> Mapping[str, float]:
        return self._busy.seconds

    def _by_model(self, records: Sequence[Record], fleet: Fleet) -> dict[str, list[_Made]]:
        """Predictions with features, of models that are served elsewhere.

        What is not right is passed over here: monitor refuses it.
        """
        found: dict[str, list[_Made]] = {}
        for record in records:
            value = record.value or b""
            name = "" if MARK in value else named_in(value)
            live = fleet.get(name)
            if live is None or live.lifecycle.spec.served != "elsewhere":
                continue
            try:
                made = self._read(record, live)
            except (Refused, ValueError, *BROKEN):
                self._counters["unread"] += 1
                continue
            if made is not None:
                found.setdefault(name, []).append(made)
        return found

    def _read(self, record: Record, live: LiveModel) -> _Made | None:
        """The prediction; None where it is not to be scored here.

        Raises:
            Refused, ValueError, msgspec.DecodeError: it is not right.
        """
        settings, spec = self._context.settings, live.lifecycle.spec
        opened = open_record(_ENTITY, record, max_bytes=settings.max_event_bytes)
        shape = shape_of("requests", spec)
        if opened.type != DEFAULT_TYPES[_ENTITY] or shape.strict is None:
            return None
        data: Any = shape.strict.decode(opened.data)  # what a request has, a prediction has, too
        check_id(data.prediction_id)
        if data.model != spec.name or self._is_astray(record, data.prediction_id):
            return None
        (row,) = shape.rows([data.features])
        version = msgspec.json.decode(opened.data, type=_Head).version
        return _Made(record, data.prediction_id, version, row, opened.time_ms, opened.traceparent)

    def _is_astray(self, record: Record, id_: str) -> bool:
        """Monitor sends on what lies in a wrong partition: then it is met there."""
        if any(name == HEADER_REROUTED for name, _ in record.headers):
            return False
        count, partitioner = (
            self._context.partitions[_ENTITY],
            self._context.settings.partitioner,
        )
        return partition_of(id_.encode(), count, partitioner) != self._context.partition

    def _beside(self, made: Sequence[_Made], live: LiveModel) -> dict[int, Output]:
        """What the versions held here would have said, by the offset of the prediction."""
        lifecycle = live.lifecycle
        self._generations[lifecycle.model] = lifecycle.generation
        named = {lifecycle.champion, *lifecycle.shadows} - {None}
        rows = [one.row for one in made]
        said: dict[int, list[Said]] = {}
        for version in sorted(v for v in named if v is not None):
            if any(one.version != version for one in made):
                try:
                    said[version] = outputs_of(live, version, rows)
                except LookupError:  # its bytes are elsewhere
                    continue
        outputs = {}
        for i, one in enumerate(made):
            shadow = {
                str(version): output
                for version, column in said.items()
                if version != one.version and (output := column[i]) is not None
            }
            if shadow:
                outputs[one.record.offset] = self._output(one, shadow, live)
        self._counters["shadowed"] += len(outputs)
        return outputs

    def _output(
        self, made: _Made, shadow: dict[str, float | list[float]], live: LiveModel
    ) -> Output:
        context, lifecycle = self._context, live.lifecycle
        data = PredictionShadowed(
            prediction_id=made.id,
            model=lifecycle.model,
            version=made.version,
            shadow=shadow,
            generation=lifecycle.generation,
        )
        value = write(
            KIND,
            data,
            id=derived_id("shadowed", context.partition, made.record.offset),
            source=SOURCE,
            time_ms=made.time_ms,
            traceparent=made.traceparent,
        )
        stamp_ms = made.record.timestamp_ms if context.settings.clock == "event" else None
        return Output(_ENTITY, made.id.encode(), value, context.partition, (), stamp_ms)
