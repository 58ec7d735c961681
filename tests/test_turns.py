"""Keepers compute in turn, but never wait for long."""

from __future__ import annotations

import threading
import time

import pytest

from stream import turns
from stream.turns import turn


def test_a_second_waits_while_the_first_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 60.0)
    order: list[str] = []
    begun = threading.Event()

    def first() -> None:
        with turn():
            begun.set()
            time.sleep(0.025)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with turn():
        order.append("second")
    thread.join()

    assert order == ["first", "second"]


def test_nobody_waits_for_one_that_takes_long() -> None:
    done = threading.Event()
    begun = threading.Event()

    def slow() -> None:
        with turn():
            begun.set()
            done.wait(30)

    thread = threading.Thread(target=slow)
    thread.start()
    begun.wait()
    with turn():
        done.set()  # reached though the slow one still computes
    thread.join()


def test_whoever_waits_has_the_next_turn_of_one_that_yields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though it has always more to do."""
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 60.0)
    turns_of_others: list[int] = []
    taken, enough, begun = [0], threading.Event(), threading.Event()

    def busy() -> None:
        while not enough.is_set():
            with turn(yields=True):
                taken[0] += 1
                begun.set()
                until = time.thread_time() + 0.02
                while time.thread_time() < until:
                    pass

    thread = threading.Thread(target=busy)
    thread.start()
    begun.wait()
    for _ in range(15):
        before = taken[0]
        with turn():
            turns_of_others.append(taken[0] - before)
    enough.set()
    thread.join()

    assert sorted(turns_of_others)[7] == 0
