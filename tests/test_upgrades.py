"""Versions beside each other: what a release wrote, this code reads; what a newer one wrote, it
reads where fields were added, and refuses before it touches anything where a format is new."""

from __future__ import annotations

import base64
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from models import profile, serving
from models.database import RegistryOutdated, revisions
from models.registry import Registry
from models.spec import read_spec
from stream import checkpoints
from stream.core.decoding import decode
from stream.core.processor import CoreSettings, Record
from stream.envelope import open_record
from stream.envelope import read as read_event
from stream.errors import CheckpointError, Refused
from stream.events import EVENT_TYPES
from stream.topics import STAGES, Stage
from tests import fleets, golden
from tests.golden import Golden, Kept

FILES = sorted(golden.FOLDER.glob("*.json"))
RELEASES = [pytest.param(golden.read(path), id=path.stem) for path in FILES]
released = pytest.mark.parametrize("release", RELEASES)


def with_more(kept: Kept) -> dict[bytes, bytes]:
    """The checkpoint as a newer version of the same format may write it: with further fields."""
    records = golden.latest(kept)
    manifest = msgspec.json.decode(records[b"manifest"])
    for name in manifest["parts"]:
        key = f"part/{name}".encode()
        part = records[key]
        if part[:1] == b"{":
            records[key] = part[:-1] + b',"added_later":{"x":[1]}}'
            manifest["parts"][name] = checkpoints.digest(records[key])
    records[b"manifest"] = msgspec.json.encode(manifest | {"added_later": 1})
    return records


def problems(outputs: list[tuple[str, str]]) -> set[tuple[str, str]]:
    """What was found and what was asked for."""
    return {
        (entity, msgspec.json.decode(value)["data"]["problem" if entity == "alerts" else "kind"])
        for entity, value in outputs
        if entity in ("alerts", "commands")
    }


@pytest.mark.parametrize(
    ("release", "kind"),
    [
        pytest.param(golden.read(path), kind, id=f"{path.stem}-{kind}")
        for path in FILES
        for kind in golden.read(path).events
    ],
)
def test_an_event_of_a_release_is_read_whole(release: Golden, kind: str) -> None:
    """No field that was written is lost or means something else."""
    value = release.events[kind].encode()
    struct, entity = EVENT_TYPES[kind]
    place = "feedback" if entity == "*" else entity

    opened = open_record(place, Record(0, 1, b"k", value, ()), max_bytes=10**6)
    again = msgspec.json.decode(msgspec.json.encode(read_event(opened, struct)))

    written = msgspec.json.decode(value)["data"]
    assert golden.says(again, written)
    assert again.get("evidence") == written.get("evidence")


@released
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_goes_on_from_a_release_s_checkpoint(release: Golden, stage: Stage) -> None:
    """Restored from the release's bytes, it makes the same outputs of the same records."""
    kept = release.stages[stage]

    assert not golden.missing(golden.go_on(golden.restored(stage, kept), stage, kept), kept)
    assert kept.outputs


@released
def test_verdicts_go_on_from_a_release_s_checkpoint(release: Golden) -> None:
    """What a release had open or found afterwards is found by this version too."""
    kept = release.stages["evaluate"]

    found = problems(golden.go_on(golden.restored("evaluate", kept), "evaluate", kept))
    assert problems(kept.outputs) <= found


@released
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_goes_on_where_a_newer_version_added_fields(release: Golden, stage: Stage) -> None:
    """Back from N to N-1 with live state: what is not known is left out, the rest is the same."""
    kept = release.stages[stage]
    checkpoint = checkpoints.parse(with_more(kept), stage, 0)
    assert checkpoint is not None
    one = golden.processor(stage)
    one.restore(checkpoint.parts)

    assert not golden.missing(golden.go_on(one, stage, kept), kept)


@released
def test_a_checkpoint_of_a_newer_format_is_refused_by_name(release: Golden) -> None:
    records = golden.latest(release.stages["monitor"])
    manifest = msgspec.json.decode(records[b"manifest"]) | {"format": checkpoints.FORMAT + 1}
    records[b"manifest"] = msgspec.json.encode(manifest)

    with pytest.raises(CheckpointError, match=f"reads format {checkpoints.FORMAT}"):
        checkpoints.parse(records, "monitor", 0)


def test_an_event_of_a_newer_type_becomes_a_dead_letter() -> None:
    """It is kept whole for the version that knows it; its neighbours are taken."""
    attributes = {"specversion": "1.0", "id": "1", "source": "s", "data": {}}
    newer = attributes | {"type": "driftline.prediction.requested.v2"}
    record = Record(0, 1, b"k", msgspec.json.encode(newer), ())

    [(refused, why)] = decode(
        "requests", [record], {"churn": fleets.FakeLive()}, CoreSettings()
    ).refused

    assert (refused, why.reason) == (record, "unknown-event")


def test_a_lifecycle_record_of_a_newer_type_is_refused() -> None:
    value = msgspec.json.encode(
        {"specversion": "1.0", "id": "1", "source": "s", "type": "driftline.lifecycle.changed.v2"}
        | {"data": {}}
    )

    with pytest.raises(Refused, match="is not an event of lifecycle"):
        open_record("lifecycle", Record(0, 1, b"churn", value, ()), max_bytes=10**6)


def _load(sql: str, path: Path) -> str:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)
    return f"sqlite:///{path}"


@released
def test_a_registry_of_a_release_is_migrated_and_read(release: Golden, tmp_path: Path) -> None:
    """Its models, versions, history and runs are all there afterwards."""
    with Registry(_load(release.registry, tmp_path / "registry.db")) as registry:
        registry.upgrade()

        assert registry.ping().current
        assert [live.model for live in registry.models()] == ["churn"]
        [live] = registry.models()
        assert (live.champion, list(live.challengers)) == (1, [2])
        assert [fact.action for fact in registry.history("churn")][:1] == ["add"]
        assert len(registry.versions("churn")) == 2
        assert len(registry.runs("churn")) == 1


def test_every_schema_that_was_released_can_be_migrated_from() -> None:
    """No migration script of a release is ever taken out."""
    assert {golden.read(path).registry_revision for path in FILES} <= revisions()


@released
def test_a_registry_of_a_newer_version_is_left_alone(release: Golden, tmp_path: Path) -> None:
    """Neither waiting for it nor migrating changes a byte; the message says what to do."""
    path = tmp_path / "registry.db"
    url = _load(release.registry.replace(release.registry_revision, "9999"), path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    before = path.read_bytes()
    with Registry(url) as registry:
        with pytest.raises(RegistryOutdated, match="made by a newer version"):
            registry.wait(0)
        with pytest.raises(RegistryOutdated, match="Nothing was changed"):
            registry.upgrade()

    assert path.read_bytes() == before


@released
def test_an_artefact_of_a_release_predicts_as_it_did(release: Golden) -> None:
    spec = read_spec(release.spec)
    model = serving.load(base64.b64decode(release.artefact), spec)
    model.warm_up()

    assert golden.predictions(release) == [
        pytest.approx(row, abs=1e-9) for row in release.predictions
    ]
    assert profile.decode(release.profile.encode()).rows > 0
