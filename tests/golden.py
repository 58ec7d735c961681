"""What a release wrote, kept as files: the next versions must still read it.

    python -m tests.golden

writes `tests/released/<version>.json` with today's code: one event of each type, a checkpoint of
each stage with the records that came after it, a registry and an artefact. The file of a released
version is never written again; a new format gets a file of its own.
"""

from __future__ import annotations

import base64
import math
import random
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from models import profile, spec
from models.registry import Registry
from models.training import Trained, fit
from stream import checkpoints
from stream.core.evaluate import EvaluateProcessor
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Output, Processor, Record
from stream.core.scoring import ScoreProcessor
from stream.envelope import write
from stream.errors import CheckpointError
from stream.events import EVENT_TYPES, ExamplesLabelled
from stream.topics import Stage
from tests import monitoring, registries, streams, summaries
from tests.fleets import CHURN, GOOD_FEATURES, FakeLive

FOLDER: Final = Path(__file__).parent / "released"
PREDICTED: Final = 20  # rows whose predictions are kept
COUNTS: Final = dict.fromkeys(
    ("requests", "predictions", "feedback", "examples", "summaries", "accuracy"), 1
)

Step = tuple[str, int, str]  # input entity, timestamp in ms, value


class Kept(Struct, kw_only=True):
    """One stage's checkpoint, the records after it, and what the release made of them."""

    latest: dict[str, str]  # records of the checkpoint topic by key, base64
    steps: list[Step]
    clock_ms: int
    outputs: list[tuple[str, str]]  # entity and value


class Golden(Struct, kw_only=True):
    events: dict[str, str]
    stages: dict[str, Kept]
    registry: str  # the SQL that makes a SQLite database
    registry_revision: str
    spec: str
    artefact: str  # base64
    profile: str
    predictions: list[list[float]]  # of `streams.examples`, as the release predicted them


FLEETS: Final[Mapping[Stage, Fleet]] = {
    "score": {CHURN.name: FakeLive()},
    "monitor": {monitoring.SPEC.name: monitoring.Live()},
    "evaluate": summaries.Trainer().fleet,
}


def processor(stage: Stage) -> Processor:
    kinds: dict[Stage, Any] = {
        "score": ScoreProcessor,
        "monitor": MonitorProcessor,
        "evaluate": EvaluateProcessor,
    }
    made: Processor = kinds[stage](Context(0, COUNTS, CoreSettings()))
    return made


def go_on(one: Processor, stage: Stage, kept: Kept) -> list[tuple[str, str]]:
    """Apply the records after the checkpoint; entity and value of each output."""
    outputs: list[Output] = []
    for offset, (entity, stamp_ms, value) in enumerate(kept.steps, 1_000):
        came = Record(offset, stamp_ms, b"k", value.encode(), ())
        outputs += one.apply(Batch(entity, 0, [came]), FLEETS[stage])
    outputs += one.advance(kept.clock_ms, True, FLEETS[stage])
    return [(output.entity, (output.value or b"").decode()) for output in outputs]


def missing(outputs: list[tuple[str, str]], kept: Kept) -> list[tuple[str, str]]:
    """What the release measured in the same records and is not among these outputs, in its order.

    How sure a test is, and so when it alarms, a newer version may improve.
    """
    left = (one for output in outputs for one in _apart(*output))
    return [
        (entity, value)
        for output in kept.outputs
        for entity, value in _apart(*output)
        if entity not in ("alerts", "commands")
        and not any(
            entity == now and says(msgspec.json.decode(told), _measured(entity, value))
            for now, told in left
        )
    ]


def _measured(entity: str, value: str) -> Any:
    """An event without how near its signal was to an alarm; of an example what it says."""
    event = msgspec.json.decode(value)
    if entity == "drift":
        del event["data"]["evidence"]
    return {"data": event["data"]} if entity == "examples" else event


def _apart(entity: str, value: str) -> Iterator[tuple[str, str]]:
    """Examples one by one, as 0.1 wrote them; all else as it is."""
    if entity != "examples" or "labelled.v1" in value:
        yield entity, value
        return
    for example in msgspec.convert(msgspec.json.decode(value)["data"], ExamplesLabelled).each():
        yield entity, msgspec.json.encode({"data": example}).decode()


def says(now: Any, then: Any) -> bool:
    """Whether all that was said then is said now: further fields are new, and the last bits of a
    float depend on the processor.

    >>> says({"x": [0.1 + 0.2], "new": 1}, {"x": [0.3]}), says({"x": [0.3001]}, {"x": [0.3]})
    (True, False)
    """
    if isinstance(then, dict):
        return isinstance(now, dict) and all(k in now and says(now[k], then[k]) for k in then)
    if isinstance(then, list):
        same = isinstance(now, list) and len(now) == len(then)
        return same and all(map(says, now, then))
    if isinstance(then, float) and isinstance(now, int | float):
        return math.isclose(now, then, rel_tol=1e-9, abs_tol=1e-9)
    return bool(now == then)


def latest(kept: Kept) -> dict[bytes, bytes]:
    return {key.encode(): base64.b64decode(value) for key, value in kept.latest.items()}


def restored(stage: Stage, kept: Kept) -> Processor:
    checkpoint = checkpoints.parse(latest(kept), stage, 0)
    if checkpoint is None:
        raise CheckpointError(f"no checkpoint of {stage}")
    one = processor(stage)
    one.restore(checkpoint.parts)
    return one


def _inputs(stage: Stage) -> list[Step]:
    """Records for a stage: the first half lies before the checkpoint, the rest after it."""
    if stage == "score":
        request = {"model": "churn", "features": GOOD_FEATURES}
        told = [
            request | {"prediction_id": f"r-{n}"} | ({"model": "later"} if n % 3 == 0 else {})
            for n in range(12)
        ]
        return [("requests", monitoring.T0 + n, _json(one)) for n, one in enumerate(told)]
    if stage == "monitor":
        chance = random.Random(5)
        sent = [monitoring.prediction(f"r-{n}", n * 100) for n in range(60)]
        sent += [
            monitoring.feedback(f"r-{n}", n * 100 + chance.randrange(3_000)) for n in range(60)
        ]
        sent.sort(key=lambda one: one.stamp_ms)
        return [(one.entity, one.stamp_ms, (one.record(0).value or b"").decode()) for one in sent]
    made = summaries.Monitor(partitions=1)
    for day in range(40):
        made.day(day, 1, bad=0.05 if day < 12 else 0.6, shift=0 if day < 20 else 4)
        made.progress(day + 1)
    return [
        ("summaries", day, _event(one)) for day, one in enumerate(made.logs[0])
    ]  # their own times are in the data


def _event(data: Struct) -> str:
    kind = summaries.EVENTS[type(data)]
    return write(kind, data, id="1", source="golden", time_ms=0).decode()


def _json(data: object) -> str:
    return msgspec.json.encode(data).decode()


def _keep(stage: Stage) -> Kept:
    inputs = _inputs(stage)
    half = len(inputs) // 2
    one = processor(stage)
    parts: dict[str, bytes] = {}
    for offset, (entity, stamp_ms, value) in enumerate(inputs[:half]):
        came = Record(offset, stamp_ms, b"k", value.encode(), ())
        one.apply(Batch(entity, 0, [came]), FLEETS[stage])
        if offset % 7 == 0:
            one.advance(stamp_ms, True, FLEETS[stage])
            monitoring.keep(parts, one.changes(complete=False))
    one.advance(inputs[half][1], True, FLEETS[stage])
    monitoring.keep(parts, one.changes(complete=False))
    manifest = checkpoints.Manifest(
        stage=stage,
        partition=0,
        next={entity: half for entity, _, _ in inputs},
        partitions=dict.fromkeys(checkpoints.PINNED[stage], 1),
        generations=dict(one.generations),
        parts={name: checkpoints.digest(part) for name, part in parts.items()},
    )
    written = checkpoints.records(manifest, dict(parts))
    kept = Kept(
        latest={key: base64.b64encode(value or b"").decode() for key, value in written.items()},
        steps=inputs[half:],
        clock_ms=inputs[-1][1] + 60_000,
        outputs=[],
    )
    kept.outputs = go_on(restored(stage, kept), stage, kept)
    return kept


def example(struct: type[Any]) -> Any:
    """An event with every field set to something."""
    fields = {}
    for one in _fields(struct):
        fields[one.encode_name] = _some(one.type)
    return msgspec.convert(fields, struct)


def _fields(struct: type[Any]) -> Any:
    info: Any = msgspec.inspect.type_info(struct)
    return info.fields


def _some(kind: Any) -> Any:
    info = msgspec.inspect
    match kind:
        case info.UnionType():
            return _some(kind.types[0])
        case info.LiteralType():
            return kind.values[0]
        case info.BoolType():
            return True
        case info.IntType():
            return 3
        case info.FloatType():
            return 0.5
        case info.StrType():
            return "text"
        case info.ListType() | info.VarTupleType():
            return [_some(kind.item_type)]
        case info.DictType():
            return {_some(kind.key_type): _some(kind.value_type)}
        case info.StructType() if kind.cls is spec.ModelSpec:
            return msgspec.to_builtins(CHURN)
        case info.StructType() if kind.array_like:
            return [_some(field.type) for field in kind.fields]
        case info.StructType():
            return {field.encode_name: _some(field.type) for field in kind.fields}
    return "anything"


def _registry() -> tuple[str, str]:
    """The SQL of a registry with a model, two versions, a promotion and a run; its revision."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "registry.db"
        with Registry(f"sqlite:///{path}", clock=registries.Clock()) as one:
            revision = one.upgrade()
            one.add_model(registries.CHURN, who="golden")
            run = one.begin_run("churn", cause="golden")
            first = registries.register(one, run_id=run)
            second = registries.register(one)
            one.promote("churn", first, who="golden", reason="the first")
            one.challenge("churn", second, who="golden", reason="a challenger")
        with closing(sqlite3.connect(path)) as connection:
            return "\n".join(connection.iterdump()), revision


def make() -> Golden:
    one = streams.spec(training=spec.Training(candidates=("logistic_regression",)))
    trained: Trained = fit(one, streams.examples(), 0)
    sql, revision = _registry()
    golden = Golden(
        events={
            kind: write(kind, example(struct), id="1", source="golden", time_ms=1).decode()
            for kind, (struct, _) in EVENT_TYPES.items()
        },
        stages={stage: _keep(stage) for stage in FLEETS},
        registry=sql,
        registry_revision=revision,
        spec=_json(one),
        artefact=base64.b64encode(trained.artefact).decode(),
        profile=profile.encode(trained.profile).decode(),
        predictions=[],
    )
    golden.predictions = predictions(golden)
    return golden


def predictions(golden: Golden) -> list[list[float]]:
    """What the artefact says of the first rows."""
    from models import serving

    one = spec.read_spec(golden.spec)
    model = serving.load(base64.b64decode(golden.artefact), one)
    said: list[list[float]] = model.predict(streams.examples().rows[:PREDICTED]).tolist()
    return said


def read(path: Path) -> Golden:
    return msgspec.json.decode(path.read_bytes(), type=Golden)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / f"{version('driftline')}.json"
    target.write_bytes(msgspec.json.format(msgspec.json.encode(make()), indent=1) + b"\n")
    print(f"{target.relative_to(FOLDER.parent.parent)}: {target.stat().st_size:,} bytes")
