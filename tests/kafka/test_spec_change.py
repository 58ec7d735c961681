"""A spec changes under load on the real broker: nothing is lost, doubled or refused."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from consumers.dataset import load
from consumers.first_version import train_first
from consumers.loop import RangeReader
from consumers.relay import Relay
from models import artefacts, profile
from models.registry import Registry
from models.spec import Feature
from stream.settings import Settings
from tests.kafka import oracle
from tests.kafka.logs import Logs
from tests.kafka.loop import Stages, drain, until
from tests.kafka.traffic import SPEC, Event, Sender, launch, some_features, some_label
from tests.topics import make_topics

REVISED = replace(SPEC, features=(*SPEC.features, Feature(name="income", optional=True)))
PIECE, PIECES, REVISED_AT = 50, 60, 15  # requests at once, and how often; after which the revision


@pytest.mark.faults
def test_a_new_optional_feature_is_in_force_under_load_and_the_next_version_knows_it(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    """Half of the producers send it at the very moment of the revision, before any worker has heard
    of that, the others never do."""
    settings = kafka_settings.model_copy(update={"log_format": "json"})
    make_topics(settings)
    registry = launch(settings)
    (tmp_path / "logs").mkdir()
    stages = Stages(settings, tmp_path / "logs", score=2, monitor=2, evaluate=1)
    sender, dice = Sender(settings), random.Random(7)
    ids = [f"s{number:05}" for number in range(PIECE * PIECES)]
    with_income: set[str] = set()
    try:
        stages.start()
        until(lambda: stages.count("restored") >= 3 * settings.partitions, stages)
        for number in range(PIECES):
            some = ids[number * PIECE : (number + 1) * PIECE]
            if number >= REVISED_AT:
                with_income |= set(some[::2])
            if number == REVISED_AT:
                sender.send(_asked(some, with_income, dice))
                assert registry.revise_spec(REVISED, who="test").applied
                Relay(registry, settings).pump()
            else:
                sender.send(_asked(some, with_income, dice))
            stages.tend()
            time.sleep(0.1)
        until(lambda: _examples(settings) == len(ids), stages)
        version = _retrained(registry, settings)
        Relay(registry, settings).pump()
        until(lambda: _live(stages, version), stages)
        later = [f"t{number:05}" for number in range(PIECE)]
        with_income |= set(later)
        sender.send(_asked(later, with_income, dice))
        drain(stages)
    finally:
        stages.end()

    logs = Logs(settings)
    oracle.check_predictions(logs, [*ids, *later])
    oracle.check_progress(logs)
    oracle.check_replay(logs)
    oracle.check_naive(logs, lateless=False)
    made = {data["prediction_id"]: data for data in logs.data("predictions")}
    assert {id_ for id_, data in made.items() if "income" in data["features"]} == with_income
    assert {made[id_]["version"] for id_ in ids} == {1}
    assert {made[id_]["version"] for id_ in later} == {version}
    assert _counted(logs, 1) == 0
    assert _counted(logs, version) == len(later)
    _check_reference(registry, settings, len(with_income) - len(later))
    registry.close()


def _asked(ids: list[str], with_income: set[str], dice: random.Random) -> list[Event]:
    events = []
    for id_ in ids:
        features: dict[str, Any] = dict(some_features(dice))
        said = {"prediction_id": id_, "model": SPEC.name}
        label = {**said, "label": some_label(dice, features)}
        if id_ in with_income:
            features["income"] = round(dice.gauss(0, 1), 3)
        events.append(Event("requests", id_, {**said, "features": features}))
        events.append(Event("feedback", id_, label))
    return events


def _examples(settings: Settings) -> int:
    return sum(1 for _ in Logs(settings).examples())


def _retrained(registry: Registry, settings: Settings) -> int:
    """A version from what lies in the topics: records of before and after, with it and without."""
    with RangeReader(settings) as reader:
        dataset = load(reader, REVISED, reader.bounds("examples"), settings)
    assert (len(dataset.rows), dataset.unfit, dataset.gone) == (PIECE * PIECES, 0, 0)
    return train_first(registry, settings, REVISED, dataset, "test")


def _live(stages: Stages, version: int) -> bool:
    """Every process of score and monitor has heard of it."""
    told = {
        file
        for file, line in stages.logged()
        if line.get("event") == "live" and line.get("champion") == version
    }
    return len(told) == len(stages.running)


def _counted(logs: Logs, version: int) -> int:
    """Predictions of a version that are counted by the new feature."""
    whole = [d for d in logs.deltas if d.version == version and not d.segment]
    return sum(sum(d.signals.get("income", [])) for d in whole)


def _check_reference(registry: Registry, settings: Settings, values: int) -> None:
    """Only what came since the feature did, of which half has it."""
    live = registry.live(SPEC.name)
    assert live is not None
    card = live.versions[-1]
    limit = settings.max_artefact_bytes
    found = profile.decode(artefacts.fetch(card.profile_url, card.profile_digest, limit))
    signal = found.signal("income")
    assert signal is not None
    assert sum(signal.counts[:-1]) == values
    assert signal.counts[-1] == pytest.approx(values, rel=0.1)
