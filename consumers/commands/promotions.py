"""`driftline models promote|rollback|pin|unpin`: what a person decides, shown before it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from consumers.commands.common import (
    FAILURE,
    Json,
    Model,
    Reason,
    Yes,
    confirm,
    load_settings,
    registry,
    say,
    who,
)
from consumers.commands.models import app, known_model, publish_changes, require, show_model

if TYPE_CHECKING:
    from models.registry import Registry

__all__ = ["app"]  # of `driftline models`, with these commands added

Version = Annotated[int | None, typer.Argument(help="A registered version.", show_default=False)]


@app.command()
def promote(
    model: Model,
    version: Version = None,
    reason: Reason = "promoted by hand",
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Also a version that is not on trial.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Make a version the champion: the only challenger, or the one that is named.

    The champion before it stays in shadow, and comes back if the new one does worse.

    Example: driftline models promote churn 4 --reason "checked with sales"
    """
    with registry(load_settings()) as opened:
        challengers = known_model(opened, model).challengers
        if version is not None and version not in challengers and not force:
            say(
                f"error: version {version} of {model} is not on trial, so nothing shows that it is "
                "better; --force promotes it all the same"
            )
            raise typer.Exit(FAILURE)
        _change(opened, "promote", model, version, reason, yes=yes, json=json)


@app.command()
def rollback(
    model: Model,
    version: Version = None,
    reason: Reason = "rolled back by hand",
    *,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Go back to a former champion: the last healthy one, or the one that is named.

    Example: driftline models rollback churn --yes --reason "complaints since noon"
    """
    with registry(load_settings()) as opened:
        _change(opened, "rollback", model, version, reason, yes=yes, json=json)


@app.command()
def pin(
    model: Model, reason: Reason = "pinned by hand", *, yes: Yes = False, json: Json = False
) -> None:
    """Keep the champion until it is unpinned, whatever the evidence says.

    Example: driftline models pin churn --yes --reason "audit this week"
    """
    with registry(load_settings()) as opened:
        _change(opened, "pin", model, None, reason, yes=yes, json=json)


@app.command()
def unpin(
    model: Model, reason: Reason = "unpinned by hand", *, yes: Yes = False, json: Json = False
) -> None:
    """Let the champion be replaced again.

    Example: driftline models unpin churn --yes
    """
    with registry(load_settings()) as opened:
        _change(opened, "unpin", model, None, reason, yes=yes, json=json)


def _change(
    opened: Registry,
    action: Literal["promote", "rollback", "pin", "unpin"],
    model: str,
    version: int | None,
    reason: str,
    *,
    yes: bool,
    json: bool,
) -> None:
    """Say what will happen, ask, do it, publish it."""
    from models.registry import Refusal

    before = known_model(opened, model)
    after = opened.preview(action, model, version)
    if isinstance(after, Refusal):
        say(f"error: {action} {model}: {after.reason}")
        raise typer.Exit(FAILURE)
    if after.champion != before.champion:
        effect = f"champion of {model}: {before.champion or 'none'} -> {after.champion}"
        previous = f", version {after.previous} stays in shadow" if after.previous else ""
        say(f"{effect}{previous}")
    else:
        say(f"{action} version {after.champion} of {model}")
    confirm("Go ahead?", yes=yes)
    require(getattr(opened, action)(model, version, who=who(), reason=reason))
    publish_changes(opened, load_settings())
    show_model(opened, load_settings(), model, json=json)
