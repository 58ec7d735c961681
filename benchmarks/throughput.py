"""Events per CPU second of the worker processes, side by side with two copies that do no work.

    python -m benchmarks.throughput [--quick] [--json]

In each round every contender starts afresh on topics of its own, warms up on a tenth of the events,
and then gets the rest at one stroke: they are written in one transaction and its commit makes them
visible. What is counted is user and system time of the contender's processes from that commit to
the commit of the last event's offset. The rounds interleave the contenders, so that whatever else
the machine does meets all of them; a ratio is of two contenders of one round.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import quix, workload
from benchmarks.reporting import Spread, parser, report, say, spread
from benchmarks.workers import Progress, Workers, release
from stream.settings import Settings
from stream.topics import STAGES, Stage
from tests.broker import Broker
from tests.topics import Sent, create, delete_topics, read_all

WORKER = (sys.executable, "-m", "consumers", "worker", "--stages")
SETTLE_SECONDS = 2.5  # for evaluate to take in what monitor's last interval summed up


class Run(NamedTuple):
    """One contender's measurement."""

    events: int
    seconds: float
    cpu_seconds: float

    @property
    def per_second(self) -> float:
        return self.events / self.seconds

    @property
    def per_cpu_second(self) -> float:
        return self.events / self.cpu_seconds


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    bootstrap: str
    folder: Path
    requests: Sequence[Sent]
    feedback: Sequence[Sent]
    versions: Sequence[workload.Version]

    @property
    def warm(self) -> int:
        return len(self.requests) // 10

    def settings(self, prefix: str) -> Settings:
        return workload.benchmark_settings(self.bootstrap, prefix, self.folder)

    def workers(self, prefix: str, *commands: Sequence[str]) -> Workers:
        environment = workload.environment(self.settings(prefix))
        return Workers(commands, environment, self.folder / f"{prefix}.log")


def byte_copy(bench: Bench, prefix: str) -> Run:
    """librdkafka, exactly once, no work at all."""
    command = [sys.executable, "-m", "benchmarks.byte_copy"]
    return _copy(bench, prefix, lambda source, target, group: [*command, source, target, group])


def quix_copy(bench: Bench, prefix: str) -> Run:
    """quixstreams, exactly once, no work at all."""
    interval = str(bench.settings(prefix).commit_interval_ms / 1000)
    python, script = str(quix.python()), str(quix.SCRIPT)
    return _copy(
        bench,
        prefix,
        lambda *names: [python, script, bench.bootstrap, *names, interval],
    )


def score(bench: Bench, prefix: str) -> Run:
    """The score stage as shipped, one version."""
    return _score(bench, prefix, versions=1)


def score_with_shadows(bench: Bench, prefix: str) -> Run:
    """The score stage with two further versions in shadow."""
    return _score(bench, prefix, versions=3)


def loop(bench: Bench, prefix: str) -> Run:
    """score, monitor and evaluate; the labels come when all predictions have been made."""
    settings = bench.settings(prefix)
    workload.go_live(settings, bench.versions[:1])
    names = settings.names
    group: dict[Stage, Progress] = {
        stage: Progress(bench.bootstrap, names.group(stage)) for stage in STAGES
    }

    def through(workers: Workers, first: int, end: int) -> None:
        release(bench.bootstrap, names.topic("requests"), bench.requests[first:end])
        group["score"].wait_for_end(workers, names.topic("requests"))
        group["monitor"].wait_for_end(workers, names.topic("predictions"))
        release(bench.bootstrap, names.topic("feedback"), bench.feedback[first:end])
        group["monitor"].wait_for_end(workers, names.topic("feedback"))
        time.sleep(SETTLE_SECONDS)

    commands = [(*WORKER, stage) for stage in STAGES]
    with bench.workers(prefix, *commands) as workers:
        through(workers, 0, bench.warm)
        started = time.monotonic(), workers.cpu_seconds()
        through(workers, bench.warm, len(bench.requests))
        run = _run(bench, started, workers)
    _check(bench, names.topic("examples"))
    return run


CONTENDERS: dict[str, Callable[[Bench, str], Run]] = {
    "copy": byte_copy,
    "quix": quix_copy,
    "score": score,
    "score_shadows": score_with_shadows,
    "loop": loop,
}
TITLES = {
    "copy": "librdkafka byte copy",
    "quix": "quixstreams copy",
    "score": "score",
    "score_shadows": "score, two shadow versions",
    "loop": "score + monitor + evaluate",
}


def _score(bench: Bench, prefix: str, *, versions: int) -> Run:
    settings = bench.settings(prefix)
    workload.go_live(settings, bench.versions[:versions])
    requests, predictions = (settings.names.topic(one) for one in ("requests", "predictions"))
    with bench.workers(prefix, (*WORKER, "score")) as workers:
        run = measure(bench, workers, requests, settings.names.group("score"))
    _check(bench, predictions)
    return run


def _copy(bench: Bench, prefix: str, command: Callable[[str, str, str], Sequence[str]]) -> Run:
    source, target, group = f"{prefix}.source", f"{prefix}.target", f"{prefix}.copy"
    create(bench.bootstrap, dict.fromkeys((source, target), bench.settings(prefix).partitions))
    with bench.workers(prefix, command(source, target, group)) as workers:
        run = measure(bench, workers, source, group)
    _check(bench, target)
    return run


def measure(bench: Bench, workers: Workers, topic: str, group: str) -> Run:
    progress = Progress(bench.bootstrap, group)
    release(bench.bootstrap, topic, bench.requests[: bench.warm])
    progress.wait_for_end(workers, topic)
    started = 0.0, 0.0

    def start() -> None:
        nonlocal started
        started = time.monotonic(), workers.cpu_seconds()

    release(bench.bootstrap, topic, bench.requests[bench.warm :], before_commit=start)
    progress.wait_for_end(workers, topic)
    return _run(bench, started, workers)


def _run(bench: Bench, started: tuple[float, float], workers: Workers) -> Run:
    seconds, cpu_seconds = time.monotonic() - started[0], workers.cpu_seconds() - started[1]
    return Run(len(bench.requests) - bench.warm, seconds, cpu_seconds)


def _check(bench: Bench, topic: str) -> None:
    """A throughput counts only if it lost and doubled nothing."""
    keys = [record.key for record in read_all(bench.bootstrap, topic)]
    expected = len(bench.requests)
    assert len(keys) == len(set(keys)) == expected, f"{len(keys)} of {expected} in {topic}"


def _rounds(bench: Bench, count: int, names: Sequence[str]) -> list[dict[str, Run]]:
    done: list[dict[str, Run]] = []
    for number in range(1, count + 1):
        done.append({})
        for name in names:
            prefix = f"bench-{number}-{name.replace('_', '-')}"
            run = CONTENDERS[name](bench, prefix)
            delete_topics(bench.bootstrap, prefix)
            done[-1][name] = run
            say(f"round {number}  {TITLES[name]}: {run.per_cpu_second:,.0f} events per CPU second")
    return done


def _ratio(rounds: Sequence[dict[str, Run]], name: str, base: str) -> Spread:
    return spread([one[name].per_cpu_second / one[base].per_cpu_second for one in rounds])


def _report(rounds: Sequence[dict[str, Run]], *, as_json: bool) -> None:
    names = list(rounds[0])
    figures: dict[str, object] = {"rounds": len(rounds), "events": rounds[0]["copy"].events}
    rows = []
    for name in names:
        wall = spread([one[name].per_second for one in rounds])
        cpu = spread([one[name].per_cpu_second for one in rounds])
        to_copy = _ratio(rounds, name, "copy")
        row = [TITLES[name], f"{wall.median:,.0f}", f"{cpu:,.0f}", f"{to_copy:.2f}"]
        figures[f"{name}_events_per_second"] = round(wall.median)
        figures[f"{name}_events_per_cpu_second"] = round(cpu.median)
        figures |= _named(f"{name}_to_copy", to_copy)
        if "quix" in names:
            to_quix = _ratio(rounds, name, "quix")
            figures |= _named(f"{name}_to_quix", to_quix)
            row.append(f"{to_quix:.2f}")
        rows.append(row)
    columns = ["", "events/s", "events per CPU second", "per CPU second, to byte copy", "to quix"]
    title = "Exactly once on one broker; median (lowest-highest) of the rounds"
    report(title, columns[: len(rows[0])], rows, figures, as_json=as_json)


def _named(name: str, value: Spread) -> dict[str, object]:
    median, low, high = (round(one, 4) for one in value)
    return {name: median, f"{name}_low": low, f"{name}_high": high}


def main() -> None:
    arguments = _arguments()
    names = list(arguments.only or CONTENDERS)
    if "quix" in names and (reason := quix.missing(install=not arguments.quick)):
        say(f"[bold]skipped: {TITLES['quix']}[/]: {reason}")
        names.remove("quix")
    events = arguments.events or (50_000 if arguments.quick else 300_000)
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name:
        folder = Path(name)
        say("starting Kafka")
        with Broker(folder / "kafka", heap="2g") as broker:
            requests, feedback = list(workload.requests(events)), list(workload.feedback(events))
            bench = Bench(broker.bootstrap, folder, requests, feedback, workload.versions(3))
            done = _rounds(bench, rounds, names)
    _report(done, as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    one = parser("Events per CPU second, against copies that do no work.")
    one.add_argument("--events", type=int, help="in each run, a tenth of them to warm up")
    one.add_argument("--rounds", type=int)
    one.add_argument("--only", type=_contenders, help=f"some of {','.join(CONTENDERS)}")
    return one.parse_args()


def _contenders(text: str) -> list[str]:
    """The byte copy is always one of them: it is what the others are compared with."""
    return [name for name in CONTENDERS if name == "copy" or name in text.split(",")]


if __name__ == "__main__":
    main()
