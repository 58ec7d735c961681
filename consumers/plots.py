"""Plots of a run as SVG. The same record gives the same bytes; text stays text."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import matplotlib as mpl
from matplotlib.dates import ConciseDateFormatter
from matplotlib.figure import Figure as Canvas

from models.cards import Plot
from models.runs import Candidate, Figure, Run

INCHES: Final = (7.0, 3.2)
STYLE: Final[Mapping[str, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "driftline",  # else ids are random
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
INK, MUTED = "#1f6f8b", "#9aa5ad"


def plots(run: Run) -> dict[Plot, bytes]:
    """Every plot that the record has figures for."""
    chosen = run.chosen
    if chosen is None:
        return {}
    metric = "absolute_error" if "absolute_error" in chosen.metrics else "log_loss"
    drawn: dict[Plot, bytes] = {}
    if metric in chosen.metrics:
        drawn["candidates"] = _one(lambda axes: _candidates(axes, run, metric))
    if chosen.calibration:
        drawn["calibration"] = _one(lambda axes: _calibration(axes, chosen))
    if chosen.course:
        drawn["course"] = _one(lambda axes: _course(axes, chosen, metric))
    if chosen.segments:
        drawn["segments"] = _one(lambda axes: _segments(axes, chosen, metric))
    return drawn


def _candidates(axes: Any, run: Run, metric: str) -> None:
    tried = [c for c in run.candidates if metric in c.metrics]
    names = [f"{c.name} (chosen)" if c.chosen else c.name for c in tried]
    _dots(axes, names, [c.metrics[metric] for c in tried], [c.chosen for c in tried])
    axes.set_xlabel(f"{_words(metric)} on the held-out slice, 95 % interval")


def _segments(axes: Any, chosen: Candidate, metric: str) -> None:
    found = {name: metrics[metric] for name, metrics in chosen.segments.items()}
    _dots(axes, [*found], [*found.values()], [True] * len(found))
    axes.axvline(chosen.metrics[metric].value, color=MUTED, linestyle="--", linewidth=1)
    axes.set_xlabel(f"{_words(metric)}, 95 % interval; dashed: all events")


def _calibration(axes: Any, chosen: Candidate) -> None:
    said = [group.said for group in chosen.calibration]
    found = [group.found for group in chosen.calibration]
    ends = (min(said + [f.value for f in found]), max(said + [f.value for f in found]))
    axes.plot(ends, ends, color=MUTED, linestyle="--", linewidth=1)
    axes.errorbar(said, [f.value for f in found], _errors(found), fmt="o", color=INK, capsize=2)
    axes.set_xlabel("what was said, groups of equally many events")
    axes.set_ylabel("what came true")


def _course(axes: Any, chosen: Candidate, metric: str) -> None:
    times = [datetime.fromtimestamp(s.start_ms / 1000, tz=UTC) for s in chosen.course]
    found = [stretch.loss for stretch in chosen.course]
    axes.errorbar(times, [f.value for f in found], _errors(found), fmt="o-", color=INK, capsize=2)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(axes.xaxis.get_major_locator()))
    axes.set_ylabel(_words(metric))
    axes.set_ylim(bottom=0)


def _dots(axes: Any, names: list[str], found: list[Figure], strong: list[bool]) -> None:
    """One line for each name, the first on top."""
    for place, (value, full) in enumerate(zip(found, strong, strict=True)):
        axes.errorbar(
            [value.value],
            [place],
            xerr=_errors([value]),
            fmt="o",
            color=INK if full else MUTED,
            capsize=2,
        )
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _errors(found: list[Figure]) -> list[list[float]]:
    """How far the ends of each interval lie below and above, as matplotlib wants them."""
    below = [max(0.0, f.value - f.low) if f.low is not None else 0.0 for f in found]
    above = [max(0.0, f.high - f.value) if f.high is not None else 0.0 for f in found]
    return [below, above]


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def _one(draw: Callable[[Any], None]) -> bytes:
    return svg(lambda axes: draw(axes[0]), INCHES)


def svg(
    draw: Callable[[Sequence[Any]], None],
    inches: tuple[float, float],
    heights: Sequence[float] = (1,),
) -> bytes:
    """What `draw` puts on panels of these relative heights, which share their x axis."""
    # No pyplot: it would look for a display, and keep every figure.
    with mpl.rc_context({**STYLE}):
        canvas = Canvas(figsize=inches, layout="constrained")
        panels = canvas.subplots(
            len(heights), squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
        )
        draw([*panels[:, 0]])
        file = io.BytesIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()
