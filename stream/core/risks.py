"""Losses under watch: measured label by label, or at one age, or expected without labels.

Each says what a group of ticks holds for its bets, against what those bets are, and the same for
the way back: bets against "it is still as bad as at the alarm".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from models.profile import Estimator, ReferenceProfile, SegmentProfile, Validation
from models.spec import ModelSpec
from stream.core.bets import (
    BetTable,
    HarmBound,
    harm_bound,
    loss_table,
    recovery_edge,
    recovery_table,
)
from stream.core.expected import expected_loss, expected_table, supported
from stream.core.ticks import Group
from stream.core.timely import Weights, guarded, on_nodes, timely_table, weighed
from stream.events import LOSS_BINS

Counts = Sequence[int] | Sequence[float]


class Risk(Protocol):
    """One loss under watch. `seen`: what was shown of it when it alarmed."""

    def counts(self, group: Group) -> Counts:
        """What a group holds for the bets of `table`; nothing where it cannot be judged."""
        ...

    def table(self) -> BetTable: ...

    def shown(self, group: Group, counts: Counts) -> list[int]:
        """What a person is shown of a group."""
        ...

    def recovery_counts(self, seen: list[int], group: Group, counts: Counts) -> Counts:
        """What a group holds for the bets of `recovery_table`."""
        ...

    def recovery_table(self, seen: list[int]) -> BetTable: ...


class AsTheyCome:
    """Each label is judged in the tick in which it comes; by bin of the bounded loss.

    Args:
        segment: the only one whose labels count; "" is all.
    """

    def __init__(
        self, validation: Validation, against: Mapping[str, Any], segment: str = ""
    ) -> None:
        self._validation, self._against, self._segment = validation, against, segment

    def counts(self, group: Group) -> Counts:
        return self._bets(group)

    def _bets(self, group: Group) -> list[int]:
        return group.part(self._segment).bets

    def table(self) -> BetTable:
        return loss_table(self._validation, **self._against)

    def shown(self, group: Group, counts: Counts) -> list[int]:
        return self._bets(group)

    def recovery_counts(self, seen: list[int], group: Group, counts: Counts) -> Counts:
        return counts

    def recovery_table(self, seen: list[int]) -> BetTable:
        return recovery_table(self._validation, bounded_loss(seen), **self._against)


class AtOneAge:
    """Each prediction is judged once, at one age, by weighted labels; see `timely`.

    Args:
        rho: by what share of itself a weight may be wrong.
        segment: the only one whose labels count, by weights of its own; "" is all.
    """

    def __init__(self, bound: HarmBound, deflation: float, rho: float, segment: str = "") -> None:
        self._bound, self._deflation, self._rho = bound, deflation, rho
        self._segment = segment
        self._edge = guarded(bound.upper, rho)

    def counts(self, group: Group) -> Counts:
        if self._segment not in group.weights:
            return []
        return self._on_nodes(group, self._edge)

    def _on_nodes(self, group: Group, edge: float) -> list[float]:
        return on_nodes(group.part(self._segment).judged, self._weights(group), edge)

    def _weights(self, group: Group) -> Weights:
        return group.weights.get(self._segment, {})

    def table(self) -> BetTable:
        return timely_table(self._edge, deflation=self._deflation, name="harm")

    def shown(self, group: Group, counts: Counts) -> list[int]:
        return weighed(group.part(self._segment).judged, self._weights(group))

    def recovery_counts(self, seen: list[int], group: Group, counts: Counts) -> Counts:
        return self._on_nodes(group, self._recovery_edge(seen))

    def recovery_table(self, seen: list[int]) -> BetTable:
        edge = self._recovery_edge(seen)
        return timely_table(edge, below=True, deflation=self._deflation, name="harm")

    def _recovery_edge(self, seen: list[int]) -> float:
        edge = recovery_edge(self._bound, bounded_loss(seen))
        return edge * (1 - self._rho) / (1 + self._rho)  # whichever way weights are wrong


class Expected:
    """No label is looked at: predictions by bin of the profile's estimator; see `expected`."""

    def __init__(self, estimator: Estimator, bound: HarmBound, deflation: float) -> None:
        self._estimator, self._bound, self._deflation = estimator, bound, deflation

    @property
    def before(self) -> list[int]:
        """The reference's predictions by bin."""
        return [*self._estimator.counts[:-1]]

    def loss(self, seen: list[int]) -> float:
        """Mean of the bounded loss that is expected of predictions by bin."""
        return expected_loss(self._estimator, seen)

    def counts(self, group: Group) -> Counts:
        return supported(self._estimator, group.counts.estimates)

    def table(self) -> BetTable:
        return expected_table(self._estimator, self._bound.upper, self._deflation)

    def shown(self, group: Group, counts: Counts) -> list[int]:
        return supported(self._estimator, group.counts.estimates)

    def recovery_counts(self, seen: list[int], group: Group, counts: Counts) -> Counts:
        return counts

    def recovery_table(self, seen: list[int]) -> BetTable:
        edge = recovery_edge(self._bound, self.loss(seen))
        return expected_table(self._estimator, edge, self._deflation, below=True)


def against(spec: ModelSpec) -> dict[str, Any]:
    """What a spec says of harm, as arguments of `bets.harm_bound` and the tables of losses."""
    return {
        "tolerance": spec.tolerances.loss,
        "delta": spec.tolerances.delta,
        "objective": spec.tolerances.loss_objective,
        "ignorance": math.log(len(spec.classes)) if spec.classes else None,
    }


def measured(
    spec: ModelSpec, validation: Validation, segment: SegmentProfile | None = None
) -> AsTheyCome | AtOneAge:
    """The measured loss of all or of a segment, judged as the spec says."""
    labels, name = spec.labels, segment.name if segment else ""
    if labels.judged_after_seconds is None:
        return AsTheyCome(validation, against(spec), name)
    bound = harm_bound(validation, **against(spec))
    return AtOneAge(bound, validation.deflation, labels.delay_error, name)


def expected(spec: ModelSpec, profile: ReferenceProfile) -> Expected | None:
    """The loss that is expected without labels; None where the reference has no estimator."""
    if profile.estimator is None:
        return None
    bound = harm_bound(profile.validation, **against(spec))
    return Expected(profile.estimator, bound, profile.validation.deflation)


def bounded_loss(bets: Sequence[int]) -> float:
    """Mean of the bounded loss in [0, 1] from counts on its LOSS_BINS bins; 0 without any.

    >>> bounded_loss([3] + [0] * 18 + [1])
    0.25
    """
    return sum(i * n for i, n in enumerate(bets)) / max(1, sum(bets)) / (LOSS_BINS - 1)
