"""Tiny models whose versions are good or bad on purpose, made once and shared by all seeds.

Budgets and trials are so loose that a few events are enough for a verdict: what a run is to show is
alerts and commands of every kind, not that they are right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.profile import ReferenceProfile, Validation
from models.profiling import build_profile
from models.spec import Budget, Feature, Labels, ModelSpec, Policy, Ticks, Trial, Window, check
from stream import envelope, lifecycle
from stream.core.delays import Ages, Curve
from stream.core.distances import Comparison, compare_all
from stream.core.measuring import Late, known
from stream.core.packing import Kind
from stream.core.sources import Source
from stream.core.watching import Kit
from stream.events import LifecycleChanged, VersionCard
from stream.loading import Live

TICK_MS: Final = 1_000
HORIZON_MS: Final = 4_000
EARLY_MS: Final = 1_500
RAISES, NOT_FINITE = 13, 17  # ages at which every version fails
BAD: Final = 70  # percent of ages for which a bad version is wrong; good ones hardly ever are

_SHARED: Final[dict[str, Any]] = {
    "task": "binary",
    "classes": ("no", "yes"),
    "features": (Feature(name="age"), Feature(name="plan", type="categorical")),
    "ticks": Ticks(seconds=TICK_MS / 1000, allowed_lateness_seconds=0.2, minimum_events=1),
    "labels": Labels(
        horizon_seconds=HORIZON_MS / 1000,
        correction_horizon_seconds=2.0,
        early_seconds=EARLY_MS / 1000,
    ),
    "budget": Budget(false_alarms_per_month=1e7),
    "trial": Trial(
        alpha=0.9,
        minimum_pairs=2,
        maximum_pairs=5,
        cycle_seconds=0,
        probation_pairs=3,
        rollback_alpha=0.9,
    ),
    "policy": Policy(cooldown_seconds=1.0, rollback_cooloff_seconds=1.0),
}

#: `churn` is there from the start; `later` goes live on the way; nobody ever hears of `ghost`.
SPECS: Final = {
    "churn": check(ModelSpec(name="churn", **_SHARED, windows=(Window(seconds=2),))),
    "later": check(
        ModelSpec(name="later", **_SHARED, segments=("plan",), windows=(Window(labels=6),))
    ),
}
GHOST: Final = "ghost"


def truth(age: float) -> bool:
    return age % 7 >= 3


def said(model: str, version: int, age: float) -> float:
    """What a version says of an age: P(yes)."""
    bad = version % 2 == (model == "churn")  # so one is to be promoted, the other to go back
    wrong = (age * 37 + version * 11 + len(model)) % 100 < (BAD if bad else 4)
    return 0.9 if truth(age) != wrong else 0.1


class Version:
    """A version as score serves it."""

    def __init__(self, model: str, version: int) -> None:
        self._model, self._version = model, version

    def predict(self, rows: Sequence[Any]) -> NDArray[np.float64]:
        if any(row[0] == RAISES for row in rows):
            raise ValueError("no such age")
        outputs = [
            math.nan if row[0] == NOT_FINITE else said(self._model, self._version, row[0] or 0.0)
            for row in rows
        ]
        return np.array(outputs).reshape(-1, 1)

    def warm_up(self) -> None:
        """Nothing to do."""


version_of = cache(Version)


@cache
def profile_of(model: str) -> ReferenceProfile:
    """Every version was validated alike: hardly ever wrong."""
    rows = [(float(n % 40), "ab"[n % 2]) for n in range(400)]
    outputs = np.where(np.arange(400) % 2, 0.1, 0.9).reshape(-1, 1)
    bins = [390, *[0] * 18, 10]
    validation = Validation(
        n=400, loss_bins=tuple(bins), loss_scale=4.0, metrics={"accuracy": 0.97}
    )
    return build_profile(SPECS[model], rows, outputs, validation)


def card(version: int) -> VersionCard:
    return VersionCard(
        version=version,
        artefact_url="",
        artefact_digest=f"a{version}",
        profile_url="",
        profile_digest=f"p{version}",
    )


def live(state: LifecycleChanged) -> Live:
    """What a worker holds of a model; all that has no state is shared."""
    versions = [card.version for card in state.versions]
    return Live(
        state,
        models={version: version_of(state.model, version) for version in versions},
        profiles=dict.fromkeys(versions, profile_of(state.model)),
    )


@cache
def _kit(model: str) -> Kit:
    return Kit(SPECS[model], profile_of(model))


def shared_kit(spec: ModelSpec, profile: ReferenceProfile) -> Kit:
    """`Kit` is determined by its arguments, and costs more than many steps of a simulation."""
    del profile
    return _kit(spec.name)


#: Every worker reads all of lifecycle, and nobody changes what it says.
read_before: Final = lru_cache(256)(lifecycle._read)

#: The same effects have the same ids, whoever writes them, and the oracle has them written again.
hashed_before: Final = lru_cache(4096)(envelope.hashed)

_compared: Final[dict[tuple[tuple[int, ...], tuple[int, ...]], Comparison]] = {}
_known: Final[dict[tuple[bytes, Ages, int, tuple[str, ...]], Late]] = {}


def compared_before(
    references: Sequence[Sequence[int]], currents: Sequence[Sequence[int]]
) -> list[Comparison]:
    """`compare_all` explains and decides nothing, and counts this small come again and again."""
    pairs = list(zip(map(tuple, references), map(tuple, currents), strict=True))
    if len(_compared) > 16_384:
        _compared.clear()
    new = dict.fromkeys(pair for pair in pairs if pair not in _compared)
    if new:
        figures = compare_all([one for one, _ in new], [other for _, other in new])
        _compared.update(zip(new, figures, strict=True))
    return [_compared[pair] for pair in pairs]


def known_before(curve: Curve, ages: Ages, as_of: int, classes: tuple[str, ...]) -> Late:
    """As `compared_before`: the whole curve is the key."""
    key = msgspec.json.encode(curve), ages, as_of, classes
    if key not in _known:
        if len(_known) > 4096:
            _known.clear()
        _known[key] = known(curve, ages, as_of, classes)
    return _known[key]


def shared_source(kind: Kind, spec: ModelSpec, profile: ReferenceProfile | None) -> Source:
    """A `Source` is determined by its arguments and never changes; every fleet makes its own."""
    return _source(kind, spec.name, profile is not None)


@cache
def _source(kind: Kind, model: str, profiled: bool) -> Source:
    return Source(kind, SPECS[model], profile_of(model) if profiled else None)
