"""What an open page is told: rows that changed, once an interval, from where it left off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from fastapi.sse import ServerSentEvent
from msgspec import Struct

from consumers.console.board import Board, Entry
from consumers.console.reader import Standing
from consumers.console.views import FleetRow, State, fleet_row, state_of

CHECK_SECONDS: Final = 10.0  # models go stale by the clock, without an event
MAX_STREAMS: Final = 100
SLICE_SECONDS: Final = 0.5  # how long the console may wait for a stream to end


class Update(Struct, frozen=True, kw_only=True):
    """One message.

    Attributes:
        whole: the rows are all there are, not only what changed.
        reader: how the reader stands; now_ms: the console's clock.
    """

    rows: list[FleetRow]
    whole: bool
    now_ms: int
    reader: Standing


class Feed:
    """Makes the stream of one page.

    Attributes:
        open: how many there are.
        closing: set when the console ends, so that no stream holds it up.
    """

    def __init__(
        self, board: Board, standing: Callable[[], Standing], clock: Callable[[], int], boot: str
    ) -> None:
        self.open = 0
        self.closing = False
        self._board = board
        self._standing = standing
        self._clock = clock
        self._boot = boot  # sequence numbers of another run of the console mean nothing here

    async def events(
        self,
        model: str | None,
        every_seconds: float,
        last_event_id: str,
        admitted: Callable[[], bool],
    ) -> AsyncIterator[ServerSentEvent]:
        """Messages until the page goes, or until who opened it is not admitted any more.

        Args:
            model: only this one's row; None: the fleet's.
            last_event_id: of the last message that the page had; empty: none.
        """
        since = self._sequence(last_event_id)
        told: dict[str, State] = {}
        whole, checked = since is None, 0.0
        self.open += 1
        try:
            while not self.closing:
                sequence = self._board.sequence
                rows = self._rows(model, since or 0, told, check=checked <= 0)
                update = Update(
                    rows=rows, whole=whole, now_ms=self._clock(), reader=self._standing()
                )
                yield ServerSentEvent(
                    raw_data=msgspec.json.encode(update).decode(), id=f"{self._boot}-{sequence}"
                )
                if checked <= 0:
                    if not await asyncio.to_thread(admitted):
                        return
                    checked = CHECK_SECONDS
                since, whole = sequence, False
                await self._wait(every_seconds)
                checked -= every_seconds
        finally:
            self.open -= 1

    async def _wait(self, seconds: float) -> None:
        while seconds > 0 and not self.closing:
            await asyncio.sleep(min(seconds, SLICE_SECONDS))
            seconds -= SLICE_SECONDS

    def _sequence(self, last_event_id: str) -> int | None:
        boot, _, sequence = last_event_id.rpartition("-")
        known = boot == self._boot and sequence.isdecimal()
        return min(int(sequence), self._board.sequence) if known else None

    def _rows(
        self, model: str | None, since: int, told: dict[str, State], *, check: bool
    ) -> list[FleetRow]:
        """Rows that changed since, and those whose state changed by the clock alone."""
        now = self._clock()
        entries = {entry.model: entry for entry in self._board.changed(since)}
        if check:
            entries |= {
                entry.model: entry
                for entry in self._board.entries()
                if told.get(entry.model) != state_of(entry, now)
            }
        rows = [fleet_row(entry, now) for entry in _wanted(list(entries.values()), model)]
        told.update({row.model: row.state for row in rows})
        return rows


def _wanted(entries: list[Entry], model: str | None) -> list[Entry]:
    return [entry for entry in entries if model is None or entry.model == model]
