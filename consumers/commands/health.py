"""`driftline status`, `driftline top` and `driftline doctor`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from consumers.commands.common import (
    BREACH,
    FAILURE,
    USAGE,
    Json,
    load_settings,
    print_json,
    print_table,
    registry,
    say,
    show_time,
)

if TYPE_CHECKING:
    from consumers.status import ModelStatus, Status
    from consumers.top import Top
    from stream.events import AccuracyMeasured, Alert, Measure

REFRESH_SECONDS: Final = 0.5
ANSWER_SECONDS: Final = 15.0  # within which somebody must answer
SETTLE_SECONDS: Final = 2.0  # in which what lies there is read


def status(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 3 if an alert is open or something waits.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what is live, what is wrong, and how far behind anyone is.

    Example: driftline status --check
    """
    from consumers.status import collect

    settings = load_settings()
    with registry(settings) as opened:
        found = collect(settings, opened)
    if json:
        print_json({"breaches": found.breaches, "status": found})
    else:
        _print(found)
    if check and found.breaches:
        for breach in found.breaches:
            say(f"breach: {breach}")
        raise typer.Exit(BREACH)


def top(
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop after this long.", show_default=False)
    ] = None,
    *,
    once: Annotated[
        bool, typer.Option("--once", help="One picture, and end; so off a terminal.")
    ] = False,
    json: Json = False,
) -> None:
    """Watch the fleet: the worst model first, what flows, alerts and decisions.

    Example: driftline top
    """
    import sys

    from consumers.top import Top
    from models.database import now_ms
    from stream import logs

    settings = load_settings()
    logs.configure(settings.log_format, "critical", service="top")  # the picture says what is wrong
    with Top(settings, now_ms).following() as following:
        if json or once or not sys.stdout.isatty():
            _await(following, SETTLE_SECONDS if seconds is None else seconds)
            _picture(following, json=json)
        else:
            _watch(following, seconds)


def _await(following: Top, seconds: float) -> None:
    """Give it time to read what lies there.

    Raises:
        typer.Exit: nobody answered.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    while not following.ready:
        if time.monotonic() > deadline:
            say(f"error: {following.problem or 'the broker does not answer'}")
            raise typer.Exit(FAILURE)
        time.sleep(0.1)
    time.sleep(seconds)


def _picture(following: Top, *, json: bool) -> None:
    from rich.console import Console

    from consumers.top import screen

    if json:
        print_json(following.now())
    else:
        now = following.now()
        Console().print(screen(now, height=len(now.models) + 24))


def _watch(following: Top, seconds: float | None) -> None:
    from rich.console import Console
    from rich.live import Live

    from consumers.top import screen

    console = Console()
    ends = float("inf") if seconds is None else time.monotonic() + seconds
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while time.monotonic() < ends:
            live.update(screen(following.now(), height=console.height), refresh=True)
            time.sleep(REFRESH_SECONDS)


def doctor(
    service: Annotated[
        str, typer.Option("--as", help="Whose rights to look for; `topics acls` names them.")
    ] = "reader",
    *,
    json: Json = False,
) -> None:
    """Look for what would go wrong: broker, topics, rights, clocks, retention, registry, artefacts.

    Exit code 3 if anything is bad; each line says what to do.

    Example: driftline doctor --as trainer
    """
    from consumers.acls import TABLE
    from consumers.doctor import examine

    if service not in TABLE:
        say(f"error: --as {service}: name one of {', '.join(TABLE)}")
        raise typer.Exit(USAGE)
    checks = examine(load_settings(), service)
    if json:
        print_json([check._asdict() for check in checks])
    else:
        print_table(("CHECK", "STATE", "NOTE"), [tuple(check) for check in checks])
    if any(check.state == "bad" for check in checks):
        raise typer.Exit(BREACH)


def _print(found: Status) -> None:
    from consumers.commands.models import describe

    print_table(
        ("MODEL", "CHAMPION", "STATE", "LABELLED", "COVERAGE", "LABELS", "FIGURES", "VERDICT"),
        [
            (
                one.live.model,
                one.live.champion or "-",
                describe(one.live),
                one.accuracy.labelled if one.accuracy else "-",
                f"{one.accuracy.coverage:.0%}" if one.accuracy else "-",
                labels(one.accuracy) if one.accuracy else "-",
                figures(one),
                verdict(one) or ("stale" if found.silent else "no open alert"),
            )
            for one in found.models
        ],
    )
    typer.echo()
    print_table(
        ("GROUP", "READS", "LAG"),
        [
            (lag.group, lag.entity, "?" if lag.records is None else lag.records)
            for lag in found.lags
        ],
    )
    dead = ", ".join(f"{entity} {count}" for entity, count in found.dead_letters.items() if count)
    say(f"dead letters: {dead or 'none'}; changes waiting to be published: {found.outbox}")


def verdict(one: ModelStatus) -> str:
    """What is wrong, and why there is no retrain about it; empty: nothing is."""
    why_not = [f"retrain held back: {one.held.reason}"] if one.held else []
    return "; ".join([*map(told, one.alerts), *why_not])


def told(alert: Alert) -> str:
    """An alert in a line of the table, with what people say of it."""
    return alert.sentence if alert.state == "open" else f"{alert.sentence} ({alert.state})"


def labels(measured: AccuracyMeasured) -> str:
    """How late they come, and what became of those that did not fit.

    >>> from stream.events import AccuracyMeasured, Lateness
    >>> late = Lateness(predictions=9, labelled=9, ages_seconds=[60, 7200], shares=[0.4, 0.8])
    >>> labels(AccuracyMeasured(model="m", version=1, window="1s", start_ms=0, end_ms=1000,
    ...     predictions=9, labelled=8, coverage=0.9, metrics={}, counted={"orphans": 2},
    ...     delays={"": late}))
    '40% by 1m, 80% by 2h; orphans 2'
    """
    curve = measured.delays.get("")
    points = list(zip(curve.shares, curve.ages_seconds, strict=True)) if curve else []
    most = points[-1][0] if points else 0.0
    # The first point by which half of the labels have come that come at all, and the last one.
    middle = [next(point for point in points if point[0] >= most / 2)] if most else []
    shown = dict.fromkeys([*middle, *([points[-1]] if most else [])])
    late = ", ".join(f"{share:.0%} by {_age(seconds)}" for share, seconds in shown)
    odd = ", ".join(f"{name} {count}" for name, count in measured.counted.items() if count)
    return "; ".join(part for part in (late, odd) if part) or "-"


def _age(seconds: int) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g}{unit}"
    return f"{seconds}s"


def figures(one: ModelStatus) -> str:
    """Each metric with what it was when the version was validated; then weighted and estimated."""
    told = one.accuracy
    if told is None:
        return "nothing measured yet"
    parts = [
        f"{name}={measure.value:.3f}"
        + (f" (was {told.baseline[name]:.3f})" if name in told.baseline else "")
        for name, measure in told.metrics.items()
    ]
    if told.weighted:
        parts += ["weighted", *_measures(told.weighted)]
    if told.estimate:
        doubt = "" if told.estimate.reliable else f" (not reliable: {told.estimate.reason})"
        parts += ["estimated", *_measures(told.estimate.metrics)]
        parts[-1] += doubt
    parts += [
        f"{name}: {f'last at {show_time(said.last_ms)}' if said.alarms else 'quiet'}"
        for name, said in told.detectors.items()
    ]
    return " ".join(parts)


def _measures(measures: dict[str, Measure]) -> list[str]:
    """Figures with their intervals."""
    return [
        f"{name}={one.value:.3f}"
        + ("" if one.low is None or one.high is None else f" [{one.low:.3f}, {one.high:.3f}]")
        for name, one in measures.items()
        if name != "loss"  # of the tests; the others are in units that people know
    ]
