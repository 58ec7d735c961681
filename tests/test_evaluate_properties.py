"""R1 and R2 of the stage evaluate: replay is exact, and order of delivery changes no verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.core.processor import Batch, Fleet, Output
from stream.events import AccuracyMeasured, Command, DriftMeasured, ProgressReported
from tests.summaries import Monitor, Trainer, batch, facts, processor, verdicts

Events = list[msgspec.Struct]


def stories() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Days with what may happen on them; enough of them to raise alerts and end trials."""
    day = st.fixed_dictionaries(
        {
            "n": st.sampled_from([3, 24, 40]),
            "bad": st.sampled_from([0.05, 0.05, 0.9]),
            "shift": st.sampled_from([0, 0, 4]),
            "missing": st.sampled_from([0.0, 0.0, 0.6]),
            "labelled": st.sampled_from([True, True, False]),
            "refused": st.sampled_from([0, 0, 0, 20]),
            "delay": st.integers(0, 2),
            "gap": st.sampled_from([1, 1, 1, 30]),
        }
    )
    return st.lists(st.tuples(day, st.integers(1, 10)), min_size=1, max_size=6).map(
        lambda runs: [day for day, length in runs for _ in range(length)]
    )


def _day(**more: Any) -> dict[str, Any]:
    calm = {"n": 24, "bad": 0.05, "shift": 0, "missing": 0.0, "labelled": True, "refused": 0}
    return {**calm, "delay": 1, "gap": 1, **more}


# Calm, harm and drift until the challenger is proven, calm; then refused records, and silence.
EVENTFUL = (
    [_day()] * 3
    + [_day(bad=0.9, shift=4)] * 12
    + [_day()] * 20
    + [_day(refused=30)] * 5
    + [_day(gap=30)]
    + [_day()] * 20
)


# The same in fewer days, for a thousand orders of one log.
SHORT = (
    [_day()] * 3
    + [_day(bad=0.9, shift=4)] * 10
    + [_day()] * 8
    + [_day(refused=30)] * 3
    + [_day(gap=30)]
    + [_day()] * 4
)
BLOCK = 50  # orders in one test, so that all processes of a test run get some


def logs(story: Sequence[dict[str, Any]], seed: int, partitions: int) -> list[Events]:
    """Each partition's log: the days in order, labels of a day in the ticks in which they come."""
    monitor = Monitor(partitions, seed)
    tick = 100
    for day in story:
        traffic = {k: day[k] for k in ("n", "bad", "shift", "missing", "labelled", "refused")}
        monitor.day(tick, 1, shadows={2: 0.05}, label_tick=tick + day["delay"], **traffic)
        tick += day["gap"]
        monitor.progress(tick)
    for end in (tick + 40, tick + 400):  # restatements come when cells end
        monitor.progress(end)
    return monitor.logs


def fleet() -> Fleet:
    trainer = Trainer()
    trainer.challenge()
    return trainer.fleet


def interleaved(parts: list[Events], choices: Iterator[int]) -> Events:
    """One order in which the partitions' logs may lie in `summaries`; some report more often."""
    rest = [list(reversed(_reported(part, 1 + next(choices) % 5, choices))) for part in parts]
    merged = []
    while any(rest):
        open_ones = [part for part in rest if part]
        run = open_ones[next(choices) % len(open_ones)]
        merged += [run.pop() for _ in range(min(len(run), 1 + next(choices) % 40))]
    return merged


def _reported(log: Events, every: int, choices: Iterator[int]) -> Events:
    """A log with about one of `every` progress reports left, and the last ones."""
    return [
        event
        for event in log
        if not isinstance(event, ProgressReported)
        or any(event is last for last in log[-2:])
        or next(choices) % every == 0
    ]


def split(events: Events, choices: Iterator[int]) -> list[Batch]:
    batches, at = [], 0
    while at < len(events):
        size = 1 + next(choices) % 50
        batches.append(batch(events[at : at + size]))
        at += size
    return batches


def choices(seed: int) -> Iterator[int]:
    """Cheap arbitrary numbers from one that hypothesis can shrink."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 33


def final_windows(outputs: list[Output]) -> dict[tuple[Any, ...], bytes]:
    """The last word on every window; the evidence is that of the first, before any restatement."""
    last: dict[tuple[Any, ...], bytes] = {}
    evidence: dict[tuple[Any, ...], float] = {}
    for fact in facts(outputs):
        if isinstance(fact, AccuracyMeasured) and not fact.window.startswith("paired"):
            key: tuple[Any, ...] = (fact.version, fact.segment, fact.window, fact.end_ms)
            last[key] = msgspec.json.encode(msgspec.structs.replace(fact, revision=0))
        elif isinstance(fact, DriftMeasured):
            key = (fact.version, fact.signal, fact.window, fact.end_ms)
            first = evidence.setdefault(key, fact.evidence)
            same = msgspec.structs.replace(fact, revision=0, evidence=first)
            last[key] = msgspec.json.encode(same)
    return last


@pytest.mark.parametrize("story", [EVENTFUL, SHORT], ids=["eventful", "short"])
def test_the_eventful_stories_are_eventful(story: list[dict[str, Any]]) -> None:
    """Otherwise the properties below might hold of silence alone."""
    core = processor()
    found = verdicts(core.apply(batch(interleaved(logs(story, 1, 2), choices(2))), fleet()))
    told = {f.kind if isinstance(f, Command) else f"{f.problem} {f.state}" for f in found}
    problems = ("harm", "drift", "data", "stale")
    assert told == {"promote", *(f"{p} {s}" for p in problems for s in ("open", "resolved"))}


@settings(max_examples=20)
@given(stories(), st.integers(0, 99), st.integers(0, 2**32), st.integers(0, 2**32))
@example(EVENTFUL, 1, 2, 3)
def test_r2_verdicts_and_final_windows_are_the_same_for_every_order_and_partition_count(
    story: list[dict[str, Any]], seed: int, one: int, other: int
) -> None:
    told = []
    for order, partitions in ((one, 3), (other, 3), (other, 1)):
        core, outputs = processor(), []
        merged = interleaved(logs(story, seed, partitions), choices(order))
        for part in split(merged, choices(order + 1)):
            outputs += core.apply(part, fleet())
        told.append((verdicts(outputs), final_windows(outputs)))
    assert told[0] == told[1] == told[2]


def _one_end(orders: Iterable[int]) -> None:
    """Every order of one log of three partitions, cut into batches anywhere, ends alike."""
    parts, live = logs(SHORT, 1, 3), fleet()
    ends = set()
    for order in orders:
        core, outputs = processor(), []
        for part in split(interleaved(parts, choices(order)), choices(order + 1)):
            outputs += core.apply(part, live)
        ends.add(msgspec.json.encode([verdicts(outputs), sorted(final_windows(outputs).items())]))
    assert len(ends) == 1


def test_fifty_orders_of_one_log_end_in_the_same_verdicts_and_windows() -> None:
    _one_end(range(BLOCK))


@pytest.mark.faults
@pytest.mark.parametrize("first", range(0, 1_000, BLOCK))
def test_a_thousand_orders_of_one_log_end_in_the_same_verdicts_and_windows(first: int) -> None:
    """Those of each block, and with them the first of all."""
    _one_end([0, *range(first, first + BLOCK)])


@settings(max_examples=20)
@given(
    stories(), st.integers(0, 99), st.integers(0, 2**32), st.sets(st.integers(0, 60), max_size=8)
)
@example(EVENTFUL, 1, 2, {4, 9})
def test_r1_a_restored_processor_goes_on_byte_for_byte(
    story: list[dict[str, Any]], seed: int, order: int, crashes: set[int]
) -> None:
    events = interleaved(logs(story, seed, 2), choices(order))
    straight, crashed = processor(), processor()
    kept: dict[str, bytes] = {}
    for number, part in enumerate(split(events, choices(order))):
        expected = straight.apply(part, fleet()) + straight.advance(number, True, fleet())
        if number in crashes:
            crashed = processor()
            crashed.restore(kept)
        assert crashed.apply(part, fleet()) + crashed.advance(number, True, fleet()) == expected
        kept |= {name: data for name, data in crashed.changes(complete=False).items() if data}
    parts = straight.changes(complete=True)
    assert parts == crashed.changes(complete=True)
    assert parts == kept
