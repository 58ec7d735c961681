"""What every benchmark works on: one model of eight numbers, its requests and their feedback."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from models import artefacts, serving
from models.additive import additive
from models.examples import Examples
from models.profile import encode
from models.spec import Feature, Labels, ModelSpec, Ticks, Training
from models.training import Trained, fit
from stream.envelope import derived_id, write
from stream.events import LifecycleChanged, VersionCard
from stream.settings import Settings
from tests.topics import Sent, make_topics, produce

SEED: Final = 7
TRAINING_ROWS: Final = 4_000
SPEC: Final = ModelSpec(
    name="bench",
    task="binary",
    classes=("no", "yes"),
    features=tuple(Feature(name=f"x{number}") for number in range(8)),
    labels=Labels(horizon_seconds=3600),
    ticks=Ticks(seconds=10, allowed_lateness_seconds=5),
    training=Training(candidates=("logistic_regression",)),
)


class Version(NamedTuple):
    """One fitted version, as bytes."""

    artefact: bytes
    profile: bytes


def versions(count: int) -> list[Version]:
    """So many different versions of the model: a scaler and a logistic regression each."""
    return [_version(SEED + number) for number in range(count)]


def requests(count: int, *, prefix: str = "r") -> Iterator[Sent]:
    """Plain JSON without headers, about 170 bytes, as any producer would write it."""
    for body in _bodies(count, prefix):
        yield Sent(body["prediction_id"].encode(), msgspec.json.encode(body))


def predictions(count: int) -> Iterator[Sent]:
    """Of the same requests, as a serving system writes them that scores by itself."""
    outputs = np.random.default_rng(SEED + 2).random(count).round(6).tolist()
    for body, output in zip(_bodies(count, "r"), outputs, strict=True):
        said = body | {"version": 1, "output": output}
        yield Sent(body["prediction_id"].encode(), msgspec.json.encode(said))


def _bodies(count: int, prefix: str) -> Iterator[dict[str, Any]]:
    features = np.random.default_rng(SEED).normal(size=(count, 8)).round(4).tolist()
    names = SPEC.feature_names
    for number, row in enumerate(features):
        yield {
            "prediction_id": f"{prefix}-{number:08d}",
            "model": SPEC.name,
            "features": dict(zip(names, row, strict=True)),
        }


def feedback(count: int, *, prefix: str = "r") -> Iterator[Sent]:
    """A label for each of the requests of the same prefix."""
    labels = np.random.default_rng(SEED + 1).random(count) < 0.5
    for number, label in enumerate(labels):
        yield feedback_for(f"{prefix}-{number:08d}", bool(label))


def feedback_for(prediction_id: str, label: bool) -> Sent:
    body = {"prediction_id": prediction_id, "model": SPEC.name, "label": label}
    return Sent(prediction_id.encode(), msgspec.json.encode(body))


def go_live(settings: Settings, fitted: Sequence[Version], spec: ModelSpec = SPEC) -> None:
    """Make the topics and say that the first version is champion and the others score in shadow."""
    make_topics(settings)
    announce(settings, fitted, challengers=range(2, len(fitted) + 1), spec=spec)


def announce(
    settings: Settings,
    fitted: Sequence[Version],
    *,
    champion: int = 1,
    challengers: Sequence[int] = (),
    spec: ModelSpec = SPEC,
) -> None:
    """Say on `lifecycle` what is live; the champion's number is the generation, too."""
    store = artefacts.open_store(settings.artefact_url)
    named = (champion, *challengers)
    cards = [card(store, number, fitted[number - 1]) for number in named]
    now_ms = time.time_ns() // 1_000_000
    changed = LifecycleChanged(
        model=spec.name,
        generation=champion,
        spec=spec,
        spec_revision=1,
        champion=champion,
        challengers=list(challengers),
        versions=cards,
        changed_ms=now_ms,
        cause="benchmark",
    )
    value = write(
        "driftline.lifecycle.changed.v1",
        changed,
        id=derived_id("benchmark", settings.topic_prefix, champion),
        source="benchmarks",
        time_ms=now_ms,
    )
    topic = settings.names.topic("lifecycle")
    produce(settings.bootstrap_servers, topic, [Sent(spec.name.encode(), value)])


def benchmark_settings(bootstrap: str, prefix: str, folder: Path) -> Settings:
    """Settings as shipped, but for where things are."""
    return Settings(
        bootstrap_servers=bootstrap,
        topic_prefix=prefix,
        registry_url=f"sqlite:///{folder}/registry.db",
        artefact_url=f"file:{folder}/artefacts",
    )


def write_weights(version: Version, folder: Path) -> Path:
    """A version as the weights that other tools predict with, in a JSON file."""
    model = serving.load(version.artefact, SPEC)
    short = additive(model.pipeline, model.coder)
    assert short is not None, "the benchmark's pipeline is linear"
    weights = dict(zip(SPEC.feature_names, short.weights[:, 0].tolist(), strict=True))
    path = folder / "weights.json"
    path.write_bytes(
        msgspec.json.encode({"weights": weights, "intercept": float(short.intercept[0])})
    )
    return path


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give a child process these settings."""
    given = settings.model_dump(include=settings.model_fields_set, mode="json")
    return {f"DRIFTLINE_{name.upper()}": str(value) for name, value in given.items()}


def _version(seed: int) -> Version:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(TRAINING_ROWS, 8)).round(4)
    logits = rows @ random.normal(size=8)
    labels = (random.random(TRAINING_ROWS) < 1 / (1 + np.exp(-logits))).astype(np.float64)
    times_ms = np.arange(TRAINING_ROWS, dtype=np.int64) * 1000
    known = [tuple(row) for row in rows.tolist()]
    trained: Trained = fit(SPEC, Examples(known, labels, times_ms, np.ones(TRAINING_ROWS)), seed)
    return Version(trained.artefact, encode(trained.profile))


def card(store: artefacts.Store, number: int, version: Version) -> VersionCard:
    """Put a version's bytes in a store; where they lie."""
    artefact, profile = store.put(version.artefact), store.put(version.profile)
    return VersionCard(
        version=number,
        artefact_url=store.url(artefact),
        artefact_digest=artefact,
        profile_url=store.url(profile),
        profile_digest=profile,
    )
