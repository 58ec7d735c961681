"""A canary on the real broker: some keys are answered by it, whoever scores them, each once."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

from msgspec.structs import replace

from consumers import proving
from consumers.loop import RangeReader
from consumers.relay import Relay
from models.registry import Registry
from models.spec import Trial
from stream.settings import Settings
from tests.kafka import oracle, traffic
from tests.kafka.logs import Logs
from tests.kafka.loop import Stages, drain, until
from tests.kafka.traffic import Event, Sender, some_features, some_label
from tests.topics import make_topics

SHARE = 0.3
SPEC = replace(
    traffic.SPEC,
    ticks=replace(traffic.SPEC.ticks, allowed_lateness_seconds=1.0),
    trial=Trial(cycle_seconds=0.0, segment_margin=None, canary_share=SHARE, canary_pairs=300),
    policy=replace(traffic.SPEC.policy, retrain=False),
)
PIECE, AFTER, MOST = 100, 20, 400  # requests at once; pieces after the promotion, and in all


def test_a_challenger_that_is_proven_answers_a_share_and_then_all(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    """Version 2 has learnt the opposite of the truth, version 1 challenges it; commands are obeyed
    as they come. Workers of score are killed meanwhile."""
    settings = kafka_settings.model_copy(update={"log_format": "json"})
    make_topics(settings)
    registry = Registry(settings.registry_url)
    registry.upgrade()
    registry.add_model(SPEC, who="test")
    traffic.train(registry, settings, spec=SPEC)
    traffic.train(registry, settings, seed=2, spec=SPEC, sign=-1.0)
    assert registry.settle(SPEC.name).applied
    assert registry.challenge(SPEC.name, 1).applied
    relay = Relay(registry, settings)
    relay.pump()
    (tmp_path / "logs").mkdir()
    stages = Stages(settings, tmp_path / "logs", score=2, monitor=1, evaluate=1)
    sender, dice = Sender(settings), random.Random(7)
    stages.start()
    obeyed: list[str] = []
    pieces = after = 0
    try:
        until(lambda: stages.count("restored") >= 3 * settings.partitions, stages)
        while after < AFTER and pieces < MOST:
            sender.send([e for n in range(PIECE) for e in _asked(f"c{pieces}-{n}", dice)])
            pieces, after = pieces + 1, after + (len(obeyed) == 2)
            if pieces in (15, 30):
                stages.kill("score", pieces % 2)
            stages.tend()
            time.sleep(0.1)
            obeyed += _obey(settings, registry, obeyed)
            relay.pump()
        drain(stages)
    finally:
        stages.end()

    assert obeyed == ["canary", "promote"]
    logs = Logs(settings)
    made = [json.loads(record.value or b"")["data"] for record in logs.of("predictions")]
    assert len({one["prediction_id"] for one in made}) == len(made) == pieces * PIECE
    entry = next(e for e in registry.history(SPEC.name) if e.action == "canary")
    both = [one for one in made if one["generation"] == entry.generation]
    answered = [one for one in both if one["version"] == 1]
    assert all(set(one["shadow"]) == {"2"} for one in answered)
    assert abs(len(answered) / len(both) - SHARE) < 5 * (SHARE * (1 - SHARE) / len(both)) ** 0.5
    oracle.check_replay(logs)
    with RangeReader(settings) as reader:
        spans = reader.bounds("predictions")
        told = list(proving.predictions(reader, SPEC.name, spans, settings.max_event_bytes))
    assert proving.prove(registry.history(SPEC.name), told).contradictions == 0
    registry.close()


def _obey(settings: Settings, registry: Registry, obeyed: list[str]) -> list[str]:
    """Do what new commands say; their kinds."""
    commands = list(Logs(settings).data("commands"))[len(obeyed) :]
    for command in commands:
        outcome = getattr(registry, command["kind"])(
            SPEC.name,
            command["version"],
            expected_generation=command["generation"],
            command_id=command["command_id"],
        )
        assert outcome.applied, outcome
    return [command["kind"] for command in commands]


def _asked(id_: str, dice: random.Random) -> list[Event]:
    features = some_features(dice)
    said = {"prediction_id": id_, "model": SPEC.name}
    label = {**said, "label": some_label(dice, features)}
    return [Event("requests", id_, {**said, "features": features}), Event("feedback", id_, label)]
