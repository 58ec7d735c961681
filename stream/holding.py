"""Models whose versions are loaded when they are first asked for, and let go when nobody asks.

Loading is done by threads of its own. Who asks waits for it, which takes milliseconds; but not for
a store that hangs: what can't be had in time is, for then, not in the fleet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Final

from stream.events import LifecycleChanged
from stream.loading import BadVersion, Live

PATIENCE_SECONDS = 15.0  # that a partition waits for a first load; the watchdog allows more
IDLE_SECONDS = 60.0  # a model that was not asked for so long has no traffic
THREADS: Final = 2
NEVER: Final = float("-inf")

Load = Callable[[LifecycleChanged, Live | None], Live]


class Held:
    """One model as lifecycle announced it, and its versions once they are loaded.

    Attributes:
        live: None until they are.
        bad: why they, or one of them, can't be loaded.
        asked: when the model was last asked for, by the monotonic clock.
    """

    def __init__(
        self,
        lifecycle: LifecycleChanged,
        waiting: Waiting | None,
        live: Live | None = None,
        asked: float = NEVER,
    ) -> None:
        self.lifecycle = lifecycle
        self.live = live
        self.bad = live.bad if live else None
        self.asked = asked
        self._waiting = waiting

    @property
    def is_cold(self) -> bool:
        """Nobody has tried yet whether its versions can be loaded."""
        return self.live is None and self.bad is None

    @property
    def versions(self) -> int:
        """How many it holds."""
        return len(self.live.models) if self.live else 0

    def ask(self) -> Live | None:
        """The model, ready to predict; None: not in time, or not at all."""
        self.asked = time.monotonic()
        if self.is_cold and self._waiting is not None:
            self._waiting.for_(self)
        return self.live

    def cold(self) -> Held:
        """The same, to be loaded when it is asked for again."""
        return Held(self.lifecycle, self._waiting, None, self.asked)


class Waiting:
    """Loads what is asked for, each once, whoever asks.

    Args:
        load: a lifecycle state -> all that the stage needs of it.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._pool = ThreadPoolExecutor(THREADS, "loading")
        self._lock = threading.Lock()
        self._begun: dict[Held, Future[None]] = {}
        self._late: set[Held] = set()
        self._done: SimpleQueue[Held] = SimpleQueue()

    def for_(self, held: Held) -> None:
        """Until it is loaded or can't be; at most `PATIENCE_SECONDS`, and not behind a late one."""
        with self._lock:
            loading = self._begun.get(held)
            if loading is None:
                if not held.is_cold:
                    return
                loading = self._begun[held] = self._pool.submit(self._work, held)
            patience = 0.0 if self._late else PATIENCE_SECONDS
        try:
            loading.result(patience)
        except TimeoutError:
            with self._lock:
                if held in self._begun:
                    self._late.add(held)

    def _work(self, held: Held) -> None:
        try:
            live = self._load(held.lifecycle, None)
            held.bad, held.live = live.bad, live
        except BadVersion as bad:
            held.bad = bad
        with self._lock:
            self._begun.pop(held, None)
            self._late.discard(held)
        self._done.put(held)

    def done(self) -> Iterator[Held]:
        """Those that were asked for and have been tried since the last call."""
        while True:
            try:
                yield self._done.get_nowait()
            except Empty:
                return

    def stop(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Holdings(Mapping[str, Live]):
    """A fleet whose models are loaded when they are looked up; what can't be had is missing."""

    def __init__(self, held: Mapping[str, Held]) -> None:
        self._held = held

    def __getitem__(self, model: str) -> Live:
        live = self._held[model].ask()
        if live is None:
            raise KeyError(model)
        return live

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


def idle(fleet: Mapping[str, Held], keep: int) -> list[Held]:
    """Which to let go, so that `keep` versions are held: the longest unasked ones.

    Models with traffic stay, however many they are: a load in their way would cost them more.
    """
    loaded = [held for held in fleet.values() if held.versions]
    excess = sum(held.versions for held in loaded) - keep
    chosen: list[Held] = []
    if excess <= 0:
        return chosen
    long_ago = time.monotonic() - IDLE_SECONDS
    for held in sorted(loaded, key=lambda held: held.asked):
        if excess <= 0 or held.asked > long_ago:
            break
        chosen.append(held)
        excess -= held.versions
    return chosen
