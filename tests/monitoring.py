"""A made-up model, and logs of predictions and feedback, for the tests of the monitor stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from models.estimating import fit_estimator
from models.features import Row
from models.profile import ReferenceProfile, Validation
from models.profiling import build_profile
from models.slicing import slices
from models.spec import Feature, Labels, ModelSpec, Ticks, check
from stream.core.monitor import MonitorProcessor
from stream.core.partitioning import partition_of
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Output, Parts, Record
from stream.events import (
    ExampleLabelled,
    ExamplesLabelled,
    LifecycleChanged,
    ProgressReported,
    SummaryComputed,
)

T0 = 1_000_000_000
TICK_MS = 1_000
LATENESS_MS = 500
HORIZON_MS = 10_000
CORRECTION_MS = 4_000
EARLY_MS = 3_000

SPEC = check(
    ModelSpec(
        name="churn",
        task="binary",
        classes=("no", "yes"),
        features=(Feature(name="age"), Feature(name="plan", type="categorical")),
        segments=("plan",),
        ticks=Ticks(seconds=TICK_MS / 1000, allowed_lateness_seconds=LATENESS_MS / 1000),
        labels=Labels(
            horizon_seconds=HORIZON_MS / 1000,
            correction_horizon_seconds=CORRECTION_MS / 1000,
            early_seconds=EARLY_MS / 1000,
        ),
    )
)


def reference(spec: ModelSpec = SPEC, *, income: bool = False) -> ReferenceProfile:
    """Args:
    income: whether the spec has gained a third feature, a number.
    """
    gained = [(n % 7 - 3.0,) if income else () for n in range(200)]
    rows: list[Row] = [(float(n % 40), "ab"[n % 2], *gained[n]) for n in range(200)]
    outputs = np.linspace(0.0, 1.0, 200).reshape(-1, 1)
    validation = Validation(n=200, loss_bins=(10,) * 20, loss_scale=4.0, metrics={})
    labels = (np.arange(200) % 3 == 0).astype(float)
    profile = build_profile(spec, rows, outputs, validation, labels=labels)
    return replace(
        profile,
        estimator=fit_estimator(spec, profile, rows, outputs, labels),
        slices=slices(spec, profile, rows, outputs, labels),
    )


class Live:
    """A live model whose versions are known, and predict nothing."""

    def __init__(
        self,
        spec: ModelSpec = SPEC,
        *,
        generation: int = 1,
        versions: Sequence[int] = (1,),
        known: ReferenceProfile | None = None,
    ) -> None:
        self.lifecycle = LifecycleChanged(
            model=spec.name,
            generation=generation,
            spec=spec,
            spec_revision=1,
            champion=1,
            changed_ms=0,
        )
        self._profiles = dict.fromkeys(versions, known or reference(spec))

    def predict(self, version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        raise NotImplementedError

    def profile(self, version: int) -> ReferenceProfile | None:
        return self._profiles.get(version)


FLEET: Fleet = {"churn": Live()}


class Sent(NamedTuple):
    """One event of a producer: when it happened and when it reached the log."""

    entity: str
    id: str
    time_ms: int
    stamp_ms: int
    data: dict[str, Any]

    def record(self, offset: int) -> Record:
        kind = {"predictions": "prediction.made", "feedback": "feedback.received"}[self.entity]
        envelope = {
            "specversion": "1.0",
            "id": f"{self.entity}-{offset}",
            "source": "test",
            "type": f"driftline.{kind}.v1",
            "time": np.datetime64(self.time_ms, "ms").item().isoformat() + "Z",
            "data": self.data,
        }
        return Record(offset, self.stamp_ms, self.id.encode(), msgspec.json.encode(envelope))


def prediction(
    id_: str, at: int, *, output: float = 0.8, delay: int = 0, plan: str = "a", **more: object
) -> Sent:
    """A prediction `at` ms after T0, in the log `delay` ms later."""
    features = {"age": 20.0, "plan": plan}
    data = {"prediction_id": id_, "model": "churn", "version": 1, "output": output} | more
    return Sent("predictions", id_, T0 + at, T0 + at + delay, {**data, "features": features})


def feedback(id_: str, at: int, label: str = "yes", *, delay: int = 0, **more: object) -> Sent:
    data = {"prediction_id": id_, "model": "churn", "label": label} | more
    return Sent("feedback", id_, T0 + at, T0 + at + delay, data)


Logs = dict[tuple[str, int], list[Record]]


def logs_of(sent: Iterable[Sent], partitions: int) -> Logs:
    """What lies in each partition of the two topics, in the order of the stamps."""
    logs: Logs = {(e, p): [] for e in ("predictions", "feedback") for p in range(partitions)}
    for one in sorted(sent, key=lambda one: one.stamp_ms):
        log = logs[one.entity, partition_of(one.id.encode(), partitions, "murmur2")]
        log.append(one.record(len(log)))
    return logs


def monitor(partition: int = 0, partitions: int = 1, **settings: Any) -> MonitorProcessor:
    counts = dict.fromkeys(("predictions", "feedback", "examples"), partitions) | {"summaries": 2}
    return MonitorProcessor(Context(partition, counts, CoreSettings(**settings)))


def feed(processor: MonitorProcessor, *sent: Sent, fleet: Fleet = FLEET) -> list[Output]:
    """Apply events one after the other, each with the next offset of its topic."""
    outputs = []
    for one in sent:
        offset = processor.counters.get(one.entity, 0)
        outputs += processor.apply(Batch(one.entity, 0, [one.record(offset)]), fleet)
    return outputs


def data_of(outputs: Iterable[Output], entity: str) -> list[dict[str, Any]]:
    """The data of all events for a topic."""
    return [
        msgspec.json.decode(output.value)["data"]
        for output in outputs
        if output.entity == entity and output.value
    ]


def examples_in(outputs: Iterable[Output]) -> list[ExampleLabelled]:
    """The examples of all records, one by one; which of them come together may differ."""
    return [
        example
        for data in data_of(outputs, "examples")
        for example in msgspec.convert(data, ExamplesLabelled).each()
    ]


def summaries_of(outputs: Iterable[Output]) -> list[SummaryComputed]:
    return [
        msgspec.convert(data, SummaryComputed)
        for data in data_of(outputs, "summaries")
        if "tick" in data
    ]


def progress_of(outputs: Iterable[Output]) -> list[ProgressReported]:
    """Reports, each once, though every partition gets it."""
    return [
        msgspec.convert(data, ProgressReported)
        for data in data_of((o for o in outputs if o.partition == 0), "summaries")
        if "watermark_ms" in data
    ]


def merged(summaries: Iterable[SummaryComputed]) -> dict[tuple[str, int, str, int], dict[str, Any]]:
    """Deltas added up by place, as plain data without zeros."""
    totals: dict[tuple[str, int, str, int], dict[str, Any]] = {}
    for one in summaries:
        place = (one.model, one.version, one.segment, one.tick)
        plain = msgspec.to_builtins(one)
        for name in ("model", "version", "segment", "tick", "partition"):
            plain.pop(name, None)
        before = totals.get(place, {})
        latest = [one.pop("latest") for one in (before, plain) if "latest" in one]
        totals[place] = _added(before, plain) | ({"latest": max(latest)} if latest else {})
    without = {place: _without_zeros(total) for place, total in totals.items()}
    return {place: total for place, total in without.items() if total}


def _added(one: Any, other: Any) -> Any:
    if isinstance(other, Mapping):
        return dict(one or {}) | {k: _added((one or {}).get(k), v) for k, v in other.items()}
    if isinstance(other, list):
        return [a + b for a, b in zip(one or [0] * len(other), other, strict=True)]
    if isinstance(other, tuple) and len(other) == 3:  # of a slice: labels, losses and squares
        return tuple(a + b for a, b in zip(one or (0, 0, 0), other, strict=True))
    if isinstance(other, tuple):  # where records lie: first and end
        first, end = one or other
        return min(first, other[0]), max(end, other[1])
    return (one or 0) + other


def _without_zeros(value: Any) -> Any:
    if isinstance(value, Mapping):
        slim = {k: _without_zeros(v) for k, v in value.items()}
        return {k: v for k, v in slim.items() if v}
    if isinstance(value, list):
        return value if any(value) else []
    return value


def keep(stored: dict[str, bytes], changed: Parts) -> None:
    """What a checkpoint does with changed parts."""
    for name, data in changed.items():
        if data is None:
            stored.pop(name, None)
        else:
            stored[name] = data
