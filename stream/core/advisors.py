"""River's detectors on the champion's loss: information beside the verdict, never the verdict.

They keep no promise about false alarms and their state is not plain data, so what is kept is what
they are told: a bounded ring of recent groups' counts. A detector is a fold over that ring and
nothing else. Each time the ring is full its older half goes, and the detectors begin anew with the
rest; so one that was rebuilt after a restart is the one that went on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from stream.events import LOSS_BINS, DetectorRead

KEPT: Final = 64  # groups that detectors begin anew with; the ring holds up to twice as many
MOST: Final = 200  # labels of one group that they are told
ORDER: Final = (5**0.5 - 1) / 2  # of a golden spiral: spreads the values of a group evenly in time
CHANCE: Final = 2**0.5 - 1  # decides which losses are errors, to detectors that know only those


class Memory(Struct, omit_defaults=True):
    """
    Attributes:
        groups: counts of the bounded loss, of recent groups of ticks.
        taken: groups that were ever taken.
        alarms: how often each detector alarmed, and the end of the last group in which it did.
    """

    groups: list[list[int]] = []
    taken: int = 0
    alarms: dict[str, tuple[int, int]] = {}


class Advisors:
    """Detectors by name; rebuilt from the memory wherever they are not the ones that went on.

    Args:
        names: of `models.spec.DETECTORS`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._detectors: dict[str, Any] = {}
        self._at: tuple[int, int] | None = None  # groups taken, and held, by these detectors

    def take(self, memory: Memory, counts: Sequence[int], end_ms: int) -> None:
        """Tell all detectors of a group; note who alarms."""
        if not self._names or not sum(counts):
            return
        if self._at != (memory.taken, len(memory.groups)):
            self._rebuild(memory)
        memory.groups.append(list(counts))
        memory.taken += 1
        for name in self._tell(counts):
            count, _ = memory.alarms.get(name, (0, 0))
            memory.alarms[name] = (count + 1, end_ms)
        if len(memory.groups) >= 2 * KEPT:
            memory.groups = memory.groups[-KEPT:]
            self._rebuild(memory)
        self._at = (memory.taken, len(memory.groups))

    def _rebuild(self, memory: Memory) -> None:
        self._detectors = {name: _FACTORIES[name]() for name in self._names}
        for counts in memory.groups:
            for _ in self._tell(counts):
                pass

    def _tell(self, counts: Sequence[int]) -> Iterator[str]:
        """Names of the detectors that alarm in a group."""
        values = events(counts)
        errors = values > np.arange(1, len(values) + 1) * CHANCE % 1
        for name, detector in self._detectors.items():
            heard = values if name in _OF_LOSSES else ~errors if name in _OF_HITS else errors
            alarms = [update(detector, value) for value in heard.tolist()]
            if any(alarms):
                yield name


def readings(names: Sequence[str], memory: Memory) -> dict[str, DetectorRead]:
    """What each detector has said since this champion's reign began."""
    found = {}
    for name in names:
        count, last_ms = memory.alarms.get(name, (0, 0))
        found[name] = DetectorRead(alarms=count, last_ms=last_ms if count else None)
    return found


def update(detector: Any, value: float | bool) -> bool:
    """Tell one value; whether the detector alarms. What is not finite would blind it for ever.

    >>> update(None, float("nan"))
    False
    """
    if not math.isfinite(value):
        return False
    detector.update(value)
    return bool(detector.drift_detected)


def events(counts: Sequence[int]) -> NDArray[np.float64]:
    """Losses in [0, 1] with these counts, one for each label, at most `MOST`, in a fixed order.

    In which order labels of one tick came is not known; this one has no runs.

    >>> events([2, 1]).tolist()
    [0.0, 0.05263157894736842, 0.0]
    """
    values = np.repeat(np.arange(len(counts)) / (LOSS_BINS - 1), counts)
    if len(values) > MOST:
        values = values[(np.arange(MOST) * len(values) + len(values) // 2) // MOST]
    return values[np.argsort(np.arange(len(values)) * ORDER % 1, kind="stable")]


def _river(module: str, name: str, **arguments: object) -> Callable[[], Any]:
    def make() -> Any:
        from importlib import import_module  # seconds, which only those pay who asked for it

        return getattr(import_module(f"river.drift{module}"), name)(**arguments)

    return make


_FACTORIES: Final[dict[str, Callable[[], Any]]] = {
    "ADWIN": _river("", "ADWIN"),
    "KSWIN": _river("", "KSWIN", seed=0),
    "PageHinkley": _river("", "PageHinkley"),
    "DDM": _river(".binary", "DDM"),
    "EDDM": _river(".binary", "EDDM"),
    "FHDDM": _river(".binary", "FHDDM"),
    "HDDM_A": _river(".binary", "HDDMA"),
    "HDDM_W": _river(".binary", "HDDMW"),
}
_OF_LOSSES: Final = frozenset({"ADWIN", "KSWIN", "PageHinkley"})
_OF_HITS: Final = frozenset({"FHDDM"})  # the others know errors
