"""How long versions take: measured by score, told as an event, counted like all the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from stream.core.guards import latency_bin
from stream.core.processor import Context, CoreSettings
from stream.core.scoring import ScoreProcessor
from stream.core.ticks import Pending
from stream.events import SummaryComputed
from tests.fleets import CHURN, FakeLive
from tests.summaries import facts
from tests.test_scoring import NOW, batch, request

SHADOWED = {"churn": FakeLive(challengers=(2,))}
ALONE = {"churn": FakeLive()}


def score(stopwatch: Callable[[], float] | None) -> ScoreProcessor:
    counts = {"requests": 4, "predictions": 8, "summaries": 4}
    return ScoreProcessor(Context(2, counts, CoreSettings(), stopwatch))


def ticking() -> Callable[[], float]:
    """A stopwatch on which everything takes 10 ms longer than the thing before."""
    readings, now = count(1), [0.0]

    def read() -> float:
        now[0] += next(readings) / 100
        return now[0]

    return read


def test_each_version_is_timed_on_the_same_batch_once_for_each_request() -> None:
    now = [0.0]

    def predict(version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        now[0] += (1 + version) / 100
        return np.zeros((len(rows), 1))

    fleet = {"churn": FakeLive(challengers=(2,), predict=predict)}
    stage = score(lambda: now[0])
    stage.apply(batch(request(1), request(2), request(3)), fleet)
    (told,) = facts(stage.advance(NOW, False, fleet))
    assert isinstance(told, SummaryComputed)
    assert (told.model, told.version, told.partition) == ("churn", 1, 2)
    assert told.tick == NOW // CHURN.tick_ms
    assert told.latencies == {"1": {str(latency_bin(0.02)): 3}, "2": {str(latency_bin(0.03)): 3}}
    assert told.offsets == {"requests/2": (1, 4)}


def test_nobody_is_timed_without_a_shadow_or_without_a_stopwatch() -> None:
    for stopwatch, fleet in ((ticking(), ALONE), (None, SHADOWED)):
        stage = score(stopwatch)
        stage.apply(batch(request(1)), fleet)
        assert stage.advance(NOW, False, fleet) == []


def test_it_is_told_once_an_interval_and_predictions_are_the_same_bytes_with_and_without() -> None:
    timed, untimed = score(ticking()), score(None)
    for offset in (1, 2):
        made = timed.apply(batch(request(offset)), SHADOWED)
        assert made == untimed.apply(batch(request(offset)), SHADOWED)
        told = timed.advance(NOW + offset, False, SHADOWED)
        assert len(told) == (1 if offset == 1 else 0)
    (later,) = facts(timed.advance(NOW + 1_001, False, SHADOWED))
    assert later.offsets == {"requests/2": (2, 3)}


def test_latencies_wait_for_the_tick_of_the_requests() -> None:
    pending = Pending()
    delta = SummaryComputed(
        model="churn", version=1, tick=7, partition=0, latencies={"1": {"4": 3}, "2": {"9": 3}}
    )
    pending.add(delta, closed=0)
    pending.add(delta, closed=9)  # later than its tick: in the first that is open
    groups = [*pending.close(10, tick_ms=10, minimum_events=0)]
    assert [group.counts.latencies for group in groups] == [delta.latencies] * 2
