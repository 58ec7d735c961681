"""The README names all that a person can set, call or subscribe to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main

from consumers.cli import app
from stream.settings import Settings
from stream.topics import TOPICS, Names
from tests.faults.table import BY_ID

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands(command: Any, words: tuple[str, ...] = ("driftline",)) -> Iterator[str]:
    """Every command in full, as a person would type it."""
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(words)
        return
    for name, child in children.items():
        yield from commands(child, (*words, name))


def assert_named(names: Iterable[str]) -> None:
    """Each is in the README as code, alone or with what follows it (`driftline tail STREAM`)."""
    absent = [name for name in names if not re.search(f"`{re.escape(name)}[` ]", README)]
    assert not absent, "README.md does not name:\n" + "\n".join(f"- `{name}`" for name in absent)


def test_readme_names_every_topic() -> None:
    """A subscriber finds each topic by its full default name."""
    names = Names()

    assert_named(names.topic(topic.entity) for topic in TOPICS)


def test_readme_names_every_setting() -> None:
    """Each setting is listed by its variable."""
    assert_named(f"DRIFTLINE_{name.upper()}" for name in Settings.model_fields)


def test_readme_tells_the_default_of_every_setting() -> None:
    """What the table says is what a process starts with."""
    for name, field in Settings.model_fields.items():
        default = "{}" if field.default_factory is not None else field.default
        assert f"| `DRIFTLINE_{name.upper()}` | `{default}` |" in README


def test_readme_names_every_command() -> None:
    """Each command is shown as one would type it."""
    assert_named(commands(typer.main.get_command(app)))


def test_readme_names_the_two_commands_of_a_newcomer() -> None:
    """The demo and the tests are what a newcomer runs first."""
    assert "make demo" in README
    assert "make test" in README


def test_the_page_of_faults_has_every_row_and_each_held_and_was_seen_to_fail() -> None:
    """`python -m tests.faults --report` and `--unprotected --report` write it, row by row."""
    page = (ROOT / "docs" / "faults.md").read_text()
    found = [re.findall(r"^\| `([\w-]+)` \|(.*)\|$", part, re.M) for part in page.split("\n## ")]
    figures, protections = (dict(rows) for rows in found if rows)
    nothing = "0 lost, 0 doubled, fold equal"
    assert list(figures) == list(BY_ID)
    assert set(protections) == set(BY_ID)
    for id_, line in figures.items():
        *_, lost, doubled, fold, _, _ = (cell.strip() for cell in line.split("|"))
        assert (lost, doubled) == ("0", "0"), id_
        assert fold in ("equal", "-"), id_
    for id_, line in protections.items():
        assert line.rsplit("|", 1)[1].strip() not in ("", nothing), id_


def test_architecture_names_every_module() -> None:
    """A newcomer finds each module on the code map, in one read."""
    page = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    folders = (
        *("models", "stream", "stream/core"),
        *("consumers", "consumers/demo", "consumers/console", "consumers/sinks"),
    )
    modules = {path.stem for folder in folders for path in (ROOT / folder).glob("*.py")}

    absent = sorted(
        name
        for name in modules - {"__init__", "__main__", "datasets", "embedded", "scenarios", "stack"}
        if f"`{name}`" not in page
    )
    assert not absent, absent


def test_the_page_of_alerts_shows_sinks_as_they_are(tmp_path: Path) -> None:
    """Its example is a file that can be read, of every kind, and its tables name every key."""
    from consumers.sinks.configured import BaseSink, HttpSink, Sinks, load

    page = (ROOT / "docs" / "ALERTS.md").read_text()
    [example] = re.findall(r"```toml\n(.*?)```", page, re.S)
    (tmp_path / "alerts.toml").write_text(example)
    sinks = load(tmp_path / "alerts.toml").sinks.values()
    assert {sink.kind for sink in sinks} == {"webhook", "slack", "pagerduty", "email", "command"}
    assert Sinks.model_fields.keys() == {"console_url", "sinks"}
    for name in (*BaseSink.model_fields, *HttpSink.model_fields):
        assert f"`{name}" in page, name
    rows = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if "|" in line}
    for sink in sinks:
        own = type(sink).model_fields.keys() - HttpSink.model_fields.keys() - {"kind"}
        assert all(f"`{name}`" in rows[sink.kind] for name in own), sink.kind
