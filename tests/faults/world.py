"""What a row of the fault table acts on: its own topics, registry, processes, traffic, verdict.

A row begins a run, does its fault while events flow, and finishes: everything drains, and what the
topics hold is counted and held against the offline fold (`tests/kafka/oracle.py`).
"""

from __future__ import annotations

import json
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from models.registry import Registry
from stream.settings import Settings
from tests.broker import Broker
from tests.kafka import oracle
from tests.kafka.copies import Workers
from tests.kafka.logs import Logs
from tests.kafka.loop import Stages, drain, until
from tests.kafka.naive import Naive
from tests.kafka.traffic import Sender, Traffic, launch
from tests.topics import make_topics

RESTORE_SECONDS = 120
DRAIN_SECONDS = 300
PIECE, LEAST_PIECES = 500, 100  # requests in a piece of the traffic


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one row did and found.

    Attributes:
        faults: how often the fault was done.
        events: records that producers sent, or changes that were asked for.
        lost, doubled: effects that should be there and are not; that are there too often.
        fold: "equal" to the offline fold, or where it is not; "-" where there is nothing to fold.
        note: figures that are worth telling.
    """

    faults: int
    events: int
    lost: int = 0
    doubled: int = 0
    fold: str = "-"
    note: str = ""

    @property
    def holds(self) -> bool:
        return not self.lost and not self.doubled and self.fold in ("-", "equal")


class Unable(Exception):
    """This machine can't do the fault; the message says what it lacks."""


class Check(Protocol):
    """As `tests.kafka.oracle.check_all`."""

    def __call__(self, logs: Logs, requested: list[str], *, lateless: bool) -> Naive: ...


class Feed(threading.Thread):
    """Sends a traffic at an even pace, beside whatever is done meanwhile."""

    def __init__(self, traffic: Traffic, sender: Sender, seconds: float) -> None:
        super().__init__(daemon=True)
        self.traffic = traffic
        self.sent = 0  # pieces
        self.failure: BaseException | None = None
        self._sender = sender
        self._pace = seconds / len(traffic.pieces)

    def run(self) -> None:
        try:
            for piece in self.traffic.pieces:
                begun = time.monotonic()
                self._sender.send(piece)
                self.sent += 1
                time.sleep(max(0.0, self._pace - (time.monotonic() - begun)))
        except BaseException as error:
            self.failure = error

    def hurry(self) -> None:
        """The rest at once."""
        self._pace = 0.0

    def reached(self, fraction: float) -> bool:
        if self.failure is not None:
            raise self.failure
        return self.sent >= fraction * len(self.traffic.pieces)

    @property
    def events(self) -> int:
        return sum(map(len, self.traffic.pieces))


class World:
    """One row's own part of a broker, and a folder.

    Args:
        broker: running; a row may end it and start it again.
        program: the interpreter's arguments before a worker's module and stage.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        directory: Path,
        *,
        seed: int = 7,
        program: tuple[str, ...] = ("-m",),
    ) -> None:
        self.broker = broker
        self.settings = settings.model_copy(update={"log_format": "json"})
        self.directory = directory
        self.seed = seed
        self.program = program
        self.environment: dict[str, str] = {}  # of the stages
        self.cleanup = ExitStack()
        self.stages: Stages
        self.feed: Feed

    def set(self, **more: object) -> None:
        """Change settings, before anything is begun."""
        self.settings = self.settings.model_copy(update=more)

    def close(self) -> None:
        self.cleanup.close()

    # The whole loop:

    def prepare(self, **numbers: int) -> Stages:
        """Topics, a registry with one live version, and as many processes of each stage."""
        make_topics(self.settings)
        launch(self.settings).close()
        logs = self.directory / "logs"
        logs.mkdir()
        self.stages = Stages(self.settings, logs, **numbers)
        self.stages.program = self.program
        self.stages.environment = self.environment
        self.cleanup.callback(self.stages.end)
        return self.stages

    def begin(self, requests: int, seconds: float, **numbers: int) -> None:
        """Start processes, wait until all partitions are restored, and let events flow."""
        self.prepare(**numbers).start()
        self.restored(self.settings.partitions * len(numbers))
        self.flow(requests, seconds)

    def flow(self, requests: int, seconds: float) -> None:
        traffic = Traffic(requests, max(LEAST_PIECES, requests // PIECE), self.seed)
        self.feed = Feed(traffic, Sender(self.settings), seconds)
        self.feed.start()

    def at(self, fraction: float) -> None:
        """Tend the processes until this part of the traffic is sent."""
        self.until(lambda: self.feed.reached(fraction), 600)

    def until(self, what: Callable[[], bool], seconds: float = 120) -> None:
        until(what, self.stages, seconds)

    def restored(self, times: int, stage: str = "") -> None:
        """Wait until the logs tell of so many restored partitions, all processes together."""
        self.until(lambda: self.stages.count("restored", stage) >= times, RESTORE_SECONDS)

    def all_at_work(self) -> None:
        """Wait until every process has restored a partition."""
        stages = self.stages

        def at_work() -> bool:
            told = {name for name, line in stages.logged() if line.get("event") == "restored"}
            return len(told) >= len(stages.running)

        self.until(at_work, RESTORE_SECONDS)

    def finish(self, faults: int, note: str = "", check: Check = oracle.check_all) -> Outcome:
        """Wait for the rest of the traffic, drain, and judge."""
        self.at(1.0)
        drain(self.stages, DRAIN_SECONDS)
        return self.judge(faults, note, check)

    def judge(self, faults: int, note: str, check: Check) -> Outcome:
        logs, traffic = Logs(self.settings), self.feed.traffic
        requested = Counter(traffic.ids)
        made = Counter(
            data["prediction_id"] for data in logs.data("predictions") if "clock_ms" not in data
        )
        labelled = Counter(
            example.prediction_id for example in logs.examples() if not example.revision
        )
        expected = Counter(traffic.labelled)
        return Outcome(
            faults=faults,
            events=self.feed.events,
            lost=(requested - made).total() + (expected - labelled).total(),
            doubled=(made - requested).total() + (labelled - expected).total(),
            fold=self._folded(logs, check),
            note=", ".join(filter(None, [note, self._ends()])),
        )

    def _folded(self, logs: Logs, check: Check) -> str:
        try:
            naive = check(logs, self.feed.traffic.ids, lateless=False)
            for name in ("duplicates", "corrections", "orphans"):
                assert naive.counters[name] == self.feed.traffic.counts[name], name
        except Exception as error:  # with a protection removed anything may be found
            where = traceback.extract_tb(error.__traceback__)[-1].name
            return f"{type(error).__name__} in {where}: {error}"
        return "equal"

    def _ends(self) -> str:
        fenced, ended = self.stages.count("fenced"), self.stages.failures.total()
        told = [f"{fenced} fenced"] if fenced else []
        return ", ".join(told + ([f"{ended} ended by themselves"] if ended else []))

    # One stage that copies and counts:

    def copying(self) -> Workers:
        make_topics(self.settings)
        logs = self.directory / "logs"
        logs.mkdir()
        workers = Workers(self.settings, logs, self.program)
        self.cleanup.callback(lambda: _end(workers))
        return workers

    def registry(self) -> Registry:
        one = Registry(self.settings.registry_url)
        self.cleanup.callback(one.close)
        return one


def _end(workers: Workers) -> None:
    for process in workers.running:
        process.kill()
        process.wait()


def count_copies(workers: Workers, total: int, faults: int, note: str = "") -> Outcome:
    """The verdict on copying workers that were sent the numbers 0..total-1."""
    from tests.kafka.copies import outputs, state

    copies = Counter(number for number, _, _ in outputs(workers.settings))
    expected = Counter(range(total))
    same = state(workers.settings) == (total, sum(range(total)))
    return Outcome(
        faults=faults,
        events=total,
        lost=(expected - copies).total(),
        doubled=(copies - expected).total(),
        fold="equal" if same else f"state is {state(workers.settings)}",
        note=note,
    )


def loads(line: bytes | None) -> Any:
    return json.loads(line or b"null")
