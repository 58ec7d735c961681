"""What is shown of a window or a trial: figures with their intervals, out of counts and sums."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from models.profile import ReferenceProfile, SignalProfile
from models.spec import ModelSpec
from stream.core.distances import compare
from stream.core.intervals import Interval, mean_interval, wilson
from stream.core.trials import TrialState
from stream.core.watching import Watch
from stream.core.windows import Cell, Plan, Published
from stream.events import MICRO, AccuracyMeasured, DriftMeasured, Measure

#: What validation calls a metric that is shown under another name.
VALIDATED: Final = {"accuracy": "correct"}


def accuracy(
    spec: ModelSpec,
    profile: ReferenceProfile | None,
    plan: Plan,
    window: Published,
    *,
    version: int,
    segment: str,
    champion: bool,
) -> AccuracyMeasured | None:
    """One version's performance over one window; None if nothing was predicted in it."""
    total = window.total
    if total.predictions <= 0:
        return None
    metrics = _metrics(total)
    validated = profile.validation.metrics if profile else {}
    return AccuracyMeasured(
        model=spec.name,
        version=version,
        segment=segment,
        window=plan.name,
        start_ms=total.start * spec.tick_ms,
        end_ms=total.end * spec.tick_ms,
        revision=window.revision,
        predictions=total.predictions,
        labelled=total.labelled,
        coverage=total.labelled / total.predictions,
        metrics=metrics,
        baseline={
            name: validated[known]
            for name in metrics
            if (known := VALIDATED.get(name, name)) in validated
        },
        champion=champion,
    )


def paired(spec: ModelSpec, version: int, shadow: int, trial: TrialState) -> list[AccuracyMeasured]:
    """Champion and shadow on the same labelled events: two measurements that may be compared."""
    metric = "absolute_error" if spec.task == "regression" else "log_loss"
    n, totals = trial.totals.n, trial.totals

    def measured(of: int, beside: int, losses: int) -> AccuracyMeasured:
        return AccuracyMeasured(
            model=spec.name,
            version=of,
            window=f"paired with {beside}",
            start_ms=trial.started_ms,
            end_ms=trial.ended_ms,
            predictions=n,
            labelled=n,
            coverage=1.0,
            metrics={metric: Measure(value=losses / MICRO / n)},
            champion=of == version,
        )

    if n <= 0:
        return []
    return [
        measured(version, shadow, totals.losses),
        measured(shadow, version, totals.shadow_losses),
    ]


def drift(
    spec: ModelSpec, profile: ReferenceProfile, plan: Plan, window: Published, watch: Watch
) -> Iterator[DriftMeasured]:
    """Every signal of the champion over one window, against its reference profile."""
    for signal in profile.signals:
        counts = window.total.signals.get(signal.name, [])
        if len(counts) == len(signal.counts) and sum(counts) > 0:
            yield _drift(spec, signal, counts, plan, window, watch)


def _drift(
    spec: ModelSpec,
    signal: SignalProfile,
    counts: list[int],
    plan: Plan,
    window: Published,
    watch: Watch,
) -> DriftMeasured:
    n, total = sum(counts), window.total
    far = compare(signal.counts, counts)
    kind = "feature" if signal.name in spec.feature_names else "prediction"
    return DriftMeasured(
        model=spec.name,
        version=watch.version,
        signal=signal.name,
        window=plan.name,
        start_ms=total.start * spec.tick_ms,
        end_ms=total.end * spec.tick_ms,
        n=n,
        psi=far.psi,
        psi_noise=far.psi_noise,
        psi_low=far.psi_low,
        psi_high=far.psi_high,
        js=far.js,
        js_noise=far.js_noise,
        null_rate=counts[-1] / n,
        unseen_rate=counts[-2] / n if signal.kind == "categorical" else 0.0,
        evidence=watch.level(f"{kind}/{signal.name}"),
        counts=counts,
        revision=window.revision,
    )


def _metrics(total: Cell) -> dict[str, Measure]:
    if total.labelled <= 0:
        return {}
    n = total.labelled
    metrics: dict[str, Measure] = {}
    for name, micro in sorted(total.sums.items()):
        if name == "correct":
            metrics["accuracy"] = _measure(wilson(min(n, max(0.0, micro / MICRO)), n))
        else:
            squares = total.squares.get(name)
            metrics[name] = (
                Measure(value=micro / MICRO / n)
                if squares is None
                else _measure(mean_interval(n, micro / MICRO, squares / MICRO))
            )
    return metrics


def _measure(interval: Interval) -> Measure:
    return Measure(value=interval.value, low=interval.low, high=interval.high)
