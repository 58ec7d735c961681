"""The trainer as a process: commands from Kafka, lifecycle to Kafka, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from consumers.demo.embedded import EmbeddedBroker
from consumers.loop import RangeReader
from consumers.producing import Publisher
from models.artefacts import fetch
from models.registry import LiveState, Registry
from stream.envelope import open_record, read, write
from stream.events import Command, ExampleLabelled, LifecycleChanged, PredictionMade
from stream.settings import Settings
from tests.patience import GRACE_SECONDS, PATIENCE_SECONDS
from tests.registries import CHURN, register
from tests.topics import Sent, make_topics, produce

#: A fit that takes for ever, in place of the real child.
SLOW_FIT = """
import sys, time
from consumers import fitting, service
class Slow(fitting.Fit):
    def __init__(self, job):
        super().__init__(job, command=[sys.executable, "-c", "import time; time.sleep(600)"])
        print("fitting", self.pid, flush=True)
service.Fit = Slow
from stream.settings import load
sys.exit(service.run(load()))
"""


REAL_FIT = """
import sys
from consumers.service import run
from stream.settings import load
sys.exit(run(load()))
"""


class Trainer:
    """A trainer process, and the registry it works on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = Registry(settings.registry_url)
        self.registry.upgrade()
        self.registry.add_model(CHURN, who="test")
        self.registry.promote("churn", register(self.registry), who="test")
        self.publisher = Publisher(settings)
        self.process: subprocess.Popen[str] | None = None

    def start(self, program: str = SLOW_FIT) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, **environment(self.settings)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def fit_pid(self) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        return int(self.process.stdout.readline().split()[1])

    def end(self, number: int) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_SECONDS)
        self.process.stdout.close()
        self.process = None
        return code

    def close(self) -> None:
        if self.process is not None:
            self.end(signal.SIGKILL)
        self.registry.close()

    def live(self) -> LiveState:
        state = self.registry.live("churn")
        assert state is not None
        return state

    def send(self, kind: str, command_id: str, version: int | None = None) -> None:
        self.tell(kind, command_id, self.live().generation, version)

    def tell(self, kind: str, command_id: str, generation: int, version: int | None = None) -> None:
        """Without a look into the registry."""
        command = Command(
            command_id=command_id,
            kind=kind,  # type: ignore[arg-type]
            model="churn",
            generation=generation,
            reason="harm",
            issued_ms=1,
            version=version,
        )
        name = f"driftline.command.{kind}.v1"
        value = write(name, command, id=command_id, source="test", time_ms=1)
        self.publisher.send("commands", b"churn", value)
        self.publisher.flush()

    def published(self) -> list[int | None]:
        """Champions on the lifecycle topic, in order."""
        return [state.champion for state in self._lifecycle()]

    def generations(self) -> list[int]:
        return [state.generation for state in self._lifecycle()]

    def _lifecycle(self) -> list[LifecycleChanged]:
        with RangeReader(self.settings) as reader:
            came = [d.record for d in reader.read("lifecycle", reader.bounds("lifecycle"))]
        events = [open_record("lifecycle", record, max_bytes=100_000) for record in came]
        return [read(event, LifecycleChanged) for event in events]


def environment(settings: Settings) -> Mapping[str, str]:
    more = {"DRIFTLINE_DASK_SCHEDULER": settings.dask_scheduler} if settings.dask_scheduler else {}
    names = ("bootstrap_servers", "topic_prefix", "registry_url", "artefact_url")
    return {f"DRIFTLINE_{name.upper()}": str(getattr(settings, name)) for name in names} | {
        "DRIFTLINE_EMBEDDED_BROKER": str(settings.embedded_broker).lower(),
        "DRIFTLINE_SESSION_TIMEOUT_SECONDS": "6",
        "DRIFTLINE_DRAIN_SECONDS": "120",  # a fit takes for ever
        **more,
    }


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Trainer]:
    broker = EmbeddedBroker()
    settings = Settings(
        bootstrap_servers=broker.bootstrap_servers,
        embedded_broker=True,
        registry_url=f"sqlite:///{tmp_path}/registry.db",
        artefact_url=f"file:{tmp_path}/artefacts",
    )
    broker.touch(settings.names)
    trainer = Trainer(settings)
    yield trainer
    trainer.close()
    del broker


@pytest.fixture
def trainer(kafka_settings: Settings) -> Iterator[Trainer]:
    make_topics(kafka_settings)
    one = Trainer(kafka_settings)
    yield one
    one.close()


def a_day_in_its_life(trainer: Trainer) -> None:
    """A retrain hangs, a promotion passes it, and SIGTERM ends both cleanly."""
    register(trainer.registry)
    trainer.registry.challenge("churn", 2, who="test")
    trainer.send("retrain", "r1")
    trainer.send("promote", "p1", version=2)
    trainer.start()
    fit = trainer.fit_pid()
    wait(lambda: trainer.live().champion == 2, "the promotion waits behind the fit")
    wait(lambda: trainer.published()[-1:] == [2], "the promotion is not published")
    begun = time.monotonic()
    assert trainer.end(signal.SIGTERM) == 0
    assert time.monotonic() - begun < GRACE_SECONDS
    assert gone(fit)
    (run,) = trainer.registry.runs("churn")
    assert (run.verdict, run.attempts) == ("running", 1)


def test_a_promotion_passes_a_fit_and_sigterm_ends_both_on_the_embedded_broker(
    embedded: Trainer,
) -> None:
    a_day_in_its_life(embedded)


def test_after_sigterm_the_retrain_comes_again_and_the_promotion_has_no_second_effect(
    trainer: Trainer,
) -> None:
    a_day_in_its_life(trainer)
    generation = trainer.live().generation
    trainer.start()
    trainer.fit_pid()
    wait(lambda: trainer.registry.runs("churn")[0].attempts == 2, "the run did not begin again")
    assert trainer.live().generation == generation
    assert trainer.end(signal.SIGTERM) == 0


def test_after_sigkill_nothing_is_lost_or_done_twice(trainer: Trainer) -> None:
    register(trainer.registry)
    trainer.registry.challenge("churn", 2, who="test")
    trainer.send("retrain", "r1")
    trainer.send("promote", "p1", version=2)
    trainer.start()
    fit = trainer.fit_pid()
    wait(lambda: trainer.live().champion == 2, "the promotion was not carried out")
    trainer.end(signal.SIGKILL)
    os.kill(fit, signal.SIGKILL)  # this stand-in does not watch its parent
    trainer.start()
    trainer.fit_pid()
    wait(lambda: trainer.published()[-1:] == [2], "the promotion is not published")
    assert [e.action for e in trainer.registry.history("churn")].count("promote") == 2
    assert trainer.registry.runs("churn")[0].attempts == 2
    assert trainer.end(signal.SIGTERM) == 0


def label_predictions(trainer: Trainer, count: int) -> None:
    """Predictions on the log, and an example for each: the older ones are more often positive."""
    topic, boot = trainer.settings.names.topic, trainer.settings.bootstrap_servers
    predictions, examples = [], []
    for n in range(count):
        made = PredictionMade(
            prediction_id=f"p{n}",
            model="churn",
            version=1,
            output=0.5,
            features={"age": float(n % 70)},
        )
        told = ExampleLabelled(
            prediction_id=f"p{n}",
            model="churn",
            version=1,
            partition=n % 4,
            offset=n // 4,
            predicted_ms=n * 1000,
            labelled_ms=n * 1000 + 500,
            label="yes" if n % 70 + n * 7 % 20 > 45 else "no",
        )
        at = {"id": f"e{n}", "source": "test", "time_ms": n}
        predicted = write("driftline.prediction.made.v1", made, **at)  # type: ignore[arg-type]
        labelled = write("driftline.example.labelled.v1", told, **at)  # type: ignore[arg-type]
        predictions.append(Sent(b"k", predicted, n % 4))
        examples.append(Sent(b"k", labelled, n % 4))
    produce(boot, topic("predictions"), predictions)
    produce(boot, topic("examples"), examples)


def test_a_retrain_reads_the_log_fits_and_challenges_and_the_bytes_can_be_made_again(
    trainer: Trainer,
) -> None:
    label_predictions(trainer, 600)
    trainer.start(REAL_FIT)
    for number, command_id in enumerate(("r1", "r2"), start=2):
        trainer.send("retrain", command_id)
        wait(lambda n=number: n in trainer.live().challengers, "no challenger")  # type: ignore[misc]
    assert trainer.end(signal.SIGTERM) == 0
    second, first = trainer.registry.runs("churn")
    assert first.data is not None
    assert (first.verdict, first.data.rows, first.data.labelled) == ("accepted", 600, 600)
    assert first.artefact_digest == second.artefact_digest
    card = trainer.registry.versions("churn")[1]
    assert fetch(card.artefact_url, card.artefact_digest, 10_000_000)
    assert fetch(card.profile_url, card.profile_digest, 10_000_000)
