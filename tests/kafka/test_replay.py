"""A finished log, replayed from the real broker: what was told and commanded, to the last bit."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from consumers.cli import app
from consumers.loop import RangeReader
from consumers.relay import Relay
from consumers.replay.past import Bounds, Past, ReplayError, read_past, recorded
from consumers.replay.replaying import Basis, fold, prepare
from consumers.replay.verdicts import Verdicts, difference
from consumers.replay.what_if import by_overrides, compare
from models.registry import Registry
from stream.settings import Settings
from stream.supervising import environment
from tests.kafka.loop import Stages, drain, until
from tests.kafka.traffic import LATENESS_MS, SPEC, Sender, Traffic, train
from tests.topics import quiet_client, read_all

REQUESTS = 12_000
PIECES = 60
READ = ("predictions", "feedback", "summaries", "alerts", "commands", "decisions", "lifecycle")


@pytest.fixture
def finished(settings: Settings, registry: Registry, tmp_path: Path) -> Settings:
    """A run that has ended: harm, a retrain, and after it another version, by a person's word."""
    (tmp_path / "logs").mkdir()
    stages = Stages(settings, tmp_path / "logs", score=1, monitor=2, evaluate=1)
    stages.start()
    try:
        sender = Sender(settings)
        for number, piece in enumerate(Traffic(REQUESTS, PIECES, seed=3).pieces):
            sender.send(piece)
            stages.tend()
            if number == PIECES // 3:
                stages.kill("monitor", 0)
                stages.kill("evaluate", 0)
            if number == PIECES - 10:
                until(lambda: is_commanded(settings), stages)
                train(registry, settings, seed=2)
                Relay(registry, settings).pump()
            time.sleep(0.25)
        time.sleep(LATENESS_MS / 1000 + 2)  # so that ticks of the new version close
        drain(stages)
    finally:
        stages.end()
    return settings


def is_commanded(settings: Settings) -> bool:
    return bool(read_all(settings.bootstrap_servers, settings.names.topic("commands")))


def ends(settings: Settings) -> dict[str, object]:
    """Where every topic ends, and the groups that there are."""
    with RangeReader(settings) as reader:
        told: dict[str, object] = {entity: reader.bounds(entity) for entity in READ}
    admin = AdminClient(quiet_client(settings.bootstrap_servers))
    groups = admin.list_consumer_groups().result(30).valid
    told["groups"] = sorted(group.group_id for group in groups)
    return told


def test_a_finished_log_replayed_gives_the_alerts_and_commands_that_were_told(
    finished: Settings, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a kill of two stages and a change of version; and nobody notices that it is read."""
    before = ends(finished)
    past = read_past(finished, SPEC.name, Bounds())
    told = recorded(finished, past)
    basis = prepare(finished, past, registry=registry, processes=2)
    once = fold(basis)

    assert past.journal.is_complete
    assert past.followed
    assert {adoption.generation for adoption in past.adoptions} >= {2, 3}
    assert basis.laid.same == basis.laid.made > 0
    assert basis.events["predictions"] == REQUESTS
    assert not difference(told, once.verdicts)
    assert {alert.problem for alert in told.alerts} >= {"harm"}
    assert told.commanded("retrain") == 1
    assert told.held == once.verdicts.held != []
    again = prepare(finished, past, registry=registry, processes=1)
    assert fold(again) == once
    assert ends(finished) == before

    _what_if(past, basis, once.verdicts)
    _without_what_was_followed(basis, told)
    _a_part_of_it(finished, registry, past)
    _by_the_command_line(finished, once.digest, monkeypatch)


def _what_if(past: Past, basis: Basis, was: Verdicts) -> None:
    """Had people kept retraining to themselves, the alert would be the same, the command not."""
    would = fold(basis, by_overrides(["policy.retrain=false"])).verdicts
    assert would.commanded("retrain") == 0
    assert {held.reason for held in would.held} == {"the policy leaves retraining to people"}
    compared = compare(was, would)
    assert compared.counts["retrain"] == (1, 0)
    (retrain,) = [row for row in compared.rows if row.what == "retrain"]
    assert (retrain.was_ms, retrain.would_ms) == (compared.parted_ms, None)
    assert past.model == SPEC.name


def _without_what_was_followed(basis: Basis, told: Verdicts) -> None:
    """Lifecycle followed at another moment gives other alerts: the log must tell that moment."""
    late = [one._replace(offset=basis.laid.records[-1].offset + 1) for one in basis.adoptions]
    assert difference(told, fold(basis._replace(adoptions=late)).verdicts)


def _a_part_of_it(settings: Settings, registry: Registry, whole: Past) -> None:
    """The first half is exact; the second begins without memory, and says so."""
    records = whole.journal.recorded
    middle = records[len(records) * 2 // 3]
    half = read_past(settings, SPEC.name, Bounds(until_ms=middle.timestamp_ms))
    assert whole.span.start == half.span.start < half.span.end < whole.span.end
    again = fold(prepare(settings, half, registry=registry))
    assert again.verdicts.told["accuracy"] > 0
    assert not difference(recorded(settings, half), again.verdicts)

    rest = read_past(settings, SPEC.name, Bounds(first=middle.offset))
    assert not rest.journal.is_complete
    basis = prepare(settings, rest, registry=registry)
    assert 0 < basis.events["predictions"] < REQUESTS
    assert fold(basis).verdicts.told["accuracy"] > 0
    with pytest.raises(ReplayError, match="empty"):
        read_past(settings, SPEC.name, Bounds(first=whole.span.end))


def _by_the_command_line(settings: Settings, digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(settings, 0).items():
        monkeypatch.setenv(name, value)
    asked = ["replay", SPEC.name, "--check", "--processes", "1", "--json"]
    result = CliRunner().invoke(app, [*asked, "--what-if", "policy.cooldown_seconds=0"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["digest"] == digest
    assert said["as_recorded"] is True
    assert said["what_if"]["compared"]["counts"]["alerts"][0] == len(
        {alert["alert_id"] for alert in said["verdicts"]["alerts"]}
    )
    quick = CliRunner().invoke(app, ["replay", SPEC.name, "--counts", "--check"])
    assert quick.exit_code == 0, quick.output
    assert digest in quick.stdout
