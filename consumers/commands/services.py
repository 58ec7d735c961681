"""Commands that run until they are told to stop, and `migrate`, which comes before them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from consumers.commands.common import (
    USAGE,
    Json,
    load_settings,
    print_json,
    registry,
    say,
)


def demo(
    scenario: Annotated[
        str, typer.Option(help="What to replay: bikes, flights or bikes-count.")
    ] = "bikes",
    seconds: Annotated[
        float, typer.Option(min=10, help="About how long; more until all is told.")
    ] = 80.0,
    bootstrap: Annotated[
        str | None,
        typer.Option(help="Kafka to use instead of the embedded broker.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the model's course into this SVG file.", show_default=False),
    ] = None,
    *,
    console: Annotated[
        bool,
        typer.Option("--console", help="Serve the web console, on a terminal until Ctrl-C."),
    ] = False,
    headless: Annotated[bool, typer.Option("--headless", help="Plain lines, no table.")] = False,
    json: Json = False,
) -> None:
    """See the whole loop on real data: harm found, retrained, proven, promoted, rolled back.

    Needs nothing but this machine. Exit code 0 only if the loop closed.

    Example: driftline demo --headless --json
    """
    from consumers.demo.play import Wishes, play

    wishes = Wishes(seconds, bootstrap, plot, pages=console)
    raise typer.Exit(play(wishes, scenario=scenario, headless=headless, json=json))


def worker(
    stages: Annotated[
        str,
        typer.Option(
            help="Which of the stages to run, comma separated; shadow: for models served elsewhere."
        ),
    ] = "score,monitor,evaluate",
    *,
    alerts: Annotated[
        bool, typer.Option("--alerts", help="Send alerts on as well, as `driftline alerts` does.")
    ] = False,
) -> None:
    """Run stream stages until SIGTERM, one process for each.

    Start as many workers as there are partitions, at most; they share the work.

    Example: driftline worker --stages score
    """
    from stream import worker as workers
    from stream.topics import EVERY_STAGE

    settings = load_settings()
    wanted = [name.strip() for name in stages.split(",")]
    chosen = [stage for stage in EVERY_STAGE if stage in wanted]
    if not chosen or set(wanted) - set(EVERY_STAGE):
        say(f"error: --stages {stages}: name some of {', '.join(EVERY_STAGE)}")
        raise typer.Exit(USAGE)
    if len(chosen) == 1 and not alerts:
        raise typer.Exit(workers.main(chosen[0], settings))
    beside = {"alerts": [sys.executable, "-m", "consumers", "alerts"]} if alerts else {}
    raise typer.Exit(workers.supervise(chosen, settings, beside))


def trainer() -> None:
    """Carry out commands (retrain, promote, reject, rollback, settle) until SIGTERM.

    Several may run: they share the models, and each command is carried out once.

    Example: driftline trainer
    """
    from consumers.service import run

    raise typer.Exit(run(load_settings()))


def bridge(
    topic: Annotated[
        str, typer.Argument(help="Where the inference servers log.", show_default=False)
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="SERVICE=MODEL, where they differ; repeat it.", show_default=False),
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(min=1, help="Where the server tells none; what is live.", show_default=False),
    ] = None,
    output: Annotated[
        str, typer.Option(help="The tensor that holds what the model said.", show_default=False)
    ] = "",
    entity: Annotated[
        str,
        typer.Option(
            "--as",
            help="What records are that do not say it: predictions, requests or feedback.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Make predictions of what inference servers log, until SIGTERM.

    Requests and responses as KServe's logger writes them, joined by their id; payloads of the Open
    Inference Protocol or its first version; batches of CloudEvents. The topic is yours: key its
    records by the request's id, or run one bridge only.

    Records may be in Confluent's wire format (Avro, JSON Schema), where the setting
    DRIFTLINE_SCHEMA_REGISTRY_URL says which registry knows their schemas.

    Example: driftline bridge kserve-log --model fraud-isvc=fraud
    """
    from consumers.bridge import Wanted, run
    from stream.topics import BY_ENTITY

    pairs = [one.partition("=") for one in model or ()]
    if not all(service and name for service, _, name in pairs):
        say("error: --model: write SERVICE=MODEL")
        raise typer.Exit(USAGE)
    if entity and not (entity in BY_ENTITY and BY_ENTITY[entity].open):
        say(f"error: --as {entity}: name one of predictions, requests, feedback")
        raise typer.Exit(USAGE)
    named = {service: name for service, _, name in pairs}
    raise typer.Exit(run(load_settings(), Wanted(topic, named, version, output, entity)))


def migrate(*, json: Json = False) -> None:
    """Bring the registry's tables to what this version needs. Safe to repeat.

    Example: driftline --registry-url postgresql://user@host/driftline migrate
    """
    settings = load_settings()
    with registry(settings) as opened:
        revision = opened.upgrade()
    if json:
        print_json({"revision": revision})
    else:
        say(f"the registry is at revision {revision}")
