"""Live models for tests: the protocol `LiveModel`, without a registry or artefacts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from models.profile import ReferenceProfile
from models.spec import Feature, ModelSpec
from stream.events import FeatureValue, LifecycleChanged

Predict = Callable[[int, Sequence[Sequence[object]]], NDArray[np.float64]]

CHURN = ModelSpec(
    name="churn",
    task="binary",
    classes=("stays", "leaves"),
    features=(
        Feature(name="age"),
        Feature(name="visits per day"),
        Feature(name="plan", type="categorical"),
    ),
)
GOOD_FEATURES: dict[str, FeatureValue] = {"age": 41, "visits per day": 0.5, "plan": "gold"}


class FakeLive:
    """A model whose outputs a function gives; its versions are `versions`."""

    def __init__(
        self,
        spec: ModelSpec = CHURN,
        *,
        champion: int | None = 1,
        challengers: tuple[int, ...] = (),
        versions: tuple[int, ...] = (1, 2, 3),
        generation: int = 1,
        predict: Predict | None = None,
    ) -> None:
        self.lifecycle = LifecycleChanged(
            model=spec.name,
            generation=generation,
            spec=spec,
            spec_revision=1,
            champion=champion,
            challengers=list(challengers),
            changed_ms=0,
        )
        self._versions = versions
        self._predict = predict or self._constant

    def predict(self, version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        return self._predict(version, rows)

    def profile(self, version: int) -> ReferenceProfile | None:
        return cast(ReferenceProfile, object()) if version in self._versions else None

    def _constant(self, version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        return np.full((len(rows), self.lifecycle.spec.outputs), version / 10)
