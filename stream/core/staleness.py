"""Missing data: neither healthy nor harm.

A fold over closed ticks in event time, so it does not matter when it is learned that nothing came:
an alert on missing data is opened as of the moment at which it had been missing for too long.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct, field

from models.spec import ModelSpec
from stream.core.alerts import Book, Problem
from stream.core.ticks import Tick
from stream.envelope import from_ms
from stream.events import Alert


class Staleness(Struct, omit_defaults=True):
    """
    Attributes:
        predicted_ms: end of the last tick that had predictions; None before the first.
        waiting_ms: end of the first one that had some since a label came; None if there is none.
        told: problems that are open, or that a person has closed, until data comes.
    """

    predicted_ms: int | None = None
    waiting_ms: int | None = None
    told: dict[str, bool] = {}
    book: Book = field(default_factory=Book)

    def pass_time(self, spec: ModelSpec, version: int | None, now_ms: int) -> Iterator[Alert]:
        """No tick that has begun before `now_ms` holds anything that was not seen."""
        limits: dict[Problem, tuple[int | None, float]] = {
            "stale": (self.predicted_ms, spec.alerts.stale_seconds),
            "unlabelled": (self.waiting_ms, spec.labels.horizon_seconds),
        }
        due = [
            (since_ms + round(seconds * 1000), problem, since_ms)
            for problem, (since_ms, seconds) in limits.items()
            if since_ms is not None and problem not in self.told
        ]
        for limit_ms, problem, since_ms in sorted(due):  # in the order in which they came about
            if limit_ms <= now_ms:
                yield self._report(problem, spec, version, since_ms, limit_ms)

    def see(self, tick: Tick, start_ms: int, end_ms: int) -> Iterator[Alert]:
        """Take in what a closed tick holds."""
        if tick.predictions:
            self.predicted_ms = end_ms
            self.waiting_ms = self.waiting_ms or end_ms
            yield from self._over("stale", start_ms, "predictions come again")
        if tick.labels:
            self.waiting_ms = None
            yield from self._over("unlabelled", start_ms, "labels come again")

    def _report(
        self, problem: Problem, spec: ModelSpec, version: int | None, since_ms: int, now_ms: int
    ) -> Alert:
        self.told[problem] = True
        what = "nothing was predicted" if problem == "stale" else "no label has come"
        since = f"{from_ms(since_ms):%Y-%m-%d %H:%M}"
        sentence = f"{what} since {since}: how {spec.name} does is not known"
        return self.book.report(
            problem,
            sentence,
            {"since_ms": since_ms, "limit_ms": now_ms - since_ms},
            model=spec.name,
            version=version,
            now_ms=now_ms,
            cooldown_ms=round(spec.alerts.cooldown_seconds * 1000),
        )

    def _over(self, problem: str, now_ms: int, sentence: str) -> Iterator[Alert]:
        self.told.pop(problem, None)
        alert = self.book.open.get(problem)
        if alert is not None:
            yield self.book.resolve(problem, max(now_ms, alert.updated_ms), sentence)
