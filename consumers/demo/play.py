"""Sets the stage (broker, registry, services), plays the story, strikes the set."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console

from consumers.demo.datasets import Happening, history_csv
from consumers.demo.director import Director, Pipeline
from consumers.demo.embedded import PARTITIONS, EmbeddedBroker
from consumers.demo.ledger import Ledger
from consumers.demo.replayer import Replayer
from consumers.demo.report import print_summary, summary
from consumers.demo.scenarios import DAY_MS, SCENARIOS, Scenario
from consumers.demo.stack import Stack
from consumers.demo.story import Story, day
from consumers.demo.watcher import Watcher
from stream.errors import ConfigurationError
from stream.settings import Settings, load

START_SECONDS = 60.0
LEAST_SECONDS = 20.0  # for the replay itself, however long the start took


class Wishes(NamedTuple):
    """How the demo is to be played.

    Attributes:
        bootstrap: Kafka to use; None: the embedded broker.
        plot: the file that the model's course is drawn into.
        pages: serve the web console beside it; on a terminal it stays until Ctrl-C.
    """

    seconds: float = 80.0
    bootstrap: str | None = None
    plot: Path | None = None
    pages: bool = False


def play(
    wishes: Wishes, *, scenario: str = "bikes", headless: bool = False, json: bool = False
) -> int:
    """Play one scenario; 0 only if the loop closed.

    Raises:
        ConfigurationError: no such scenario.
    """
    chosen = SCENARIOS.get(scenario)
    if chosen is None:
        raise ConfigurationError(f"no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    # With --json, stdout holds the figures alone; the story goes beside it.
    console = Console(file=sys.stderr if json else None, force_terminal=False if headless else None)
    with ExitStack() as stage:
        folder = Path(stage.enter_context(tempfile.TemporaryDirectory(prefix="driftline-demo-")))
        figures = _perform(chosen, wishes, console, folder, stage)
        print_summary(figures, console)
        if wishes.pages and console.is_terminal:
            _linger(console)
    if json:
        sys.stdout.write(msgspec.json.encode(figures).decode() + "\n")
    return 0 if figures["closed"] else 1


def _perform(
    scenario: Scenario, wishes: Wishes, console: Console, folder: Path, stage: ExitStack
) -> dict[str, Any]:
    begun = time.monotonic()
    happenings = scenario.happenings()
    start_ms = happenings[0].asked_ms + scenario.history_days * DAY_MS
    history = [happening for happening in happenings if happening.asked_ms < start_ms]
    live = [happening for happening in happenings if happening.asked_ms >= start_ms]
    ledger = Ledger(scenario.spec, live)
    settings = _settings(wishes.bootstrap, folder, stage)
    services = Stack(folder, _environment(settings))
    stage.callback(services.stop)
    with Story(ledger, console) as story, ExitStack() as scene:
        kafka = wishes.bootstrap
        where = f"Kafka at {kafka}" if kafka else "an in-memory broker: nothing is kept"
        story.line(f"{scenario.input}: {scenario.question} On {where}.")
        _start(services, scenario, history, story)
        if wishes.pages:
            services.start("console")
            story.line(f"the console shows it on http://localhost:{settings.console_port}/")
        watcher = Watcher(settings, ledger, story)
        watcher.start()
        scene.callback(watcher.stop)
        if not watcher.wait(lambda: ledger.lifecycle is not None, START_SECONDS):
            services.check()
            raise ConfigurationError(
                f"version 1 did not go live; the trainer's log is {services.log('trainer')}"
            )
        replayer = Replayer(settings, scenario.spec.name, live)
        left = max(LEAST_SECONDS, wishes.seconds - (time.monotonic() - begun))
        director = Director(scenario, Pipeline(services, replayer, watcher, ledger, story), left)
        director.play(start_ms, live[-1].asked_ms + DAY_MS)
        if wishes.plot is not None:
            _draw(ledger, wishes.plot)
            story.line(f"its course is drawn in {wishes.plot}")
    return summary(scenario, ledger, start_ms, director.first_alert_seconds)


def _linger(console: Console) -> None:
    """Leave the pages open to be looked at."""
    console.print("The console stays open. Ctrl-C ends it.")
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


def _draw(ledger: Ledger, file: Path) -> None:
    """From what was seen: the in-memory broker keeps the newest records alone."""
    from consumers.course import course_of, draw

    file.write_bytes(draw(course_of(ledger.spec.name, ledger.told)))


def _start(services: Stack, scenario: Scenario, history: list[Happening], story: Story) -> None:
    """The commands of the README's "first model", in its order."""
    services.run("topics", "apply")
    services.run("migrate")
    services.start("worker")
    services.start("trainer")
    spec = services.folder / "spec.json"
    spec.write_bytes(msgspec.json.format(msgspec.json.encode(scenario.spec)))
    data = services.folder / "history.csv"
    data.write_text(history_csv(history))
    last = day(history[-1].asked_ms)
    story.line(
        f"version 1 is trained on {len(history):,} events up to {last}, and its reference with it"
    )
    services.run("models", "add", str(spec), "--data", str(data))


def _settings(bootstrap: str | None, folder: Path, stage: ExitStack) -> Settings:
    flags: dict[str, Any] = {
        "clock": "event",
        "registry_url": f"sqlite:///{folder / 'registry.db'}",
        "artefact_url": f"file:{folder / 'artefacts'}",
        "summary_interval_ms": 100,
        "retention_hours": -1,  # records are stamped with the time they happened at
        "partitions": PARTITIONS,
        "console_url": f"sqlite:///{folder / 'console.db'}",
    }
    if bootstrap:
        prefix = f"demo-{secrets.token_hex(3)}"
        return load(**flags, bootstrap_servers=bootstrap, topic_prefix=prefix)
    broker = EmbeddedBroker()
    stage.callback(lambda: broker)  # held until the set is struck
    settings = load(**flags, bootstrap_servers=broker.bootstrap_servers, embedded_broker=True)
    broker.touch(settings.names)
    return settings


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as the services read them."""
    names = (
        *(
            "bootstrap_servers",
            "topic_prefix",
            "clock",
            "registry_url",
            "artefact_url",
            "partitions",
        ),
        *("summary_interval_ms", "retention_hours", "embedded_broker", "console_url"),
    )
    values = {name: getattr(settings, name) for name in names}
    return {
        f"DRIFTLINE_{name.upper()}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }
