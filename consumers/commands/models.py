"""`driftline models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands.common import (
    FAILURE,
    Json,
    Model,
    group,
    load_settings,
    print_fields,
    print_json,
    print_table,
    registry,
    say,
    show_time,
    who,
)

if TYPE_CHECKING:
    from models.registry import LiveState, Outcome, Registry
    from models.spec import ModelSpec
    from stream.core.promises import Promise
    from stream.settings import Settings

app = group("Models: what is registered, what is live, and what was.")


@app.command()
def add(
    spec: Annotated[Path, typer.Argument(help="The model's spec, TOML or JSON.", exists=True)],
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled history as CSV: trains version 1.", exists=True),
    ] = None,
    time_column: Annotated[str, typer.Option(help="When it was asked; ISO 8601 or ms.")] = "time",
    label_column: Annotated[str, typer.Option(help="What turned out.")] = "label",
    labelled_column: Annotated[
        str | None,
        typer.Option(
            help="When that was known; without it: at once. Nothing is learnt from a label that "
            "came after the slice that candidates are judged on begins.",
            show_default=False,
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Register a model, or a new revision of its spec; with --data train version 1 as well.

    Version 1 is fitted and validated like every later one, recorded as a run, and goes live.

    Example: driftline models add churn.toml --data history.csv --label-column churned
    """
    settings = load_settings()
    wanted = read_spec_file(spec)
    with registry(settings) as opened:
        _register(opened, wanted, f"from {spec.name}")
        if data is not None:
            from consumers.first_version import Columns, read_history, train_first

            columns = Columns(time_column, label_column, labelled_column)
            dataset = read_history(wanted, data, columns)
            version = train_first(opened, settings, wanted, dataset, who(), say)
            say(f"version {version} is trained and live")
        publish_changes(opened, settings)
        show_model(opened, settings, wanted.name, json=json)


@app.command("list")
def list_models(*, json: Json = False) -> None:
    """List models and what is live.

    Example: driftline models list
    """
    with registry(load_settings()) as opened:
        states = opened.models()
    if json:
        print_json(states)
        return
    if not states:
        say("no models yet; `driftline models add SPEC.toml` registers one")
    print_table(
        ("MODEL", "TASK", "CHAMPION", "CHALLENGERS", "STATE", "GENERATION", "SINCE"),
        [
            (
                state.model,
                state.spec.task,
                state.champion or "-",
                ",".join(map(str, state.challengers)) or "-",
                describe(state),
                state.generation,
                show_time(state.changed_ms),
            )
            for state in states
        ],
    )


@app.command()
def show(model: Model, *, json: Json = False) -> None:
    """Show what is live for one model, what its alarms promise, and its versions.

    Example: driftline models show churn --json
    """
    settings = load_settings()
    with registry(settings) as opened:
        show_model(opened, settings, model, json=json)


@app.command()
def republish(
    model: Model,
    after: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="A generation that workers have seen; without it the topic is asked.",
            show_default=False,
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Write what is live to the lifecycle topic once more, as after a lost topic or registry.

    Workers take only what is newer. Where the topic holds a generation that this registry does not
    know (it was restored from an older backup), what is live gets a newer one.

    Example: driftline models republish churn
    """
    settings = load_settings()
    with registry(settings) as opened:
        state = known_model(opened, model)
        seen = _seen(settings, state) if after is None else after
        generation = opened.republish(model, after=seen, who=who())
        say(f"{model} is published as generation {generation}")
        publish_changes(opened, settings)
        if json:
            print_state(known_model(opened, model), json=True)


def _seen(settings: Settings, state: LiveState) -> int:
    """The generation that ours must follow; 0 where the topic tells what we know, or less."""
    from consumers.relay import lifecycle
    from consumers.status import published

    told = published(settings, state.model)
    return 0 if told is None or told == lifecycle(state) else told.generation


def describe(state: LiveState) -> str:
    """Where the model stands, in a word or two."""
    words = [
        *(["pinned"] if state.pinned else []),
        *(["probation"] if state.probation else []),
        *(["trial"] if state.challengers else []),
        *([f"canary {state.canary}"] if state.canary else []),
    ]
    return " ".join(words) or ("serving" if state.champion else "no version yet")


def read_spec_file(path: Path) -> ModelSpec:
    """
    Raises:
        ConfigurationError: it holds no spec.
    """
    from models.spec import read_spec
    from stream.errors import ConfigurationError

    try:
        return read_spec(path.read_bytes(), toml=path.suffix == ".toml")
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _register(opened: Registry, spec: ModelSpec, source: str) -> None:
    known = opened.live(spec.name)
    if known is None:
        require(opened.add_model(spec, who=who(), reason=f"added {source}"))
        say(f"model {spec.name} is registered")
    elif known.spec != spec:
        require(opened.revise_spec(spec, who=who(), reason=f"revised {source}"))
        say(f"the spec of {spec.name} is revised")
    else:
        say(f"model {spec.name} is registered already, with this spec")


def known_model(opened: Registry, model: str) -> LiveState:
    from models.registry import UnknownModel

    state = opened.live(model)
    if state is None:
        raise UnknownModel(f"no model {model!r}; `driftline models list` shows those there are")
    return state


def require(outcome: Outcome) -> None:
    if not outcome.applied:
        say(f"error: {outcome.reason}")
        raise typer.Exit(FAILURE)


def publish_changes(opened: Registry, settings: Settings) -> None:
    from consumers.relay import pump_once

    say(pump_once(opened, settings))


def show_model(opened: Registry, settings: Settings, model: str, *, json: bool) -> None:
    state = known_model(opened, model)
    versions = opened.versions(model)
    promise = _promise(settings, state)
    if json:
        print_json({"live": state, "versions": versions, "promise": promise})
        return
    print_state(state, json=False)
    if promise is not None:
        _print_promise(promise)
    if versions:
        typer.echo()
        print_table(
            ("VERSION", "REGISTERED", "RUN", "ROLE", "VALIDATED"),
            [
                (
                    version.version,
                    show_time(version.created_ms),
                    version.run_id or "-",
                    role(state, version.version),
                    " ".join(f"{name}={value:.4g}" for name, value in version.metrics.items()),
                )
                for version in reversed(versions)
            ],
        )


def _promise(settings: Settings, state: LiveState) -> Promise | None:
    """What the champion's reference allows to promise; None without a champion."""
    from models import artefacts, profile
    from stream.core.promises import promise
    from stream.core.watching import places

    card = next((card for card in state.versions if card.version == state.champion), None)
    if card is None:
        return None
    try:
        data = artefacts.fetch(card.profile_url, card.profile_digest, settings.max_artefact_bytes)
        reference = profile.decode(data)
        return promise(state.spec, reference, signals=len(places(state.spec, reference)))
    except ValueError as error:
        say(f"what its alarms promise is not known: {error}")
        return None


def _print_promise(promise: Promise) -> None:
    scale = promise.loss_scale
    harm = (
        f"a mean loss above {promise.bound * scale:.4g} is certain harm; validated "
        f"{promise.validated * scale:.4g} on {promise.validation_rows} labels, so the smallest "
        f"harm that this reference can certify is a rise by {promise.smallest_harm * scale:.4g}"
    )
    print_fields(
        [
            ("false alarms", f"at most {promise.false_alarms:g} per {promise.per} are expected"),
            ("no news", f"changes up to a PSI of {promise.tolerance_psi:g}"),
            ("harm", harm),
            ("guaranteed", promise.guaranteed),
            *(("approximate", sentence) for sentence in promise.approximate),
        ]
    )


def role(state: LiveState, version: int) -> str:
    """What a version does now; empty if nothing."""
    if version == state.champion:
        return "champion"
    if version in state.challengers:
        return "challenger"
    return "previous" if version == state.previous else ""


def print_state(state: LiveState, *, json: bool) -> None:
    if json:
        print_json(state)
        return
    print_fields(
        [
            ("model", state.model),
            ("task", state.spec.task),
            ("state", describe(state)),
            ("champion", state.champion),
            ("challengers", ", ".join(map(str, state.challengers))),
            ("previous", state.previous),
            ("generation", state.generation),
            ("spec revision", state.spec_revision),
            ("changed", show_time(state.changed_ms)),
            ("cause", state.cause),
            ("reason", state.reason),
            ("owner", state.spec.owner),
        ]
    )
