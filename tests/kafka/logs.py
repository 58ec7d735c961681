"""All that lies in the topics after a run, read-committed, for the oracle of the loop."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import msgspec

from models import artefacts
from stream.core.partitioning import partition_of
from stream.core.processor import Context, Fleet, LiveModel, Record
from stream.events import (
    ExampleLabelled,
    ExamplesLabelled,
    LifecycleChanged,
    ProgressReported,
    SummaryComputed,
)
from stream.loading import Loader
from stream.settings import Settings
from stream.topics import BY_ENTITY
from tests.kafka.traffic import POISONED, SPEC
from tests.topics import Seen, read_all


class Logs:
    """All that lies in the topics of a run that has ended."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.partitions = range(settings.partitions)
        self._read: dict[str, list[Seen]] = {}

    def of(self, entity: str) -> list[Seen]:
        if entity not in self._read:
            topic = self.settings.names.topic(entity)
            self._read[entity] = read_all(self.settings.bootstrap_servers, topic)
        return self._read[entity]

    def good(self, entity: str) -> list[Seen]:
        """Without what a row about poison has sent, which nobody can read."""
        return [r for r in self.of(entity) if POISONED not in {name for name, _ in r.headers}]

    def values(self, entity: str, partition: int) -> list[bytes]:
        return [record.value or b"" for record in self.of(entity) if record.partition == partition]

    @cached_property
    def records(self) -> dict[tuple[str, int], list[Record]]:
        """What each partition of monitor and evaluate reads, as the core sees it."""
        found: dict[tuple[str, int], list[Record]] = defaultdict(list)
        for entity in ("predictions", "feedback", "summaries"):
            for seen in self.of(entity):
                record = Record(seen.offset, seen.timestamp_ms, seen.key, seen.value, seen.headers)
                found[entity, seen.partition].append(record)
        return found

    def data(self, entity: str) -> Iterator[dict[str, Any]]:
        return (json.loads(record.value or b"")["data"] for record in self.good(entity))

    def examples(self) -> Iterator[ExampleLabelled]:
        for data in self.data("examples"):
            yield from msgspec.convert(data, ExamplesLabelled).each()

    def right_partition(self, key: bytes) -> int:
        """Where a producer with the configured partitioner puts a prediction or its label."""
        return partition_of(key, self.settings.partitions, self.settings.partitioner)

    @property
    def home(self) -> int:
        """The partition of `summaries` that holds the model's."""
        return partition_of(SPEC.name.encode(), self.settings.partitions, "murmur2")

    @cached_property
    def _told(self) -> tuple[list[SummaryComputed], list[ProgressReported]]:
        deltas, reports = [], []
        for value in self.values("summaries", self.home):
            data = json.loads(value)["data"]
            if "tick" in data:
                deltas.append(msgspec.convert(data, SummaryComputed))
            else:
                reports.append(msgspec.convert(data, ProgressReported))
        return deltas, reports

    @property
    def deltas(self) -> list[SummaryComputed]:
        return self._told[0]

    def progress(self, partition: int) -> list[ProgressReported]:
        return [report for report in self._told[1] if report.partition == partition]

    @cached_property
    def fleets(self) -> dict[int, Fleet]:
        """What was live, by generation."""

        def fetch(url: str, digest: str) -> bytes:
            return artefacts.fetch(url, digest, self.settings.max_artefact_bytes)

        loader = Loader("monitor", fetch, lambda *_: NotImplemented)
        found: dict[int, Fleet] = {}
        for data in self.data("lifecycle"):
            state = msgspec.convert(data, LifecycleChanged)
            live: LiveModel = loader(state, None)
            found[state.generation] = {state.model: live}
        return found

    def context(self, partition: int) -> Context:
        counts = dict.fromkeys(BY_ENTITY, self.settings.partitions)
        return Context(partition, counts, self.settings.core)
