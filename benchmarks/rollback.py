"""From a bad champion to the version before it: how long evidence, command and swap take.

    python -m benchmarks.rollback [--quick] [--json] [--rounds N]

The whole loop on a real broker under steady traffic, each request labelled at once. In each round a
person makes a version champion that has learnt the truth the wrong way round; nobody does anything
about it. Measured by the broker's own timestamps:

- evidence: from the first prediction of the bad version to the end of the tick in which the
  evidence that it is worse than the version before crossed its threshold;
- command: from the end of that tick to the rollback command. A tick is closed when nothing on time
  can come for it any more, so the spec's allowed lateness is in it. "At most" is from the tick's
  beginning, before which the evidence had not crossed;
- last prediction: from the command to the last prediction of the bad version.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from benchmarks import workload
from benchmarks.reporting import parser, report, spread
from benchmarks.workers import Workers, kafka
from models.registry import Registry
from models.spec import Ticks
from stream.settings import Settings
from tests.kafka import traffic
from tests.kafka.traffic import Event, Sender, some_features, some_label
from tests.topics import Seen, make_topics, read_all

RATE: Final = 200  # requests a second
PATIENCE_SECONDS: Final = 90.0
AFTER_SECONDS: Final = 8.0  # of traffic after a rollback, in which nothing more may come
TICK_SECONDS: Final = 1.0
SPEC: Final = replace(
    traffic.SPEC,
    ticks=Ticks(seconds=TICK_SECONDS, allowed_lateness_seconds=1.0, minimum_events=50),
    policy=replace(traffic.SPEC.policy, rollback_cooloff_seconds=0.0, retrain=False),
)


class Round(NamedTuple):
    """Seconds of one round."""

    evidence: float
    command: float
    command_at_most: float
    last_prediction: float


class Load:
    """Requests and their labels at a steady rate, from a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._sender = Sender(settings)
        self._dice = random.Random(workload.SEED)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(30)

    def _run(self) -> None:
        begun, sent = time.monotonic(), 0
        while not self._stopped.wait(0.05):
            due = round((time.monotonic() - begun) * RATE)
            events = [event for number in range(sent, due) for event in self._events(number)]
            self._sender.send(events)
            sent = due

    def _events(self, number: int) -> list[Event]:
        features = some_features(self._dice)
        said = {"prediction_id": f"r{number:07}", "model": SPEC.name}
        label = {**said, "label": some_label(self._dice, features)}
        return [
            Event("requests", f"r{number:07}", {**said, "features": features}),
            Event("feedback", f"r{number:07}", label),
        ]


def measure(settings: Settings, registry: Registry, workers: Workers, number: int) -> Round:
    """One bad champion, from its promotion until nothing is heard of it any more."""
    before = registry.live(SPEC.name)
    assert before is not None
    bad = traffic.train(registry, settings, seed=100 + number, spec=SPEC, sign=-1.0)

    def is_back() -> bool:
        live = registry.live(SPEC.name)
        return live is not None and live.champion == before.champion

    _until(is_back, workers)
    time.sleep(AFTER_SECONDS)
    rollbacks = [seen for seen in _read(settings, "commands") if _data(seen)["kind"] == "rollback"]
    assert len(rollbacks) == number + 1
    command = max(rollbacks, key=lambda seen: seen.timestamp_ms)
    made = [s.timestamp_ms for s in _read(settings, "predictions") if _data(s)["version"] == bad]
    crossed_ms = int(_data(command)["evidence"]["until_ms"])
    return Round(
        evidence=(crossed_ms - min(made)) / 1000,
        command=(command.timestamp_ms - crossed_ms) / 1000,
        command_at_most=(command.timestamp_ms - crossed_ms) / 1000 + TICK_SECONDS,
        last_prediction=(max(made) - command.timestamp_ms) / 1000,
    )


def _read(settings: Settings, entity: str) -> list[Seen]:
    return read_all(settings.bootstrap_servers, settings.names.topic(entity))


def _data(seen: Seen) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(seen.value or b"")["data"]
    return data


def _until(what: Callable[[], bool], workers: Workers) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        workers.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.2)


def rounds(bootstrap: str, folder: Path, count: int) -> list[Round]:
    """So many bad champions, one after the other."""
    settings = workload.benchmark_settings(bootstrap, "rollback", folder)
    make_topics(settings)
    command = [sys.executable, "-m", "consumers"]
    with Registry(settings.registry_url) as registry:
        registry.upgrade()
        registry.add_model(SPEC, who="benchmark")
        traffic.train(registry, settings, spec=SPEC)
        environment = workload.environment(settings)
        processes = [[*command, "worker"], [*command, "trainer"]]
        with Workers(processes, environment, folder / "log") as workers, Load(settings):
            _until(lambda: len(_read(settings, "accuracy")) > 0, workers)
            return [measure(settings, registry, workers, number) for number in range(count)]


def main() -> None:
    one = parser("Seconds from a bad champion to the version before it.")
    one.add_argument("--rounds", type=int, help="bad champions")
    given = one.parse_args()
    count = given.rounds or (1 if given.quick else 5)
    with kafka() as (broker, folder):
        found = rounds(broker.bootstrap, folder, count)
    columns = list(Round._fields)
    spreads = [spread([getattr(one, column) for one in found]) for column in columns]
    figures: dict[str, object] = {"rounds": count, "rate": RATE}
    for column, values in zip(columns, spreads, strict=True):
        figures |= {f"{column}_seconds": values.median, f"{column}_seconds_most": values.high}
    row = [f"{values:.1f}" for values in spreads]
    report(
        f"Seconds, of {count} bad champions at {RATE} labelled requests/s",
        ["", *(column.replace("_", " ") for column in columns)],
        [["median (lowest-highest)", *row]],
        figures,
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
