"""`driftline topics`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands.common import (
    BREACH,
    USAGE,
    Json,
    Yes,
    confirm,
    group,
    load_settings,
    print_json,
    print_table,
    say,
)

if TYPE_CHECKING:
    from consumers.topics_admin import Row

app = group("Make and look at the topics.")


@app.command("list")
def list_topics(*, json: Json = False) -> None:
    """List every topic of Driftline, and where it differs from what the settings want.

    Example: driftline topics list --json
    """
    from consumers import topics_admin

    _show(topics_admin.listing(load_settings()), json=json)


@app.command()
def apply(*, json: Json = False) -> None:
    """Make missing topics and set their configuration. Safe to repeat; loses nothing.

    Partition counts of topics that exist are never changed: exit code 3 says that one differs.

    Example: DRIFTLINE_PARTITIONS=8 driftline topics apply
    """
    from consumers import topics_admin

    settings = load_settings()
    rows = topics_admin.apply(settings)
    if settings.embedded_broker:
        say(f"nothing to apply: {topics_admin.EMBEDDED_NOTE}")
    _show(rows, json=json)
    if any(row.state in ("differs", "missing") for row in rows):
        raise typer.Exit(BREACH)


@app.command()
def forget(
    stage: Annotated[str, typer.Argument(help="score, monitor or evaluate.", show_default=False)],
    *,
    keep_offsets: Annotated[
        bool, typer.Option("--keep-offsets", help="Score only: go on where its group is.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Begin a stage anew, from the beginning of its inputs, as after lost checkpoints.

    Stop its workers first. What was written before stays; what is written again has the same ids
    (examples: the same model, prediction id and revision).
    docs/OPERATIONS.md says when this is right, and what it costs.

    Example: driftline topics forget monitor --yes
    """
    from consumers import forgetting
    from stream.topics import EVERY_STAGE

    chosen = next((known for known in EVERY_STAGE if known == stage), None)
    if chosen is None or (keep_offsets and chosen != "score"):
        say(
            f"error: {stage}: name one of {', '.join(EVERY_STAGE)}; "
            "--keep-offsets is for score alone"
        )
        raise typer.Exit(USAGE)
    settings, scope = load_settings(), forgetting.SCOPES[chosen]
    topics = [settings.names.topic(entity) for entity in scope.entities]
    stages = ", ".join(scope.stages)
    confirm(f"Make {', '.join(topics)} anew, so that {stages} begin again?", yes=yes)
    offsets = None
    if keep_offsets:
        offsets = dict(sorted(forgetting.keep_offsets(settings).items()))
        told = ", ".join(f"{place}: {offset}" for place, offset in offsets.items())
        say(f"score goes on at offsets {told}")
    else:
        forgetting.forget(settings, chosen)
        say(f"{stages} begin again when their workers start")
    if json:
        print_json({"stages": scope.stages, "topics": topics, "offsets": offsets})


@app.command("acls")
def list_acls(
    principal: Annotated[
        str, typer.Option(help="Of each service; with {prefix} and {service} in it.")
    ] = "User:{prefix}-{service}",
    *,
    give: Annotated[bool, typer.Option("--apply", help="Give these rights on the broker.")] = False,
    json: Json = False,
) -> None:
    """Print the rights that each service needs on the broker, as lines for kafka-acls.sh.

    Example: driftline topics acls --principal "User:CN={service},O=Acme"
    """
    from consumers import acls

    settings = load_settings()
    listed = acls.listing(settings.names, principal)
    if give:
        say(f"{acls.apply(settings, listed)} rules are in force")
    if json:
        print_json([acl._asdict() for acl in listed])
    elif not give:
        typer.echo("\n".join(acls.commands(settings.names, principal)).strip())


def _show(rows: list[Row], *, json: bool) -> None:
    if json:
        print_json([row._asdict() for row in rows])
        return
    print_table(
        ("TOPIC", "PARTITIONS", "STATE", "NOTE"),
        [(row.topic, row.partitions or "-", row.state, row.note) for row in rows],
    )
