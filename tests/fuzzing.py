"""Mutated bytes for everything that decodes: nothing may come out but what each decoder promises.

    python -m tests.fuzzing --inputs 1000000 [--seed N] [--only NAME]

Good values are cut, spliced, flipped and stuffed with what parsers stumble over. A decoder either
accepts the result, or refuses it in its own way; anything else ends the run and prints the input.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from models import profile, serving, spec
from models.training import fit
from stream import checkpoints, envelope
from stream.core.decoding import decode
from stream.core.evaluate import EvaluateProcessor
from stream.core.processor import Batch, Context, CoreSettings, Headers, Parts, Record
from stream.errors import CheckpointError, Refused
from stream.events import (
    EVENT_TYPES,
    Command,
    LifecycleChanged,
    ProgressReported,
    SummaryComputed,
)
from tests import streams, summaries
from tests.fleets import CHURN, GOOD_FEATURES, FakeLive

NOW_MS: Final = 1_700_000_000_000
SETTINGS: Final = CoreSettings()
FLEET: Final = {CHURN.name: FakeLive()}
ARTEFACTS: Final = 5_000  # to load one takes milliseconds
#: What parsers stumble over.
TOKENS: Final = (
    *(b"null", b"true", b"-1", b"0.5", b"1e999", b"-0", b"NaN", b"1" * 400, b'""', b"[]", b"{}"),
    *(b'"\\ud800"', b'"\\u0000"', b"\xff", b"\x00", b"[" * 2_000, b'{"a":' * 2_000, b"9" * 5_000),
    *(
        b"\\",
        b'"',
        b",",
        b":",
        b"}",
        b"]",
        b"\xe2\x80\xae",
        b"\n",
        b"1e308",
        b"9223372036854775808",
    ),
    *(b'"specversion":"1.0",', b'"data":', b'"features":{}', b'"time":"9999-12-31T23:59:59Z"'),
)


@dataclass(frozen=True)
class Target:
    """One decoder: good values, and what is done with a mutated one.

    Attributes:
        weight: its share of the inputs, beside the others'.
        check: raises for anything that is not promised; returns what became of the input.
    """

    weight: int
    good: Sequence[bytes]
    check: Callable[[bytes, random.Random], str]


def mutated(good: Sequence[bytes], chance: random.Random) -> bytes:
    """A good value, changed in one or a few places."""
    raw = bytearray(chance.choice(good))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        start = chance.randrange(len(raw) + 1)
        end = min(len(raw), start + chance.choice((0, 1, 1, 1, 4, 30)))
        kind = chance.randrange(6)
        if kind == 0:
            raw[start:end] = chance.choice(TOKENS)
        elif kind == 1:
            raw[start:end] = bytes(chance.randrange(256) for _ in range(end - start))
        elif kind == 2:
            del raw[start:end]
        elif kind == 3:
            other = chance.choice(good)
            raw[start:end] = other[chance.randrange(len(other)) :][:40]
        elif kind == 4:
            del raw[start:]
        else:
            raw[start:start] = raw[start:end]
    return bytes(raw)


def record(value: bytes | None, offset: int = 0, headers: Headers = ()) -> Record:
    return Record(offset, NOW_MS, b"k", value, headers)


def _structured(kind: str, data: object) -> bytes:
    attributes = {"specversion": "1.0", "id": "1", "source": "s", "type": kind}
    return msgspec.json.encode(attributes | {"time": "2023-11-14T22:13:20Z", "data": data})


REQUEST: Final = {"prediction_id": "r-1", "model": "churn", "features": GOOD_FEATURES}
PRODUCED: Final = {
    "requests": ("driftline.prediction.requested.v1", REQUEST),
    "predictions": (
        "driftline.prediction.made.v1",
        REQUEST | {"version": 1, "output": 0.25, "shadow": {"2": 0.5}},
    ),
    "feedback": (
        "driftline.feedback.received.v1",
        {"prediction_id": "r-1", "model": "churn", "label": "leaves", "weight": 2.0},
    ),
}


def _headers(chance: random.Random) -> Headers:
    """Sometimes binary-mode attributes, some of them broken."""
    if chance.random() < 0.8:
        return ()
    names = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "traceparent", "b3")
    values = (b"1.0", b"1", b"driftline.prediction.made.v1", b"yesterday", b"\xff", b"", None)
    return tuple((chance.choice(names), chance.choice(values)) for _ in range(chance.randrange(7)))


def _produced(entity: str) -> Target:
    kind, data = PRODUCED[entity]
    good = (msgspec.json.encode(data), _structured(kind, data))

    def check(raw: bytes, chance: random.Random) -> str:
        """The record is in exactly one list, and its neighbours are as they would be alone."""
        records = [record(good[n % 2], n) for n in range(5)]
        place = chance.randrange(5)
        records[place] = record(raw, place, _headers(chance))
        decoded = decode(entity, records, FLEET, SETTINGS)
        found = [event.record.offset for event in decoded.events]
        refused = [one.offset for one, _ in decoded.refused + decoded.unknown]
        assert sorted(found + refused) == [0, 1, 2, 3, 4], (found, refused)
        assert set(refused) <= {place}
        return "refused" if refused else "accepted"

    return Target(6, good, check)


def _evaluated() -> Target:
    """Evaluate takes what it can read and counts the rest; it never stops."""
    delta = SummaryComputed(
        model="bikes",
        version=1,
        tick=3,
        partition=0,
        predictions=30,
        signals={"x": [0, *[3] * 10, 0, 0], "c": [20, 10, 0, 0]},
        bets=[10, 20],
    )
    progress = ProgressReported(
        partition=0,
        partitions=1,
        watermark_ms=4 * summaries.DAY_MS,
        caught_up=True,
        clock_ms=0,
        sequence=1,
    )
    good = (
        _structured("driftline.summary.computed.v1", delta),
        _structured("driftline.progress.reported.v1", progress),
    )
    fleet = summaries.Trainer().fleet

    def check(raw: bytes, _: random.Random) -> str:
        processor = EvaluateProcessor(Context(0, {"summaries": 1}, SETTINGS))
        batch = [record(raw), *map(record, good), record(raw)]
        processor.apply(Batch("summaries", 0, batch), fleet)
        processor.changes(complete=True)
        return "refused" if processor.counters.get("refused:bad-json") else "accepted"

    return Target(1, good, check)


def _own() -> Target:
    """Every event that services read from each other is one of its type, or refused."""
    state = LifecycleChanged(
        model="churn", generation=3, spec=CHURN, spec_revision=1, champion=1, changed_ms=NOW_MS
    )
    command = Command(
        command_id="c", kind="promote", model="churn", generation=3, reason="", issued_ms=NOW_MS
    )
    alert = {"alert_id": "a", "model": "churn", "problem": "harm", "verdict": "data broken"}
    more = {"state": "open", "severity": "info", "sentence": "", "opened_ms": 1, "updated_ms": 1}
    good = (
        _structured("driftline.lifecycle.changed.v1", state),
        _structured("driftline.command.promote.v1", command),
        _structured("driftline.alert.opened.v1", alert | more),
    )

    def check(raw: bytes, chance: random.Random) -> str:
        entity = chance.choice(("lifecycle", "commands", "alerts"))
        try:
            came = record(raw, 0, _headers(chance))
            opened = envelope.open_record(entity, came, max_bytes=10**6)
            envelope.read(opened, EVENT_TYPES[opened.type][0])
        except Refused:
            return "refused"
        return "accepted"

    return Target(2, good, check)


def _checkpoint() -> Target:
    """A checkpoint is whole, or halts; a part that was touched is never handed on."""
    parts: Parts = {"state": b"[1,2]", "rows.0": b"\x00\x01\x02"}
    manifest = checkpoints.Manifest(
        stage="monitor",
        partition=0,
        next={"predictions": 3, "feedback": 4},
        partitions={"predictions": 4},
        parts={name: checkpoints.digest(part) for name, part in parts.items() if part},
    )
    written = checkpoints.records(manifest, parts)
    good = tuple(value for value in written.values() if value is not None)

    def check(raw: bytes, chance: random.Random) -> str:
        latest = {key.encode(): value for key, value in written.items() if value is not None}
        latest[chance.choice(sorted(latest))] = raw
        try:
            found = checkpoints.parse(latest, "monitor", 0)
        except CheckpointError:
            return "refused"
        assert found is not None
        assert all(parts.get(name) == part for name, part in found.parts.items())
        return "accepted"

    return Target(2, good, check)


def _plain(read: Callable[[bytes], object], good: bytes, weight: int) -> Target:
    """Accepted, or a ValueError."""

    def check(raw: bytes, _: random.Random) -> str:
        try:
            read(raw)
        except ValueError:
            return "refused"
        return "accepted"

    return Target(weight, (good,), check)


def _artefact() -> Target:
    one = streams.spec(training=spec.Training(candidates=("logistic_regression",)))
    good = fit(one, streams.examples(), 0).artefact
    return _plain(lambda raw: serving.load(raw, one), good, 0)


def targets() -> dict[str, Target]:
    return {
        **{entity: _produced(entity) for entity in PRODUCED},
        "evaluate": _evaluated(),
        "own events": _own(),
        "checkpoint": _checkpoint(),
        "spec": _plain(spec.read_spec, msgspec.json.encode(CHURN), 1),
        "profile": _plain(profile.decode, profile.encode(summaries.profile()), 1),
        "artefact": _artefact(),
    }


def run(name: str, target: Target, inputs: int, seed: int) -> Counter[str]:
    """What became of so many inputs.

    Raises:
        AssertionError: a decoder did what it does not promise; the message holds the input.
    """
    chance = random.Random(f"{name}/{seed}")
    became: Counter[str] = Counter()
    for number in range(inputs):
        raw = mutated(target.good, chance)
        try:
            became[target.check(raw, chance)] += 1
        except Exception as error:
            shown = raw[:2_000]
            raise AssertionError(f"{name}, seed {seed}, input {number}: {shown!r}") from error
    return became


def main() -> None:
    one = argparse.ArgumentParser(description="Mutated bytes for everything that decodes.")
    one.add_argument("--inputs", type=int, default=1_000_000)
    one.add_argument("--seed", type=int, default=1)
    one.add_argument("--only", help="one decoder")
    given = one.parse_args()
    chosen = {n: t for n, t in targets().items() if given.only in (None, n)}
    shares = sum(target.weight for target in chosen.values()) or 1
    for name, target in chosen.items():
        started = time.monotonic()
        count = given.inputs * target.weight // shares or min(given.inputs, ARTEFACTS)
        became = run(name, target, count, given.seed)
        spent = time.monotonic() - started
        told = ", ".join(f"{n:,} {what}" for what, n in sorted(became.items()))
        print(f"{name}: {count:,} inputs, {told}; {spent:.0f} s", flush=True)


if __name__ == "__main__":
    main()
