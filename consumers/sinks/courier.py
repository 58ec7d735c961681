"""One sink's way through the alerts: its own group, its own pace, its own dead letters.

An offset is committed when its alert was delivered, filtered out, known already or laid down as a
dead letter, and never before; so whatever ends the process, what was under way comes again, with
the same id. Alerts that wait for another try let others pass, save those about the same alert.
"""

from __future__ import annotations

import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from confluent_kafka import KafkaException

from consumers.loop import BrokerError
from consumers.places import Delivered, Place
from consumers.sinks.notes import REMEMBERED, Note, Past, decode, note, wanted
from consumers.sinks.outcomes import NotTaken
from consumers.sinks.senders import Sender
from stream.core.deadletters import dead_letter
from stream.core.processor import Output, Record
from stream.errors import Refused, explained

log = structlog.get_logger("driftline.alerts")

#: Alerts taken from the topic and not delivered yet; the rest wait on the topic.
MOST_WAITING: Final = 100
#: Longer than this no sink is left alone, whatever its Retry-After says.
LONGEST_PAUSE_SECONDS: Final = 3600.0
POLL_SECONDS: Final = 0.5


class Reader(Protocol):
    """What a courier asks of `consumers.group.GroupReader`."""

    def poll(self, timeout_seconds: float, most: int) -> list[Delivered]: ...
    def hold(self, *, held: bool) -> None: ...
    def done(self, place: Place) -> None: ...
    def commit(self) -> None: ...


@dataclass(slots=True)
class Waiting:
    """An alert on its way. Times are those of the courier's clock."""

    place: Place
    record: Record
    note: Note
    since: float
    due: float
    attempts: int = 0


class Courier:
    """Delivers to one sink, alert by alert, at least once.

    Attributes:
        counts: "delivered", "retried", "dead-lettered", "failed:<why>", "skipped:<why>".
        turned: when it last was at work, by its clock.
    """

    def __init__(
        self,
        sender: Sender,
        lay_down: Callable[[Output], None],
        ending: Callable[[], bool],
        *,
        max_bytes: int,
        console_url: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """
        Args:
            lay_down: writes a dead letter, and returns when it is written; raises BrokerError.
            ending: whether the process was told to end.
            jitter: draws from 0 to 1.
        """
        self.sender = sender
        self.counts: Counter[str] = Counter()
        self.turned = clock()
        self._lay_down = lay_down
        self._ending = ending
        self._max_bytes = max_bytes
        self._console_url = console_url
        self._clock = clock
        self._jitter = jitter
        self._waiting: dict[Place, Waiting] = {}
        self._known: OrderedDict[str, None] = OrderedDict()
        self._past = Past()
        self._not_before = 0.0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def waiting_seconds(self) -> float:
        """For how long the oldest has waited."""
        since = [one.since for one in list(self._waiting.values())]
        return self._clock() - min(since) if since else 0.0

    def turn(self, reader: Reader) -> None:
        """Take what came, try what is due, commit what is done.

        Raises:
            BrokerError: what is no alert could not be laid down; it comes again.
        """
        self.turned = self._clock()
        room = MOST_WAITING - len(self._waiting)
        reader.hold(held=room <= 0)
        for came in reader.poll(self._idle_seconds(), max(room, 1)):
            self._take(came, reader)
        due = self._due()
        if due is not None:
            self._try(due, reader)
        try:
            reader.commit()
        except KafkaException as error:  # tried again at the next turn; at worst they come again
            log.warning("offsets not committed", sink=self.sender.name, error=explained(error))

    def lose(self, partition: int) -> None:
        """The partition went to another member, who is given its alerts again."""
        for place in [place for place in self._waiting if place.partition == partition]:
            del self._waiting[place]
        self._past.forget()

    def _take(self, came: Delivered, reader: Reader) -> None:
        place, record = came
        try:
            opened, alert = decode(record, self._max_bytes)
        except Refused as refused:
            log.error("no alert", sink=self.sender.name, reason=str(refused), **place._asdict())
            self._refuse(place, record, refused)
            self._skip("unreadable", place, reader)
            return
        event = self._past.event(alert)
        made = note(opened, alert, event, self._console_url)
        if made.id in self._known:
            self._skip("duplicate", place, reader)
        elif not wanted(self.sender.sink, alert, event):
            self._skip("filtered", place, reader)
        else:
            now = self._clock()
            self._waiting[place] = Waiting(place, record, made, now, now)

    def _skip(self, why: str, place: Place, reader: Reader) -> None:
        self.counts[f"skipped:{why}"] += 1
        reader.done(place)

    def _heads(self) -> list[Waiting]:
        """What may be tried: of each alert the oldest event that waits."""
        heads: dict[str, Waiting] = {}
        for one in self._waiting.values():
            heads.setdefault(one.note.alert.alert_id, one)
        return list(heads.values())

    def _due(self) -> Waiting | None:
        now = self._clock()
        if now < self._not_before:
            return None
        due = [one for one in self._heads() if one.due <= now]
        return min(due, key=lambda one: one.due, default=None)

    def _idle_seconds(self) -> float:
        """How long nothing is due, at most one poll."""
        next_due = min((one.due for one in self._heads()), default=float("inf"))
        left = max(next_due, self._not_before) - self._clock()
        return min(max(left, 0.0), POLL_SECONDS)

    def _try(self, one: Waiting, reader: Reader) -> None:
        if one.note.id in self._known:  # it was on the topic twice, and waited twice
            del self._waiting[one.place]
            self._skip("duplicate", one.place, reader)
            return
        one.attempts += 1
        self.counts["retried"] += one.attempts > 1
        try:
            self.sender.attempt(one.note, self._ending)
        except NotTaken as failed:
            self._failed(one, failed, reader)
        except Exception as error:  # no alert stops a sink
            log.exception("defect", sink=self.sender.name, alert_event=one.note.id)
            self._failed(one, NotTaken("defect", type(error).__name__, for_good=True), reader)
        else:
            self.counts["delivered"] += 1
            self._remember(one.note.id)
            self._settle(one, reader)

    def _failed(self, one: Waiting, failed: NotTaken, reader: Reader) -> None:
        if self._ending() and failed.why == "timeout":
            return  # cut short by us: it comes again
        sink, now = self.sender.sink, self._clock()
        self.counts[f"failed:{failed.why}"] += 1
        told = {"sink": self.sender.name, "alert_event": one.note.id, "attempt": one.attempts}
        pause = min(failed.after_seconds or 0.0, LONGEST_PAUSE_SECONDS)
        self._not_before = max(self._not_before, now + pause)
        one.due = now + max(self._backoff(one.attempts), pause)
        if failed.for_good or now - one.since >= sink.retry_for_seconds:
            refused = Refused("undeliverable", f"{failed} (attempts: {one.attempts})")
            try:
                self._refuse(one.place, one.record, refused)
            except BrokerError as error:  # it waits, and is tried once more
                log.warning("dead letter waits", error=explained(error), **told)
            else:
                log.error("dead letter", reason=str(failed), **told)
                self._settle(one, reader)
            return
        # The last attempt is at the end of the time that is given, not before it.
        one.due = min(one.due, max(one.since + sink.retry_for_seconds, now + pause))
        again = round(one.due - now, 1)
        log.warning("not taken", reason=str(failed), again_in_seconds=again, **told)

    def _backoff(self, attempts: int) -> float:
        """Exponential, and between half of it and all of it by chance."""
        sink = self.sender.sink
        whole = sink.first_retry_seconds * 2.0 ** min(attempts - 1, 30)
        return min(whole, sink.longest_retry_seconds) * (0.5 + 0.5 * self._jitter())

    def _refuse(self, place: Place, record: Record, refused: Refused) -> None:
        """Lay a record down as a dead letter of this sink.

        Raises:
            BrokerError: it could not be written.
        """
        self._lay_down(
            dead_letter("alerts", record, refused, stage_of(self.sender.name), place.partition)
        )
        self.counts["dead-lettered"] += 1

    def _settle(self, one: Waiting, reader: Reader) -> None:
        # It may be gone: a rebalance took its partition while it was under way.
        if self._waiting.pop(one.place, None) is not None:
            reader.done(one.place)

    def _remember(self, id_: str) -> None:
        self._known[id_] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def stage_of(name: str) -> str:
    """By whom a sink's dead letters say that they were refused.

    >>> stage_of("pager")
    'alerts/pager'
    """
    return f"alerts/{name}"
