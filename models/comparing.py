"""What differs between two runs, in the order a person asks: outcome, quality, data, code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from models.runs import DataRange, Figure, Run

#: Metrics of which less is better, and of which more is. Of others neither is said.
LESS: Final = frozenset({"log_loss", "loss", "brier", "absolute_error", "squared_error"})
MORE: Final = frozenset({"correct", "roc_auc", "gain"})

Reading = Literal["", "better", "worse", "within the noise"]


class Difference(Struct, frozen=True, kw_only=True):
    """One thing that differs. Absent is None.

    Attributes:
        change: b - a where both are numbers or figures, but no times.
        reading: what a figure's change means: more than the intervals allow for, or not.
    """

    section: str
    field: str
    a: Any
    b: Any
    change: float | None = None
    reading: Reading = ""


class Comparison(Struct, frozen=True, kw_only=True):
    """Differences by section, in order."""

    a: int
    b: int
    differences: list[Difference]
    same: list[str]  # sections that differ in nothing

    def section(self, name: str) -> list[Difference]:
        return [difference for difference in self.differences if difference.section == name]


def compare_runs(a: Run, b: Run) -> Comparison:
    """What differs between two runs, field by field.

    What was chosen is compared with what was chosen, under whatever names; candidates by name,
    offsets by topic and partition. Figures of two runs are of two held-out slices, mostly.
    """
    left, right = dict(_sections(a)), dict(_sections(b))
    differences = [
        Difference(
            section=section,
            field=field,
            a=x,
            b=y,
            change=None if field.endswith("_ms") else _change(x, y),
            reading=reading(field.rpartition(" ")[2], x, y),
        )
        for section in left
        for field in dict.fromkeys([*left[section], *right[section]])
        if (x := left[section].get(field)) != (y := right[section].get(field))
    ]
    differing = {difference.section for difference in differences}
    same = [section for section in left if left[section] and section not in differing]
    return Comparison(a=a.run_id, b=b.run_id, differences=differences, same=same)


def reading(metric: str, a: object, b: object) -> Reading:
    """
    >>> reading("log_loss", Figure(0.5, 0.4, 0.6), Figure(0.2, 0.1, 0.3))
    'better'
    >>> reading("correct", Figure(0.8, 0.7, 0.9), Figure(0.75, 0.6, 0.85))
    'within the noise'
    """
    if not isinstance(a, Figure) or not isinstance(b, Figure) or metric not in LESS | MORE:
        return ""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return ""
    if a.low <= b.high and b.low <= a.high:
        return "within the noise"
    return "better" if (b.value < a.value) == (metric in LESS) else "worse"


def _sections(run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
    yield (
        "outcome",
        _fields(run, "verdict", "reason", "version", "artefact_digest", "profile_digest"),
    )
    yield "quality", _quality(run)
    yield "segments", _segments(run)
    yield "candidates", dict(_candidates(run))
    yield "data", _data(run.data)
    yield "parameters", _flat(run.parameters) | _fields(run, "seed", "spec_revision")
    yield "libraries", dict(run.libraries)
    yield (
        "cause",
        _fields(run, "model", "cause", "who", "alert_id", "generation")
        | _flat({"evidence": run.evidence}),
    )
    yield "cost", _fields(run, "duration_seconds", "attempts") | _costs(run)


def _quality(run: Run) -> dict[str, Any]:
    """What was chosen, and how it did."""
    if run.chosen is None:
        return {}
    return {
        "chosen": run.chosen.name,
        **run.chosen.metrics,
        "calibration_error": run.chosen.calibration_error,
    }


def _segments(run: Run) -> dict[str, Any]:
    found = run.chosen.segments if run.chosen is not None else {}
    return {
        f"{segment} {metric}": figure
        for segment, metrics in found.items()
        for metric, figure in metrics.items()
        if metric in ("log_loss", "absolute_error", "correct")
    }


def _candidates(run: Run) -> Iterator[tuple[str, Any]]:
    """The others: what they were judged by, and what is peculiar to them."""
    for candidate in run.candidates:
        if not candidate.chosen:
            for metric in ("log_loss", "absolute_error"):
                if metric in candidate.metrics:
                    yield f"{candidate.name} {metric}", candidate.metrics[metric]
        for name, value in _flat(candidate.parameters).items():
            yield f"{candidate.name} {name}", value
        yield f"{candidate.name} problem", candidate.problem or None
        yield f"{candidate.name} notes", "; ".join(candidate.notes) or None


def _costs(run: Run) -> dict[str, Any]:
    fits = {f"{c.name} fit_seconds": c.fit_seconds for c in run.candidates}
    latency = run.chosen.latency_ms if run.chosen is not None else {}
    return fits | {f"predict {batch} ms": value for batch, value in latency.items()}


def _fields(run: Run, *names: str) -> dict[str, Any]:
    return {name: getattr(run, name) for name in names}


def _data(data: DataRange | None) -> dict[str, Any]:
    if data is None:
        return {}
    flat = _flat(msgspec.to_builtins(data)) | {"coverage": data.coverage}
    flat.pop("ranges", None)
    for part in data.ranges:
        flat[f"{part.topic}[{part.partition}]"] = f"{part.first}..{part.end}"
    return flat


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """
    >>> _flat({"fit": {"rows": 3, "split": {}}, "seed": 1})
    {'fit.rows': 3, 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, dict):
            flat |= _flat(item, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = item
    return flat


def _change(a: object, b: object) -> float | None:
    x, y = _number(a), _number(b)
    return None if x is None or y is None else y - x


def _number(value: object) -> float | None:
    if isinstance(value, Figure):
        return value.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None
