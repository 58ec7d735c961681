"""What counts as standing still, look by look, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stream.watchdog import LOOKS, LOOP_MARGIN, MARGIN, Phase, Seen, Stall, Watchdog

STALL = 30.0
EVERY = STALL / LOOKS
REBALANCE = 18.0


class Keeper:
    """One keeper as the looks see it; a test changes what it likes between them."""

    def __init__(self, phase: Phase = "wait", *, partition: int = 0, lag: int | None = 10) -> None:
        self.partition = partition
        self.phase = phase
        self.since = 0.0
        self.cpu_seconds: float | None = 0.0
        self.position = 100
        self.lag = lag

    def seen(self) -> Seen:
        stable = None if self.lag is None else {"requests": self.position + self.lag}
        positions = {"requests": self.position}
        return Seen(self.partition, self.phase, self.since, self.cpu_seconds, positions, stable)


def watch(
    *keepers: Keeper,
    seconds: float = 10 * STALL,
    each: Callable[[float], None] = lambda _: None,
    **look: Any,
) -> tuple[float, Stall] | None:
    """The first stall and when it is told; None if there is none in this time."""
    dog = Watchdog(STALL, REBALANCE)
    now = 0.0
    while now < seconds:
        each(now)
        told = dog.look(now, [keeper.seen() for keeper in keepers], **{"broker": True, **look})
        if told is not None:
            return now, told
        now += EVERY
    return None


@pytest.mark.parametrize(
    "phase", ["predecessor", "init", "checkpoint", "state", "apply", "flush", "revoke"]
)
def test_a_phase_that_does_not_end_is_told_in_time(phase: Phase) -> None:
    """Whether or not there is lag: a hung commit may hold the last records of all."""
    for lag in (0, 10, None):
        told = watch(Keeper(phase, lag=lag))
        assert told is not None
        assert STALL * MARGIN <= told[0] <= STALL


def test_lag_that_nobody_works_on_is_told_in_time() -> None:
    """A dead fetcher or a stuck agent: the keeper waits, and flushes on time, for nothing."""
    keeper = Keeper("wait", lag=7)

    def idle(now: float) -> None:
        keeper.phase, keeper.since = ("flush" if now % 2 else "wait"), now

    told = watch(keeper, each=idle)
    assert told is not None
    assert told[0] <= STALL + EVERY
    assert told[1] == Stall(0, "waiting for records", told[0], 7)


def test_an_idle_input_is_no_stall() -> None:
    assert watch(Keeper("wait", lag=0)) is None


def test_what_another_holds_up_is_no_stall() -> None:
    """Behind another's open transaction the stable end does not move, so there is no lag."""
    assert watch(Keeper("wait", lag=0)) is None


def test_a_broker_that_is_away_is_no_stall() -> None:
    """Nobody knows the lag then, and commits are retried under rules of their own."""
    keepers = [Keeper(phase, lag=None) for phase in ("wait", "flush", "init", "checkpoint")]
    for keeper in keepers:
        assert watch(keeper, broker=False) is None


def test_a_hung_model_is_told_though_the_broker_is_away() -> None:
    assert watch(Keeper("apply", lag=None), broker=False) is not None


def test_after_the_broker_is_back_there_is_time_again() -> None:
    """A commit that began before the outage is not blamed for it."""
    keeper = Keeper("flush")
    dog = Watchdog(STALL, REBALANCE)
    for look in range(20):
        assert dog.look(look * EVERY, [keeper.seen()], broker=False) is None
    back = 20 * EVERY
    assert dog.look(back, [keeper.seen()], broker=True) is None
    assert dog.look(back + STALL / 2 - 1, [keeper.seen()], broker=True) is None
    assert dog.look(back + STALL * MARGIN, [keeper.seen()], broker=True) is not None


def test_waiting_for_lifecycle_is_no_stall() -> None:
    """It takes a person, who is told elsewhere."""
    assert watch(Keeper("lifecycle")) is None


def test_a_slow_model_that_computes_is_no_stall_but_not_for_ever() -> None:
    """It uses its thread; an endless loop does so too, so ten times the patience is the end."""
    keeper = Keeper("apply")

    def compute(now: float) -> None:
        keeper.cpu_seconds = now / 10  # a tenth of a core, on a machine shared by many

    assert watch(keeper, seconds=9 * STALL * MARGIN, each=compute) is None
    told = watch(keeper, seconds=20 * STALL, each=compute)
    assert told is not None
    assert told[0] <= 10 * STALL


def test_a_model_that_computed_and_then_hangs_is_told_in_time() -> None:
    keeper = Keeper("apply")

    def compute(now: float) -> None:
        keeper.cpu_seconds = min(now, 60.0)

    told = watch(keeper, each=compute)
    assert told is not None
    assert 60 + STALL * MARGIN <= told[0] <= 60 + STALL + EVERY


def test_records_that_come_slowly_are_no_stall() -> None:
    keeper = Keeper("wait")

    def creep(now: float) -> None:
        keeper.position = 100 + int(now / 20)

    assert watch(keeper, each=creep) is None


def test_checkpoints_are_read_in_turn() -> None:
    """Those that wait for the one who reads are not stuck; once nobody reads they are."""
    reader, waiting = Keeper("checkpoint", partition=0), Keeper("checkpoint", partition=1)

    def read(now: float) -> None:
        reader.cpu_seconds = min(now, 90.0)

    told = watch(reader, waiting, each=read)
    assert told is not None
    assert told[0] > 90


def test_the_group_gets_its_time_to_decide() -> None:
    keeper = Keeper("paused", lag=5)
    told = watch(keeper)
    assert told is not None
    assert STALL * MARGIN + REBALANCE <= told[0] <= STALL + REBALANCE + EVERY


def test_a_process_that_was_stopped_blames_nobody_on_waking() -> None:
    """SIGSTOP stops the watchdog too: what did not move meanwhile could not."""
    keeper = Keeper("apply")
    dog = Watchdog(STALL, REBALANCE)
    dog.look(0.0, [keeper.seen()], broker=True)
    assert dog.look(1000.0, [keeper.seen()], broker=True) is None
    assert dog.look(1000.0 + STALL * MARGIN / 2, [keeper.seen()], broker=True) is None


def test_an_event_loop_that_does_not_turn_is_told() -> None:
    told = watch(loop_beat=0.0)
    assert told is not None
    assert told[1].partition is None
    assert STALL * LOOP_MARGIN <= told[0] <= STALL


def test_a_loop_that_starves_the_keepers_is_named_as_the_cause() -> None:
    told = watch(Keeper("wait", lag=5), loop_beat=EVERY)
    assert told is not None
    assert told[1].partition is None


def test_a_group_that_never_takes_us_in_is_told() -> None:
    assert watch(joining_since=0.0, seconds=STALL * MARGIN + REBALANCE) is None
    assert watch(joining_since=0.0) is not None
    assert watch(joining_since=0.0, broker=False) is None
