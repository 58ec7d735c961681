"""The demo's closing figures, all counted from what was on the topics."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from consumers.demo.ledger import PHASE_MS, Figures, Ledger
from consumers.demo.scenarios import Scenario

NOTHING = Figures(0, float("nan"), None)


def summary(
    scenario: Scenario, ledger: Ledger, start_ms: int, first_alert_seconds: float | None
) -> dict[str, Any]:
    """The object of `driftline demo --json`.

    before: version 1 in its first four weeks, or until the first alarm of harm. degraded: its
    last four weeks. after: the first promoted version's first four weeks. The two losses "on same
    events" are of all labelled events that the promoted version scored while version 1 shadowed it.
    """
    first, *later = ledger.champions or [1]
    harm = [a.opened_ms for a in ledger.alerts.values() if a.verdict == "performance harmed"]
    healthy_until = min([start_ms + PHASE_MS, *harm])
    before = ledger.between(first, start_ms, healthy_until - 1)
    degraded, after, new, old = NOTHING, NOTHING, NOTHING, NOTHING
    swapped_ms = ledger.first_asked_ms(later[0]) if later else None
    if swapped_ms is not None:
        degraded = ledger.between(first, swapped_ms - PHASE_MS, swapped_ms)
        after = ledger.between(later[0], swapped_ms, swapped_ms + PHASE_MS)
        new, old = ledger.same_events(later[0], first)
    counted = {
        "alerts": len(ledger.alerts),
        "retrains": ledger.count("retrain"),
        "promotions": ledger.count("promote"),
        "rollbacks": ledger.count("rollback"),
    }
    better = bool(new.n) and new.loss < old.loss
    whole = ledger.lost == 0 and ledger.doubled == 0
    acted = all(counted[kind] > 0 for kind in ("retrains", "promotions", "rollbacks"))
    return {
        "closed": acted and better and whole,
        "input": scenario.input,
        "events": len(ledger.predictions),
        "labelled": ledger.labelled,
        "loss_before": _round(before.loss),
        "loss_degraded": _round(degraded.loss),
        "loss_old_on_same_events": _round(old.loss),
        "loss_new_on_same_events": _round(new.loss),
        "accuracy_before": _round(before.accuracy),
        "accuracy_degraded": _round(degraded.accuracy),
        "accuracy_after": _round(after.accuracy),
        **counted,
        "versions": ledger.versions(),
        "first_alert_seconds": _round(first_alert_seconds),
        "swap_lost": ledger.lost,
        "swap_duplicated": ledger.doubled,
    }


def print_summary(figures: dict[str, Any], console: Console) -> None:
    table = Table(title="What was seen on the topics", title_justify="left", show_header=False)
    for name, value in figures.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(name.replace("_", " "), shown)
    console.print(table)


def _round(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 4)
