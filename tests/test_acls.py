"""The rights of each service: least, whole, and the same wherever they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from consumers import acls
from stream.topics import OUTPUTS, SINK_GROUPS, STAGES, TOPICS, Names
from tests.commands import run

NAMES = Names()
SHIPPED = Path(__file__).parents[1] / "deploy" / "acls.sh"
OPEN = {NAMES.topic(topic.entity) for topic in TOPICS if topic.open}


def writers(topic: str) -> set[str]:
    return {
        acl.service
        for acl in acls.listing(NAMES)
        if acl.name == topic and acl.resource == "topic" and "Write" in acl.operations
    }


def test_the_shipped_file_is_what_the_table_says() -> None:
    """`driftline topics acls >> deploy/acls.sh` after a change, with the head kept."""
    lines = [line for line in SHIPPED.read_text().splitlines() if line.startswith("$KAFKA_ACLS")]
    assert lines == [line for line in acls.commands(NAMES) if not line.startswith("\n")]


def test_the_command_prints_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    printed = run("topics", "acls").stdout
    assert printed.strip() == "\n".join(acls.commands(NAMES)).strip()
    listed = json.loads(run("topics", "acls", "--principal", "User:CN={service}", "--json").stdout)
    assert listed[0]["principal"] == "User:CN=score"
    assert len(listed) == len(acls.listing(NAMES))


@pytest.mark.parametrize(
    ("entity", "who"),
    [
        ("commands", {"evaluate"}),
        ("lifecycle", {"trainer", "operator", "console"}),
        ("accuracy", {"evaluate"}),
        ("examples", {"monitor"}),
        ("checkpoints.monitor", {"monitor"}),
        ("predictions", {"score", "monitor", "shadow", "bridge", "scorer", "operator"}),
    ],
)
def test_what_decides_is_written_by_few(entity: str, who: set[str]) -> None:
    assert writers(NAMES.topic(entity)) == who


def test_the_reader_reads_nobodys_features() -> None:
    """Verdicts are for many eyes; requests, predictions, labels and dead letters are not."""
    read = {acl.name for acl in acls.listing(NAMES) if acl.service == "reader" and "Read" in acl[5]}
    assert not {name for name in read if name.endswith(".dlq")} | (read & OPEN)
    assert NAMES.topic("examples") not in read


def test_people_at_the_command_line_read_what_their_commands_rest_on() -> None:
    """`models republish` asks lifecycle; `models reference --from` and `models history --prove`
    read what was predicted and how it turned out."""
    rules = [acl for acl in acls.listing(NAMES) if acl.service == "operator"]
    read = {acl.name for acl in rules if acl.resource == "topic" and "Read" in acl.operations}
    assert {NAMES.topic(e) for e in ("alerts", "lifecycle", "predictions", "feedback")} <= read


def test_the_groups_of_all_sinks_are_seen_by_whoever_looks_at_lag() -> None:
    """A sink's name is its owner's to choose, so the right is for all that begin so."""
    [seen] = [
        acl
        for acl in acls.listing(NAMES)
        if (acl.service, acl.name) == ("reader", NAMES.group(SINK_GROUPS))
    ]
    assert (seen.resource, seen.prefixed, seen.operations) == ("group", True, ("Describe",))


def test_every_stage_may_write_what_it_writes_and_join_its_own_group_alone() -> None:
    rules = acls.listing(NAMES)
    for stage in STAGES:
        mine = [acl for acl in rules if acl.service == stage]
        written = {acl.name for acl in mine if "Write" in acl.operations}
        assert {NAMES.topic(entity) for entity in OUTPUTS[stage]} < written
        assert [a.name for a in mine if (a.resource, a.operations) == ("group", ("Read",))] == [
            NAMES.group(stage)
        ]


def test_nobody_but_the_admin_makes_topics() -> None:
    assert {acl.service for acl in acls.listing(NAMES) if "Create" in acl.operations} == {"admin"}
