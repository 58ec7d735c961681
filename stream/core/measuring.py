"""What is shown of a window or a trial: figures with their intervals, out of counts and sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from models.profile import ReferenceProfile, SignalProfile
from models.spec import ModelSpec
from stream.core.delays import Ages, Curve, Delays, Survival
from stream.core.distances import Comparison, compare_all
from stream.core.estimates import against, estimate, shown, shown_name
from stream.core.intervals import Interval, mean_interval, wilson
from stream.core.lateness import EDGES
from stream.core.trials import TrialState
from stream.core.watching import Watch
from stream.core.weighting import weighted
from stream.core.windows import Cell, Plan, Published
from stream.events import MICRO, AccuracyMeasured, DriftMeasured, Lateness, Measure

RISE: Final = 0.02  # from one point of a curve to the next that is shown

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
    estimator = profile.estimator if profile else None
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
        counted=dict(sorted(total.counters.items())),
        estimate=estimate(estimator, total.estimates) if estimator else None,
    )


class Late(NamedTuple):
    """What is known of late labels as of one cohort's end."""

    known: Delays
    told: dict[str, Lateness]


def known(curve: Curve, ages: Ages, as_of: int, classes: Sequence[str]) -> Late:
    return Late(curve.known(ages, as_of), _lateness(classes, curve.survival(ages, as_of)))


def late(
    measured: AccuracyMeasured, window: Published, found: Late, ages: Ages
) -> AccuracyMeasured:
    """The same with what late labels do to it: weighted figures, delays, the estimate's error.

    All are as of the last label that is in the window, so that they do not depend on when it is
    told of.
    """
    as_of = window.total.latest or 0
    weighs = weighted(window.cells, found.known, ages, as_of)
    metrics = (
        {shown_name(name): shown(name, one) for name, one in weighs.measures.items()}
        if weighs
        else {}
    )
    told = measured.estimate
    return replace(
        measured,
        weighted=metrics,
        weighted_share=weighs.share if weighs else 0.0,
        estimate=told and against(told, measured.metrics, measured.coverage, metrics),
        delays=found.told,
    )


def _lateness(classes: Sequence[str], survival: dict[str, Survival]) -> dict[str, Lateness]:
    """Curves by class, or by stratum of a regression; each at the ages at which it has risen."""
    names = dict(enumerate(classes))
    told = {}
    for stratum, curve in survival.items():
        steps = _rises(curve.shares)
        told[names.get(int(stratum), stratum) if stratum else ""] = Lateness(
            predictions=curve.predictions,
            labelled=curve.labelled,
            ages_seconds=[int(EDGES[step + 1]) for step in steps],
            shares=[curve.shares[step] for step in steps],
        )
    return told


def _rises(shares: list[float]) -> list[int]:
    """Where a curve is `RISE` above the point before, and its last point.

    >>> _rises([0.0, 0.0, 0.2, 0.204, 0.9, 0.9])
    [2, 4, 5]
    """
    steps, reached = [], 0.0
    for step, share in enumerate(shares):
        if share - reached >= RISE or step == len(shares) - 1:
            steps.append(step)
            reached = share
    return steps


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
    seen = [
        (signal, counts)
        for signal in profile.signals
        if (counts := window.total.signals.get(signal.name))
        and len(counts) == len(signal.counts)
        and sum(counts) > 0
    ]
    far = compare_all([signal.counts for signal, _ in seen], [counts for _, counts in seen])
    times_ms = window.total.start * spec.tick_ms, window.total.end * spec.tick_ms
    for (signal, counts), figures in zip(seen, far, strict=True):
        yield _drift(spec, signal, counts, figures, plan, times_ms, window.revision, watch)


def _drift(
    spec: ModelSpec,
    signal: SignalProfile,
    counts: list[int],
    far: Comparison,
    plan: Plan,
    times_ms: tuple[int, int],
    revision: int,
    watch: Watch,
) -> DriftMeasured:
    n = sum(counts)
    kind = "prediction" if signal.name.partition(":")[0] == "prediction" else "feature"
    return DriftMeasured(
        model=spec.name,
        version=watch.version,
        signal=signal.name,
        window=plan.name,
        start_ms=times_ms[0],
        end_ms=times_ms[1],
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
        revision=revision,
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
