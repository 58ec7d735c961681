"""Protections taken away, one at a time: the simulator must notice each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stream.core.joining import Join
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Parts
from stream.lifecycle import Lifecycle
from stream.partitions import Partition
from stream.transactions import Delta, Membership
from tests.simulation import world
from tests.simulation.kafka import Producer
from tests.simulation.keeper import outcome
from tests.simulation.laws import Patches
from tests.simulation.log import Log
from tests.simulation.registry import Registry


def _without(prefix: str) -> Patches:
    """Parts of monitor's checkpoint that are not written."""
    real = MonitorProcessor.changes

    def changes(self: MonitorProcessor, *, complete: bool) -> Parts:
        parts = real(self, complete=complete)
        return parts if complete else {n: p for n, p in parts.items() if not n.startswith(prefix)}

    return [(MonitorProcessor, "changes", changes)]


def _from_the_start() -> Patches:
    """A restored partition reads its inputs from their beginning."""
    real = Partition._resume

    def resume(self: Partition, *found: Any) -> None:
        real(self, *found)
        self.positions = dict.fromkeys(self.positions, 0)

    return [(Partition, "_resume", resume)]


def _no_dedup() -> Patches:
    """The newest prediction of an id counts, too."""
    real = Join.predict

    def predict(self: Join, packer: Any, made: Any, watermark_ms: int) -> bool:
        model = packer.kind.model
        self._rows.pop(made.id + (self._tags.get(model) or self._tag(model)))
        return real(self, packer, made, watermark_ms)

    return [(Join, "predict", predict)]


def _offsets_apart() -> Patches:
    """Offsets are committed before the transaction is."""
    real = Producer.send_offsets_to_transaction

    def send(self: Producer, positions: list[Any], group: Any, seconds: float) -> None:
        real(self, positions, group, seconds)
        mine = self._mine()
        self._log.commit_offsets(mine.group, mine.offsets)

    return [(Producer, "send_offsets_to_transaction", send)]


def _goes_on() -> Patches:
    """A process goes on after its commit has failed."""

    def seems(error: BaseException | None) -> str:
        return "" if type(error).__name__ == "KafkaException" else outcome(error)

    return [(world, "outcome", seems)]


_NEVER_WAITS = (Lifecycle, "reached", lambda *_: True)


def _any_generation() -> Patches:
    """Workers take whatever lifecycle says last."""
    return [(Lifecycle, "_generation", lambda *_: 0), _NEVER_WAITS]


def _forgets_generations() -> Patches:
    """A checkpoint names the generations that this owner used, not those of the ones before."""
    real = Partition._delta

    def delta(self: Partition, parts: Parts) -> Delta:
        self._generations = {}
        return real(self, parts)

    return [(Partition, "_delta", delta)]


#: What each takes away. The last number: within how many seeds it must be noticed.
BREAKS: Mapping[str, tuple[Callable[[], Patches], int]] = {
    "generation": (lambda: [(Log, "generational", False)], 40),
    "kept-without-gap": (lambda: [(Membership, "follows", lambda *_: True)], 200),
    "waiting-for-transactions": (lambda: [(Log, "stable", False)], 80),
    "atomic-outputs": (lambda: [(Log, "atomic", False)], 20),
    "atomic-offsets": (_offsets_apart, 40),
    "isolation": (lambda: [(Log, "isolated", False)], 20),
    "skip-below-next": (_from_the_start, 5),
    "part-deltas": (lambda: _without("deltas"), 5),
    "part-early": (lambda: _without("early."), 10),
    "part-parked": (lambda: _without("parked."), 20),
    "dedup": (_no_dedup, 10),
    "going-on-after-failure": (_goes_on, 40),
    "generation-monotony": (_any_generation, 20),
    "waiting-for-lifecycle": (lambda: [_NEVER_WAITS], 20),
    "generations-in-checkpoint": (_forgets_generations, 20),
    "command-once": (lambda: [(Registry, "once", False)], 40),
}
