"""The command `driftline`: its options, and where each command is."""

from __future__ import annotations

import faulthandler
import os
from typing import Annotated

import typer

from consumers.commands import (
    alerts,
    config,
    console,
    dlq,
    erasing,
    events,
    health,
    history,
    keys,
    replaying,
    runs,
    services,
    topics,
)
from consumers.commands.common import group

app = group(
    "Keeps live models honest: late labels, harm and drift over Kafka, and the loop from alarm "
    "to a proven new version.\n\nStart with `driftline demo`. Settings come from flags, then "
    "DRIFTLINE_* variables, then driftline.toml; `driftline config show` lists them."
)
for name, subject in (
    ("topics", topics.app),
    ("models", history.app),
    ("runs", runs.app),
    ("alerts", alerts.app),
    ("dlq", dlq.app),
    ("config", config.app),
    ("keys", keys.app),
    ("console", console.app),
):
    app.add_typer(subject, name=name)
for command in (
    *(services.demo, services.worker, services.trainer, services.bridge, services.migrate),
    *(events.publish, events.tail, health.status, health.top, health.doctor, erasing.erase),
    replaying.replay,
):
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"driftline {version('driftline')}")
        raise typer.Exit


@app.callback()
def options(
    bootstrap: Annotated[
        str | None, typer.Option(help="Kafka brokers, host:port.", show_default=False)
    ] = None,
    topic_prefix: Annotated[
        str | None, typer.Option(help="First part of topic and group names.", show_default=False)
    ] = None,
    registry_url: Annotated[
        str | None, typer.Option(help="SQLAlchemy URL of the registry.", show_default=False)
    ] = None,
    artefact_url: Annotated[
        str | None, typer.Option(help="Where artefacts lie.", show_default=False)
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Put flags into the environment, the one place that child processes read too."""
    flags = {
        "DRIFTLINE_BOOTSTRAP_SERVERS": bootstrap,
        "DRIFTLINE_TOPIC_PREFIX": topic_prefix,
        "DRIFTLINE_REGISTRY_URL": registry_url,
        "DRIFTLINE_ARTEFACT_URL": artefact_url,
    }
    os.environ.update({name: value for name, value in flags.items() if value is not None})


def main() -> None:
    faulthandler.enable()  # a crash of C code says where it stood
    app(prog_name="driftline")
