"""`driftline models history|live-at`: what was live when, and whether predictions agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands.common import (
    BREACH,
    FAILURE,
    Json,
    Model,
    load_settings,
    parse_time,
    print_json,
    print_table,
    registry,
    say,
    show_time,
)
from consumers.commands.models import known_model, print_state
from consumers.commands.references import app

if TYPE_CHECKING:
    from models.registry import Entry
    from stream.settings import Settings

__all__ = ["app"]  # of `driftline models`, with these commands added


@app.command()
def history(
    model: Model,
    *,
    prove: Annotated[
        bool, typer.Option("--prove", help="Hold it against the predictions on Kafka.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(help="With --prove: from this time on; all there are.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Show what was live when, who made it so, and why; the oldest first.

    With --prove every prediction is read: it carries the version and the generation that made it.
    Exit 3: one cannot be if the history is right.

    Example: driftline models history churn --prove --since 2026-11-20
    """
    settings = load_settings()
    entries = _entries(settings, model)
    if prove:
        _prove(settings, model, since, json=json)
    elif json:
        print_json(entries)
    else:
        _print_history(entries)


def _entries(settings: Settings, model: str) -> list[Entry]:
    with registry(settings) as opened:
        known_model(opened, model)
        return opened.history(model)


def _print_history(entries: list[Entry]) -> None:
    print_table(
        ("GENERATION", "FROM", "ACTION", "CHAMPION", "CHALLENGERS", "PINNED", "WHO", "REASON"),
        [
            (
                entry.generation,
                show_time(entry.changed_ms),
                entry.action,
                entry.champion or "-",
                ",".join(map(str, entry.challengers)) or "-",
                "yes" if entry.pinned else "",
                entry.who,
                entry.reason,
            )
            for entry in entries
        ],
    )


def _prove(settings: Settings, model: str, since: str | None, *, json: bool) -> None:
    from consumers.loop import RangeReader
    from consumers.proving import predictions, prove

    with RangeReader(settings) as reader:
        spans = (
            reader.bounds("predictions")
            if since is None
            else reader.since("predictions", parse_time(since))
        )
        # Only now: what went live meanwhile may have made some of these predictions.
        entries = _entries(settings, model)
        made = predictions(reader, model, spans, settings.max_event_bytes)
        proof = prove(entries, made, dated=settings.clock == "append")
    if json:
        print_json(proof)
    else:
        print_table(
            ("GENERATION", "VERSION", "PREDICTIONS", "FIRST", "LAST", "BEHIND"),
            [
                (
                    one.generation,
                    one.version,
                    one.predictions,
                    show_time(one.first_ms),
                    show_time(one.last_ms),
                    f"{one.behind_ms / 1000:.1f} s" if one.behind_ms else "",
                )
                for one in proof.served
            ],
        )
    for sentence in proof.examples:
        say(f"contradiction: {sentence}")
    if proof.contradictions:
        say(f"error: {proof.contradictions} predictions contradict the history")
        raise typer.Exit(BREACH)
    say(f"{sum(one.predictions for one in proof.served)} predictions agree with the history")


@app.command("live-at")
def live_at(
    model: Model,
    time: Annotated[str, typer.Argument(help="ISO 8601, or milliseconds since 1970.")],
    *,
    json: Json = False,
) -> None:
    """Show what was live at a time, by the registry's clock.

    Example: driftline models live-at churn 2026-11-21T14:00:00Z
    """
    time_ms = parse_time(time)
    with registry(load_settings()) as opened:
        known_model(opened, model)
        state = opened.live_at(model, time_ms)
    if state is None:
        say(f"error: {model} was not registered yet at {show_time(time_ms)}")
        raise typer.Exit(FAILURE)
    print_state(state, json=json)
