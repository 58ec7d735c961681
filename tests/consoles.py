"""What the tests of the console share: events, a scene that fills every panel, a served console."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from confluent_kafka import Producer
from msgspec import Struct

from consumers.console.board import Entry
from consumers.console.history import Came
from consumers.console.routes import Parts
from consumers.console.service import assembled, guarded
from consumers.demo.embedded import PARTITIONS
from models.artefacts import open_store
from models.profile import ReferenceProfile, SignalProfile, Validation, encode
from models.registry import Registry
from models.spec import Feature, ModelSpec, Window
from stream.core.partitioning import partition_of
from stream.envelope import derived_id, write
from stream.events import (
    AccuracyMeasured,
    Alert,
    Command,
    DriftMeasured,
    FeedbackReceived,
    GenerationAdopted,
    LifecycleChanged,
    Measure,
    PredictionMade,
    RetrainHeld,
)
from stream.settings import Settings
from tests.broker import free_ports
from tests.patience import PATIENCE_SECONDS

SCRIPT = "<img src=x onerror=alert(1)>"  # a feature's name, which a page must show as it is
HOUR = 3_600_000
START = 1_795_000_000_000
SPEC = ModelSpec(
    name="churn",
    task="binary",
    classes=("stays", "leaves"),
    features=(
        Feature(name="age"),
        Feature(name="plan", type="categorical"),
        Feature(name=SCRIPT),
    ),
    segments=("plan",),
    windows=(Window(seconds=86_400.0), Window(labels=1000)),
    owner="retention team",
)
PROFILE = ReferenceProfile(
    model="churn",
    rows=1000,
    signals=(
        SignalProfile(
            name="age",
            kind="numeric",
            counts=(0, 300, 400, 300, 0, 0),
            edges=(18.0, 30.0, 50.0, 90.0),
        ),
        SignalProfile(
            name="plan", kind="categorical", counts=(600, 400, 0, 0), categories=("basic", "gold")
        ),
        SignalProfile(
            name=SCRIPT, kind="numeric", counts=(0, 500, 500, 0, 0), edges=(0.0, 1.0, 2.0)
        ),
    ),
    validation=Validation(n=500, loss_bins=(500,), loss_scale=4.0, metrics={"correct": 0.91}),
)
KINDS = {
    AccuracyMeasured: ("accuracy", "driftline.accuracy.measured.v1"),
    DriftMeasured: ("drift", "driftline.drift.measured.v1"),
    Command: ("commands", "driftline.command.retrain.v1"),
    RetrainHeld: ("decisions", "driftline.retrain.held.v1"),
    GenerationAdopted: ("decisions", "driftline.generation.adopted.v1"),
    LifecycleChanged: ("lifecycle", "driftline.lifecycle.changed.v1"),
    PredictionMade: ("predictions", "driftline.prediction.made.v1"),
    FeedbackReceived: ("feedback", "driftline.feedback.received.v1"),
}


def measured(
    value: float = 0.9,
    *,
    model: str = "churn",
    version: int = 1,
    hour: int = 24,
    champion: bool = True,
    **more: Any,
) -> AccuracyMeasured:
    """A day's accuracy, as of an hour after START."""
    figures: dict[str, Any] = {
        "window": "86400s",
        "start_ms": START + (hour - 24) * HOUR,
        "end_ms": START + hour * HOUR,
        "predictions": 1000,
        "labelled": 800,
        "coverage": 0.8,
        "metrics": {
            "accuracy": Measure(value=value, low=value - 0.02, high=value + 0.02),
            "log_loss": Measure(value=1 - value, low=0.9 - value, high=1.1 - value),
        },
        "baseline": {"accuracy": 0.91, "log_loss": 0.1},
    }
    return AccuracyMeasured(model=model, version=version, champion=champion, **(figures | more))


def drifted(
    signal: str = "age",
    evidence: float = 0.0,
    *,
    hour: int = 24,
    version: int = 1,
    counts: Sequence[int] = (0, 100, 300, 600, 20, 5),
) -> DriftMeasured:
    return DriftMeasured(
        model="churn",
        version=version,
        signal=signal,
        window="86400s",
        start_ms=START + (hour - 24) * HOUR,
        end_ms=START + hour * HOUR,
        n=sum(counts),
        psi=0.1 + evidence / 2,
        psi_noise=0.02,
        psi_low=0.05,
        psi_high=0.3,
        js=0.2,
        js_noise=0.05,
        null_rate=0.005,
        unseen_rate=0.0,
        evidence=evidence,
        counts=list(counts),
    )


def alert(problem: str = "harm", *, state: str = "open", **more: Any) -> Alert:
    verdicts = {
        "harm": ("performance harmed", "critical"),
        "data": ("data broken", "warning"),
        "drift": ("data changed", "info"),
        "stale": ("data missing", "warning"),
        "unlabelled": ("data missing", "warning"),
    }
    verdict, severity = verdicts[problem]
    figures: dict[str, Any] = {
        "alert_id": f"alert-{problem}",
        "model": "churn",
        "sentence": f"what {problem} says",
        "version": 1,
        "opened_ms": START + 20 * HOUR,
        "updated_ms": START + 24 * HOUR,
        "evidence": {"n": 800},
    }
    fixed: dict[str, Any] = {
        "problem": problem, "verdict": verdict, "severity": severity, "state": state
    }  # fmt: skip
    return Alert(**(figures | fixed | more))


def command(kind: str = "retrain", *, hour: int = 24, **more: Any) -> Command:
    figures: dict[str, Any] = {
        "command_id": f"{kind}-{hour}",
        "kind": kind,
        "model": "churn",
        "generation": 2,
        "reason": "loss above its bound",
        "issued_ms": START + hour * HOUR,
    }
    return Command(**(figures | more))


def held(cause: str = "harm", *, hour: int = 24, **more: Any) -> RetrainHeld:
    """A retrain that was asked for and not commanded."""
    figures: dict[str, Any] = {
        "model": "churn",
        "version": 1,
        "generation": 2,
        "cause": cause,
        "asked": f"what {cause} says",
        "reason": "the week's budget of 2 is spent",
        "held_ms": START + hour * HOUR,
        "alert_id": f"alert-{cause}" if cause in ("harm", "drift") else None,
    }
    return RetrainHeld(**(figures | more))


def lifecycle(champion: int | None = 1, **more: Any) -> LifecycleChanged:
    figures: dict[str, Any] = {
        "model": "churn",
        "generation": 2,
        "spec": SPEC,
        "spec_revision": 1,
        "changed_ms": START,
    }
    return LifecycleChanged(champion=champion, **(figures | more))


def entry(*events: Struct, heard_ms: int = START + 24 * HOUR) -> Entry:
    """The board's entry of `churn` after some events."""
    from consumers.console.board import Board

    board = Board()
    board.take([Came(heard_ms, event) for event in events])
    found = board.entry("churn")
    assert found is not None
    return found


def settings_in(folder: Path, **more: Any) -> Settings:
    """One console's own databases and artefacts; nobody listens where its broker should be."""
    values: dict[str, Any] = {
        "bootstrap_servers": "127.0.0.1:1",
        "registry_url": f"sqlite:///{folder}/registry.db",
        "console_url": f"sqlite:///{folder}/console.db",
        "artefact_url": f"file:{folder}/artefacts",
    }
    return Settings(**(values | more))


def register(settings: Settings) -> LifecycleChanged:
    """The model churn with two versions, the first one live; returns what lifecycle says of it."""
    from consumers.relay import lifecycle as told

    store = open_store(settings.artefact_url)
    digest = store.put(encode(PROFILE))
    with Registry(settings.registry_url) as registry:
        registry.upgrade()
        registry.add_model(SPEC, who="ann")
        for version in (1, 2):
            run = registry.begin_run("churn", cause="first version" if version == 1 else "harm")
            registry.finish_run(run, "accepted", reason="the best of two")
            registry.register_version(
                "churn",
                run_id=run,
                artefact_url=store.url(digest),
                artefact_digest=digest,
                profile_url=store.url(digest),
                profile_digest=digest,
                metrics={"correct": 0.9 + version / 100, "log_loss": 0.3},
                who="trainer",
            )
        registry.promote("churn", 1, who="ann", reason="the first one")
        registry.challenge("churn", 2, who="trainer", reason="proposed after harm")
        state = registry.live("churn")
    assert state is not None
    return told(state)


def story(hours: int = 96) -> list[Struct]:
    """Some days of one model: good, then harmed, with drift, segments, a trial and an alert."""
    events: list[Struct] = []
    for hour in range(24, hours):
        decline = 0.12 / (1 + math.exp(-(hour - hours * 0.7) / 4))
        value = 0.91 - decline + 0.006 * math.sin(hour / 3)
        events.append(measured(value, hour=hour, coverage=0.7 + 0.2 * math.sin(hour / 9)))
        if hour > hours * 0.8:
            events.append(measured(0.9, hour=hour, version=2, champion=False))
        events.append(drifted("age", min(1.0, (hour / hours) ** 6), hour=hour))
        events.append(drifted("plan", 0.01, hour=hour, counts=(700, 290, 6, 4)))
        events.append(drifted(SCRIPT, 0.2, hour=hour, counts=(3, 480, 510, 4, 3)))
    last = hours - 1
    for plan, value in (("basic", 0.83), ("gold", 0.71)):
        events.append(measured(value, hour=last, segment=f"plan={plan}"))
    opened = START + round(hours * 0.85) * HOUR
    events.append(alert("harm", opened_ms=opened, updated_ms=opened + HOUR))
    events.append(
        alert(
            "drift",
            state="resolved",
            opened_ms=START + 40 * HOUR,
            updated_ms=START + 50 * HOUR,
            resolved_ms=START + 50 * HOUR,
            sentence=f"inputs differ: {SCRIPT}",
        )
    )
    events.append(held(hour=round(hours * 0.855)))
    events.append(held("labels", hour=30, reason=f"too few: {SCRIPT}"))
    events.append(command(hour=round(hours * 0.86)))
    return events


def publish(settings: Settings, events: Sequence[Struct]) -> None:
    """Write events to their topics, as the stages would."""
    producer = Producer(settings.client())
    for i, event in enumerate(events):
        if isinstance(event, Alert):
            entity = "alerts"
            kind = f"driftline.alert.{'resolved' if event.state == 'resolved' else 'updated'}.v1"
        else:
            entity, kind = KINDS[type(event)]
        key = str(getattr(event, "prediction_id", getattr(event, "model", ""))).encode()
        value = write(
            kind, event, id=derived_id("test", i, time.time_ns()), source="test", time_ms=START
        )
        partition = partition_of(key, PARTITIONS, settings.partitioner)
        producer.produce(settings.names.topic(entity), value, key, partition)
        producer.poll(0)
    assert producer.flush(PATIENCE_SECONDS) == 0


@contextmanager
def console(settings: Settings, *, follow: bool = False) -> Iterator[Parts]:
    with assembled(settings, follow=follow) as parts:
        yield parts


@contextmanager
def served(settings: Settings, *, follow: bool = True) -> Iterator[tuple[str, Parts]]:
    """A console that listens on a port of its own, by default following its broker: URL, parts."""
    [port] = free_ports(1)
    settings = settings.model_copy(update={"console_port": port})
    with assembled(settings, follow=follow) as parts:
        config = uvicorn.Config(
            guarded(settings, parts), port=port, log_config=None, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_until(lambda: server.started)
        yield f"http://localhost:{port}", parts
        parts.feed.closing = server.should_exit = True
        thread.join(PATIENCE_SECONDS)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
