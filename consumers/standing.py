"""How the trainer is: ready or why not, alive, and its metrics."""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from consumers.probing import Probe
from stream.metrics import Families, registry_of
from stream.settings import Settings

if TYPE_CHECKING:
    from consumers.service import Publishing
    from consumers.trainer import Trainer

#: Times `stall_seconds`: a turn of the loop may wait for the database and for the broker.
PATIENCE: Final = 4


class Standing(Collector):
    """Looks at the broker from a thread of its own; the loop says when it turns.

    A loop that turns no more ends the process, by a timer that needs no thread of Python's.

    Attributes:
        doing: why the process as a whole is not ready; empty when it serves.
        refused: records on `commands` that were no commands.
    """

    def __init__(self, settings: Settings) -> None:
        self.doing = "starting: looking for the registry"
        self.trainer: Trainer | None = None
        self.publishing: Publishing | None = None
        self.refused = 0
        self._patience_seconds = settings.stall_seconds * PATIENCE
        self._probe = Probe(settings)
        self._turned = time.monotonic()

    def start(self) -> None:
        self.turned()
        self._probe.start()

    def turned(self) -> None:
        """The loop turns."""
        self._turned = time.monotonic()
        faulthandler.dump_traceback_later(self._patience_seconds, exit=True)

    def serves(self, trainer: Trainer, publishing: Publishing) -> None:
        self.trainer, self.publishing, self.doing = trainer, publishing, ""

    def ends(self, doing: str) -> None:
        """What follows has its own deadline."""
        self.doing = doing
        faulthandler.cancel_dump_traceback_later()

    def live(self) -> list[str]:
        seconds = time.monotonic() - self._turned
        return [f"the loop stands for {seconds:.0f} s"] if seconds > self._patience_seconds else []

    def ready(self) -> list[str]:
        """Why not, in sentences."""
        reasons = [self.doing] if self.doing else []
        reasons += self._probe.away()
        now = time.monotonic()
        if now - self._turned > self._patience_seconds / PATIENCE:
            reasons.append(f"the loop stands for {now - self._turned:.0f} s: database or broker?")
        if self.publishing is not None and self.publishing.pending:
            count, seconds = self.publishing.pending, self.publishing.age_seconds
            reasons.append(f"{count} changes wait to be published for {seconds:.0f} s")
        return reasons

    def registry(self) -> CollectorRegistry:
        return registry_of(self)

    def collect(self) -> Iterator[Metric]:
        families, trainer, publishing = Families(), self.trainer, self.publishing
        families.add("driftline_trainer_ready", not self.ready())
        name = "driftline_trainer_commands_total"
        families.add(name, self.refused, kind="unreadable", outcome="refused")
        if trainer is not None:
            for (kind, outcome), count in list(trainer.commands.items()):
                families.add(name, count, kind=kind, outcome=outcome)
            running, waiting = trainer.fitting
            families.add("driftline_trainer_fits_running", running)
            families.add("driftline_trainer_fits_waiting", waiting)
            for verdict, count in list(trainer.fits.items()):
                families.add("driftline_trainer_fits_total", count, verdict=verdict)
        if publishing is not None:
            families.add("driftline_trainer_outbox_pending", publishing.pending)
            families.add("driftline_trainer_outbox_age_seconds", publishing.age_seconds)
            families.add("driftline_trainer_relayed_total", publishing.sent)
        yield from families
