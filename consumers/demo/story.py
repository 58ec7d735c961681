"""Tells what the topics say in numbered lines, with a live table on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table

from consumers.demo.ledger import Ledger
from stream.events import AccuracyMeasured, Alert, Command, LifecycleChanged

MARKS = {"critical": "!", "warning": "!", "info": "·"}


def day(time_ms: int) -> str:
    """
    >>> day(0)
    '1970-01-01'
    """
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d")


class Story:
    """Numbered lines, each told once, in the order in which things became known."""

    def __init__(self, ledger: Ledger, console: Console) -> None:
        self._ledger = ledger
        self._console = console
        self._live: Live | None = None
        self._lines = 0
        self._told: set[str] = set()
        self._champion: int | None = None
        self.now_ms = 0

    def __enter__(self) -> Story:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def line(self, text: str) -> None:
        self._lines += 1
        when = f"{day(self.now_ms)}  " if self.now_ms else ""
        self._console.print(
            f"{self._lines:>2}  {when}{text}", markup=False, highlight=False, soft_wrap=True
        )

    def hear(self, event: object) -> None:
        """Tell what is new in an event; most are only counted."""
        match event:
            case Alert():
                self._alert(event)
            case Command():
                self._command(event)
            case LifecycleChanged():
                self._lifecycle(event)

    def show(self) -> None:
        """Refresh the live table."""
        if self._live:
            self._live.update(self._table())

    def _once(self, key: str) -> bool:
        new = key not in self._told
        self._told.add(key)
        return new

    def _alert(self, alert: Alert) -> None:
        if not self._once(f"{alert.alert_id}/{alert.state}"):
            return
        word = "resolved" if alert.state == "resolved" else alert.verdict
        self.line(f"{MARKS[alert.severity]} {word}: {alert.sentence}")

    def _command(self, command: Command) -> None:
        if self._once(command.command_id):
            about = f" of version {command.version}" if command.version else ""
            self.line(f"-> {command.kind}{about}: {command.reason}")

    def _lifecycle(self, state: LifecycleChanged) -> None:
        if not self._once(f"generation {state.generation}"):
            return
        if state.champion != self._champion:
            self.line(
                f"version {state.champion} is live (generation {state.generation}): {state.reason}"
            )
            self._champion = state.champion
        elif state.challengers:
            versions = ", ".join(map(str, state.challengers))
            self.line(f"version {versions} scores in shadow, on the same events: {state.reason}")

    def _table(self) -> Table:
        ledger = self._ledger
        table = Table(title=f"{ledger.spec.name} on {day(self.now_ms)}", title_justify="left")
        for name in ("version", "window", "labels", *self._metrics(), "validated"):
            table.add_column(name, justify="right")
        for measured in self._overall()[-6:]:
            table.add_row(*self._row(measured))
        worst = sorted(ledger.drift.values(), key=lambda drift: -drift.psi)[:3]
        table.caption = (
            f"{len(ledger.predictions):,} predictions · {ledger.labelled:,} labels · "
            f"{sum(a.state == 'open' for a in ledger.alerts.values())} open alerts · drift: "
            + (", ".join(f"{d.signal} PSI {d.psi:.2f}" for d in worst) or "none yet")
        )
        return table

    def _overall(self) -> list[AccuracyMeasured]:
        every = [m for m in self._ledger.accuracy.values() if not m.segment]
        return sorted(every, key=lambda m: (m.version, m.window))

    def _metrics(self) -> tuple[str, str]:
        regression = self._ledger.spec.task == "regression"
        return ("absolute_error", "squared_error") if regression else ("accuracy", "log_loss")

    def _row(self, measured: AccuracyMeasured) -> list[str]:
        name = self._metrics()[0]
        figures = [measured.metrics.get(metric) for metric in self._metrics()]
        live = " (live)" if measured.champion else ""
        return [
            f"{measured.version}{live}",
            measured.window,
            f"{measured.labelled:,}",
            *("-" if figure is None else f"{figure.value:.3f}" for figure in figures),
            f"{measured.baseline[name]:.3f}" if name in measured.baseline else "-",
        ]
