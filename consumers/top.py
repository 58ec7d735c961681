"""The fleet at a glance, on a terminal: what the console knows, of now only, drawn as text.

Nothing is kept and no group is joined: it reads what the topics say of late, and what comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from msgspec import Struct
from rich.console import Group
from rich.table import Table
from rich.text import Text

from consumers.console.board import Board, Entry
from consumers.console.history import Came
from consumers.console.pipeline import GroupView, Pipeline, group_views
from consumers.console.pulse import Pulse, Rate, delay_quantile
from consumers.console.reader import Reader
from consumers.console.views import (
    STATES,
    FleetRow,
    State,
    duration,
    fleet_row,
    number,
)
from stream.events import Alert, Command, RetrainHeld
from stream.settings import Settings

LOOK_BACK: Final = 2_000  # records of a partition, for the lines of the fleet
WELL: Final = "keeping up"
BARS: Final = "▁▂▃▄▅▆▇█"
#: What stands before a state, so that it can be told without colour; and its colour.
MARKS: Final[dict[State, tuple[str, str]]] = {
    "harmed": ("✗", "bold red"),
    "broken": ("✗", "red"),
    "stale": ("?", "yellow"),
    "unlabelled": ("?", "yellow"),
    "below": ("↓", "yellow"),
    "changed": ("~", "cyan"),
    "waiting": ("·", "dim"),
    "healthy": ("✓", "green"),
}
ALERTS: Final = 4
DECISIONS: Final = 3
AROUND: Final = 10  # lines that are no model, alert or decision


class Now(Struct, frozen=True, kw_only=True):
    """Everything that is drawn, as of `at_ms` on this machine's clock.

    Attributes:
        told_ms: the same by the clock of events, for how long ago these were.
    """

    at_ms: int
    told_ms: int
    brokers: str
    standing: str  # of the reader: following, starting, or why it is away
    models: list[FleetRow]  # the worst first
    rate: Rate
    label_delays: tuple[float | None, float | None]  # median and 95 %, in seconds
    stages: list[GroupView]
    dead_letters: int
    alerts: list[Alert]  # the newest first
    decisions: list[Command | RetrainHeld]  # what was commanded or held back, the newest first


class Forgetful:
    """In the place of the console's history: each start reads the last records anew."""

    def positions(self) -> dict[tuple[str, int], int]:
        return {}

    def add(self, batch: Sequence[Came], positions: dict[tuple[str, int], int]) -> None:
        pass

    def rewind(self, topic: str) -> None:
        pass


class Top:
    """Follows the topics while it is open; `now` tells how things are."""

    def __init__(self, settings: Settings, clock: Callable[[], int]) -> None:
        self._settings = settings
        self._clock = clock
        self._board, self._pulse = Board(), Pulse()
        self._reader = Reader(
            *(settings, Forgetful(), self._board, self._pulse, clock), back=LOOK_BACK
        )
        self._pipeline = Pipeline(settings, clock)

    @contextmanager
    def following(self) -> Iterator[Top]:
        threads = (self._reader, self._pipeline)
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for thread in threads:
                thread.stop()

    @property
    def ready(self) -> bool:
        """The topics are followed, and lags were looked at once."""
        return self._reader.standing.state == "following" and bool(self._pipeline.samples)

    @property
    def problem(self) -> str:
        return self._reader.standing.problem or self._pipeline.problem

    def now(self) -> Now:
        at_ms = self._clock()
        entries = self._board.entries()
        samples = list(self._pipeline.samples)
        delays = self._pulse.delays()
        models = sorted((fleet_row(entry, at_ms) for entry in entries), key=_rank)
        return Now(
            at_ms=at_ms,
            told_ms=self._told_ms(models, at_ms),
            brokers=self._settings.bootstrap_servers,
            standing=self.problem or self._reader.standing.state,
            models=models,
            rate=self._pulse.total(at_ms),
            label_delays=(delay_quantile(delays, 0.5), delay_quantile(delays, 0.95)),
            stages=group_views(samples),
            dead_letters=sum(samples[-1].dead_letters.values()) if samples else 0,
            alerts=_newest_alerts(entries),
            decisions=_newest_decisions(entries),
        )

    def _told_ms(self, models: Sequence[FleetRow], at_ms: int) -> int:
        """In a replay the newest window ends now."""
        ends = [row.as_of_ms for row in models if row.as_of_ms is not None]
        return max(ends) if self._settings.clock == "event" and ends else at_ms


def _rank(row: FleetRow) -> tuple[int, str]:
    return STATES.index(row.state), row.model


def _newest_alerts(entries: Sequence[Entry]) -> list[Alert]:
    found = [alert for entry in entries for alert in entry.alerts.values()]
    return sorted(found, key=lambda alert: -alert.opened_ms)


def _newest_decisions(entries: Sequence[Entry]) -> list[Command | RetrainHeld]:
    found: list[Command | RetrainHeld] = []
    for entry in entries:
        found += [*entry.commands.values(), *entry.held.values()]
    return sorted(found, key=lambda one: -_decided_ms(one))


def _decided_ms(one: Command | RetrainHeld) -> int:
    return one.issued_ms if isinstance(one, Command) else one.held_ms


def screen(now: Now, *, height: int = 24) -> Group:
    """One picture of exactly what fits: models fill what alerts and decisions leave."""
    alerts, decisions = now.alerts[:ALERTS], now.decisions[:DECISIONS]
    room = max(1, height - AROUND - len(alerts) - len(decisions))
    shown = now.models[:room]
    more = len(now.models) - len(shown)
    return Group(
        _line(f"driftline top  {now.brokers}  {now.standing}", "bold"),
        _line(_flow(now)),
        _line(_stages(now)),
        Text(),
        _fleet(shown) if shown else _line("no model was heard of; `driftline models add`", "dim"),
        Text(),
        _line(f"ALERTS  {len(now.alerts) or 'none'}", "bold"),
        *(_line(_alert(alert, now.told_ms)) for alert in alerts),
        _line("DECISIONS" if decisions else "DECISIONS  none", "bold"),
        *(_line(_decision(one, now.told_ms)) for one in decisions),
        Text(),
        _line(f"{f'{more} more models; ' if more else ''}the worst first; Ctrl-C ends", "dim"),
    )


def _flow(now: Now) -> str:
    half, most = now.label_delays
    late = (
        f"half in {duration(half * 1000)}, 95 % in {duration(most * 1000)}"
        if half is not None and most is not None
        else "none came yet"
    )
    rates = f"predictions {number(now.rate.predictions)}/s  labels {number(now.rate.labels)}/s"
    return f"{rates}: {late}  dead letters {now.dead_letters}"


def _stages(now: Now) -> str:
    """What waits for each group, and a word where not all is well."""
    waiting: dict[str, int] = {}
    words: dict[str, list[str]] = {}
    for group in now.stages:
        waiting[group.role] = waiting.get(group.role, 0) + (group.lag or 0)
        words.setdefault(group.role, []).extend([group.word] if group.word != WELL else [])
    told = [
        f"{role} {lag:,}" + (f" ({words[role][0]})" if words[role] else "")
        for role, lag in waiting.items()
    ]
    return f"lag: {'  '.join(told) or 'not looked at yet'}"


def _fleet(rows: Sequence[FleetRow]) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("STATE", no_wrap=True, width=17)
    table.add_column("MODEL", no_wrap=True, ratio=1, overflow="ellipsis")
    table.add_column("LIVE", no_wrap=True, width=4)
    table.add_column("FIGURE (VALIDATED)", no_wrap=True, width=24, overflow="ellipsis")
    table.add_column("LABELS", no_wrap=True, width=6, justify="right")
    table.add_column("TREND", no_wrap=True, width=8)
    for row in rows:
        mark, style = MARKS[row.state]
        table.add_row(
            Text(f"{mark} {row.word}", style),
            Text(clean(row.model)),
            f"v{row.champion}" if row.champion else "-",
            _figure(row),
            "-" if row.coverage is None else f"{row.coverage:.0%}",
            sparkline(row.trend[-8:]),
        )
    return table


def _figure(row: FleetRow) -> str:
    found = row.figure
    if found is None:
        return "not measured"
    promised = "" if found.baseline is None else f" ({number(found.baseline)})"
    return f"{found.name.replace('_', ' ')} {number(found.value)}{promised}"


def _alert(alert: Alert, now_ms: int) -> str:
    state = "" if alert.state == "open" else f" ({alert.state})"
    ago = duration(now_ms - alert.opened_ms)
    return f"{alert.severity:<8} {ago:>6} ago  {alert.model}: {alert.sentence}{state}"


def _decision(one: Command | RetrainHeld, now_ms: int) -> str:
    ago = duration(now_ms - _decided_ms(one))
    if isinstance(one, RetrainHeld):
        return f"{'held':<8} {ago:>6} ago  {one.model}: retrain for {one.cause}: {one.reason}"
    version = "" if one.version is None else f" v{one.version}"
    return f"{one.kind:<8} {ago:>6} ago  {one.model}{version}: {one.reason}"


def _line(text: str, style: str = "") -> Text:
    """One line, however long; words of strangers are shown, not obeyed."""
    return Text(clean(text), style, no_wrap=True, overflow="ellipsis", end="\n")


def clean(text: str) -> str:
    """
    >>> clean("a\\x1b[2J\\nb")
    'a?[2J?b'
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def sparkline(values: Sequence[float]) -> str:
    """The highest is the highest bar, the lowest the lowest.

    >>> sparkline([1, 2, 3]), sparkline([5, 5]), sparkline([])
    ('▁▅█', '▁▁', '')
    """
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = (high - low) or 1.0
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1))] for value in values)
