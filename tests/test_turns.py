"""Keepers compute in turn, but never wait for long."""

from __future__ import annotations

import threading
import time

from stream.turns import PATIENCE_SECONDS, turn


def test_a_second_waits_while_the_first_computes() -> None:
    order: list[str] = []
    begun = threading.Event()

    def first() -> None:
        with turn():
            begun.set()
            time.sleep(PATIENCE_SECONDS / 4)
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
