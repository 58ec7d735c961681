"""The model card of a run, as Markdown: what it is for, how it was made, how good it is, and where.

After Mitchell et al. (2019), "Model Cards for Model Reporting". Everything on it comes from the
run's record, the spec in force then, and the history; nothing is asked of a person.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple, get_args

from models.careers import Turn
from models.runs import DataRange, Figure, Run
from models.spec import ModelSpec

Plot = Literal["candidates", "calibration", "course", "segments"]
PLOTS: Final[tuple[Plot, ...]] = get_args(Plot)

_TASKS: Final = {
    "binary": "the probability of {1!r} rather than {0!r}",
    "multiclass": "the probability of each of {}",
    "regression": "a number",
}
#: What Markdown takes for a sign: anywhere, at the edge of a word, at the beginning of a line.
_SPECIAL = re.compile(r"[\\`*\[\]<>|~&]|(?<!\w)_|_(?!\w)|^[#+=-]|(?<=^\d)[.)](?=\s)")


class Subject(NamedTuple):
    """What a card is about."""

    run: Run
    spec: ModelSpec  # in force when the run began
    career: Sequence[Turn]


def markdown(subject: Subject, plots: Iterable[tuple[Plot, str]] = ()) -> str:
    """The card.

    Args:
        plots: the Markdown that stands for each plot there is, such as a link to its file.
    """
    drawn = dict(plots)
    sections = (
        _title(subject),
        _purpose(subject.spec),
        _data(subject),
        _quality(subject, drawn),
        _segments(subject, drawn),
        _calibration(subject, drawn),
        _course(subject, drawn),
        _service(subject),
        _limits(subject),
        _making(subject.run),
    )
    return "\n\n".join(block for section in sections for block in section) + "\n"


def figure(value: Figure, digits: int = 4) -> str:
    """
    >>> figure(Figure(0.25, 0.2, 0.31))
    '0.25 (0.2 to 0.31)'
    """
    shown = f"{value.value:.{digits}g}"
    if value.low is None or value.high is None:
        return shown
    return f"{shown} ({value.low:.{digits}g} to {value.high:.{digits}g})"


def evidence(found: Mapping[str, Any]) -> str:
    """
    >>> evidence({"e_value": 41.537, "ticks": [1, 2], "problem": "harm"})
    'e_value 41.54, problem harm'
    """
    plain = [(name, value) for name, value in found.items() if isinstance(value, int | float | str)]
    return ", ".join(f"{name} {_short(value)}" for name, value in plain)


def text(value: object) -> str:
    r"""Anything, as Markdown that says just that, on one line.

    >>> text("a|b *c*")
    'a\\|b \\*c\\*'
    """
    return _SPECIAL.sub(r"\\\g<0>", " ".join(str(value).split()))


def _title(subject: Subject) -> Iterator[str]:
    run, spec = subject.run, subject.spec
    what = f"version {run.version}" if run.version is not None else f"run {run.run_id}"
    yield f"# {text(run.model)}, {what}"
    if spec.description:
        yield text(spec.description)
    outcome = f"**{run.verdict}**" + (f": {text(run.reason)}" if run.reason else "")
    yield f"Run {run.run_id} was {outcome}. Cause: {text(run.cause)}."


def _purpose(spec: ModelSpec) -> Iterator[str]:
    yield "## What it is for"
    says = _TASKS[spec.task].format(*(spec.classes if spec.task == "binary" else [spec.classes]))
    owner = f" Its owner is {text(spec.owner)}." if spec.owner else ""
    yield f"It predicts {text(says)} from {len(spec.features)} features.{owner}"
    types = [(f.name, f.type + (", optional" if f.optional else "")) for f in spec.features]
    yield _table(("feature", "type"), types)


def _data(subject: Subject) -> Iterator[str]:
    yield "## What it was made of"
    data = subject.run.data
    if data is None:
        yield "No data was read."
        return
    yield _table(("what", "value"), [row for row in _data_rows(data) if row[1] not in ("", None)])
    fitted = subject.run.parameters
    if "fitted_rows" in fitted:
        late = fitted.get("late_rows")
        yield (
            f"{fitted['fitted_rows']} older rows were fitted, the newest {fitted['held_out_rows']} "
            f"were held out from every candidate, from {_time(fitted['split_ms'])} on."
            + (f" {late} older ones were labelled only after that, and left out." if late else "")
        )


def _data_rows(data: DataRange) -> Iterator[tuple[str, object]]:
    yield "rows used", data.rows
    yield "oldest", _time(data.start_ms)
    yield "newest", _time(data.end_ms)
    if data.predictions:
        coverage = f" ({data.coverage:.1%})" if data.coverage is not None else ""
        yield "labelled", f"{data.labelled} of {data.predictions} predictions{coverage}"
    yield "left out as erased", data.erased or None
    yield "by class", ", ".join(f"{name}: {n}" for name, n in data.classes.items())
    yield "file", data.source
    for part in data.ranges:
        yield f"{part.topic}[{part.partition}]", f"offsets {part.first} to {part.end - 1}"
    yield "sha256", data.digest


def _quality(subject: Subject, plots: dict[Plot, str]) -> Iterator[str]:
    candidates = subject.run.candidates
    if not candidates:
        return
    yield "## How good it is"
    yield (
        "On the held-out slice, each with its 95 % interval. `gain` is how much less is lost than "
        "by `constant`, which always says the same."
    )
    names = dict.fromkeys(name for candidate in candidates for name in candidate.metrics)
    yield _table(
        ("candidate", *names, "seconds to fit", ""),
        [
            (
                f"{candidate.name} (chosen)" if candidate.chosen else candidate.name,
                *(_cell(candidate.metrics.get(name)) for name in names),
                "" if candidate.fit_seconds is None else f"{candidate.fit_seconds:.2f}",
                candidate.problem or "; ".join(candidate.notes),
            )
            for candidate in candidates
        ],
    )
    if "candidates" in plots:
        yield plots["candidates"]
    chosen = subject.run.chosen
    if chosen is not None and chosen.latency_ms:
        shown = ", ".join(f"{batch} {ms:.3g} ms" for batch, ms in chosen.latency_ms.items())
        yield f"Predicting takes, on the machine that trained it: {shown}."


def _segments(subject: Subject, plots: dict[Plot, str]) -> Iterator[str]:
    chosen = subject.run.chosen
    if chosen is None or not subject.spec.segments:
        return
    yield f"## By {text(', '.join(subject.spec.segments))}"
    if not chosen.segments:
        yield "No value was frequent enough on the held-out slice to say anything."
        return
    names = dict.fromkeys(name for metrics in chosen.segments.values() for name in metrics)
    yield _table(
        ("segment", *names),
        [
            (segment, *(_cell(metrics.get(name)) for name in names))
            for segment, metrics in chosen.segments.items()
        ],
    )
    if "segments" in plots:
        yield plots["segments"]


def _calibration(subject: Subject, plots: dict[Plot, str]) -> Iterator[str]:
    chosen = subject.run.chosen
    if chosen is None or chosen.calibration_error is None:
        return
    yield "## Calibration"
    yield f"What it says is {chosen.calibration_error:.3g} from what came true, on average."
    if "calibration" in plots:
        yield plots["calibration"]
    yield _table(
        ("events", "said", "came true"),
        [(g.n, f"{g.said:.4g}", figure(g.found)) for g in chosen.calibration],
    )


def _course(subject: Subject, plots: dict[Plot, str]) -> Iterator[str]:
    if "course" in plots:
        yield "## Over the held-out slice"
        yield plots["course"]


def _service(subject: Subject) -> Iterator[str]:
    if subject.run.version is None:
        return
    yield "## What became of it"
    if not subject.career:
        yield "It was registered and never took part."
        return
    yield _table(
        ("from", "part", "by", "why", "evidence"),
        [
            (_time(t.changed_ms), t.part, f"{t.action}, {t.who}", t.reason, evidence(t.evidence))
            for t in subject.career
        ],
    )


def _limits(subject: Subject) -> Iterator[str]:
    found = list(_limitations(subject))
    if found:
        yield "## What to keep in mind"
        yield "\n".join(f"- {line}" for line in found)


def _limitations(subject: Subject) -> Iterator[str]:
    """What the record itself gives cause to say."""
    run, chosen = subject.run, subject.run.chosen
    if run.data is not None and run.data.coverage is not None and run.data.coverage < 0.9:
        yield (
            f"Only {run.data.coverage:.1%} of the predictions of its time were labelled; those "
            "that were not may differ."
        )
    if chosen is None:
        return
    gain = chosen.metrics.get("gain")
    if gain is not None and gain.low is not None and gain.low <= 0:
        yield (
            "It is not certain that it loses less than what always says the same: the features may "
            "tell nothing."
        )
    off = [g for g in chosen.calibration if _outside(g.found, g.said)]
    if len(off) > len(chosen.calibration) / 4:
        yield f"In {len(off)} of {len(chosen.calibration)} groups its outputs are not calibrated."
    for note in chosen.notes:
        yield text(note)


def _making(run: Run) -> Iterator[str]:
    yield "## How to make it again"
    yield _table(
        ("what", "value"),
        [
            ("seed", run.seed),
            ("spec revision", run.spec_revision),
            *(sorted(run.parameters.items())),
            *(sorted(run.libraries.items())),
            ("artefact", run.artefact_digest),
            ("profile", run.profile_digest),
            ("command", run.command_id or ""),
            ("alert", run.alert_id or ""),
            ("evidence", evidence(run.evidence)),
            ("begun", _time(run.started_ms)),
            ("by", run.who),
        ],
    )


def _outside(found: Figure, said: float) -> bool:
    return found.low is not None and found.high is not None and not found.low <= said <= found.high


def _evidence(evidence: dict[str, Any]) -> str:
    plain = {
        name: value for name, value in evidence.items() if isinstance(value, int | float | str)
    }
    return ", ".join(f"{name} {_short(value)}" for name, value in plain.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Figure | None) -> str:
    return "" if value is None else figure(value, 3)


def _time(time_ms: Any) -> str:
    if not isinstance(time_ms, int):
        return ""
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [
        "| " + " | ".join(text(column) for column in columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(text(cell) for cell in row) + " |" for row in rows),
    ]
    return "\n".join(lines)
