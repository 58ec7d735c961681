"""Sends real happenings in accelerated event time; every record carries the time it happened at."""

from __future__ import annotations

from collections.abc import Sequence

from consumers.demo.datasets import Happening
from consumers.producing import Publisher
from stream.envelope import derived_id, write
from stream.events import ClockAdvanced, FeedbackReceived, PredictionRequested
from stream.settings import Settings

SOURCE = "driftline/demo"


class Replayer:
    """Two cursors over the same happenings: what is asked, and what has become known."""

    def __init__(self, settings: Settings, model: str, happenings: Sequence[Happening]) -> None:
        self._names = settings.names
        self._partitions = settings.partitions
        self._model = model
        self._asked = sorted(happenings, key=lambda happening: happening.asked_ms)
        self._known = sorted(
            (h for h in happenings if h.known_ms is not None), key=lambda h: h.known_ms or 0
        )
        self._next_asked = self._next_known = self._asked_until_ms = 0
        self._publisher = Publisher(settings)

    @property
    def finished(self) -> bool:
        return self._next_asked == len(self._asked)

    def ask(self, until_ms: int) -> list[Happening]:
        """Send the requests of everything asked before `until_ms` that was not sent yet."""
        self._asked_until_ms = until_ms
        first = self._next_asked
        while not self.finished and self._asked[self._next_asked].asked_ms < until_ms:
            self._next_asked += 1
        sent = self._asked[first : self._next_asked]
        for happening in sent:
            self._send(
                "requests", happening.prediction_id, happening.asked_ms, self._request(happening)
            )
        self._publisher.flush()
        return list(sent)

    def tell(self, until_ms: int, *, clock: bool = True) -> int:
        """Send the truth of everything known before `until_ms`, then the clock; how many labels.

        Call it when the predictions asked before `until_ms` are visible: the clock promises that
        nothing older follows. Without it, time without predictions is no missing data.
        """
        told = 0
        while self._next_known < len(self._known):
            happening = self._known[self._next_known]
            if (happening.known_ms or 0) >= until_ms:
                break
            self._next_known += 1
            if happening.asked_ms >= self._asked_until_ms:
                continue  # the replay ends before it is asked
            time_ms = happening.known_ms or 0
            self._send("feedback", happening.prediction_id, time_ms, self._feedback(happening))
            told += 1
        if clock:
            self._clock(until_ms)
        self._publisher.flush()
        return told

    def _clock(self, now_ms: int) -> None:
        for entity in ("predictions", "feedback"):
            for partition in range(self._partitions):
                value = write(
                    "driftline.clock.advanced.v1",
                    ClockAdvanced(clock_ms=now_ms),
                    id=derived_id("clock", entity, partition, now_ms),
                    source=SOURCE,
                    time_ms=now_ms,
                )
                self._publisher.producer.produce(
                    self._names.topic(entity), value, partition=partition, timestamp=now_ms
                )

    def _request(self, happening: Happening) -> bytes:
        return write(
            "driftline.prediction.requested.v1",
            PredictionRequested(
                prediction_id=happening.prediction_id,
                model=self._model,
                features=dict(happening.features),
            ),
            id=f"request-{happening.prediction_id}",
            source=SOURCE,
            time_ms=happening.asked_ms,
        )

    def _feedback(self, happening: Happening) -> bytes:
        label = happening.label
        if label is None or happening.known_ms is None:
            raise ValueError(f"{happening.prediction_id} never gets a label")
        return write(
            "driftline.feedback.received.v1",
            FeedbackReceived(prediction_id=happening.prediction_id, model=self._model, label=label),
            id=f"feedback-{happening.prediction_id}",
            source=SOURCE,
            time_ms=happening.known_ms,
        )

    def _send(self, entity: str, key: str, time_ms: int, value: bytes) -> None:
        self._publisher.send(entity, key.encode(), value, timestamp_ms=time_ms)
