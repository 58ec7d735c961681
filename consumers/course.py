"""The course of a model: its rolling loss, its drift, what was live, what was decided and why.

All of it is what the topics say, in event time, so it shows a replayed year as it would a live one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby, pairwise
from statistics import median
from typing import Any, Final, NamedTuple, TypeVar

from matplotlib.dates import ConciseDateFormatter
from msgspec import Struct

from consumers.loop import RangeReader
from consumers.plots import INK, MUTED, svg
from stream.envelope import open_record, read
from stream.errors import DriftlineError, Refused
from stream.events import EVENT_TYPES, AccuracyMeasured, Alert, Command, DriftMeasured

ENTITIES: Final = ("accuracy", "drift", "alerts", "commands")
METRICS: Final = ("log_loss", "absolute_error", "loss")  # what is shown, the first that there is
HOLE: Final = 5  # times the usual step between two windows: there is none between
SIGNALS: Final = 5  # those that went furthest from their reference
INCHES: Final = (9.0, 7.5)
#: Okabe and Ito (2008): told apart by the colour-blind. After the last the first comes again.
COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
SEVERITIES: Final = {"info": MUTED, "warning": "#e69f00", "critical": "#d55e00"}


W = TypeVar("W", AccuracyMeasured, DriftMeasured)


class NothingToDraw(DriftlineError):
    """The topics hold no accuracy of the model; the message says what to do."""


class Course(NamedTuple):
    """
    Attributes:
        accuracy: of all events in one kind of window; each window's newest restatement, by its end.
        drift: the same of each signal.
    """

    model: str
    window: str
    metric: str
    accuracy: list[AccuracyMeasured]
    drift: dict[str, list[DriftMeasured]]
    alerts: list[Alert]
    commands: list[Command]


def read_course(reader: RangeReader, model: str, max_bytes: int) -> Course:
    """
    Raises:
        NothingToDraw, ConfigurationError, BrokerError
    """
    return course_of(model, _events(reader, max_bytes))


def _events(reader: RangeReader, max_bytes: int) -> Iterator[Struct]:
    for entity in ENTITIES:
        for _, record in reader.read(entity, reader.bounds(entity)):
            try:
                opened = open_record(entity, record, max_bytes=max_bytes)
                yield read(opened, EVENT_TYPES[opened.type][0])
            except Refused:
                continue  # somebody else's


def course_of(model: str, events: Iterable[Struct]) -> Course:
    """The course that these events tell, in whatever order they come.

    Raises:
        NothingToDraw
    """
    accuracy: dict[tuple[str, int, int], AccuracyMeasured] = {}
    drift: dict[tuple[str, int, int], DriftMeasured] = {}
    alerts: dict[str, Alert] = {}
    commands: dict[str, Command] = {}
    for event in events:
        match event:
            case AccuracyMeasured() if event.model == model and not event.segment:
                _newer(accuracy, (event.window, event.version, event.end_ms), event)
            case DriftMeasured() if event.model == model:
                _newer(drift, (event.signal, event.version, event.end_ms), event)
            case Alert() if event.model == model:
                _newer(alerts, event.alert_id, event)
            case Command() if event.model == model:
                commands.setdefault(event.command_id, event)
    if not accuracy:
        raise NothingToDraw(
            f"nothing was measured of {model!r} yet: accuracy comes when ticks close, which takes "
            "predictions, labels and a running monitor and evaluate (`driftline status`)"
        )
    window = _kind(accuracy.values())
    shown = [one for one in accuracy.values() if one.window == window]
    metrics = {name for one in shown for name in one.metrics}
    signals = defaultdict(list)
    for one in sorted(drift.values(), key=lambda one: one.end_ms):
        signals[one.signal].append(one)
    return Course(
        model,
        window,
        next(name for name in (*METRICS, *sorted(metrics)) if name in metrics),
        sorted(shown, key=lambda one: (one.end_ms, one.version)),
        dict(signals),
        sorted(alerts.values(), key=lambda one: one.opened_ms),
        sorted(commands.values(), key=lambda one: one.issued_ms),
    )


def _newer(kept: dict[Any, Any], key: object, event: Any) -> None:
    if key not in kept or kept[key].revision <= event.revision:
        kept[key] = event


def _kind(accuracy: Iterable[AccuracyMeasured]) -> str:
    """Of windows of time the shortest: it hides least; else any that there is."""
    kinds = {one.window: one.end_ms - one.start_ms for one in accuracy}
    timed = [kind for kind in kinds if kind.endswith("s") and kind[:-1].isdigit()]
    return min(timed or kinds, key=lambda kind: (kinds[kind], kind))


def draw(course: Course) -> bytes:
    """An SVG of three panels over one axis of time. The same course gives the same bytes."""
    panels: Sequence[Callable[[Any, Course], None]] = (_losses, _drift, _decisions)
    return svg(lambda axes: _fill(axes, panels, course), INCHES, heights=(3, 2, 2))


def _fill(axes: Sequence[Any], panels: Sequence[Callable[..., None]], course: Course) -> None:
    for one, panel in zip(axes, panels, strict=True):
        panel(one, course)
    axes[0].set_title(course.model, loc="left", parse_math=False)
    axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(axes[-1].xaxis.get_major_locator()))


def _losses(axes: Any, course: Course) -> None:
    """One line for each version, strong while it was champion; its validated figure dashed."""
    for version, found in _by_version(course).items():
        colour = colour_of(version)
        for stretch in unbroken(found):
            _line(axes, stretch, course.metric, color=colour, linewidth=0.8, alpha=0.5)
        for number, stretch in enumerate(_reigns(found)):
            label = None if number else f"version {version}"
            _line(axes, stretch, course.metric, color=colour, linewidth=2, label=label, band=True)
            baseline = stretch[-1].baseline.get(course.metric)
            if baseline is not None:
                ends = [_time(stretch[0].end_ms), _time(stretch[-1].end_ms)]
                axes.plot(ends, [baseline, baseline], color=colour, linestyle="--", linewidth=1)
    axes.set_ylabel(f"{course.metric.replace('_', ' ')}, {_words(course.window)}")
    axes.set_ylim(bottom=0)
    _legend(axes)


def _line(
    axes: Any,
    found: Sequence[AccuracyMeasured],
    metric: str,
    *,
    band: bool = False,
    **style: Any,
) -> None:
    told = [(_time(one.end_ms), one.metrics[metric]) for one in found if metric in one.metrics]
    times = [time for time, _ in told]
    axes.plot(times, [measure.value for _, measure in told], **style)
    if band:
        low = [m.value if m.low is None else m.low for _, m in told]
        high = [m.value if m.high is None else m.high for _, m in told]
        axes.fill_between(times, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _drift(axes: Any, course: Course) -> None:
    """PSI of the signals that went furthest."""
    furthest = sorted(course.drift, key=lambda name: (-_peak(course.drift[name]), name))
    for number, name in enumerate(furthest[:SIGNALS]):
        colour = COLOURS[number % len(COLOURS)]
        for place, stretch in enumerate(unbroken(course.drift[name])):
            times = [_time(one.end_ms) for one in stretch]
            label = None if place else name
            axes.plot(times, [one.psi for one in stretch], color=colour, linewidth=1, label=label)
    shown = min(SIGNALS, len(furthest))
    axes.set_ylabel(f"drift (PSI), {shown} of {len(furthest)} signals")
    axes.set_ylim(bottom=0)
    _legend(axes)


def _decisions(axes: Any, course: Course) -> None:
    """What was live, when it was not well, and what was done about it."""
    champions = [one for one in course.accuracy if one.champion]
    end_ms = course.accuracy[-1].end_ms
    rows: dict[str, float] = {}
    for version, stretch in groupby(champions, key=lambda one: one.version):
        ends = [one.end_ms for one in stretch]
        place = rows.setdefault(f"version {version}", -float(len(rows)))
        _bar(axes, place, ends[0], ends[-1], colour_of(version))
    for alert in course.alerts:
        place = rows.setdefault(alert.verdict, -float(len(rows)))
        until_ms = alert.resolved_ms or max(alert.updated_ms, end_ms)
        _bar(axes, place, alert.opened_ms, until_ms, SEVERITIES[alert.severity])
    for command in course.commands:
        place = rows.setdefault(command.kind, -float(len(rows)))
        axes.plot([_time(command.issued_ms)], [place], "o", color=INK, markersize=5)
    axes.set_yticks([*rows.values()], [*rows], parse_math=False)
    axes.set_ylim(-len(rows) + 0.4, 0.6)


def _bar(axes: Any, place: float, start_ms: int, end_ms: int, colour: str) -> None:
    times = [_time(start_ms), _time(end_ms)]
    axes.plot(times, [place, place], color=colour, linewidth=6, solid_capstyle="butt")
    axes.plot(times[:1], [place], "|", color=colour, markersize=6)  # also of what ended at once


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[1]:
        legend = axes.legend(loc="upper left", frameon=False, fontsize=8)
        for text in legend.get_texts():
            text.set_parse_math(False)  # a name is no formula


def _by_version(course: Course) -> Mapping[int, list[AccuracyMeasured]]:
    found: dict[int, list[AccuracyMeasured]] = defaultdict(list)
    for one in course.accuracy:
        found[one.version].append(one)
    return dict(sorted(found.items()))


def _reigns(found: Sequence[AccuracyMeasured]) -> list[list[AccuracyMeasured]]:
    """The stretches in which a version was champion."""
    return [[*some] for champion, some in groupby(found, key=lambda one: one.champion) if champion]


def unbroken(found: Sequence[W]) -> list[list[W]]:
    """Stretches of one version without a hole: a line across one would tell what nobody saw."""
    steps = [after.end_ms - before.end_ms for before, after in pairwise(found)]
    usual_ms = median(step for step in steps if step) if any(steps) else 0
    stretches: list[list[W]] = []
    for one in found:
        last = stretches[-1][-1] if stretches else None
        if (
            last is not None
            and last.version == one.version
            and one.end_ms - last.end_ms <= HOLE * usual_ms
        ):
            stretches[-1].append(one)
        else:
            stretches.append([one])
    return stretches


def _words(window: str) -> str:
    """
    >>> _words("2419200s"), _words("3600s"), _words("1000 labels")
    ('28 days', '1 hours', '1000 labels')
    """
    if not (window.endswith("s") and window[:-1].isdigit()):
        return window
    seconds = int(window[:-1])
    return f"{seconds / 86_400:g} days" if seconds >= 86_400 else f"{seconds / 3600:g} hours"


def _peak(found: Sequence[DriftMeasured]) -> float:
    return max(one.psi for one in found)


def colour_of(version: int) -> str:
    """The same in every panel."""
    return COLOURS[(version - 1) % len(COLOURS)]


def _time(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC)
