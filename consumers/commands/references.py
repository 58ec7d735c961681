"""`driftline models reference`: a version that was not trained here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands.common import (
    Json,
    Model,
    Yes,
    confirm,
    load_settings,
    parse_time,
    registry,
    say,
    show_time,
    who,
)
from consumers.commands.models import known_model, publish_changes, show_model
from consumers.commands.promotions import app

if TYPE_CHECKING:
    from consumers.references import Seen
    from models.registry import Registry
    from models.spec import ModelSpec
    from stream.settings import Settings

__all__ = ["app"]  # of `driftline models`, with this command added


@app.command()
def reference(
    model: Model,
    since: Annotated[
        str | None,
        typer.Option("--from", help="Begin of the accepted period.", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Its end; now.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A file with outputs and labels instead.", exists=True),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(min=1, help="Whose predictions; the newest's.", show_default=False),
    ] = None,
    *,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Give a version that was not trained here its reference, from what it said and met.

    The period is by the time at which predictions were written; labels count that have come by now.
    A file has a column for each feature, time, output and label (empty: never labelled).

    Example: driftline models reference fraud --from 2026-11-01 --to 2026-11-15
    """
    from consumers.references import make_reference

    settings = load_settings()
    if (since is None) == (data is None):
        raise typer.BadParameter("say either --from or --data")
    with registry(settings) as opened:
        spec = known_model(opened, model).spec
        seen = _seen_in(opened, settings, spec, since, until, data, version)
        say(
            f"version {seen.version} of {model} made {len(seen.said)} predictions from "
            f"{show_time(seen.data.start_ms)} to {show_time(seen.data.end_ms)}; "
            f"{seen.data.labelled} are labelled"
        )
        confirm("Is this how it should be?", yes=yes)
        made = make_reference(opened, settings, spec, seen, who())
        say(f"version {made} has its reference")
        publish_changes(opened, settings)
        show_model(opened, settings, model, json=json)


def _seen_in(
    opened: Registry,
    settings: Settings,
    spec: ModelSpec,
    since: str | None,
    until: str | None,
    data: Path | None,
    version: int | None,
) -> Seen:
    from consumers.loop import RangeReader
    from consumers.publishing import Columns
    from consumers.references import read_file, read_period
    from models.database import now_ms

    if data is not None or since is None:
        return read_file(spec, data or Path(), Columns(), version or 1)
    period_ms = parse_time(since), now_ms() if until is None else parse_time(until)
    with RangeReader(settings) as reader:
        erased = frozenset(opened.erased(spec.name))
        return read_period(reader, spec, settings, period_ms, erased, version)
