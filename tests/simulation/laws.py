"""The real modules under the simulated clock, failpoints and clients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

from stream import envelope, lifecycle, partitions, transactions
from stream.core import describing, evaluate, measuring, sources
from tests.simulation import models
from tests.simulation.operations import failpoint, sleep

#: (owner, attribute, replacement)
Patches = list[tuple[Any, str, Any]]

now_ms = 0  # of the simulation that was made last; only one runs at a time in a process


class _Mute:
    """A log of nothing."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


_NOBODY_ELSE = nullcontext()  # one thread computes


def _turn(*, yields: bool = False) -> nullcontext[None]:
    return _NOBODY_ELSE


def _seconds() -> float:
    return now_ms / 1000


TIME = SimpleNamespace(monotonic=_seconds, time=_seconds, sleep=sleep)
LAWS: Patches = [
    (partitions, "time", TIME),
    (partitions, "failpoint", failpoint),
    (partitions, "turn", _turn),
    (partitions, "log", _Mute()),
    (transactions, "time", TIME),
    (transactions, "failpoint", failpoint),
    (transactions, "turn", _turn),
    (transactions, "Producer", None),  # set by whoever makes a transactor
    (lifecycle, "time", TIME),
    (lifecycle, "log", _Mute()),
    (lifecycle, "_read", models.read_before),
    (envelope, "hashed", models.hashed_before),
    (evaluate, "Kit", models.shared_kit),
    (describing, "compare_all", models.compared_before),
    (measuring, "compare_all", models.compared_before),
    (measuring, "known", models.known_before),
    (sources, "Source", models.shared_source),
]


@contextmanager
def replaced(patches: Iterable[tuple[Any, str, Any]]) -> Iterator[None]:
    """Replace attributes for a while."""
    saved = [(owner, name, getattr(owner, name), new) for owner, name, new in patches]
    for owner, name, _, new in saved:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old, _ in saved:
            setattr(owner, name, old)
