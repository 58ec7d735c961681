"""The processes of the whole loop for tests: started, killed, tended, drained.

What producers send is in `tests/kafka/traffic.py`; what the topics must hold in the end is judged
by `tests/kafka/oracle.py`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from stream.settings import Settings
from stream.supervising import environment
from stream.topics import EVERY_STAGE, STAGES, Stage
from tests.patience import PATIENCE_SECONDS
from tests.topics import quiet_client, read_all

DIED_AT_FAILPOINT = 137
HERE = {"PYTHONPATH": str(Path(__file__).parents[2]), "DRIFTLINE_SUPERVISOR": "0"}


class Stages:
    """The processes of the stages; whoever ends is started again, as a supervisor would.

    Attributes:
        program: the interpreter's arguments before the module and its stage.
        environment: variables beside the settings.
        running: process by place, such as ("score", 1).
        armed: the failpoints at which the processes of a place are to act, one a start.
        kills: SIGKILLs sent, by stage, and deaths at failpoints.
        failures: processes that ended by themselves, by stage and exit code; `patience` is how
            many are too many.
    """

    def __init__(self, settings: Settings, directory: Path, **numbers: int) -> None:
        self.settings = settings
        self.program: Sequence[str] = ("-m",)
        self.environment: dict[str, str] = {}
        self.patience = 20
        self.armed: dict[tuple[Stage, int], deque[str]] = defaultdict(deque)
        self._failpoints: dict[tuple[Stage, int], str] = {}
        self._logs: dict[tuple[Stage, int], Path] = {}
        self.running: dict[tuple[Stage, int], subprocess.Popen[bytes]] = {}
        self.kills: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._directory = directory
        self._started = 0
        self._numbers = numbers

    def start(self) -> None:
        for stage in EVERY_STAGE:
            for number in range(self._numbers.get(stage, 0)):
                self.start_one(stage, number)

    def start_one(self, stage: Stage, number: int) -> subprocess.Popen[bytes]:
        self._started += 1
        armed = self.armed[stage, number]
        failpoint = armed.popleft() if armed else ""
        self._failpoints[stage, number] = failpoint
        self._logs[stage, number] = self._directory / f"{self._started:03}-{stage}-{number}.log"
        with self._logs[stage, number].open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *self.program, "stream.worker", stage],
                cwd=self._directory,  # Faust leaves a folder where it is started
                env={
                    **environment(self.settings, 0),
                    **HERE,
                    **self.environment,
                    "DRIFTLINE_FAILPOINT": failpoint,
                },
                stderr=log,
            )
        self.running[stage, number] = process
        return process

    def kill(self, stage: Stage, number: int) -> None:
        """SIGKILL, and start it again at once."""
        process = self.running[stage, number]
        process.kill()
        process.wait()
        self.kills[stage] += 1
        self.start_one(stage, number)

    def tend(self) -> None:
        """Start those again that ended by themselves; a wrong setting is not to be mended so."""
        for (stage, number), process in list(self.running.items()):
            code = process.poll()
            if code == DIED_AT_FAILPOINT:
                self.kills[stage] += 1
                self.start_one(stage, number)
            elif code is not None:
                assert code == 1, f"{stage} ended with {code}\n{self.errors()}"
                self.failures[f"{stage}:{code}"] += 1
                assert self.failures.total() < self.patience, self.errors()
                self._arm_again(stage, number)
                self.start_one(stage, number)

    def _arm_again(self, stage: Stage, number: int) -> None:
        """It ended by itself, before it came to the step at which it was to die."""
        failpoint = self._failpoints[stage, number]
        if failpoint and not failpoint.endswith(":stop"):
            self.armed[stage, number].appendleft(failpoint)

    def stop(self, stage: Stage) -> None:
        """SIGTERM; all must drain, but for one that has not even begun."""
        mine = [place for place in self.running if place[0] == stage]
        for place in mine:
            self.running[place].send_signal(signal.SIGTERM)
        codes = {place: self.running.pop(place).wait(PATIENCE_SECONDS) for place in mine}
        for place, code in codes.items():
            unborn = code == -signal.SIGTERM and not self._logs[place].stat().st_size
            assert code == 0 or unborn, f"{place} ended with {code}\n{self.errors()}"

    def end(self) -> None:
        """Whatever happened: leave no process behind."""
        for process in self.running.values():
            process.kill()
            process.wait()

    def logged(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(file name, line) of all logs."""
        for file in sorted(self._directory.glob("*.log")):
            for line in file.read_text(errors="replace").splitlines():
                try:
                    yield file.name, json.loads(line)
                except ValueError:  # a line that a kill cut short, or a library's
                    yield file.name, {"event": line}

    def count(self, event: str, stage: str = "") -> int:
        """How often the logs tell of an event, of one stage or of all."""
        return sum(
            line.get("event") == event and stage in ("", line.get("stage"))
            for _, line in self.logged()
        )

    def errors(self) -> str:
        """The last lines that tell of trouble."""
        odd = [f"{n}: {line}" for n, line in self.logged() if line.get("level") not in ("info",)]
        return "\n".join(odd[-40:])


class Offsets:
    """How far a group has committed, and where its topics end, open transactions included."""

    def __init__(self, settings: Settings, stage: Stage) -> None:
        properties = {
            "group.id": settings.names.group(stage),
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",  # else an end is where the first open one begins
        }
        self._client = Consumer(quiet_client(settings.bootstrap_servers, **properties))
        self._places = [
            TopicPartition(topic, partition)
            for topic in settings.names.inputs(stage)
            for partition in range(settings.partitions)
        ]

    def committed(self) -> dict[tuple[str, int], int]:
        found = _retried(lambda: self._client.committed(self._places, timeout=30))
        return {(tp.topic, tp.partition): max(0, tp.offset) for tp in found}

    def behind(self) -> int:
        """Offsets still to come, control records included."""
        committed = self.committed()
        ends = {
            (tp.topic, tp.partition): _retried(
                partial(self._client.get_watermark_offsets, tp, timeout=30)
            )[1]
            for tp in self._places
        }
        return int(sum(ends.values()) - sum(committed.values()))

    def close(self) -> None:
        self._client.close()


def _retried(call: Callable[[], Any]) -> Any:
    """A client that was just made may not know yet who leads a partition."""
    for _ in range(4):
        try:
            return call()
        except KafkaException:
            time.sleep(0.5)
    return call()


def until(what: Callable[[], bool], stages: Stages, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait, and start again what ends meanwhile."""
    deadline = time.monotonic() + seconds
    while not what():
        stages.tend()
        assert time.monotonic() < deadline, f"not within {seconds} s\n{stages.errors()}"
        time.sleep(0.3)


def drain(
    stages: Stages, seconds: float = PATIENCE_SECONDS, chosen: Sequence[Stage] = STAGES
) -> None:
    """Wait until each stage has applied all that came, and end it, in the order of the flow."""
    for stage in [stage for stage in chosen if (stage, 0) in stages.running]:
        offsets = Offsets(stages.settings, stage)
        try:
            until(lambda offsets=offsets: offsets.behind() == 0, stages, seconds)  # type: ignore[misc]
            if stage == "monitor":
                _await_reports(stages, seconds)
            stages.stop(stage)
        finally:
            offsets.close()


def _await_reports(stages: Stages, seconds: float) -> None:
    """Until every partition of monitor has told of all that it has applied by now."""
    now_ms = int(time.time() * 1000)
    until(lambda: _reported_ms(stages.settings) > now_ms, stages, seconds)


def _reported_ms(settings: Settings) -> int:
    """The clock of the oldest among the partitions' newest reports."""
    latest: dict[int, int] = {}
    for record in read_all(settings.bootstrap_servers, settings.names.topic("summaries")):
        data = json.loads(record.value or b"")["data"]
        if "clock_ms" in data:
            latest[data["partition"]] = int(data["clock_ms"])
    return min(latest.values()) if len(latest) == settings.partitions else 0
