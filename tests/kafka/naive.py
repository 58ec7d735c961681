"""What predictions and feedback add up to, by hand: one id at a time, with the whole log known.

Shares no code with the monitor stage. Places are (version, segment, tick).
"""

from __future__ import annotations

import json
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from models.spec import ModelSpec
from tests.kafka.traffic import REGIONS
from tests.topics import Seen

Place = tuple[int, str, int]
SCALE = 4.0  # nats that count as wholly wrong
LAST_BIN = 19


class Made(NamedTuple):
    time_ms: int
    version: int
    output: float
    segments: tuple[str, str]


class Said(NamedTuple):
    time_ms: int
    label: int


class Naive:
    """The fold.

    Args:
        predictions, feedback: records that are to be counted, in the order of the log.
        watermarks: how far each partition is in the end.

    Attributes:
        sums: by place and name, in millionths; `squares` alike.
        bets: by place and bin, in the ticks in which labels arrived if none was late.
        examples: (prediction_id, revision, label).
    """

    def __init__(
        self,
        spec: ModelSpec,
        predictions: Iterable[Seen],
        feedback: Iterable[Seen],
        watermarks: Mapping[int, int],
    ) -> None:
        self._spec = spec
        self._horizon_ms = round(spec.labels.horizon_seconds * 1000)
        self._correction_ms = round(spec.labels.correction_horizon_seconds * 1000)
        self._early_ms = round(spec.labels.early_seconds * 1000)
        self._lateness_ms = round(spec.ticks.allowed_lateness_seconds * 1000)
        self.predictions: Counter[Place] = Counter()
        self.labelled: Counter[Place] = Counter()
        self.sums: Counter[tuple[Place, str]] = Counter()
        self.squares: Counter[tuple[Place, str]] = Counter()
        self.bets: Counter[tuple[Place, int]] = Counter()
        self.delays: Counter[int] = Counter()
        self.counters: Counter[str] = Counter()
        self.examples: list[tuple[str, int, str]] = []
        self._fold(predictions, feedback, watermarks)

    def _fold(
        self,
        predictions: Iterable[Seen],
        feedback: Iterable[Seen],
        watermarks: Mapping[int, int],
    ) -> None:
        made: dict[str, tuple[int, Made]] = {}
        said: dict[str, list[tuple[int, Said]]] = defaultdict(list)
        for record in predictions:
            time_ms, data = self._opened(record)
            if "clock_ms" not in data:
                self._predict(made, record.partition, time_ms, data)
        for record in feedback:
            time_ms, data = self._opened(record)
            if "clock_ms" not in data:
                label = Said(time_ms, self._spec.classes.index(data["label"]))
                said[data["prediction_id"]].append((record.partition, label))
        for id_, (partition, one) in made.items():
            labels = [label for _, label in said.pop(id_, [])]
            self._one(id_, one, labels, watermarks[partition])
        for labels_of_none in said.values():
            for partition, label in labels_of_none:
                self._orphan(label, watermarks[partition])

    def _opened(self, record: Seen) -> tuple[int, dict[str, Any]]:
        value = json.loads(record.value or b"")
        headers = dict(record.headers)
        time = value.get("time") or (headers.get("ce_time") or b"").decode()
        time_ms = round(datetime.fromisoformat(time).timestamp() * 1000) if time else None
        time_ms = record.timestamp_ms if time_ms is None else time_ms
        data = value.get("data", value)
        if time_ms < record.timestamp_ms - self._lateness_ms:
            self.counters["late"] += 1
        return time_ms, data

    def _predict(
        self, made: dict[str, tuple[int, Made]], partition: int, time_ms: int, data: dict[str, Any]
    ) -> None:
        region = data["features"]["region"]
        region = region if region in REGIONS else "(other)"
        one = Made(time_ms, data["version"], data["output"], ("", f"region={region}"))
        _, before = made.setdefault(data["prediction_id"], (partition, one))
        if before is not one:
            same = (before.version, before.output) == (one.version, one.output)
            self.counters["duplicates" if same else "conflicts"] += 1
            return
        for place in self._places(one, time_ms):
            self.predictions[place] += 1

    def _one(self, id_: str, made: Made, labels: list[Said], watermark_ms: int) -> None:
        due_ms = made.time_ms + self._horizon_ms
        before: Said | None = None
        revision = 0
        for label in labels:
            if not made.time_ms - self._early_ms <= label.time_ms <= due_ms:
                self._orphan(label, watermark_ms)
            elif before is None:
                before = label
                due_ms = max(made.time_ms, label.time_ms) + self._correction_ms
                self._first(id_, made, label)
            elif before.label == label.label:
                self.counters["duplicates"] += 1
            else:
                self.counters["corrections"] += 1
                revision += 1
                self._sum(made, before.label, -1)
                self._sum(made, label.label, 1)
                self.examples.append((id_, revision, self._spec.classes[label.label]))
                before = label
        if before is None and due_ms < watermark_ms:
            self.counters["expired"] += 1

    def _first(self, id_: str, made: Made, label: Said) -> None:
        self.examples.append((id_, 0, self._spec.classes[label.label]))
        self._sum(made, label.label, 1)
        for place in self._places(made, made.time_ms):
            self.labelled[place] += 1
        scaled = min(_log_loss(made, label.label), SCALE) / SCALE * LAST_BIN
        bin_ = int(scaled) + (_fraction(id_) < scaled - int(scaled))
        for place in self._places(made, max(made.time_ms, label.time_ms)):
            self.bets[place, bin_] += 1
        seconds = max(0, label.time_ms - made.time_ms) // 1000
        self.delays[(seconds + 1).bit_length() - 1] += 1

    def _sum(self, made: Made, label: int, sign: int) -> None:
        loss = _log_loss(made, label)
        right = float((made.output >= 0.5) == (label == 1))
        values = {"correct": right, "log_loss": loss, "loss": min(loss, SCALE) / SCALE}
        for place in self._places(made, made.time_ms):
            for name, value in values.items():
                self.sums[place, name] += sign * round(value * 1e6)
                self.squares[place, name] += sign * round(value * value * 1e6)

    def _orphan(self, label: Said, watermark_ms: int) -> None:
        if label.time_ms + self._early_ms < watermark_ms:
            self.counters["orphans"] += 1

    def _places(self, made: Made, time_ms: int) -> list[Place]:
        tick = time_ms // self._spec.tick_ms
        return [(made.version, segment, tick) for segment in made.segments]


def _log_loss(made: Made, label: int) -> float:
    chosen = made.output if label == 1 else 1.0 - made.output
    return -math.log(min(1.0, max(1e-6, chosen)))


def _fraction(id_: str) -> float:
    """A hash in [0, 1): CRC-32, mixed as MurmurHash3 ends."""
    h = zlib.crc32(id_.encode())
    h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    return (h ^ h >> 16) / 2**32
