"""One seed from its beginning to the oracle's word."""

from __future__ import annotations

import gc
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from stream.core import rowlog
from tests.simulation.breaks import BREAKS
from tests.simulation.draining import EXPIRED_MS, Drain
from tests.simulation.laws import LAWS, replaced
from tests.simulation.oracle import Oracle
from tests.simulation.schedule import STEPS, Schedule
from tests.simulation.world import Simulation, Violation

FEW_FRESH: Final = 3  # rows of the join


class Run(NamedTuple):
    """What became of a seed; `error` is empty if every promise was kept."""

    seed: int
    error: str
    seen: Counter[str]
    trace: list[str]


def run_one(
    seed: int, *, trace: bool = False, harsh: bool = False, without: str = "", steps: int = STEPS
) -> Run:
    """Simulate, and judge. In odd seeds all but the newest rows are packed, as where many wait.

    Args:
        harsh: every kind of fault, and more of them.
        without: a protection to take away, one of `tests.simulation.breaks.BREAKS`.
    """
    broken = BREAKS[without][0]() if without else []
    fresh = (rowlog.FRESH, FEW_FRESH)[seed % 2]
    with replaced([*LAWS, *broken, (rowlog, "FRESH", fresh)]), _calm():
        sim = Simulation(seed, trace=trace, harsh=harsh)
        error = ""
        try:
            _run(sim, steps)
        except Violation as violation:
            error = str(violation)
        except Exception:
            error = traceback.format_exc()
        finally:
            for worker in sim.workers:
                worker.kill()
        _count(sim)
        run = Run(seed, error, sim.seen, sim.trace or [])
        vars(sim).clear()  # its parts know it, and would wait for the collector
    return run


@contextmanager
def _calm() -> Iterator[None]:
    """The collector comes once, at the end, and looks at nothing that was there before the seed."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.enable()
        gc.unfreeze()


def _run(sim: Simulation, steps: int) -> None:
    Schedule(sim).run(steps)
    drain, oracle = Drain(sim), Oracle(sim)
    drain.heal()
    drain.until_still()
    oracle.look()
    for passes_ms in (EXPIRED_MS, EXPIRED_MS):
        drain.round(passes_ms)
    oracle.judge()


def _count(sim: Simulation) -> None:
    """What there was to go wrong."""
    seen = sim.seen
    seen["steps"] += sim.step
    seen["generations"] += len(sim.registry.states)
    seen["commands that took effect"] += len(sim.registry.effects)
    seen["commands delivered again"] += sim.trainer.repeats
    seen.update({f"sent {kind}": count for kind, count in sim.producers.sent.items()})
    for entity in ("predictions", "examples", "summaries", "accuracy", "alerts", "commands"):
        for number in range(sim.counts[entity]):
            log = sim.log.partitions[sim.topics[entity], number]
            seen[f"lies in {entity}"] += sum(1 for _ in log.visible())
