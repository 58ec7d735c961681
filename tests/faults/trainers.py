"""What the rows about the trainer act on: a registry, commands, trainer processes, and a verdict.

Sent commands, runs and versions are counted in the registry; what is live, on `lifecycle`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable

from stream.supervising import environment
from tests.faults.world import Outcome, World
from tests.kafka.loop import DIED_AT_FAILPOINT, HERE
from tests.test_service import Trainer, label_predictions
from tests.topics import make_topics

EXAMPLES = 600
MODEL = "churn"


class Trainers(Trainer):
    """Trainer processes beside each other; whoever ends by itself is started again.

    Attributes:
        sent: command ids by kind.
        deaths: at failpoints; failures: by exit code.
    """

    def __init__(self, world: World) -> None:
        make_topics(world.settings)
        super().__init__(world.settings)
        world.cleanup.callback(self.close_all)
        label_predictions(self, EXAMPLES)
        self.sent: dict[str, list[str]] = {"retrain": [], "promote": [], "rollback": []}
        self.deaths = 0
        self.failures: Counter[int] = Counter()
        self.running: list[subprocess.Popen[bytes]] = []
        self._world = world
        self._log = (world.directory / "trainers.log").open("ab")

    def launch(self, failpoint: str = "") -> subprocess.Popen[bytes]:
        own = {**environment(self.settings, 0), **HERE, "DRIFTLINE_FAILPOINT": failpoint}
        process = subprocess.Popen(
            [sys.executable, *self._world.program, "consumers", "trainer"],
            cwd=self._world.directory,
            env={**os.environ, **own},
            stderr=self._log,
        )
        self.running.append(process)
        return process

    def command(self, kind: str, version: int | None = None) -> None:
        command_id = f"{kind}-{len(self.sent[kind])}"
        self.sent[kind].append(command_id)
        self.send(kind, command_id, version)

    def until(self, what: Callable[[], bool], seconds: float = 90) -> None:
        """Wait, and start those again that have ended."""
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"not within {seconds} s\n{self.log[-2000:]}"
            self.tend()
            time.sleep(0.1)

    def tend(self) -> None:
        for process in list(self.running):
            code = process.poll()
            if code is None:
                continue
            self.running.remove(process)
            if code == DIED_AT_FAILPOINT:
                self.deaths += 1
            else:
                assert code == 1, f"a trainer ended with {code}\n{self.log[-2000:]}"
                self.failures[code] += 1
                assert self.failures.total() < 20, self.log[-2000:]
            self.launch()

    @property
    def log(self) -> str:
        return (self._world.directory / "trainers.log").read_text(errors="replace")

    @property
    def challengers(self) -> list[int]:
        return self.live().challengers

    def handled(self) -> bool:
        """Every retrain has a verdict, every other command is decided, and all is published."""
        runs = self.registry.runs(MODEL)
        ended = {_sent_id(run.command_id) for run in runs if run.verdict != "running"}
        decided = {_sent_id(one.command_id) for one in self.registry.decisions(MODEL)}
        others = {*self.sent["promote"], *self.sent["rollback"]}
        fitted = ended.issuperset(self.sent["retrain"])
        return fitted and others <= decided and not self.registry.outbox_pending()

    def judge(self, faults: int, note: str = "") -> Outcome:
        """Each retrain has one run, one version and one challenge; each promotion one effect."""
        of_run = {run.run_id: _sent_id(run.command_id) for run in self.registry.runs(MODEL)}
        runs = Counter(of_run.values())
        made = [v.run_id for v in self.registry.versions(MODEL) if v.run_id is not None]
        versions = Counter(of_run[run_id] for run_id in made)
        effects = Counter(_sent_id(entry.command_id) for entry in self.registry.history(MODEL))
        del effects[""]  # what the row itself did
        sent = [id_ for ids in self.sent.values() for id_ in ids]
        lost = doubled = 0
        for found, ids in ((runs, self.sent["retrain"]), (versions, self.sent["retrain"])):
            lost += sum(found[id_] == 0 for id_ in ids)
            doubled += sum(max(0, found[id_] - 1) for id_ in found)
        lost += sum(effects[id_] == 0 for id_ in sent)
        doubled += sum(max(0, count - 1) for count in effects.values())
        return Outcome(
            faults=faults,
            events=len(sent),
            lost=lost,
            doubled=doubled,
            fold=self._published(),
            note=", ".join(filter(None, [note, self._ended()])),
        )

    def judge_decisions(self, faults: int, note: str = "") -> Outcome:
        """Each command has one decision, whatever it was."""
        decided = Counter(one.command_id for one in self.registry.decisions(MODEL, 100_000))
        runs = Counter(run.command_id for run in self.registry.runs(MODEL))
        sent = [id_ for ids in self.sent.values() for id_ in ids]
        found = {id_: runs[id_] if id_ in self.sent["retrain"] else decided[id_] for id_ in sent}
        return Outcome(
            faults=faults,
            events=len(sent),
            lost=sum(count == 0 for count in found.values()),
            doubled=sum(max(0, count - 1) for count in found.values()),
            fold=self._published(),
            note=", ".join(filter(None, [note, self._ended()])),
        )

    def _ended(self) -> str:
        return f"{self.failures.total()} ended by themselves" if self.failures else ""

    def _published(self) -> str:
        """Whether `lifecycle` tells the registry's history, in its order."""
        told = list(dict.fromkeys(self.generations()))
        history = [entry.generation for entry in self.registry.history(MODEL)]
        return "equal" if told == history else f"lifecycle {told}, registry {history}"

    def close_all(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()
        self._log.close()
        self.close()


def _sent_id(command_id: str | None) -> str:
    """The id as it was sent: the sabotage `forgetful` makes each delivery another command."""
    return (command_id or "").partition("~")[0]
