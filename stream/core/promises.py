"""What the alarm budget promises of one version, in numbers and words: guaranteed or approximate.

Shown where somebody relies on it: when a model is added or shown, and in the evidence of alerts.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from models.profile import ReferenceProfile
from models.spec import Budget, ModelSpec
from stream.core.bets import DEFLATE_FROM, harm_bound
from stream.core.intervals import REFERENCE_RISK
from stream.core.risks import against


class Promise(Struct, frozen=True, kw_only=True):
    """Of one version under one spec.

    Attributes:
        false_alarms: expected at most, over all signals together, per `per`.
        validated, bound, smallest_harm: of the mean bounded loss: harm is certain from `bound` on,
            so no smaller rise than `smallest_harm` can be certified by it, whatever the labels.
        loss_scale: the loss (log loss or absolute error) that the bounded loss of 1 stands for.
        deflated: by signal ("loss" is one), how many neighbouring events count as one.
    """

    false_alarms: float
    per: str
    signals: int
    tolerance_psi: float
    validated: float
    bound: float
    smallest_harm: float
    loss_scale: float
    validation_rows: int
    reference_rows: int
    deflated: dict[str, float]
    guaranteed: str
    approximate: list[str]


def promise(spec: ModelSpec, profile: ReferenceProfile, *, signals: int) -> Promise:
    """What a version's reference and a spec's budget allow to say.

    Args:
        signals: how many share the budget.
    """
    tolerances, validation = spec.tolerances, profile.validation
    bound = harm_bound(validation, **against(spec))
    deflated = {s.name: s.deflation for s in profile.signals if s.deflation > DEFLATE_FROM}
    if validation.deflation > DEFLATE_FROM:
        deflated["loss"] = validation.deflation
    allowed, per = allowance(spec.budget)
    return Promise(
        false_alarms=allowed,
        per=per,
        signals=signals,
        tolerance_psi=tolerances.psi,
        validated=bound.mean,
        bound=bound.upper,
        smallest_harm=bound.smallest_harm,
        loss_scale=validation.loss_scale,
        validation_rows=validation.n,
        reference_rows=profile.rows,
        deflated=deflated,
        guaranteed=(
            f"at most {allowed:g} false alarms per {per} are expected over all {signals} signals, "
            "however they depend on each other and however much traffic there is, while each "
            "event's law stays within the tolerance and the bounds of the reference"
        ),
        approximate=list(_approximate(spec, deflated)),
    )


def allowance(budget: Budget) -> tuple[float, str]:
    """
    >>> allowance(Budget(false_alarms_per_month=2.0))
    (2.0, 'month')
    >>> allowance(Budget(false_alarms_per_million_events=0.5))
    (0.5, 'million events')
    """
    if budget.false_alarms_per_million_events is not None:
        return budget.false_alarms_per_million_events, "million events"
    return budget.false_alarms_per_month, "month"


def _approximate(spec: ModelSpec, deflated: dict[str, float]) -> Iterator[str]:
    yield (
        "that the reference's sampling error stays within its bounds, but for "
        f"{REFERENCE_RISK:.0%} of versions: exact for shares and the loss, else a normal quantile"
    )
    yield (
        "bets on a stream's own past take means of ticks for normal, and keep to the budget over "
        "references, not for each"
    )
    if deflated:
        yield (
            "that neighbouring events depend on each other no more than in the reference: counts "
            f"of {len(deflated)} signals are divided by an estimate of it"
        )
    if spec.tolerances.psi > 0:
        yield "the tolerance, which is exact while a change does not widen what it shifts"
