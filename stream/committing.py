"""One transaction a process and commit interval: what every partition has to say by then.

A thread of its own asks the keepers (`stream.runtime`) for their deltas and commits them together.
A keeper answers between two slices, and goes on while the transaction is under way. One that takes
long, behind a slow model, is not waited for: its delta goes into the next transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from stream.errors import Expelled
from stream.transactions import Delta, Membership, group_metadata

if TYPE_CHECKING:
    from stream.runtime import Keeper, Runtime


class Share(NamedTuple):
    """What one keeper has in a transaction."""

    keeper: Keeper
    delta: Delta


class Committer(threading.Thread):
    """
    Attributes:
        since: when the transaction that is under way began; None between two.
        bell: held while a keeper answers.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(name="committer", daemon=True)
        self.since: float | None = None
        self._runtime = runtime
        self.bell = threading.Condition()
        self._stirred = False
        self._hurry_seconds = 0.0
        self._due = time.monotonic()

    # From keepers and from Faust's event loop:

    def stir(self) -> None:
        """A keeper has applied records, or has answered."""
        with self.bell:
            self._stirred = True
            self.bell.notify()

    def hurry(self, seconds: float) -> None:
        """A rebalance waits for what keepers hold: wait so long for them, and for nothing else."""
        with self.bell:
            self._hurry_seconds = seconds
            self.bell.notify()

    # In this thread:

    def run(self) -> None:
        shares: Sequence[Share] = ()
        try:
            self.since = time.monotonic()
            self._runtime.world.writer.init()
            self.since = None
            while True:
                patience = self._wait()
                self._gather(patience)
                membership, shares = self._runtime.shares()
                if shares:
                    self._commit(membership, shares)
                self._due = time.monotonic() + self._runtime.interval_seconds
        except BaseException as error:
            self._runtime.fail(error, [share.keeper for share in shares])

    def _wait(self) -> float:
        """Until the interval is over and somebody has something to say, or a rebalance can't wait;
        how long to wait for answers."""
        with self.bell:
            while not self._hurry_seconds:
                left = self._left()
                if left is not None and left <= 0:
                    break
                self.bell.wait(left)
            patience = self._hurry_seconds or self._runtime.interval_seconds
            self._stirred, self._hurry_seconds = False, 0.0
        return patience

    def _left(self) -> float | None:
        """Seconds until there will be something to do; None if nobody knows."""
        able = [keeper for keeper in self._runtime.held() if keeper.able]
        silent = [keeper.silent_until for keeper in able]
        if self._stirred or any(keeper.has_records for keeper in able):
            return self._due - time.monotonic()
        return max(self._due, min(silent)) - time.monotonic() if silent else None

    def _gather(self, patience_seconds: float) -> None:
        """Ask for deltas, and wait for the answers: of all who are asked now or must let go."""
        asked = [keeper for keeper in self._runtime.held() if keeper.ask() or keeper.leaving]
        with self.bell:
            self.bell.wait_for(lambda: not any(keeper.owes for keeper in asked), patience_seconds)

    def _commit(self, membership: Membership, shares: Sequence[Share]) -> None:
        world = self._runtime.world
        group = world.settings.names.group(world.stage)
        self.since = began = time.monotonic()
        try:
            with ExitStack() as spans:
                for share in shares:
                    spans.enter_context(share.delta.span)
                world.writer.commit(
                    [share.delta for share in shares],
                    world.topics,
                    group_metadata(group, membership),
                )
        except Expelled as error:
            self._runtime.expelled(membership, error)
        else:
            for keeper, delta in shares:
                keeper.settle(delta, time.monotonic() - began)
        finally:
            self.since = None
        for keeper in self._runtime.held():
            keeper.ring()
