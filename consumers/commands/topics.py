"""`driftline topics`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from consumers.commands.common import (
    BREACH,
    Json,
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


def _show(rows: list[Row], *, json: bool) -> None:
    if json:
        print_json([row._asdict() for row in rows])
        return
    print_table(
        ("TOPIC", "PARTITIONS", "STATE", "NOTE"),
        [(row.topic, row.partitions or "-", row.state, row.note) for row in rows],
    )
