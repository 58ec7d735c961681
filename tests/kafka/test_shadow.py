"""A model that is served elsewhere, on the real broker: tried by what is held of it here."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path

from msgspec.structs import replace

from consumers.relay import Relay
from models.registry import Registry
from models.spec import Trial
from stream.core.shadowed import MARK
from stream.settings import Settings
from tests.kafka import oracle, traffic
from tests.kafka.logs import Logs
from tests.kafka.loop import Stages, drain, until
from tests.kafka.traffic import Event, Sender, some_features, some_label
from tests.topics import make_topics

SPEC = replace(
    traffic.SPEC,
    served="elsewhere",
    trial=Trial(cycle_seconds=0.0, segment_margin=None, minimum_pairs=100),
    policy=replace(traffic.SPEC.policy, retrain=False),
)
SEED, PIECES, PIECE = 7, 60, 100


def test_a_worse_version_that_is_served_elsewhere_is_told_to_go_back(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    """The shadow stage is killed twice: each prediction has its shadows' outputs once all the same.

    A person has promoted version 2, which says the opposite of the truth, and the outsider serves
    it; version 1 is held here. Replayed by its journal, monitor tells the same bytes again.
    """
    settings = kafka_settings.model_copy(update={"log_format": "json"})
    make_topics(settings)
    with Registry(settings.registry_url) as registry:
        registry.upgrade()
        registry.add_model(SPEC, who="test")
        traffic.train(registry, settings, spec=SPEC)
        traffic.train(registry, settings, seed=2, spec=SPEC, sign=-1.0)
        Relay(registry, settings).pump()
    (tmp_path / "logs").mkdir()
    stages = Stages(settings, tmp_path / "logs", shadow=1, monitor=1, evaluate=1)
    sender, dice = Sender(settings), random.Random(SEED)
    stages.start()
    try:
        until(lambda: stages.count("restored") >= 3 * settings.partitions, stages)
        for piece in range(PIECES):
            sender.send([e for n in range(PIECE) for e in _served(f"e{piece}-{n}", dice)])
            if piece in (20, 40):
                stages.kill("shadow", 0)
            stages.tend()
            time.sleep(0.1)
        drain(stages, chosen=["shadow", "monitor", "evaluate"])
    finally:
        stages.end()

    logs = Logs(settings)
    values = [record.value or b"" for record in logs.of("predictions")]
    told = [json.loads(value)["data"] for value in values if MARK in value]
    assert len(values) - len(told) == PIECES * PIECE
    assert len(told) == PIECES * PIECE
    assert set(Counter(data["prediction_id"] for data in told).values()) == {1}
    assert {tuple(data["shadow"]) for data in told} == {("1",)}
    oracle.check_replay(logs)
    rollback, *more = logs.data("commands")
    assert (rollback["kind"], rollback["version"], more) == ("rollback", 1, [])
    assert rollback["evidence"]["shadow_loss"] < rollback["evidence"]["champion_loss"]


def _served(id_: str, dice: random.Random) -> list[Event]:
    """What an outsider writes: a prediction of version 2, and soon the truth."""
    features = some_features(dice)
    said = {"prediction_id": id_, "model": SPEC.name}
    wrong = 0.9 if some_label(dice, features) == SPEC.classes[0] else 0.1
    made = {**said, "version": 2, "output": wrong, "features": features}
    label = {**said, "label": some_label(dice, features)}
    return [Event("predictions", id_, made), Event("feedback", id_, label)]
