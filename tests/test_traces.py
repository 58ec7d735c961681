"""Traces from requests, predictions and labels to the alert that they led to; a few for many."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from stream.core.processor import Batch, Output, Record
from stream.core.ticks import Tick
from stream.core.traces import MOST, few, is_trace
from stream.core.trails import Mark, Trail
from stream.events import Alert, SummaryComputed
from tests import summaries
from tests.monitoring import FLEET, T0, Sent, feedback, monitor, prediction, summaries_of


def trace(number: int) -> str:
    return f"00-{number:032x}-{number + 1:016x}-01"


def bare(sent: Sent, offset: int, traceparent: str) -> Record:
    """In binary mode, where the header is the only place for it."""
    record = sent.record(offset)
    envelope = msgspec.json.decode(record.value or b"")
    data = msgspec.json.encode(envelope.pop("data"))
    headers = tuple((f"ce_{name}", str(value).encode()) for name, value in envelope.items())
    return record._replace(value=data, headers=(*headers, ("traceparent", traceparent.encode())))


def test_a_few_of_many_are_the_same_few_however_they_are_cut() -> None:
    chance = random.Random(1)
    all_ = [trace(chance.getrandbits(120)) for _ in range(200)]
    for _ in range(20):
        chance.shuffle(all_)
        cuts = sorted(chance.sample(range(200), 5))
        pieces = [all_[a:b] for a, b in zip([0, *cuts], [*cuts, 200], strict=True)]
        assert few(*(few(piece) for piece in pieces)) == few(all_)
    assert len(few(all_)) == MOST


HOSTILE = ("", "x" * 10_000, trace(0).replace("0", "z"), trace(0), "00-1-2-3")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_no_trace_is_not_carried(text: str) -> None:
    assert not is_trace(text)
    processor = monitor()
    processor.apply(Batch("predictions", 0, [bare(prediction("a", 0), 0, text)]), FLEET)
    [delta] = _reported(processor)
    assert (delta.predictions, delta.traces) == (1, [])


def _reported(processor: Any) -> list[SummaryComputed]:
    outputs: list[Output] = processor.advance(T0 + 5_000, True, FLEET)
    return [one for one in summaries_of(outputs) if not one.segment]


def test_monitor_says_which_traces_it_counted() -> None:
    """Of predictions that it took and of labels; few, however many there are."""
    processor = monitor()
    made = [bare(prediction(f"p{n}", 0), n, trace(n + 10)) for n in range(50)]
    again = bare(prediction("p0", 0), 50, trace(1))
    processor.apply(Batch("predictions", 0, [*made, again]), FLEET)
    labels = [bare(feedback("p0", 2_500), 0, trace(7)), bare(feedback("p1", 2_600), 1, trace(8))]
    processor.apply(Batch("feedback", 0, labels), FLEET)
    traces = {delta.tick: delta.traces for delta in _reported(processor)}
    first = min(traces)
    assert traces[first] == [trace(10), trace(11), trace(12)]
    assert traces[first + 2] == [trace(7), trace(8)]


def test_what_waits_to_be_reported_survives_in_the_checkpoint() -> None:
    processor = monitor()
    processor.apply(Batch("predictions", 0, [bare(prediction("a", 0), 0, trace(3))]), FLEET)
    parts = {name: part for name, part in processor.changes(complete=True).items() if part}
    restored = monitor()
    restored.restore(parts)
    assert [delta.traces for delta in _reported(restored)] == [[trace(3)]]


def test_ticks_and_trails_keep_a_few_and_older_state_has_none() -> None:
    tick = Tick()
    for n in (5, 1, 4, 2, 3):
        tick.add(SummaryComputed(model="m", version=1, tick=0, partition=0, traces=[trace(n)]))
    assert tick.traces == [trace(1), trace(2), trace(3)]
    trail = Trail()
    for n in range(100):
        trail.add(n * 10, n * 10 + 10, {}, [trace(n + 1)])
    assert trail.traces(0, 1000) == [trace(1), trace(2), trace(3)]
    assert trail.traces(990, 1000) == [trace(100)]
    assert all(len(mark.traces) <= MOST for mark in trail.marks)
    assert msgspec.json.decode(b"[0,10,1,{}]", type=Mark).traces == []


def test_an_alert_carries_traces_of_what_it_counted() -> None:
    """In its evidence, beside the offsets; without traces it is as it was."""
    for given in ([], [trace(2), trace(1)]):
        alerts = _harm(given)
        assert alerts
        for alert in alerts:
            assert alert.evidence.get("traces") == (sorted(given) or None)


def _harm(given: list[str]) -> list[Alert]:
    """Alerts of a model that does badly, where every summary carries these traces."""
    processor, told, fleet = summaries.processor(), summaries.Monitor(), summaries.Trainer().fleet
    processor.advance(0, True, fleet)
    found: list[Any] = []
    for tick in range(30):
        told.day(tick, 1, bad=0.7)
        told.progress(tick + 1)
        events = [
            msgspec.structs.replace(one, traces=given) if isinstance(one, SummaryComputed) else one
            for one in told.drain()
        ]
        found += summaries.verdicts(processor.apply(summaries.batch(events), fleet))
    return [one for one in found if isinstance(one, Alert) and one.problem == "harm"]
