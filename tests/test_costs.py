"""Time for each candidate, and what it is told meanwhile."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from consumers.costs import Stopwatch, latency_ms
from models import serving
from models.training import TooCostly, fit
from tests.streams import examples, spec


def test_a_candidate_may_take_an_equal_share_of_the_time_that_is_left() -> None:
    told: list[str] = []
    watch = Stopwatch(3.0, told.append)
    begun = time.monotonic()

    with pytest.raises(TooCostly, match=r"training\.timeout_seconds"), watch.trying("slow", 1, 2):
        time.sleep(60)
    first = time.monotonic() - begun
    with pytest.raises(TooCostly), watch.trying("slow too", 2, 2):
        time.sleep(60)

    assert 1.0 < first < 2.6
    assert time.monotonic() - begun < 30
    assert told == ["fitting slow (1 of 2)", "fitting slow too (2 of 2)"]
    assert watch.seconds == {}


def test_what_one_leaves_over_is_the_others() -> None:
    watch = Stopwatch(4.0)
    with watch.trying("quick", 1, 2):
        pass
    with watch.trying("slow", 2, 2):
        time.sleep(2.1)  # more than half

    assert watch.seconds["slow"] >= 2.1


def test_afterwards_no_alarm_is_left_and_the_former_handler_is_back() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with Stopwatch(0.3).trying("quick", 1, 1):
        pass
    time.sleep(0.4)

    assert signal.getsignal(signal.SIGALRM) is before


def test_a_fit_in_another_thread_is_not_limited() -> None:
    """Signals come to the main thread alone."""
    watch = Stopwatch(0.1)

    def work() -> None:
        with watch.trying("slow", 1, 1):
            time.sleep(0.3)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert watch.seconds["slow"] >= 0.3


def test_the_latency_of_one_row_and_of_a_batch() -> None:
    known = examples()
    model = serving.load(fit(spec(), known, 0).artefact, spec())

    found = latency_ms(model, known.rows)

    assert list(found) == ["1 row", "1000 rows"]
    assert all(0 < value < 1000 for value in found.values())
    assert latency_ms(model, []) == {}
