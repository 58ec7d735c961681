"""Events per CPU second of the worker processes, side by side with copies and with other tools.

    python -m benchmarks.throughput [--quick] [--json] [--only score,bytewax]

In each round every contender starts afresh on topics of its own, warms up on a tenth of the events,
and then gets the rest at one stroke: they are written in one transaction and its commit makes them
visible. What is counted is user and system time of the contender's processes from that commit to
the commit of the last event's offset. The rounds interleave the contenders, so that whatever else
the machine does meets all of them; a ratio is of two contenders of one round.

The other tools (`benchmarks.scorers`) decode the same requests, predict with the same weights and
write a prediction each, at least once. They are measured until their last prediction lies in the
topic. Faust reads what is not committed yet, so its clock begins before the first event is written.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal, NamedTuple

from benchmarks import peers, quix, workload
from benchmarks.reporting import Spread, parser, report, say, spread
from benchmarks.workers import Progress, Workers, Written, kafka, release
from consumers.labelled import examples_in
from stream.core.processor import Record
from stream.settings import Settings
from stream.topics import STAGES, Stage
from tests.topics import Sent, create, delete_topics, read_all

WORKER = (sys.executable, "-m", "consumers", "worker", "--stages")
Begin = Literal["release", "commit"]
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


def monitor(bench: Bench, prefix: str) -> Run:
    """The monitor stage as shipped: predictions that others made, then a label for each."""
    settings = bench.settings(prefix)
    workload.go_live(settings, bench.versions[:1])
    names = settings.names
    predictions = list(workload.predictions(len(bench.requests)))
    inputs = {names.topic("predictions"): predictions, names.topic("feedback"): bench.feedback}

    def through(first: int, end: int) -> None:
        for topic, records in inputs.items():
            release(bench.bootstrap, topic, records[first:end])
            progress.wait_for_end(workers, topic)

    with bench.workers(prefix, (*WORKER, "monitor")) as workers:
        progress = Progress(bench.bootstrap, names.group("monitor"))
        through(0, bench.warm)
        started = time.monotonic(), workers.cpu_seconds()
        through(bench.warm, len(bench.requests))
        run = _run(bench, started, workers)
    _check_examples(bench, settings)
    return run


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
    _check_examples(bench, settings)
    return run


def peer(bench: Bench, prefix: str, *, name: str, model: bool) -> Run:
    """Another tool, at least once; without a model it decodes and encodes only."""
    if name in SLOW:
        bench = replace(bench, requests=bench.requests[: len(bench.requests) // SLOW[name]])
    source, target, group = f"{prefix}.source", f"{prefix}.target", f"{prefix}.peer"
    create(bench.bootstrap, dict.fromkeys((source, target), bench.settings(prefix).partitions))
    python = peers.python(name) if name in PEERS.values() else sys.executable
    command = [str(python), "-m", "benchmarks.scorers", name, bench.bootstrap]
    command += [source, target, group]
    if model:
        command.append(str(workload.write_weights(bench.versions[0], bench.folder)))
    with bench.workers(prefix, command) as workers:
        written = Written(bench.bootstrap, target)
        begin: Begin = "release" if name in UNCOMMITTED else "commit"
        run = measure(bench, workers, source, lambda count: written.wait_for(workers, count), begin)
    _check(bench, target)
    return run


CONTENDERS: Final[dict[str, Callable[[Bench, str], Run]]] = {
    "copy": byte_copy,
    "quix": quix_copy,
    "score": score,
    "score_shadows": score_with_shadows,
    "monitor": monitor,
    "loop": loop,
    "bytewax": partial(peer, name="bytewax", model=False),
    "bytewax_model": partial(peer, name="bytewax", model=True),
    "pathway": partial(peer, name="pathway", model=True),
    "faust": partial(peer, name="faust", model=True),
    "river": partial(peer, name="river", model=True),
}
TITLES: Final = {
    "copy": "librdkafka byte copy",
    "quix": "quixstreams copy",
    "score": "score",
    "score_shadows": "score, two shadow versions",
    "monitor": "monitor, a prediction and its label",
    "loop": "score + monitor + evaluate",
    "bytewax": "Bytewax, no model, at least once",
    "bytewax_model": "Bytewax, at least once",
    "pathway": "Pathway, at least once",
    "faust": "Faust by itself, at least once",
    "river": "a loop by hand with river, at least once",
}
BASES: Final = {"copy": "to byte copy", "quix": "to quix", "bytewax": "to Bytewax, no model"}
#: Contenders that need an environment of their own: the peer's name there.
PEERS: Final = {"bytewax": "bytewax", "bytewax_model": "bytewax", "pathway": "pathway"}
SLOW: Final = {"faust": 5}  # gets that part of the events
UNCOMMITTED: Final = ("faust",)  # read what lies in open transactions
#: What a minute is enough for.
QUICK: Final = ("copy", "quix", "score", "score_shadows", "monitor", "loop")


def _score(bench: Bench, prefix: str, *, versions: int) -> Run:
    settings = bench.settings(prefix)
    workload.go_live(settings, bench.versions[:versions])
    requests, predictions = (settings.names.topic(one) for one in ("requests", "predictions"))
    with bench.workers(prefix, (*WORKER, "score")) as workers:
        progress = Progress(bench.bootstrap, settings.names.group("score"))
        run = measure(bench, workers, requests, lambda _: progress.wait_for_end(workers, requests))
    _check(bench, predictions)
    return run


def _copy(bench: Bench, prefix: str, command: Callable[[str, str, str], Sequence[str]]) -> Run:
    source, target, group = f"{prefix}.source", f"{prefix}.target", f"{prefix}.copy"
    create(bench.bootstrap, dict.fromkeys((source, target), bench.settings(prefix).partitions))
    with bench.workers(prefix, command(source, target, group)) as workers:
        progress = Progress(bench.bootstrap, group)
        run = measure(bench, workers, source, lambda _: progress.wait_for_end(workers, source))
    _check(bench, target)
    return run


def measure(
    bench: Bench,
    workers: Workers,
    topic: str,
    wait: Callable[[int], None],
    begin: Begin = "commit",
) -> Run:
    """
    Args:
        wait: until the workers are done with so many requests.
        begin: the clock, when the events are written or when their transaction is committed.
    """
    release(bench.bootstrap, topic, bench.requests[: bench.warm])
    wait(bench.warm)
    started = time.monotonic(), workers.cpu_seconds()

    def start() -> None:
        nonlocal started
        if begin == "commit":
            started = time.monotonic(), workers.cpu_seconds()

    release(bench.bootstrap, topic, bench.requests[bench.warm :], before_commit=start)
    wait(len(bench.requests))
    return _run(bench, started, workers)


def _run(bench: Bench, started: tuple[float, float], workers: Workers) -> Run:
    seconds, cpu_seconds = time.monotonic() - started[0], workers.cpu_seconds() - started[1]
    return Run(len(bench.requests) - bench.warm, seconds, cpu_seconds)


def _check(bench: Bench, topic: str) -> None:
    """A throughput counts only if it lost and doubled nothing."""
    _check_each(bench, topic, [record.key for record in read_all(bench.bootstrap, topic)])


def _check_examples(bench: Bench, settings: Settings) -> None:
    """The same of labels that were joined."""
    topic = settings.names.topic("examples")
    records = (
        Record(seen.offset, seen.timestamp_ms, seen.key, seen.value, seen.headers)
        for seen in read_all(bench.bootstrap, topic)
    )
    ids = [
        one.prediction_id
        for record in records
        for one in examples_in(record, settings.max_record_bytes)
    ]
    _check_each(bench, topic, ids)


def _check_each(bench: Bench, topic: str, ids: Sequence[object]) -> None:
    expected = len(bench.requests)
    assert len(ids) == len(set(ids)) == expected, f"{len(ids)} of {expected} in {topic}"


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
    bases = [base for base in BASES if base in names]
    rows = []
    for name in names:
        wall = spread([one[name].per_second for one in rounds])
        cpu = spread([one[name].per_cpu_second for one in rounds])
        ratios = {base: _ratio(rounds, name, base) for base in bases}
        rows.append([TITLES[name], f"{wall.median:,.0f}", f"{cpu:,.0f}"])
        rows[-1] += [f"{ratio:.2f}" for ratio in ratios.values()]
        figures[f"{name}_events_per_second"] = round(wall.median)
        figures[f"{name}_events_per_cpu_second"] = round(cpu.median)
        for base, ratio in ratios.items():
            figures |= _named(f"{name}_to_{base}", ratio)
    columns = ["", "events/s", "events per CPU second", *(BASES[base] for base in bases)]
    title = "On one broker, exactly once unless said; median (lowest-highest) of the rounds"
    report(title, columns, rows, figures, as_json=as_json)


def _named(name: str, value: Spread) -> dict[str, object]:
    median, low, high = (round(one, 4) for one in value)
    return {name: median, f"{name}_low": low, f"{name}_high": high}


def main() -> None:
    arguments = _arguments()
    names = _present(arguments.only or (QUICK if arguments.quick else CONTENDERS), arguments.quick)
    events = arguments.events or (50_000 if arguments.quick else 300_000)
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    with kafka(heap="2g") as (broker, folder):
        requests, feedback = list(workload.requests(events)), list(workload.feedback(events))
        bench = Bench(broker.bootstrap, folder, requests, feedback, workload.versions(3))
        done = _rounds(bench, rounds, names)
    _report(done, as_json=arguments.json)


def _present(names: Iterable[str], quick: bool) -> list[str]:
    """Those that can be run; why the others can't is said aloud."""
    found = []
    for name in names:
        reason = None
        if name == "quix":
            reason = quix.missing(install=not quick)
        elif name in PEERS:
            reason = peers.missing(PEERS[name], install=not quick)
        if reason:
            say(f"[bold]skipped: {TITLES[name]}[/]: {reason}")
        else:
            found.append(name)
    return found


def _arguments() -> argparse.Namespace:
    one = parser("Events per CPU second, against copies that do no work and against other tools.")
    one.add_argument("--events", type=int, help="in each run, a tenth of them to warm up")
    one.add_argument("--rounds", type=int)
    one.add_argument("--only", type=_contenders, help=f"some of {','.join(CONTENDERS)}")
    return one.parse_args()


def _contenders(text: str) -> list[str]:
    """The byte copy is always one of them: it is what the others are compared with.

    Raises:
        ArgumentTypeError: there is no such contender.
    """
    if unknown := sorted(set(text.split(",")) - set(CONTENDERS)):
        raise argparse.ArgumentTypeError(
            f"no contender {', '.join(unknown)}; there are {', '.join(CONTENDERS)}"
        )
    return [name for name in CONTENDERS if name == "copy" or name in text.split(",")]


if __name__ == "__main__":
    main()
