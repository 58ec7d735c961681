"""The command line as a user and a script meet it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from consumers import forgetting
from consumers.cli import app
from consumers.commands.common import Group, model_names
from models.registry import Registry
from tests.commands import SPEC, registry_here, run, settle_in
from tests.registries import register

COMMANDS = [
    [],
    *([name] for name in ("demo", "worker", "trainer", "migrate", "publish", "tail", "status")),
    ["doctor"],
    ["top"],
    ["bridge"],
    ["erase"],
    *(["topics", name] for name in ("acls", "apply", "list")),
    *(["models", name] for name in ("add", "list", "show", "history", "live-at", "republish")),
    ["models", "reference"],
    *(["models", name] for name in ("promote", "rollback", "pin", "unpin")),
    *(["runs", name] for name in ("list", "show", "compare", "card", "cancel", "export")),
    *(["dlq", name] for name in ("list", "show", "replay")),
    *(["config", name] for name in ("show", "check")),
    *(["keys", name] for name in ("new", "show")),
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    settle_in(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def registry(place: Path) -> Iterator[Registry]:
    with registry_here() as opened:
        yield opened


# --- help and errors ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(command: list[str]) -> None:
    for flag in ("--help", "-h"):
        result = run(*command, flag)
        assert result.exit_code == 0
        assert "Usage: " in result.stdout
    if command:
        assert "Example: " in result.stdout or command == ["models"]


def commands_of(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its whole name; a group may be one, too."""
    inner = command.commands if isinstance(command, Group) else {}
    if path and (not inner or command.invoke_without_command):
        yield path, command
    for name, one in inner.items():
        yield from commands_of(one, f"{path} {name}".strip())


def test_every_command_answers_in_json_but_those_that_serve_until_they_are_told_to_stop() -> None:
    """And one whose output is JSON already."""
    without = {
        name
        for name, command in commands_of(get_command(app))
        if not any("--json" in option.opts for option in command.params)
    }
    serving = {"worker", "trainer", "bridge", "console", "alerts"}
    assert without == serving | {"runs export"}


def test_help_imports_nothing_heavy_and_little_at_all() -> None:
    """What it imports is what it costs: a third of a second of CPU for 182 modules."""
    heavy = {"numpy", "scipy", "sklearn", "river", "faust", "aiokafka", "sqlalchemy", "alembic"}
    heavy |= {"confluent_kafka", "pydantic_settings", "fastapi", "matplotlib", "rich"}
    program = f"""
import sys
from consumers.cli import app
try:
    app(["--help"], prog_name="driftline")
finally:
    print(sorted({heavy} & set(sys.modules)), len(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    found, _, modules = done.stderr.decode().strip().rpartition(" ")
    assert found == "[]"
    assert b"worker" in done.stdout
    assert int(modules) < 250


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("driftline mod", ["models"]),
        ("driftline models pr", ["promote"]),
        ("driftline tail al", ["alerts", "alerts.dlq"]),
        ("driftline models show ch", ["churn"]),
        ("driftline replay ch", ["churn"]),
        ("driftline replay churn --what-if policy.promo", ["policy.promote="]),
        ("driftline status --ch", ["--check"]),
    ],
)
def test_the_shell_completes_commands_options_streams_and_models(
    words: str, completed: list[str], registry: Registry
) -> None:
    """What `driftline --install-completion` puts into a shell asks the command so."""
    done = subprocess.run(
        [Path(sys.executable).parent / "driftline"],
        check=True,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_DRIFTLINE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
    )
    assert done.stdout.split() == completed


def test_without_a_registry_no_model_is_completed() -> None:
    assert model_names("ch") == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nonsense"], 2, "No such command"),
        (["models", "list"], 2, "run `driftline migrate`"),
        (["topics", "list"], 1, "name another with --bootstrap"),
        (["worker", "--stages", "score,bake"], 2, "score, monitor, evaluate"),
        (["doctor", "--as", "king"], 2, "name one of score"),
        (["bridge", "log", "--model", "x"], 2, "SERVICE=MODEL"),
        (["tail", "gossip"], 2, "no stream 'gossip'"),
        (["models", "add", "missing.toml"], 2, "does not exist"),
        (["publish", "gossip", "x.csv", "--model", "m"], 2, "does not exist"),
        (["--registry-url", "mysql://x", "models", "list"], 2, "must begin with sqlite"),
    ],
)
def test_errors_say_what_to_do_and_have_their_exit_code(
    arguments: list[str], code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", "sqlite:///driftline.db")
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stdout == ""


def test_a_wrong_setting_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("config", "check").exit_code == 0
    monkeypatch.setenv("DRIFTLINE_PARTITIONS", "many")
    result = run("config", "check")
    assert result.exit_code == 2
    assert "DRIFTLINE_PARTITIONS" in result.stderr or "partitions" in result.stderr


def test_config_show_tells_the_origin_and_masks_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_REGISTRY_URL", "postgresql://ann:hush@db/driftline")
    monkeypatch.setenv("DRIFTLINE_KAFKA", '{"some.password": "hush"}')
    Path("driftline.toml").write_text("partitions = 8\n")
    result = run("config", "show", "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert (rows["partitions"]["value"], rows["partitions"]["origin"]) == (8, "driftline.toml")
    assert rows["registry_url"]["origin"] == "DRIFTLINE_REGISTRY_URL"
    assert rows["drain_seconds"]["origin"] == "default"
    assert "hush" not in result.stdout + run("config", "show").stdout


def test_nothing_is_coloured_where_colour_is_not_wanted(registry: Registry) -> None:
    environment = {**os.environ, "NO_COLOR": "1"}
    for command in (["models", "list"], ["--help"], ["config", "show"]):
        done = subprocess.run(
            [sys.executable, "-m", "consumers", *command],
            env={**environment, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))},
            check=True,
            capture_output=True,
        )
        assert b"\x1b" not in done.stdout + done.stderr


# --- models and runs ------------------------------------------------------------------------------


def history(path: Path, rows: int = 400) -> Path:
    lines = ["time,age,plan,label"]
    for n in range(rows):
        age = n * 37 % 80
        label = "yes" if age + n * 13 % 30 > 55 else "no"
        lines.append(f"{1_700_000_000_000 + n * 60_000},{age or ''},{'ab'[n % 2]},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_model_is_added_trained_from_a_file_and_live(place: Path) -> None:
    (place / "churn.toml").write_text(SPEC)
    assert run("migrate").exit_code == 0
    added = run("models", "add", "churn.toml", "--data", history(place / "h.csv"), "--json")
    assert added.exit_code == 0, added.output
    assert json.loads(added.stdout)["live"]["champion"] == 1
    assert "A running trainer publishes it" in added.stderr
    (listed,) = json.loads(run("runs", "list", "--json").stdout)
    assert (listed["verdict"], listed["version"], listed["data"]["rows"]) == ("accepted", 1, 400)
    shown = run("runs", "show", 1).stdout
    assert "logistic_regression (chosen)" in shown
    again = run("models", "add", "churn.toml", "--data", "h.csv")
    assert "version 2 is trained" in again.stderr
    compared = run("runs", "compare", 1, 2)
    assert "outcome" in compared.stdout
    assert "data" in compared.stderr  # the same in both
    digests = {one["artefact_digest"] for one in json.loads(run("runs", "list", "--json").stdout)}
    assert len(digests) == 1  # as everything that went in was the same
    assert "fitting logistic_regression (1 of 1)" in added.stderr


def test_labels_that_came_late_are_no_part_of_what_is_learnt(place: Path) -> None:
    """A column may say when each label came."""
    (place / "churn.toml").write_text(SPEC)
    run("migrate")
    lines = history(place / "h.csv").read_text().splitlines()
    late = [f"{lines[0]},came"]
    for n, line in enumerate(lines[1:]):
        asked_ms = int(line.split(",")[0])
        late.append(f"{line},{asked_ms + (n % 2) * 600 * 60_000}")
    (place / "h.csv").write_text("\n".join(late))
    added = run(
        *("models", "add", "churn.toml", "--data", "h.csv", "--labelled-column", "came"), "--json"
    )
    assert added.exit_code == 0, added.output
    parameters = json.loads(run("runs", "show", 1, "--json").stdout)["parameters"]
    assert (parameters["fitted_rows"], parameters["late_rows"]) == (150, 150)
    absent = run("models", "add", "churn.toml", "--data", "h.csv", "--labelled-column", "x")
    assert (absent.exit_code, "--labelled-column" in absent.stderr) == (2, True)


def test_a_run_has_a_card_as_markdown_and_as_a_page(place: Path) -> None:
    (place / "churn.toml").write_text(SPEC)
    run("migrate")
    run("models", "add", "churn.toml", "--data", history(place / "h.csv"))
    assert run("runs", "card", 1).stdout.startswith("# churn, version 1\n")
    page = run("runs", "card", 1, "--out", "c.html")
    assert (page.exit_code, "written: c.html" in page.stderr) == (0, True)
    assert (place / "c.html").read_text().count("<svg") == 3
    assert json.loads(run("runs", "card", 1, "--json").stdout)["markdown"].startswith("# churn")
    files = json.loads(run("runs", "card", 1, "--out", "c.html", "--json").stdout)
    assert files == {"run_id": 1, "files": ["c.html"]}
    assert run("runs", "card", 9).exit_code == 2
    assert run("runs", "card", 1, "--out", "nowhere/c.md").exit_code == 1


def test_a_run_tells_its_evidence_and_what_became_of_its_version(registry: Registry) -> None:
    run_id = registry.begin_run("churn", cause="harm", evidence={"e_value": 33.251})
    version = register(registry, run_id=run_id)
    registry.challenge("churn", version, who="driftline")
    registry.promote("churn", version, who="driftline", evidence={"pairs": 900})
    registry.finish_run(run_id, "accepted")

    shown = run("runs", "show", run_id).stdout
    assert "e_value 33.25" in shown
    assert "challenger  challenge  driftline" in shown
    assert "pairs 900" in shown
    career = json.loads(run("runs", "show", run_id, "--json").stdout)["career"]
    assert [turn["part"] for turn in career] == ["challenger", "champion"]


def test_a_run_is_cancelled_once_and_only_while_it_runs(registry: Registry) -> None:
    run_id = registry.begin_run("churn", cause="harm")
    registry.tell_run(run_id, "fitting linear (1 of 2)")
    asked = run("runs", "cancel", run_id)
    assert (asked.exit_code, "--yes" in asked.stderr) == (2, True)
    done = run("runs", "cancel", run_id, "--yes", "--reason", "wrong data", "--json")
    assert json.loads(done.stdout)["verdict"] == "cancelled"
    shown = run("runs", "show", run_id).stdout
    assert "wrong data" in shown
    again = run("runs", "cancel", run_id, "--yes")
    assert (again.exit_code, "cancelled" in again.stderr) == (1, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("label", "outcome"), "--label-column"),
        (lambda text: text.replace("time", "when"), "--time-column"),
        (lambda text: text.replace("age", "years"), "h.csv:2: feature 'age' is missing"),
        (lambda text: text + "1,2,a,perhaps\n", "h.csv:402"),
        (lambda text: text + "soon,2,a,yes\n", "h.csv:402: 'soon' is no time"),
        (lambda text: text + "1,old,a,yes\n", "h.csv:402: feature 'age': 'old' is no number"),
        (lambda text: text + "1,2\n", "not as many cells"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_line(
    place: Path, change: object, message: str
) -> None:
    (place / "churn.toml").write_text(SPEC)
    run("migrate")
    file = history(place / "h.csv")
    file.write_text(change(file.read_text()))  # type: ignore[operator]
    result = run("models", "add", "churn.toml", "--data", file)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_too_little_history_is_a_recorded_refusal(place: Path) -> None:
    (place / "churn.toml").write_text(SPEC)
    run("migrate")
    result = run("models", "add", "churn.toml", "--data", history(place / "h.csv", 20))
    assert result.exit_code == 1
    assert "20 labelled examples, at least 100" in result.stderr
    assert json.loads(run("runs", "list", "--json").stdout)[0]["verdict"] == "refused"


def test_a_refused_run_tells_what_was_wrong_with_each_candidate(place: Path) -> None:
    (place / "churn.toml").write_text(SPEC.replace('"logistic_regression"', '"acme.own:build"'))
    run("migrate")
    result = run("models", "add", "churn.toml", "--data", history(place / "h.csv"))
    assert (result.exit_code, "learner_modules" in result.stderr) == (1, True)
    [refused] = json.loads(run("runs", "list", "--json").stdout)
    [candidate] = refused["candidates"]
    assert (refused["verdict"], candidate["name"]) == ("refused", "acme.own:build")
    assert "learner_modules" in candidate["problem"]
    assert "refused" in run("runs", "card", 1).stdout


def test_promotion_by_hand_shows_its_effect_and_asks_first(registry: Registry) -> None:
    register(registry)
    untried = run("models", "promote", "churn", 2, "--yes")
    assert (untried.exit_code, "--force" in untried.stderr) == (1, True)
    asked = run("models", "promote", "churn", 2, "--force")
    assert (asked.exit_code, "--yes" in asked.stderr) == (2, True)
    assert "champion of churn: 1 -> 2, version 1 stays in shadow" in asked.stderr
    done = run("models", "promote", "churn", 2, "--force", "--yes", "--json", "--reason", "why not")
    assert json.loads(done.stdout)["live"]["champion"] == 2
    assert "why not" in run("models", "history", "churn").stdout


def test_rollback_pin_and_unpin_by_hand(registry: Registry) -> None:
    register(registry)
    run("models", "promote", "churn", 2, "--force", "--yes")
    assert run("models", "rollback", "churn", "--yes").exit_code == 0
    assert run("models", "pin", "churn", "--yes").exit_code == 0
    pinned = run("models", "promote", "churn", 2, "--force", "--yes")
    assert (pinned.exit_code, "pinned" in pinned.stderr) == (1, True)
    assert run("models", "unpin", "churn", "--yes").exit_code == 0
    state = registry.live("churn")
    assert state is not None
    assert (state.champion, state.pinned) == (1, False)


def test_what_was_live_at_a_time(registry: Registry) -> None:
    state = registry.live("churn")
    assert state is not None
    now = run("models", "live-at", "churn", state.changed_ms, "--json")
    assert json.loads(now.stdout)["champion"] == 1
    before = run("models", "live-at", "churn", "2001-01-01")
    assert (before.exit_code, "not registered yet" in before.stderr) == (1, True)
    assert run("models", "live-at", "churn", "yesterday").exit_code == 2


def test_what_is_published_again_is_told_in_json(registry: Registry) -> None:
    """Its generation is newer than the one that workers have seen, though no broker answers now."""
    done = run("models", "republish", "churn", "--after", 40, "--json")
    assert (done.exit_code, json.loads(done.stdout)["generation"]) == (0, 41)


def test_what_begins_anew_is_told_in_json(monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[str] = []
    monkeypatch.setattr(forgetting, "forget", lambda _settings, stage: forgotten.append(stage))
    monkeypatch.setattr(forgetting, "keep_offsets", lambda _settings: {1: 9, 0: 7})
    told = json.loads(run("topics", "forget", "monitor", "--yes", "--json").stdout)
    assert (forgotten, told["stages"], told["offsets"]) == (
        ["monitor"],
        ["monitor", "evaluate"],
        None,
    )
    kept = json.loads(run("topics", "forget", "score", "--keep-offsets", "--yes", "--json").stdout)
    assert (forgotten, kept["offsets"]) == (["monitor"], {"0": 7, "1": 9})
    assert kept["topics"] == ["driftline.checkpoints.score.v1"]


def test_unknown_models_and_runs_are_said_so(registry: Registry) -> None:
    for command in (["show"], ["history"], ["republish"], ["pin", "--yes"]):
        result = run("models", command[0], "nobody", *command[1:])
        assert (result.exit_code, "no model 'nobody'" in result.stderr) == (2, True)
    for words in (("show", 7), ("compare", 7, 8), ("cancel", 7)):
        result = run("runs", *words)
        assert (result.exit_code, "driftline runs list" in result.output) == (2, True)


def test_doctor_goes_on_without_a_broker_or_a_registry() -> None:
    result = run("doctor", "--json")
    found = {check["what"]: check["state"] for check in json.loads(result.stdout)}
    assert (result.exit_code, found["broker"], found["registry"]) == (3, "bad", "bad")
    assert "driftline migrate" in result.stdout


def test_adding_a_model_says_what_its_alarms_promise(place: Path) -> None:
    """The smallest harm that can be certified, what is guaranteed and what is approximate."""
    (place / "churn.toml").write_text(SPEC)
    run("migrate")
    added = run("models", "add", "churn.toml", "--data", history(place / "h.csv")).stdout
    assert "at most 1 per month are expected" in added
    assert "the smallest harm that this reference can certify is a rise by" in added
    assert "\nguaranteed " in added
    assert "\napproximate " in added
    promise = json.loads(run("models", "show", "churn", "--json").stdout)["promise"]
    assert promise["validation_rows"] == 100
    assert 0 < promise["smallest_harm"] < 1
