"""`driftline publish` and `driftline tail`."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumers.commands.common import (
    FAILURE,
    USAGE,
    Json,
    load_settings,
    model_names,
    print_json,
    registry,
    say,
    show_time,
)

if TYPE_CHECKING:
    from consumers.loop import RangeReader
    from consumers.places import Delivered, Span


def _streams(begun: str) -> list[str]:
    from stream.topics import BY_ENTITY

    return [entity for entity in BY_ENTITY if entity.startswith(begun)]


def publish(
    kind: Annotated[str, typer.Argument(help="requests, predictions or feedback.")],
    file: Annotated[Path, typer.Argument(help=".csv with a header, or JSON lines.", exists=True)],
    model: Annotated[
        str,
        typer.Option(help="The model's name.", show_default=False, autocompletion=model_names),
    ],
    id_column: Annotated[str, typer.Option(help="Joins feedback with its prediction.")] = (
        "prediction_id"
    ),
    time_column: Annotated[str, typer.Option(help="When it happened; without it: now.")] = "time",
    label_column: Annotated[str, typer.Option(help="Of feedback.")] = "label",
    output_column: Annotated[str, typer.Option(help="Of predictions.")] = "output",
    *,
    json: Json = False,
) -> None:
    """Write a file to Kafka as events of a registered model. Doubles are harmless: ids are stable.

    Example: driftline publish requests --model churn today.csv
    """
    from consumers import files, publishing

    settings = load_settings()
    wanted = next((known for known in publishing.KINDS if known == kind), None)
    if wanted is None:
        say(f"error: {kind!r}: publish {', '.join(publishing.KINDS)}")
        raise typer.Exit(USAGE)
    with registry(settings) as opened:
        state = opened.live(model)
    if state is None:
        say(f"error: no model {model!r}; `driftline models add` registers it")
        raise typer.Exit(FAILURE)
    columns = publishing.Columns(
        id=id_column, time=time_column, label=label_column, output=output_column
    )
    sent = publishing.publish(wanted, state.spec, files.rows(file), columns, settings)
    topic = settings.names.topic(kind)
    if json:
        print_json({"model": model, "topic": topic, "written": sent})
    else:
        say(f"{sent} {kind} of {model} written to {topic}")


def tail(
    stream: Annotated[
        str,
        typer.Argument(
            help="alerts, accuracy, drift, commands, lifecycle, predictions, ...",
            autocompletion=_streams,
        ),
    ],
    since: Annotated[
        str | None, typer.Option(help="A time, or 10m, 2h, 1d ago.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Only this model's.", show_default=False)
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="Stop after this long.", show_default=False)
    ] = None,
    *,
    beginning: Annotated[bool, typer.Option("--beginning", help="From the oldest on.")] = False,
    follow: Annotated[bool, typer.Option(help="Wait for what comes.")] = True,
    json: Json = False,
) -> None:
    """Print events as they come, one a line; --json prints them whole.

    Example: driftline tail alerts --since 1h --no-follow --json
    """
    from consumers.loop import RangeReader
    from stream.topics import BY_ENTITY

    settings = load_settings()
    if stream not in BY_ENTITY:
        say(f"error: no stream {stream!r}; there are {', '.join(BY_ENTITY)}")
        raise typer.Exit(USAGE)
    since_ms = None if since is None else ago(since, time.time_ns() // 1_000_000)
    if since and settings.embedded_broker:
        say("the embedded broker finds no offsets by time: --since is left out, all is shown")
        since_ms, beginning = None, True
    deadline = None if seconds is None else time.monotonic() + seconds
    with RangeReader(settings) as reader:
        spans = _spans(reader, stream, since_ms, beginning=beginning or not follow)
        came = (
            (d for _, d in reader.follow_from({stream: spans}, lambda: _past(deadline)))
            if follow
            else reader.read(stream, spans)
        )
        for delivered in came:
            _print(stream, delivered, model, json=json)


def _spans(
    reader: RangeReader, stream: str, since_ms: int | None, *, beginning: bool
) -> list[Span]:
    if since_ms is not None:
        return reader.since(stream, since_ms)
    spans = reader.bounds(stream)
    return spans if beginning else [span._replace(start=span.end) for span in spans]


def ago(text: str, now_ms: int) -> int:
    """A time, or how long ago.

    >>> ago("10m", 600_000), ago("1000", 600_000)
    (0, 1000)
    """
    from consumers.commands.common import parse_time

    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    if text[:-1].isdecimal() and text[-1] in units:
        return now_ms - int(text[:-1]) * units[text[-1]] * 1000
    return parse_time(text)


def _past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


def _print(stream: str, came: Delivered, model: str | None, *, json: bool) -> None:
    event = decoded(came)
    data = event.get("data")
    if model is not None and not (isinstance(data, dict) and data.get("model") == model):
        return
    if json:
        print_json(event)
        return
    place = f"{came.place.partition}/{came.place.offset}"
    for one in _each(stream, data):
        text = line(stream, one) if isinstance(one, dict) else str(one)
        if stream in MIXED:
            text = f"{_kind(event)} {text}"
        typer.echo(f"{show_time(came.record.timestamp_ms)}  {place:>10}  {text}")


def _each(stream: str, data: Any) -> list[Any]:
    """Many examples come in an event; all else comes alone."""
    import msgspec

    from stream.events import ExamplesLabelled

    if stream == "examples" and isinstance(data, dict):
        with contextlib.suppress(msgspec.ValidationError):
            return list(map(msgspec.to_builtins, msgspec.convert(data, ExamplesLabelled).each()))
    return [data]


def decoded(came: Delivered) -> dict[str, Any]:
    """A record as plain data: its event's attributes, or the value as it is, and its place."""
    import msgspec

    record = came.record
    try:
        value = None if record.value is None else msgspec.json.decode(record.value)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        value = (record.value or b"").decode(errors="backslashreplace")
    event = value if isinstance(value, dict) and "specversion" in value else {"data": value}
    key = None if record.key is None else record.key.decode(errors="backslashreplace")
    return event | {"key": key, "partition": came.place.partition, "offset": came.place.offset}


#: Streams whose events are not all of one kind, which is told, too.
MIXED = ("decisions",)


def _kind(event: dict[str, Any]) -> str:
    """
    >>> _kind({"type": "driftline.retrain.held.v1"})
    'retrain held:'
    """
    return " ".join(str(event.get("type", "")).split(".")[1:-1]) + ":"


#: What a person wants to see first of each stream; everything else is in --json.
SHOWN = {
    "alerts": ("model", "state", "severity", "verdict", "sentence"),
    "commands": ("model", "kind", "version", "reason"),
    "accuracy": (
        "model",
        "version",
        "segment",
        "window",
        "labelled",
        "coverage",
        "metrics",
        "weighted",
        "estimate",
        "counted",
    ),
    "drift": ("model", "version", "signal", "window", "n", "psi", "psi_noise", "evidence"),
    "decisions": ("model", "cause", "asked", "reason", "generation"),
    "lifecycle": ("model", "generation", "champion", "challengers", "previous", "reason"),
    "predictions": ("model", "version", "prediction_id", "output"),
    "requests": ("model", "prediction_id"),
    "feedback": ("model", "prediction_id", "label"),
    "examples": ("model", "version", "prediction_id", "label"),
    "summaries": ("model", "version", "segment", "tick", "partition", "predictions", "labelled"),
}


def line(stream: str, data: dict[str, Any]) -> str:
    """
    >>> line("feedback", {"model": "churn", "prediction_id": "a", "label": "yes"})
    'churn a label=yes'
    """
    names = SHOWN.get(stream.removesuffix(".dlq"), tuple(data)[:6])
    bare = ("model", "prediction_id", "sentence", "state", "kind")
    shown = [(name, data[name]) for name in names if data.get(name) not in (None, "", [])]
    text = " ".join(_word(value) if n in bare else f"{n}={_word(value)}" for n, value in shown)
    return "".join(c if c.isprintable() else "?" for c in text)


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and "value" in value:
        low, high = value.get("low"), value.get("high")
        interval = "" if low is None or high is None else f"[{low:.3g},{high:.3g}]"
        return _word(value["value"]) + interval
    if isinstance(value, dict) and "reliable" in value:
        return _word(value["metrics"]) + ("" if value["reliable"] else "(not reliable)")
    if isinstance(value, dict):
        return ",".join(f"{name}:{_word(item)}" for name, item in value.items())
    return str(value)
