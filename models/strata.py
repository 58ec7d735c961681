"""Groups of outputs and of labels that may be labelled sooner or later than others.

How long a label takes may depend on what it says: a fraud is reported in days, its absence known
after months. Delays are therefore counted apart for each pair of predicted and true group.
Classification: the class. Regression: the quarter of the reference's outputs that a value lies in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.profile import ReferenceProfile
from models.spec import ModelSpec

MAX_STRATA: Final = 16  # further classes share the last one
QUARTERS: Final = 4

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Strata:
    """The strata of one version's outputs and labels, 0 to `size` - 1.

    Attributes:
        by_value: regression: a stratum is a range of values.

    >>> from models.spec import Feature
    >>> x = (Feature(name="x"),)
    >>> strata = Strata(ModelSpec(name="m", task="binary", classes=("no", "yes"), features=x), None)
    >>> strata.of_output((0.7,)), strata.of_outputs(np.array([[0.2], [0.5]]))
    (1, array([0, 1]))
    """

    def __init__(self, spec: ModelSpec, profile: ReferenceProfile | None) -> None:
        self._task = spec.task
        self.by_value = spec.task == "regression"
        self._cuts = _quarters(profile) if self.by_value else []
        self.size = len(self._cuts) + 1 if self.by_value else min(len(spec.classes), MAX_STRATA)

    def of_value(self, value: float) -> int:
        """The stratum of one value of a regression."""
        return bisect_right(self._cuts, value)

    def of_output(self, output: Sequence[float]) -> int:
        """The predicted stratum of one output."""
        if self.by_value:
            return self.of_value(output[0])
        if self._task == "binary":
            return int(output[0] >= 0.5)
        return min(max(range(len(output)), key=output.__getitem__), self.size - 1)

    def of_outputs(self, outputs: Floats) -> Ints:
        """As `of_output`; shape (n,) of outputs (n, k)."""
        if self.by_value:
            return self.of_labels(outputs[:, 0])
        if self._task == "binary":
            return (outputs[:, 0] >= 0.5).astype(np.int64)
        likeliest: Ints = np.minimum(np.argmax(outputs, axis=1), self.size - 1)
        return likeliest

    def of_labels(self, labels: Floats) -> Ints:
        """The true strata of labels from `losses.encode_label`, shape (n,)."""
        if self.by_value:
            return np.searchsorted(self._cuts, labels, side="right").astype(np.int64)
        return np.minimum(labels.astype(np.int64), self.size - 1)


def _quarters(profile: ReferenceProfile | None) -> list[float]:
    """Edges of the reference's outputs near its quartiles; none where it is not known."""
    signal = profile.signal("prediction") if profile else None
    if signal is None or len(signal.edges) < QUARTERS + 1:
        return []
    bins = len(signal.edges) - 1
    return [signal.edges[round(bins * i / QUARTERS)] for i in range(1, QUARTERS)]
