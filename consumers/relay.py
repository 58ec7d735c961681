"""The outbox of the registry, published on `lifecycle` in its order.

All relays share one transactional id. Taking it fences whoever held it, and the outbox is read only
after that, so no transaction ends with an older state than one before it, however many trainers and
command lines relay at once. A crash or a take-over between writing and marking repeats rows, all
that are pending; readers ignore a generation that is not newer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec
from confluent_kafka import KafkaError, KafkaException

from consumers import spans
from consumers.loop import BrokerError, log
from consumers.producing import Publisher, reason_of
from models.state import LiveState, Outgoing
from stream.envelope import derived_id, write
from stream.errors import ConfigurationError
from stream.events import LifecycleChanged
from stream.failpoints import failpoint
from stream.producers import flush
from stream.settings import Settings
from stream.signing import signed, signer
from stream.transactions import is_fence

BATCH = 100
SECONDS = 10.0
PROBE_SECONDS = 3.0  # whether anybody answers at all
FENCES = 20  # take-overs in one pump; more than relays at work can cause
SOURCE = "driftline/registry"


class Outbox(Protocol):
    """What the relay needs of `models.registry.Registry`."""

    def outbox_pending(self, limit: int) -> list[Outgoing]: ...

    def outbox_sent(self, ids: Sequence[int]) -> None: ...


def lifecycle(state: LiveState) -> LifecycleChanged:
    return msgspec.convert(msgspec.to_builtins(state), LifecycleChanged)


def encode(state: LiveState) -> bytes:
    """The record value: one CloudEvent, the same bytes each time it is published."""
    return write(
        "driftline.lifecycle.changed.v1",
        lifecycle(state),
        id=derived_id("lifecycle", state.model, state.generation),
        source=SOURCE,
        time_ms=state.changed_ms,
    )


class Relay:
    """Publishes what is pending, and takes the transactional id only when something is.

    Raises:
        ConfigurationError: it could not sign what the stages believe.
    """

    def __init__(self, outbox: Outbox, settings: Settings) -> None:
        self._outbox = outbox
        self._settings = settings
        self._publisher: Publisher | None = None
        self._signer = signer(settings, "lifecycle")
        self._topic = settings.names.topic("lifecycle")

    def pump(self) -> int:
        """Publish everything pending; returns the number of rows.

        Raises:
            BrokerError: some could not be written; they stay pending.
        """
        sent = fences = 0
        while pending := self._outbox.outbox_pending(BATCH):
            publisher = self._publisher
            if publisher is None:
                self._publisher = self._take_over()
                continue  # what was pending before may be sent by now
            try:
                with spans.publication([row.state for row in pending]):
                    self._write(publisher, pending)
            except (KafkaException, BrokerError) as error:
                self._publisher = None
                fences += 1
                if _fenced(error) and fences < FENCES:
                    continue  # another relay took over, and may have left rows
                raise _unwritten(self._settings, error, publisher.why_not) from error
            failpoint("publishing")
            self._outbox.outbox_sent([row.outbox_id for row in pending])
            sent += len(pending)
        return sent

    def _take_over(self) -> Publisher:
        publisher = Publisher(
            self._settings,
            **{
                "transactional.id": self._settings.names.relay_id,
                "transaction.timeout.ms": self._settings.transaction_timeout_ms,
                "message.timeout.ms": self._settings.transaction_timeout_ms,
                "linger.ms": 0,
            },
        )
        try:
            publisher.producer.list_topics(timeout=PROBE_SECONDS)
            publisher.producer.init_transactions(SECONDS)
        except KafkaException as error:
            raise _unwritten(self._settings, error) from error
        return publisher

    def _write(self, publisher: Publisher, rows: Sequence[Outgoing]) -> None:
        publisher.producer.begin_transaction()
        for row in rows:
            key, value = row.state.model.encode(), encode(row.state)
            if self._signer is not None:
                value = signed(self._signer, self._topic, key, value)
            publisher.send("lifecycle", key, value)
        flush(publisher.producer, SECONDS)  # a commit would, but not by polls; it tells what failed
        publisher.producer.commit_transaction(SECONDS)


def pump_once(outbox: Outbox, settings: Settings) -> str:
    """Publish from a command line; says what came of it, and never raises for Kafka."""
    try:
        sent = Relay(outbox, settings).pump()
    except (BrokerError, ConfigurationError) as error:
        log.debug("relay: %s", error)
        return f"recorded, but not published yet: {error}. A running trainer publishes it"
    return f"published to {settings.names.topic('lifecycle')}" if sent else "already published"


#: What Kafka 4.1 also says to a transaction that another relay's take-over has overtaken.
_OVERTAKEN: Final = frozenset({KafkaError.UNKNOWN, KafkaError.INVALID_TXN_STATE})


def _fenced(error: Exception) -> bool:
    if not isinstance(error, KafkaException):
        return False
    return is_fence(error) or error.args[0].code() in _OVERTAKEN


def _unwritten(settings: Settings, error: Exception, why: str = "") -> BrokerError:
    """`why`: what a delivery report said, where a commit only says that there are some."""
    why = why or (reason_of(error) if isinstance(error, KafkaException) else str(error))
    return BrokerError(f"no lifecycle record written to {settings.bootstrap_servers}: {why}")
