"""Reference pages in Markdown: settings, topics, events, metrics, commands, alerts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import typer.main
from msgspec import Struct

from consumers.cli import app
from stream.events import DEFAULT_TYPES, EVENT_TYPES
from stream.settings import Settings
from stream.topics import TOPICS, Names

EVENTS: Final = (
    "JSON in the envelope of CloudEvents 1.0; `data` holds the fields. Times are milliseconds "
    "since 1970 in UTC, sums of reals integers in millionths. Unknown fields are ignored."
)


def settings() -> str:
    """Every setting with its variable, default and meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "{}" if field.default_factory is not None else field.default
        said = field.description or ""
        rows.append((f"`{name}`", f"`DRIFTLINE_{name.upper()}`", f"`{default}`", said))
    return _page(
        "Settings",
        "A flag wins over the variable, that over `driftline.toml`, that over the default.",
        _table(("setting", "variable", "default", "meaning"), rows),
    )


def topics() -> str:
    """Every topic with its key."""
    rows = [
        (
            f"`{Names().topic(topic.entity)}`",
            topic.key,
            "compacted" if topic.compacted else "by time",
            "producers" if topic.open else "Driftline",
        )
        for topic in TOPICS
    ]
    return _page(
        "Topics",
        "By the default prefix, `driftline`. What lies on them: [events](events.md), and as "
        "[AsyncAPI](../asyncapi.json).",
        _table(("topic", "key", "kept", "written by"), rows),
    )


def events() -> str:
    """Every type of event with the fields of its data."""
    parts = [EVENTS]
    kinds: dict[type[Struct], list[str]] = {}
    for kind, (struct, _) in EVENT_TYPES.items():
        kinds.setdefault(struct, []).append(kind)
    for struct, names in kinds.items():
        entity = EVENT_TYPES[names[0]][1]
        where = "every input" if entity == "*" else f"`{Names().topic(entity)}`"
        plain = (
            " A value without attributes is taken for one."
            if (DEFAULT_TYPES.get(entity) in names)
            else ""
        )
        parts += [
            f"## {struct.__name__}",
            inspect.cleandoc(struct.__doc__ or ""),
            f"{', '.join(f'`{name}`' for name in names)} on {where}.{plain}",
            _table(("field", "type", "default"), list(_fields(struct))),
        ]
    return _page("Events", *parts)


def _fields(struct: type[Struct]) -> Iterator[tuple[str, str, str]]:
    hints = inspect.get_annotations(struct)
    for field in msgspec.structs.fields(struct):
        if field.required:
            default = "required"
        elif field.default_factory is not msgspec.NODEFAULT:
            default = f"`{field.default_factory()}`"
        else:
            default = f"`{field.default!r}`"
        said = " ".join(str(hints.get(field.name, "")).split())
        yield f"`{field.name}`", f"`{said}`".replace("|", "\\|"), default


def commands() -> str:
    """Every command with its help, as it prints it."""
    parts = ["What `--help` prints of each; `driftline --install-completion` sets the shell up."]
    for words, command in _commands(typer.main.get_command(app), ("driftline",)):
        with typer.main.get_command(app).make_context("driftline", [], resilient_parsing=True):
            context = command.make_context(
                " ".join(words), [], resilient_parsing=True, max_content_width=78
            )
            parts += [f"## {' '.join(words)}", f"```text\n{command.get_help(context)}\n```"]
    return _page("Commands", *parts)


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None or getattr(command, "invoke_without_command", False):
        yield words, command
    for name, child in (children or {}).items():
        yield from _commands(child, (*words, name))


def _page(title: str, *parts: str) -> str:
    note = "<!-- Made from the code by `python -m consumers.manual`; a change here is lost. -->"
    return "\n\n".join([f"# {title}", note, *parts]) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
