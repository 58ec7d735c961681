"""`driftline runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands.common import (
    FAILURE,
    Json,
    group,
    load_settings,
    print_fields,
    print_json,
    print_table,
    registry,
    say,
    show_time,
)

if TYPE_CHECKING:
    from models.runs import Candidate, Run

app = group("Training runs: every attempt, accepted or refused, with its cause and its data.")

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
                next((c.name for c in run.candidates if c.chosen), "-"),
                run.cause,
                run.reason,
            )
            for run in runs
        ],
    )


@app.command()
def show(run_id: RunId, *, json: Json = False) -> None:
    """Show one run whole: cause, data, candidates with intervals, verdict.

    Example: driftline runs show 7
    """
    with registry(load_settings()) as opened:
        run = opened.run(run_id)
    if run is None:
        say(f"error: no run {run_id}; `driftline runs list` shows those there are")
        raise typer.Exit(FAILURE)
    if json:
        print_json(run)
        return
    _print_run(run)
    for candidate in run.candidates:
        _print_candidate(candidate)


@app.command()
def compare(a: RunId, b: RunId, *, json: Json = False) -> None:
    """Show what differs between two runs: outcome, data, parameters, libraries.

    Example: driftline runs compare 6 7
    """
    with registry(load_settings()) as opened:
        comparison = opened.compare_runs(a, b)
    if json:
        print_json(comparison)
        return
    print_table(
        ("SECTION", "WHAT", f"RUN {a}", f"RUN {b}", "CHANGE"),
        [
            (
                difference.section,
                difference.field,
                _short(difference.a),
                _short(difference.b),
                "" if difference.change is None else f"{difference.change:+.4g}",
            )
            for difference in comparison.differences
        ],
    )
    if comparison.same:
        say(f"the same in both: {', '.join(comparison.same)}")


def _print_run(run: Run) -> None:
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


def _short(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str("-" if value is None else value)
    return text if len(text) <= 40 else f"{text[:37]}..."
