"""`driftline runs`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from consumers.commands.common import (
    FAILURE,
    USAGE,
    Json,
    Model,
    Yes,
    confirm,
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
    from models.careers import Turn
    from models.registry import Registry
    from models.runs import Candidate, Run
    from stream.settings import Settings

app = group("Training runs: every attempt, accepted or refused, with its cause and its data.")

#: What fields of a record are called in a comparison.
WORDS: Final = {
    "artefact_digest": "artefact",
    "profile_digest": "profile",
    "calibration_error": "off in calibration",
    "start_ms": "oldest example",
    "end_ms": "newest example",
    "split_ms": "held out from",
    "fitted_rows": "rows fitted",
    "held_out_rows": "rows held out",
    "late_rows": "rows labelled too late",
    "predictions": "predictions in the range",
    "labelled": "of these labelled",
    "rows": "rows used",
    "coverage": "share labelled",
    "digest": "data digest",
    "duration_seconds": "seconds",
}

RunId = Annotated[int, typer.Argument(help="The run's number.", show_default=False)]


@app.command("list")
def list_runs(
    model: Annotated[
        str | None, typer.Option(help="Only this model's.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20,
    *,
    json: Json = False,
) -> None:
    """List training runs, the newest first.

    Example: driftline runs list --model churn
    """
    with registry(load_settings()) as opened:
        runs = opened.runs(model, limit)
    if json:
        print_json(runs)
        return
    if not runs:
        say("no runs yet; `driftline models add SPEC.toml --data history.csv` makes the first")
    print_table(
        ("RUN", "MODEL", "BEGUN", "VERDICT", "VERSION", "ROWS", "CHOSEN", "CAUSE", "REASON"),
        [
            (
                run.run_id,
                run.model,
                show_time(run.started_ms),
                run.verdict,
                run.version or "-",
                run.data.rows if run.data else "-",
                run.chosen.name if run.chosen else "-",
                run.cause,
                run.reason,
            )
            for run in runs
        ],
    )


@app.command()
def show(run_id: RunId, *, json: Json = False) -> None:
    """Show one run whole: cause, data, candidates with intervals, verdict, what became of it.

    Example: driftline runs show 7
    """
    with registry(load_settings()) as opened:
        run = _known(opened, run_id)
        career = opened.career(run)
    if json:
        import msgspec

        print_json({**msgspec.to_builtins(run), "career": career})
        return
    _print_run(run)
    for candidate in run.candidates:
        _print_candidate(candidate)
    _print_career(career)


@app.command()
def compare(a: RunId, b: RunId, *, json: Json = False) -> None:
    """Show what differs between two runs: outcome, quality, data, parameters, libraries.

    A figure is called better or worse only where the two 95 % intervals lie apart.

    Example: driftline runs compare 6 7
    """
    with registry(load_settings()) as opened:
        for run_id in (a, b):
            _known(opened, run_id)
        comparison = opened.compare_runs(a, b)
    if json:
        print_json(comparison)
        return
    print_table(
        ("SECTION", "WHAT", f"RUN {a}", f"RUN {b}", "CHANGE", ""),
        [
            (
                difference.section,
                WORDS.get(difference.field, difference.field),
                _short(difference.a, difference.field),
                _short(difference.b, difference.field),
                "" if difference.change is None else f"{difference.change:+.4g}",
                difference.reading,
            )
            for difference in comparison.differences
        ],
    )
    if comparison.same:
        say(f"the same in both: {', '.join(comparison.same)}")


@app.command()
def card(
    run_id: RunId,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A .html page, or a .md file with an SVG beside it for each plot.",
            show_default=False,
        ),
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Write the model card of a run: purpose, data, quality by segment, calibration, limits.

    Without --out it goes to stdout as Markdown, without plots.

    Example: driftline runs card 7 --out churn-7.html
    """
    from models.cards import Subject, markdown

    with registry(load_settings()) as opened:
        run = _known(opened, run_id)
        subject = Subject(run, opened.spec_of(run), opened.career(run))
    if out is None:
        text = markdown(subject)
        if json:
            print_json({"run_id": run_id, "markdown": text})
        else:
            typer.echo(text, nl=False)
        return
    from consumers.cards import write

    files = [str(path) for path in write(subject, out)]
    say(f"written: {', '.join(files)}")
    if json:
        print_json({"run_id": run_id, "files": files})


@app.command()
def plot(
    model: Model,
    out: Annotated[
        Path | None, typer.Option(help="The SVG file; MODEL.svg by default.", show_default=False)
    ] = None,
    *,
    json: Json = False,
) -> None:
    """Draw a model's course: rolling loss, drift, what was live, alerts and decisions.

    It reads what the topics still hold, in event time.

    Example: driftline runs plot churn --out churn.svg
    """
    from consumers.course import draw, read_course
    from consumers.loop import RangeReader

    settings = load_settings()
    with RangeReader(settings) as reader:
        course = read_course(reader, model, settings.max_record_bytes)
    file = out or Path(f"{model}.svg")
    file.write_bytes(draw(course))
    say(f"written: {file}")
    if json:
        print_json({"model": model, "file": str(file), "windows": len(course.accuracy)})


class Format(StrEnum):
    """Where records of runs can go."""

    openlineage = "openlineage"
    mlflow = "mlflow"


@app.command()
def export(
    run_ids: Annotated[
        list[int] | None, typer.Argument(help="Runs; without any, the newest.", show_default=False)
    ] = None,
    to: Annotated[Format, typer.Option(help="Events on stdout, or MLflow.")] = Format.openlineage,
    model: Annotated[
        str | None, typer.Option(help="Only this model's.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, where none is named.")] = 20,
    uri: Annotated[
        str | None,
        typer.Option(help="MLflow's tracking URI; without it, as MLflow is set up."),
    ] = None,
) -> None:
    """Write runs as OpenLineage events, a line each, or copy them to MLflow.

    MLflow (pip install mlflow-skinny) also gets the versions, and aliases for what is live.
    Copied again, a run is brought up to date.

    Example: driftline runs export --model churn --to mlflow --uri http://localhost:5000
    """
    settings = load_settings()
    with registry(settings) as opened:
        if run_ids:
            chosen = [_known(opened, run_id) for run_id in run_ids]
        else:
            chosen = opened.runs(model, limit)[::-1]
        if to is Format.mlflow:
            _track(opened, settings, chosen, uri)
            return
    from models.lineage import events

    for run in chosen:
        for event in events(run, settings.bootstrap_servers.partition(",")[0]):
            print_json(event)


def _track(opened: Registry, settings: Settings, chosen: list[Run], uri: str | None) -> None:
    from consumers.tracking import Tracking, copy_run
    from models.cards import Subject

    tracking = Tracking(uri)
    for run in chosen:
        versions = {one.version: one for one in opened.versions(run.model)}
        subject = Subject(run, opened.spec_of(run), opened.career(run))
        found = None if run.version is None else versions[run.version]
        copied, problem = copy_run(tracking, subject, found, settings.max_artefact_bytes)
        say(f"run {run.run_id} of {run.model} is MLflow's {copied} {problem}".rstrip())
    for model in dict.fromkeys(run.model for run in chosen):
        live = opened.live(model)
        if live is not None:
            tracking.alias(live, opened.versions(model))


@app.command()
def cancel(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="Why; kept in the record.")] = "",
    *,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """End a run that is still fitting; the trainer drops the fit within seconds.

    Example: driftline runs cancel 7 --reason "wrong labels" --yes
    """
    with registry(load_settings()) as opened:
        run = _known(opened, run_id)
        if run.verdict == "running":
            confirm(f"Cancel run {run_id} of {run.model} ({run.reason or 'just begun'})?", yes=yes)
        if not opened.cancel_run(run_id, who=who(), reason=reason):
            say(f"error: run {run_id} has its verdict already: {run.verdict}")
            raise typer.Exit(FAILURE)
        ended = _known(opened, run_id)
    say(f"run {run_id} is cancelled")
    if json:
        print_json(ended)


def _known(opened: Registry, run_id: int) -> Run:
    run = opened.run(run_id)
    if run is None:
        say(f"error: no run {run_id}; `driftline runs list` shows those there are")
        raise typer.Exit(USAGE)
    return run


def _print_run(run: Run) -> None:
    from models.cards import evidence

    print_fields(
        [
            ("run", run.run_id),
            ("model", run.model),
            ("verdict", run.verdict),
            ("reason", run.reason),
            ("version", run.version),
            ("cause", run.cause),
            ("by", run.who),
            ("command", run.command_id),
            ("alert", run.alert_id),
            ("evidence", evidence(run.evidence)),
            ("begun", show_time(run.started_ms)),
            ("ended", show_time(run.finished_ms)),
            ("seconds", run.duration_seconds),
            ("attempts", run.attempts),
            ("generation", run.generation),
            ("spec revision", run.spec_revision),
            ("seed", run.seed),
            *_data_fields(run),
            ("parameters", " ".join(f"{k}={v}" for k, v in run.parameters.items())),
            ("libraries", " ".join(f"{k}={v}" for k, v in run.libraries.items())),
            ("artefact", run.artefact_digest),
            ("profile", run.profile_digest),
        ]
    )


def _data_fields(run: Run) -> list[tuple[str, object]]:
    if run.data is None:
        return []
    data = run.data
    coverage = "" if data.coverage is None else f"{data.coverage:.1%}"
    return [
        ("rows", data.rows),
        ("from", show_time(data.start_ms)),
        ("to", show_time(data.end_ms)),
        ("labelled", f"{data.labelled} of {data.predictions} predictions {coverage}"),
        ("erased", data.erased or None),
        ("classes", " ".join(f"{name}={n}" for name, n in data.classes.items())),
        ("source", data.source),
        *(("offsets", f"{r.topic}[{r.partition}] {r.first}..{r.end}") for r in data.ranges),
        ("data digest", data.digest),
    ]


def _print_candidate(candidate: Candidate) -> None:
    chosen = " (chosen)" if candidate.chosen else ""
    typer.echo(f"\n{candidate.name}{chosen} {candidate.problem}".rstrip())
    for name, figure in candidate.metrics.items():
        interval = "" if figure.low is None else f"  [{figure.low:.4f}, {figure.high:.4f}]"
        typer.echo(f"  {name:16} {figure.value:.4f}{interval}")
    if candidate.calibration_error is not None:
        typer.echo(f"  {'calibration':16} {candidate.calibration_error:.4f} off on average")
    if candidate.fit_seconds is not None:
        typer.echo(f"  {'fit':16} {candidate.fit_seconds:.2f} s")
    for batch, ms in candidate.latency_ms.items():
        typer.echo(f"  {'predict ' + batch:16} {ms:.3g} ms")
    for note in candidate.notes:
        typer.echo(f"  note: {note}")


def _print_career(career: list[Turn]) -> None:
    if not career:
        return
    from models.cards import evidence

    typer.echo()
    print_table(
        ("FROM", "PART", "ACTION", "WHO", "REASON", "EVIDENCE"),
        [
            (show_time(t.changed_ms), t.part, t.action, t.who, t.reason, evidence(t.evidence))
            for t in career
        ],
    )


def _short(value: object, field: str) -> str:
    from models.cards import figure
    from models.runs import Figure

    if isinstance(value, Figure):
        return figure(value, 3)
    if field.endswith("_ms") and isinstance(value, int):
        return show_time(value)
    if field.endswith("digest") and value:
        return f"{str(value)[:12]}..."
    text = f"{value:.4g}" if isinstance(value, float) else str("-" if value is None else value)
    return text if len(text) <= 40 else f"{text[:37]}..."
