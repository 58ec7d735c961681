"""`driftline erase`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consumers.commands.common import (
    USAGE,
    Json,
    Reason,
    load_settings,
    print_json,
    registry,
    say,
    who,
)


def erase(
    model: Annotated[str, typer.Option(help="The model's name.", show_default=False)],
    prediction_id: Annotated[
        list[str] | None, typer.Option(help="Repeat it for several.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Prediction ids, one a line.", exists=True)
    ] = None,
    reason: Reason = "erased on request",
    *,
    json: Json = False,
) -> None:
    """Leave a subject's predictions and labels out of every training from now on.

    What lies on topics goes with their retention, and versions that learned from it stay until they
    are replaced: docs/SECURITY.md says what that means.

    Example: driftline erase --model churn --prediction-id r-17 --prediction-id r-18
    """
    lines = file.read_text().splitlines() if file is not None else []
    ids = {*(prediction_id or []), *filter(None, map(str.strip, lines))}
    if not ids:
        say("error: name what to erase, by --prediction-id or --file")
        raise typer.Exit(USAGE)
    with registry(load_settings()) as opened:
        new = opened.erase(model, ids, who=who(), reason=reason)
    if json:
        print_json({"model": model, "erased": new, "already": len(ids) - new})
    else:
        say(f"{new} predictions of {model} are erased, {len(ids) - new} were already")
