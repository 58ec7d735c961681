"""`driftline replay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumers.commands.common import (
    BREACH,
    Json,
    Model,
    load_settings,
    print_fields,
    print_json,
    print_table,
    registry,
    say,
    show_time,
)

if TYPE_CHECKING:
    from consumers.replay.past import Bounds, Past
    from consumers.replay.replaying import Basis, Folded
    from consumers.replay.verdicts import Difference, Verdicts
    from consumers.replay.what_if import Comparison, Respecify
    from stream.settings import Settings

SHOWN = 100  # characters of a sentence in the table


def _changes(begun: str) -> list[str]:
    """For the shell to complete: what `--what-if` can change."""
    import msgspec

    from consumers.replay.what_if import FIELDS, PARTS
    from models.spec import ModelSpec

    parts = {field.name: field.type for field in msgspec.structs.fields(ModelSpec)}
    named = [
        f"{part}.{field.name}"
        for part in PARTS
        if part != "detectors"
        for field in msgspec.structs.fields(parts[part])
    ]
    return [f"{name}=" for name in (*named, "detectors", *FIELDS) if name.startswith(begun)]


def replay(
    model: Model,
    start: Annotated[
        str | None,
        typer.Option("--from", help="A time, or 10m, 2h, 1d ago.", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="The same; without it: the end.", show_default=False)
    ] = None,
    offsets: Annotated[
        str | None,
        typer.Option(
            help="FIRST:END of the model's partition of summaries, instead of times.",
            show_default=False,
        ),
    ] = None,
    what_if: Annotated[
        list[str] | None,
        typer.Option(
            "--what-if",
            help="A spec file, or part.field=value of policy, budget, tolerances, alerts, trial, "
            "detectors, ticks.minimum_events. Repeat it for more.",
            autocompletion=_changes,
            show_default=False,
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="To share partitions; default: one a core.", show_default=False),
    ] = None,
    *,
    counts: Annotated[
        bool,
        typer.Option("--counts", help="Fold the counts as monitor wrote them: much quicker."),
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 3 if alerts or commands are not as recorded.")
    ] = False,
    json: Json = False,
) -> None:
    """Fold a past range of a model again: what came of it, or would have under another policy.

    Reads predictions, feedback, summaries, lifecycle and verdicts outside any consumer group, and
    writes to no topic. The same range gives the same bytes: the digest says so. Alerts and commands
    are held against those that the topics hold; a range that does not begin with the log begins
    without memory, so those may differ there.

    With --what-if it cannot know what a version would have done that was never trained, nor how
    people would have answered. Versions that were live stay live: from the first command on that
    differs, rows are marked with "?".

    Example: driftline replay churn --from 7d --what-if policy.retrains_per_week=1
    """
    from consumers.replay import past as pasts
    from consumers.replay import replaying
    from consumers.replay import what_if as what_ifs
    from consumers.replay.verdicts import difference

    settings = load_settings()
    past = pasts.read_past(settings, model, _bounds(start, until, offsets, settings))
    respecify = _respecify(what_if, past) if what_if else None
    with registry(settings) as opened:
        basis = replaying.prepare(
            settings,
            past,
            registry=opened,
            processes=processes or _cores(),
            counts_only=counts,
        )
    recorded = pasts.recorded(settings, past)
    again = replaying.fold(basis)
    differs = difference(recorded, again.verdicts)
    other = replaying.fold(basis, respecify) if respecify else None
    compared = what_ifs.compare(again.verdicts, other.verdicts) if other else None
    if json:
        print_json(_plain(past, basis, again, differs, other, compared))
    else:
        _print(past, basis, again, differs)
        if compared is None:
            _print_verdicts(again.verdicts)
        else:
            _print_comparison(compared)
    if check and differs:
        for sentence in (*differs.missing, *differs.more):
            say(f"breach: {sentence}")
        raise typer.Exit(BREACH)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _bounds(
    start: str | None, until: str | None, offsets: str | None, settings: Settings
) -> Bounds:
    """
    Raises:
        typer.BadParameter: an option is no time, or no pair of offsets.
    """
    import time

    from consumers.commands.events import ago
    from consumers.replay.past import Bounds

    now_ms = time.time_ns() // 1_000_000
    if settings.embedded_broker and (start or until):
        raise typer.BadParameter("the embedded broker finds no offsets by time: use --offsets")
    bounds = Bounds(start and ago(start, now_ms), until and ago(until, now_ms))  # type: ignore[arg-type]
    if offsets is None:
        return bounds
    first, _, end = offsets.partition(":")
    if not all(part.isdecimal() or not part for part in (first, end)):
        raise typer.BadParameter(f"--offsets {offsets}: write FIRST:END")
    return bounds._replace(first=int(first) if first else None, end=int(end) if end else None)


def _respecify(given: list[str], past: Past) -> Respecify:
    """
    Raises:
        ConfigurationError: it is neither a spec nor overrides, or changes too much.
    """
    from consumers.commands.models import read_spec_file
    from consumers.replay.what_if import by_overrides, by_spec
    from stream.errors import ConfigurationError

    if len(given) > 1 or "=" in given[0]:
        return by_overrides(given)
    specs = {n: state.spec for (name, n), state in past.lifecycles.items() if name == past.model}
    if not specs:
        raise ConfigurationError(f"lifecycle does not know {past.model}")
    return by_spec(read_spec_file(Path(given[0])), specs[max(specs)])


def _plain(
    past: Past,
    basis: Basis,
    again: Folded,
    differs: Difference,
    other: Folded | None,
    compared: Comparison | None,
) -> dict[str, object]:
    return {
        "model": past.model,
        "offsets": {"partition": past.home, "first": past.span.start, "end": past.span.end},
        "from_the_beginning": past.journal.is_complete,
        "until_ms": past.journal.watermark_ms,
        "lifecycle_followed": "as told" if past.followed else "assumed by the registry's clock",
        "events": basis.events,
        "summaries": {"made": basis.laid.made, "as_recorded": basis.laid.same},
        "verdicts": again.verdicts,
        "as_recorded": not differs,
        "missing": differs.missing,
        "more": differs.more,
        "digest": again.digest,
        **(
            {"what_if": {"verdicts": other.verdicts, "digest": other.digest, "compared": compared}}
            if other
            else {}
        ),
    }


def _print(past: Past, basis: Basis, again: Folded, differs: Difference) -> None:
    folded = ", ".join(f"{count:,} {name}" for name, count in basis.events.items())
    made = f"{basis.laid.made:,} made, {basis.laid.same:,} of them as recorded"
    whole = past.journal.is_complete
    odd = f"{len(differs.missing)} recorded only, {len(differs.more)} replayed only"
    told = again.verdicts.told
    print_fields(
        [
            ("range", f"summaries/{past.home} {past.span.start} to {past.span.end}"),
            ("begins", "with the log" if whole else "later: what was before is not known"),
            ("until", show_time(past.journal.watermark_ms)),
            ("lifecycle", None if past.followed else "followed as the registry's clock says"),
            ("applied", folded or "counts only"),
            ("summaries", made if basis.events else None),
            ("told", ", ".join(f"{name} {count:,}" for name, count in sorted(told.items()))),
            ("alerts, commands", odd if differs else "as recorded"),
            ("digest", again.digest),
        ]
    )
    typer.echo()


def _print_verdicts(verdicts: Verdicts) -> None:
    alerts = [
        (one.opened_ms, f"alert {one.problem}", one.state, one.sentence) for one in verdicts.opened
    ]
    commands = [
        (one.issued_ms, one.kind, one.version or "-", one.reason) for one in verdicts.commands
    ]
    held = [(one.held_ms, "retrain held", one.cause, one.reason) for one in verdicts.held]
    rows: list[tuple[int, str, object, str]] = sorted(
        [*alerts, *commands, *held], key=lambda row: row[:2]
    )
    print_table(
        ("WHEN", "WHAT", "STATE", "EVIDENCE"),
        [(show_time(at), what, state, _short(words)) for at, what, state, words in rows],
    )


def _print_comparison(compared: Comparison) -> None:
    print_table(
        ("", "WAS", "WOULD HAVE BEEN"),
        [(name, was, would) for name, (was, would) in compared.counts.items()],
    )
    typer.echo()
    print_table(
        ("WHAT", "WAS", "WOULD HAVE BEEN", "EVIDENCE"),
        [
            (
                row.what if row.known else f"? {row.what}",
                show_time(row.was_ms) or "-",
                show_time(row.would_ms) or "-",
                _short(row.would or row.was),
            )
            for row in compared.rows
        ],
    )
    if compared.parted_ms is not None:
        say(
            f"commands differ from {show_time(compared.parted_ms)} on: rows with ? are judged on "
            "the versions that were live; what else would have been trained is not known"
        )


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= SHOWN else sentence[: SHOWN - 1] + "…"
