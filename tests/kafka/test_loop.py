"""The whole loop on the real broker: whatever happens to its processes, every event counts once.

Parameters of the first test: LOOP_REQUESTS, LOOP_KILLS, LOOP_SEED.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consumers import proving
from consumers.loop import RangeReader
from consumers.relay import Relay
from models.registry import Registry
from stream.settings import Settings
from stream.topics import HEADER_REROUTED
from tests.kafka import oracle
from tests.kafka.logs import Logs
from tests.kafka.loop import Offsets, Stages, drain, until
from tests.kafka.traffic import (
    SPEC,
    Event,
    Sender,
    Traffic,
    launch,
    promote_corrupt,
    some_features,
    train,
)
from tests.topics import make_topics

REQUESTS = int(os.environ.get("LOOP_REQUESTS", "200000"))
KILLS = int(os.environ.get("LOOP_KILLS", "20"))
SEED = int(os.environ.get("LOOP_SEED", "7"))
BETWEEN_KILLS_SECONDS = 4.0  # on average
DRAIN_SECONDS = float(os.environ.get("LOOP_DRAIN", "300"))
FIRST_MS = 1_700_000_000_000  # of a replayed run
COUNTED = ("requests", "feedback", "predictions", "examples", "summaries", "accuracy")
LONG_MS = 10 * 3_600_000  # past every horizon

Start = Callable[..., Stages]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts stage processes, as many of each as are asked for; they end with the test."""
    started: list[Stages] = []

    def begin(settings: Settings, **numbers: int) -> Stages:
        (tmp_path / "logs").mkdir()
        stages = Stages(settings, tmp_path / "logs", **numbers)
        started.append(stages)
        stages.start()
        partitions = settings.partitions * len(numbers)
        _until_restored(stages, partitions)
        return stages

    yield begin
    for stages in started:
        stages.end()


@pytest.mark.timeout(900)
def test_loop_survives_kills(settings: Settings, registry: Registry, start: Start) -> None:
    """SIGKILLs of random stage processes at random moments: nothing lost, doubled or mis-folded."""
    begun = time.monotonic()
    traffic = Traffic(REQUESTS, pieces=max(10, 10 * KILLS), seed=SEED)
    stages = start(settings, score=2, monitor=2, evaluate=2)
    _publish_and_kill(traffic, stages)
    published = time.monotonic()
    drain(stages, DRAIN_SECONDS)
    drained = time.monotonic()

    logs = Logs(settings)
    naive = oracle.check_all(logs, traffic.ids, lateless=False)
    assert {id_ for id_, revision, _ in naive.examples if revision == 0} == traffic.labelled
    assert len(naive.examples) == len(traffic.labelled) + traffic.counts["corrections"]
    for name in ("duplicates", "corrections", "orphans"):
        assert naive.counters[name] == traffic.counts[name]
    opened = [data["problem"] for data in logs.data("alerts") if data.get("revision", 0) == 0]
    assert "harm" in opened
    assert [data["kind"] for data in logs.data("commands")] == ["retrain"]
    last = oracle.last_accuracy(logs)
    seconds = {"published": published - begun, "drained": drained - published}
    seconds["checked"] = time.monotonic() - drained
    counted = {
        **{name: len(logs.of(name)) for name in COUNTED},
        "counters": dict(naive.counters),
        "kills": dict(stages.kills),
        "ended_by_themselves": dict(stages.failures),
        "restores": stages.count("restored"),
        "fenced": stages.count("fenced"),
        "alerts": opened,
        "last_accuracy": [last.predictions, last.labelled, last.metrics["accuracy"].value],
        "seconds": {name: round(value) for name, value in seconds.items()},
    }
    print(json.dumps(counted))


def _publish_and_kill(traffic: Traffic, stages: Stages) -> None:
    dice = random.Random(SEED)
    sender = Sender(stages.settings)
    pieces = len(traffic.pieces)
    kill_after = set(dice.sample(range(pieces), KILLS))
    pace = BETWEEN_KILLS_SECONDS * KILLS / pieces
    for number, piece in enumerate(traffic.pieces):
        sent = time.monotonic()
        sender.send(piece)
        stages.tend()
        if number in kill_after:
            time.sleep(dice.uniform(0, pace))
            stages.kill(*dice.choice(sorted(stages.running)))
        time.sleep(max(0.0, pace - (time.monotonic() - sent)))


@pytest.mark.timeout(900)
def test_three_stages_in_a_chain_with_sigstop_zombie(
    kafka_settings: Settings, start: Start
) -> None:
    """One process of each stage stands still past the session timeout and wakes: no effect.

    Event time is a replayer's here, so even the ticks in which labels arrive are known.
    """
    update = {"log_format": "json", "clock": "event"}
    settings = kafka_settings.model_copy(update=update)
    make_topics(settings)
    launch(settings).close()
    traffic = Traffic(12_000, pieces=120, seed=SEED)
    stages = start(settings, score=2, monitor=2, evaluate=2)
    sender = Sender(settings, FIRST_MS)
    victims = [stages.running["score", 0], stages.running["monitor", 1]]
    victims.append(stages.running["evaluate", 0])
    restored = 0
    for number, piece in enumerate(traffic.pieces):
        sender.send(piece)
        stages.tend()
        if number == 30:
            restored = stages.count("restored")
            _send_signal(victims, signal.SIGSTOP)
        if number == 100:
            _until_restored(stages, restored + 6)  # what the sleepers held was taken over
            _send_signal(victims, signal.SIGCONT)
        time.sleep(0.2)
    drain(stages, DRAIN_SECONDS, ["score"])  # what it says must not come behind the clock
    sender.tell_clock(sender.clock_ms + LONG_MS)
    drain(stages, DRAIN_SECONDS)

    naive = oracle.check_all(Logs(settings), traffic.ids, lateless=True)

    assert naive.counters["orphans"] == traffic.counts["orphans"]
    assert naive.counters["expired"] == len(traffic.ids) - len(traffic.labelled)
    print(dict(naive.counters), dict(stages.failures), "fenced:", stages.count("fenced"))


def _until_restored(stages: Stages, times: int) -> None:
    until(lambda: stages.count("restored") >= times, stages)


def _send_signal(victims: list[subprocess.Popen[bytes]], number: int) -> None:
    for victim in victims:
        if victim.poll() is None:
            victim.send_signal(number)


@pytest.mark.timeout(900)
def test_version_swaps_between_two_events(
    settings: Settings, registry: Registry, start: Start
) -> None:
    """A promotion under load while a partition moves; a broken version after it is refused."""
    stages = start(settings, score=1, monitor=1, evaluate=1)
    traffic = Traffic(12_000, pieces=120, seed=SEED)
    sender = Sender(settings)
    relay = Relay(registry, settings)
    before = registry.live(SPEC.name)
    for number, piece in enumerate(traffic.pieces):
        sender.send(piece)
        stages.tend()
        if number == 20:
            _until_scored(stages)
        if number == 40:
            stages.start_one("score", 1)
            assert train(registry, settings, seed=2) == 2
            relay.pump()
        if number == 80:  # whoever starts after it has no version to go on with
            _until_restored(stages, 3 * settings.partitions + settings.partitions // 2)
            promote_corrupt(registry, settings)
            relay.pump()
        time.sleep(0.1)
    until(lambda: _alerts(settings) != [], stages)
    drain(stages, DRAIN_SECONDS)

    logs = Logs(settings)
    oracle.check_predictions(logs, traffic.ids)
    seen = oracle.check_generations(logs)
    oracle.check_progress(logs)
    oracle.check_replay(logs)
    oracle.check_naive(logs, lateless=False)
    oracle.check_offsets(logs)
    after = registry.live(SPEC.name)
    assert before is not None
    assert after is not None
    for partition, counts in seen.items():
        versions = {version for _, version in counts}
        assert versions == {1, 2}, f"partition {partition}: {counts}"
        generations = {version: generation for generation, version in counts}
        assert len(counts) == 2
        assert before.generation <= generations[1] < generations[2] < after.generation
    (alert,) = {data["alert_id"]: data for data in _alerts(settings)}.values()
    assert (alert["problem"], alert["verdict"]) == ("bad-artefact:3", "operation failed")
    assert after.champion == 3
    _check_history(settings, registry, len(traffic.ids))
    print(seen)


def _check_history(settings: Settings, registry: Registry, expected: int) -> None:
    """What was live at any time, by the registry, is what served then, by the predictions.

    But for the moments that a swap takes, and what follows a version that nobody can load.
    """
    with RangeReader(settings) as reader:
        spans = reader.bounds("predictions")
        made = list(proving.predictions(reader, SPEC.name, spans, settings.max_event_bytes))
    proof = proving.prove(registry.history(SPEC.name), made)
    assert len(made) == expected
    assert (proof.contradictions, proof.elsewhere) == (0, 0)
    by_version = {one.version: one for one in proof.served}
    swap_ms = by_version[1].behind_ms
    assert swap_ms < 120_000
    assert by_version[2].behind_ms > 1_000  # version 3 was promoted, and never served
    for one in made[::50]:
        live = registry.live_at(SPEC.name, one.stamp_ms)
        before = registry.live_at(SPEC.name, one.stamp_ms - swap_ms - 1)
        assert live is not None
        assert before is not None
        if live.champion != 3:
            assert one.version in (live.champion, before.champion)


def _until_scored(stages: Stages) -> None:
    """Every partition has applied something with the version that is live now."""
    offsets = Offsets(stages.settings, "score")
    until(lambda: min(offsets.committed().values()) > 0, stages)
    offsets.close()


def _alerts(settings: Settings) -> list[dict[str, Any]]:
    found = list(Logs(settings).data("alerts"))
    return [data for data in found if data["problem"].startswith("bad-artefact")]


@pytest.mark.timeout(900)
def test_misrouted_events_are_rerouted_and_join(
    settings: Settings, registry: Registry, start: Start
) -> None:
    """Predictions made elsewhere and feedback, by whatever partitioner, meet all the same."""
    dice = random.Random(SEED)
    ids = [f"m{number:05}" for number in range(4_000)]
    predictions = [
        Event("predictions", id_, _prediction(id_, dice), dice.randrange(settings.partitions))
        for id_ in ids
    ]
    feedback = [
        Event("feedback", id_, _said(id_, dice), dice.randrange(settings.partitions)) for id_ in ids
    ]
    stages = start(settings, monitor=2)
    sender = Sender(settings)
    for first in range(0, len(ids), 500):
        sender.send(feedback[first : first + 250])
        sender.send(predictions[first : first + 500])
        sender.send(feedback[first + 250 : first + 500])
        time.sleep(0.3)
    drain(stages, DRAIN_SECONDS)

    logs = Logs(settings)
    oracle.check_progress(logs)
    oracle.check_replay(logs)
    naive = oracle.check_naive(logs, lateless=False)
    assert sorted(id_ for id_, _, _ in naive.examples) == ids
    for entity, sent in (("predictions", predictions), ("feedback", feedback)):
        _check_sent_on(logs, entity, sent)


def _check_sent_on(logs: Logs, entity: str, sent: list[Event]) -> None:
    """Each record that lay in a wrong partition was copied to the right one, once, with a mark."""
    landed = Counter(
        (record.key, record.partition)
        for record in logs.of(entity)
        if any(name == HEADER_REROUTED for name, _ in record.headers)
    )
    right = {event.key: logs.right_partition(event.key.encode()) for event in sent}
    astray = [event.key for event in sent if event.partition != right[event.key]]
    assert len(astray) > len(sent) / 2
    assert landed == Counter((key.encode(), right[key]) for key in astray)


def _prediction(id_: str, dice: random.Random) -> dict[str, Any]:
    features = some_features(dice)
    output = round(dice.random(), 3)
    said = {"prediction_id": id_, "model": SPEC.name, "version": 1}
    return {**said, "output": output, "features": features}


def _said(id_: str, dice: random.Random) -> dict[str, Any]:
    return {"prediction_id": id_, "model": SPEC.name, "label": dice.choice(SPEC.classes)}
