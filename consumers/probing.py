"""Whether the broker answers, looked at from a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import Final

from stream.ends import BrokerAway, Ends
from stream.settings import Settings

PROBE_SECONDS: Final = 3.0


class Probe:
    """Asks the broker again and again, for as long as the process lives."""

    def __init__(self, settings: Settings) -> None:
        self._ends = Ends(settings, PROBE_SECONDS)
        self._away: tuple[float, str] | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="standing", daemon=True).start()

    def away(self) -> list[str]:
        """That it does not answer, since when and why, in a sentence."""
        away = self._away
        return [f"broker away for {time.monotonic() - away[0]:.0f} s: {away[1]}"] if away else []

    def _run(self) -> None:
        while True:
            try:
                self._ends.probe()
            except BrokerAway as away:
                since = time.monotonic() if self._away is None else self._away[0]
                self._away = (since, str(away))
            else:
                self._away = None
            time.sleep(PROBE_SECONDS)
