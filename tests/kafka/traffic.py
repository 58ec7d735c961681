"""What producers of the tests send: a model's history, and requests with all that labels do."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from confluent_kafka import Producer

from consumers.dataset import Labelled, assemble
from consumers.first_version import train_first
from consumers.relay import Relay
from models.artefacts import open_store
from models.features import check_row
from models.registry import Registry
from models.runs import DataRange
from models.spec import Feature, Labels, ModelSpec, Ticks, Training, Window, check
from stream.settings import Settings
from stream.topics import INPUTS
from tests.topics import quiet_client

LATENESS_MS = 5_000
HORIZON_MS = 600_000  # of labels, early labels and corrections alike
REGIONS = ("north", "south", "west")  # that training sees
ABROAD = (*REGIONS * 6, "east")
NUMBERS = ("age", "amount", "visits", "tenure", "score")
POISONED = "poison"  # a header of what nobody can read, so that a count by hand leaves it out
OLD_MS = 3 * HORIZON_MS  # how long ago an orphan says that it was: certain to be one at once

SPEC = check(
    ModelSpec(
        name="loans",
        task="binary",
        classes=("paid", "lost"),
        features=(
            *(Feature(name=name) for name in NUMBERS),
            Feature(name="region", type="categorical"),
        ),
        segments=("region",),
        windows=(Window(seconds=20), Window(labels=5_000)),
        ticks=Ticks(seconds=1, allowed_lateness_seconds=LATENESS_MS / 1000),
        labels=Labels(
            horizon_seconds=HORIZON_MS / 1000,
            correction_horizon_seconds=HORIZON_MS / 1000,
            early_seconds=HORIZON_MS / 1000,
        ),
        training=Training(candidates=("logistic_regression",)),
    )
)

Features = dict[str, float | str | None]


def some_features(dice: random.Random, regions: Sequence[str] = REGIONS) -> Features:
    """One in fifty lacks an amount."""
    features: Features = {name: round(dice.gauss(0, 1), 3) for name in NUMBERS}
    features["region"] = dice.choice(regions)
    if dice.random() < 0.02:
        features["amount"] = None
    return features


def some_label(dice: random.Random, features: Features, sign: float = 1.0) -> str:
    """The truth, a logistic one; with sign -1 it has turned."""
    score = 2.0 * float(features["age"] or 0) - 1.5 * float(features["amount"] or 0)
    chance = 1 / (1 + math.exp(-sign * score))
    return SPEC.classes[dice.random() < chance]


def train(
    registry: Registry,
    settings: Settings,
    seed: int = 1,
    *,
    spec: ModelSpec = SPEC,
    sign: float = 1.0,
) -> int:
    """Train one version on made-up history and make it champion; returns it.

    Args:
        sign: of the truth that the history tells; with -1 the version learns its opposite.
    """
    dice = random.Random(seed)
    found = []
    for number in range(2_000):
        features = some_features(dice)
        row = check_row(spec, features)
        label = some_label(dice, features, sign)
        at_ms = 1_000 * number
        found.append(Labelled(at_ms, f"{number:06}", row, label, 1.0, at_ms))
    facts = DataRange(source=f"seed {seed}", predictions=len(found), labelled=len(found))
    return train_first(registry, settings, spec, assemble(spec, found, facts), "test")


def launch(settings: Settings) -> Registry:
    """A registry with one live version, announced on `lifecycle`."""
    registry = Registry(settings.registry_url)
    registry.upgrade()
    registry.add_model(SPEC, who="test")
    train(registry, settings)
    Relay(registry, settings).pump()
    return registry


def promote_corrupt(registry: Registry, settings: Settings) -> None:
    """One more version: where its bytes should lie are those of the version before."""
    live = registry.live(SPEC.name)
    assert live is not None
    good = live.versions[-1]
    store = open_store(settings.artefact_url)
    digest = store.put(b"was a model once")
    url = store.url(digest)
    Path(urlsplit(url).path).write_bytes(Path(urlsplit(good.artefact_url).path).read_bytes())
    version = registry.register_version(
        SPEC.name,
        run_id=None,
        artefact_url=url,
        artefact_digest=digest,
        profile_url=good.profile_url,
        profile_digest=good.profile_digest,
        metrics={},
    )
    assert registry.promote(SPEC.name, version, who="test").applied


class Event(NamedTuple):
    """One record that a producer sends."""

    entity: str
    key: str
    value: dict[str, Any]
    partition: int | None = None


class Traffic:
    """Requests and their feedback, in pieces that are to be sent one after the other.

    95 % get a label: most a piece or so later, some before the request, some long after. 1 % of the
    labels are sent twice, 1 % are corrected. One in two hundred is an orphan beside that. In the
    second half the truth has turned, so that there is harm to be found.

    Attributes:
        ids, labelled: of requests; those with a label.
        counts: duplicates, corrections, orphans that were made.
    """

    def __init__(self, requests: int, pieces: int, seed: int) -> None:
        self._dice = random.Random(seed)
        self.ids = [f"r{number:07}" for number in range(requests)]
        self.labelled: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.pieces: list[list[Event]] = [[] for _ in range(pieces)]
        for number, id_ in enumerate(self.ids):
            self._request(id_, number * pieces // requests, number * 2 >= requests)

    def _request(self, id_: str, piece: int, turned: bool) -> None:
        dice = self._dice
        features = some_features(dice, ABROAD)
        if dice.random() < 0.95:
            label = some_label(dice, features, -1.0 if turned else 1.0)
            self.labelled.add(id_)
            self._feedback(id_, label, piece)
        self._put(piece, "requests", id_, features=features)
        if dice.random() < 0.005:
            self.counts["orphans"] += 1
            self._put(piece, "feedback", f"orphan-{id_}", label=SPEC.classes[0])

    def _feedback(self, id_: str, label: str, piece: int) -> None:
        dice = self._dice
        how = dice.random()
        after = 0 if how < 0.03 else dice.randint(3, 20) if how < 0.15 else dice.randint(0, 2)
        self._put(piece + after, "feedback", id_, label=label)
        again = dice.random()
        if again < 0.01:
            self.counts["duplicates"] += 1
            self._put(piece + after + dice.randint(1, 5), "feedback", id_, label=label)
        elif again < 0.02:
            self.counts["corrections"] += 1
            other = SPEC.classes[label == SPEC.classes[0]]
            self._put(piece + after + dice.randint(1, 5), "feedback", id_, label=other)

    def _put(self, piece: int, entity: str, id_: str, **more: Any) -> None:
        value = {"prediction_id": id_, "model": SPEC.name, **more}
        self.pieces[min(piece, len(self.pieces) - 1)].append(Event(entity, id_, value))


class Sender:
    """A producer as outsiders have one: plain JSON, murmur2, idempotent so that it repeats nothing.

    Where a replayer is the clock (`clock="event"`), events get a millisecond each.
    """

    def __init__(self, settings: Settings, first_ms: int = 0) -> None:
        self._names = settings.names
        self._settings = settings
        self.clock_ms = first_ms
        self._producer = Producer(
            quiet_client(
                settings.bootstrap_servers,
                partitioner="murmur2_random",
                **{"enable.idempotence": True, "linger.ms": 5},
            )
        )

    def send(self, events: list[Event]) -> None:
        """Send, and wait until the broker has them."""
        for event in events:
            if self.clock_ms:
                self.clock_ms += 1
            more: dict[str, Any] = {} if event.partition is None else {"partition": event.partition}
            if event.key.startswith("orphan"):
                more["headers"] = self._old(event)
            self._producer.produce(
                self._names.topic(event.entity),
                json.dumps(event.value).encode(),
                event.key.encode(),
                timestamp=self.clock_ms,
                **more,
            )
            self._producer.poll(0)
        assert self._producer.flush(60) == 0, "the broker did not acknowledge everything"

    def _old(self, event: Event) -> list[tuple[str, bytes]]:
        """CloudEvents headers that say when it happened: long ago, so no prediction can come."""
        now_ms = self.clock_ms or int(time.time() * 1000)
        then = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((now_ms - OLD_MS) / 1000))
        said = {"specversion": "1.0", "id": event.key, "source": "test", "time": then}
        said["type"] = "driftline.feedback.received.v1"
        return [(f"ce_{name}", value.encode()) for name, value in said.items()]

    def tell_clock(self, clock_ms: int) -> None:
        """To every partition that the monitor reads: nothing older comes any more."""
        said = {"specversion": "1.0", "source": "test", "type": "driftline.clock.advanced.v1"}
        for entity in INPUTS["monitor"]:
            for partition in range(self._settings.partitions):
                event = {**said, "id": f"{entity}-{partition}", "data": {"clock_ms": clock_ms}}
                topic = self._names.topic(entity)
                value = json.dumps(event).encode()
                self._producer.produce(topic, value, partition=partition, timestamp=clock_ms)
        assert self._producer.flush(60) == 0
