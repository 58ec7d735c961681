"""What the topics must hold after a run of the loop, whatever was done to its processes.

Everything is read from the topics, read-committed, after the stages have drained. Two folds are
held against the summaries: a replay of the journal by the monitor's own core, byte for byte, and
`tests/kafka/naive.py`, which shares no code with it.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from stream.checkpoints import Manifest
from stream.core.evaluate import EvaluateProcessor
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Fleet, Output, Record
from stream.events import (
    AccuracyMeasured,
    Alert,
    Command,
)
from stream.topics import HEADER_REROUTED, STAGES
from tests.kafka.logs import Logs
from tests.kafka.loop import Offsets
from tests.kafka.naive import Naive
from tests.kafka.traffic import SPEC
from tests.monitoring import examples_in, merged
from tests.topics import Seen

EFFECTS = ("accuracy", "drift", "alerts", "commands")


def check_all(logs: Logs, requested: Iterable[str], *, lateless: bool) -> Naive:
    """Everything that must hold for a run with one generation of one model.

    Args:
        requested: ids of the requests that were sent.
        lateless: nothing was late, so the ticks in which labels arrived are known too.
    """
    check_predictions(logs, requested)
    check_progress(logs)
    check_replay(logs)
    naive = check_naive(logs, lateless=lateless)
    check_evaluate(logs)
    check_unique(logs)
    check_offsets(logs)
    return naive


def check_predictions(logs: Logs, requested: Iterable[str]) -> None:
    """Every request has exactly one prediction, and nothing was refused."""
    for entity in ("requests.dlq", "predictions.dlq", "feedback.dlq"):
        assert logs.of(entity) == []
    said = logs.data("predictions")
    made = Counter(data["prediction_id"] for data in said if "clock_ms" not in data)
    assert_same(made, Counter(requested), "predictions by id")


def check_generations(logs: Logs) -> dict[int, Counter[tuple[int, int]]]:
    """Generations never go back in a partition; returns (generation, version) counts of each."""
    seen: dict[int, Counter[tuple[int, int]]] = {}
    for partition in logs.partitions:
        values = logs.values("predictions", partition)
        made = [json.loads(value)["data"] for value in values]
        generations = [data["generation"] for data in made]
        assert generations == sorted(generations), f"partition {partition} went back"
        seen[partition] = Counter((data["generation"], data["version"]) for data in made)
    return seen


def check_progress(logs: Logs) -> None:
    """Reports of a partition have no hole, never go back, and cover the whole input."""
    for partition in logs.partitions:
        reports = logs.progress(partition)
        assert [report.sequence for report in reports] == list(range(len(reports)))
        watermarks = [report.watermark_ms for report in reports]
        assert watermarks == sorted(watermarks)
        covered: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for report in reports:
            for run in report.applied:
                covered[run.entity].append((run.first, run.end))
        for entity in ("predictions", "feedback"):
            _check_covered(logs.records[entity, partition], covered[entity])
    copies = [
        [v for v in logs.values("summaries", p) if "watermark_ms" in json.loads(v)["data"]]
        for p in logs.partitions
    ]
    assert all(sorted(copy) == sorted(copies[0]) for copy in copies)


def _check_covered(records: list[Record], runs: list[tuple[int, int]]) -> None:
    """Each record lies in exactly one run, and runs come in the order of the log."""
    assert runs == sorted(runs)
    assert all(one[1] <= other[0] for one, other in pairwise(runs))
    inside = sum(
        bisect_left(records, (end,)) - bisect_left(records, (first,)) for first, end in runs
    )
    assert inside == len(records)


def check_replay(logs: Logs) -> None:
    """The journal, replayed by the core, gives the very bytes that lie in the topics, and the same
    examples, though others of them may come together."""
    for partition in logs.partitions:
        outputs = _replayed(logs, partition)
        told = [v for v in logs.values("summaries", logs.home) if _source(v) == partition]
        again = [o.value for o in outputs if (o.entity, o.partition) == ("summaries", logs.home)]
        other = [pair for pair in zip(told, again, strict=False) if pair[0] != pair[1]]
        assert not other, f"summaries of {partition}: {len(other)} differ, first {other[0]}"
        assert len(told) == len(again), f"summaries of {partition}"
        lie = Counter(one for one in logs.examples() if one.partition == partition)
        assert_same(lie, Counter(examples_in(outputs)), f"examples of {partition}")
        _check_rerouted(logs, partition, outputs)


def _replayed(logs: Logs, partition: int) -> list[Output]:
    processor = MonitorProcessor(logs.context(partition))
    fleet: Fleet = {}
    outputs: list[Output] = []
    for report in logs.progress(partition):
        for run in report.applied:
            if run.generations:
                fleet = logs.fleets[run.generations[SPEC.name]]
            log = logs.records[run.entity, partition] if run.entity else []
            records = log[bisect_left(log, (run.first,)) : bisect_left(log, (run.end,))]
            outputs += processor.apply(Batch(run.entity, partition, records), fleet)
        outputs += processor.advance(report.clock_ms, report.caught_up, fleet)
    return outputs


def _source(value: bytes) -> int | None:
    """The partition of monitor that a summary or report is of; None if it is none of monitor's."""
    event = json.loads(value)
    return event["data"]["partition"] if event["source"] == "driftline/monitor" else None


def _check_rerouted(logs: Logs, partition: int, outputs: list[Output]) -> None:
    for entity in ("predictions", "feedback"):
        sent = Counter((o.key, o.value, o.partition) for o in outputs if o.entity == entity)
        mark = (HEADER_REROUTED, str(partition).encode())
        landed = Counter(
            (s.key, s.value, s.partition) for s in logs.of(entity) if mark in s.headers
        )
        assert_same(landed, sent, f"re-routed {entity} of {partition}")


def check_naive(logs: Logs, *, lateless: bool) -> Naive:
    """The sums of all deltas and the examples are those of the naive fold of the logs."""
    watermarks = {p: logs.progress(p)[-1].watermark_ms for p in logs.partitions}
    predictions, feedback = (
        [record for record in logs.good(entity) if _belongs(record, logs)]
        for entity in ("predictions", "feedback")
    )
    naive = Naive(SPEC, predictions, feedback, watermarks)
    totals = {(v, s, t): total for (_, v, s, t), total in merged(logs.deltas).items()}
    _check_sums(totals, naive)
    _check_bets(totals, naive, lateless=lateless)
    _check_counters(totals, naive)
    examples = Counter(
        (example.prediction_id, example.revision, example.label) for example in logs.examples()
    )
    assert_same(examples, Counter(naive.examples), "examples")
    return naive


Totals = Mapping[Any, Mapping[str, Any]]  # by place


def _check_sums(totals: Totals, naive: Naive) -> None:
    for name in ("predictions", "labelled"):
        told = {place: total[name] for place, total in totals.items() if name in total}
        assert_same(told, getattr(naive, name), name)
    for name in ("sums", "squares"):
        assert_same(_named(totals, name), getattr(naive, name), name)


def _check_bets(totals: Totals, naive: Naive, *, lateless: bool) -> None:
    bets = {
        (place, number): count
        for place, total in totals.items()
        for number, count in enumerate(total.get("bets", []))
    }
    assert_same(_timeless(bets), _timeless(naive.bets), "bets")
    if lateless:
        assert_same(bets, naive.bets, "bets by tick")


def _check_counters(totals: Totals, naive: Naive) -> None:
    overall = {place: total for place, total in totals.items() if place[1] == ""}
    for name in ("counters", "delays"):
        told: Counter[str] = Counter()
        for (_, what), count in _named(overall, name).items():
            if not what.startswith("refused:"):  # the naive fold sees what was accepted
                told[what] += count
        expected = {str(what): count for what, count in getattr(naive, name).items()}
        assert_same(told, expected, name)


def _belongs(record: Seen, logs: Logs) -> bool:
    """Not one that was sent on to where it belongs, or that came from there."""
    if record.key is None or any(name == HEADER_REROUTED for name, _ in record.headers):
        return True
    return logs.right_partition(record.key) == record.partition


def _named(totals: Totals, field: str) -> dict[Any, int]:
    return {
        (place, name): value
        for place, total in totals.items()
        for name, value in total.get(field, {}).items()
        if value
    }


def _timeless(bets: Mapping[Any, int]) -> Counter[Any]:
    """Without the tick."""
    summed: Counter[Any] = Counter()
    for ((version, segment, _), bin_), count in bets.items():
        summed[version, segment, bin_] += count
    return summed


def check_evaluate(logs: Logs) -> None:
    """The summaries, folded offline, give the very measurements, alerts and commands."""
    processor = EvaluateProcessor(logs.context(logs.home))
    (fleet,) = [
        fleet for generation, fleet in logs.fleets.items() if generation == max(logs.fleets)
    ]
    records = logs.records["summaries", logs.home]
    outputs = processor.apply(Batch("summaries", logs.home, records), fleet)
    for entity in EFFECTS:
        told = sorted(record.value or b"" for record in logs.of(entity))
        again = sorted(o.value or b"" for o in outputs if o.entity == entity)
        assert len(told) == len(again), entity
        assert told == again, entity
    assert logs.values("accuracy", logs.home) == [
        o.value for o in outputs if o.entity == "accuracy"
    ]


def last_accuracy(logs: Logs) -> AccuracyMeasured:
    """The newest word on the champion's first window."""
    found = [msgspec.convert(data, AccuracyMeasured) for data in logs.data("accuracy")]
    wanted = [a for a in found if (a.segment, a.window) == ("", "20s")]
    return max(wanted, key=lambda a: (a.end_ms, a.revision))


def check_unique(logs: Logs) -> None:
    """One id, one effect: no event, alert revision or command lies in a topic twice."""
    for entity in (*EFFECTS, "predictions", "examples"):
        ids = [json.loads(record.value or b"")["id"] for record in logs.good(entity)]
        assert len(ids) == len(set(ids)), entity
    examples = [(one.model, one.prediction_id, one.revision) for one in logs.examples()]
    assert len(examples) == len(set(examples))
    commands = [msgspec.convert(data, Command) for data in logs.data("commands")]
    assert len({command.command_id for command in commands}) == len(commands)
    decided = Counter((command.kind, command.generation) for command in commands)
    assert all(count == 1 for count in decided.values()), decided
    alerts = [msgspec.convert(data, Alert) for data in logs.data("alerts")]
    assert len({(alert.alert_id, alert.revision) for alert in alerts}) == len(alerts)
    opened = Counter(alert.problem for alert in alerts if alert.revision == 0)
    resolved = Counter(alert.problem for alert in alerts if alert.state == "resolved")
    assert all(count - resolved[problem] in (0, 1) for problem, count in opened.items())


def check_offsets(logs: Logs) -> None:
    """Each checkpoint goes on exactly where its group's committed offsets are."""
    settings = logs.settings
    for stage in STAGES:
        next_ones: dict[tuple[str, int], int] = {}
        for record in logs.of(f"checkpoints.{stage}"):
            if record.key == b"manifest":
                manifest = msgspec.json.decode(record.value or b"", type=Manifest)
                for entity, offset in manifest.next.items():
                    next_ones[settings.names.topic(entity), record.partition] = offset
        offsets = Offsets(settings, stage)
        committed = offsets.committed()
        offsets.close()
        assert_same(next_ones, {k: v for k, v in committed.items() if k in next_ones}, stage)


def assert_same(found: Mapping[Any, int], expected: Mapping[Any, int], what: str) -> None:
    """Equal counts; what differs is told shortly, not as 200,000 rows."""
    odd = [
        f"{key}: {found.get(key, 0)}, not {expected.get(key, 0)}"
        for key in sorted(found.keys() | expected.keys(), key=str)
        if found.get(key, 0) != expected.get(key, 0)
    ]
    assert not odd, f"{what}: {len(odd)} differ\n" + "\n".join(odd[:10])
