"""What the trainer obeys: commands, by someone who is trusted. The rest become dead letters."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from consumers.places import Delivered
from consumers.producing import Publisher
from stream.core.deadletters import dead_letter
from stream.core.processor import Output
from stream.envelope import open_record, read
from stream.errors import Refused
from stream.events import Alert, Command
from stream.lifecycle import alert_record
from stream.settings import Settings
from stream.signing import NOBODY, Trust, trust
from stream.suspects import Suspects

log = structlog.get_logger("driftline.trainer")


class Gate:
    """Lets commands through.

    Attributes:
        refused: records that were let through no further; of these `suspects.count` were forged.
    """

    def __init__(
        self,
        checked: Trust,
        max_bytes: int,
        refuse: Callable[[Output], None],
        tell: Callable[[Alert], None],
    ) -> None:
        self.refused = 0
        self.suspects = Suspects("forged-command", tell)
        self._trust = checked
        self._max_bytes = max_bytes
        self._refuse = refuse

    def command(self, came: Delivered) -> Command | None:
        """The command in a record; None for what is none, or none of ours: it is a dead letter
        when this returns, so its offset is done.

        Raises:
            BrokerError: the dead letter could not be written; deliver the record again.
        """
        try:
            return decode(came, self._max_bytes, self._trust)
        except Refused as refused:
            place, record = came
            log.error("command refused", reason=str(refused), **place._asdict())
            self.refused += 1
            self._refuse(dead_letter("commands", record, refused, "trainer", place.partition))
            if refused.reason == "bad-signature":
                self.suspects.report(record, refused)
            return None


def decode(came: Delivered, max_bytes: int, checked: Trust = NOBODY) -> Command:
    """
    Raises:
        Refused: not a command, or not by a key that is trusted.
    """
    opened = open_record("commands", came.record, max_bytes=max_bytes)
    checked.check(came.record)
    command = read(opened, Command)
    if opened.type != f"driftline.command.{command.kind}.v1":
        raise Refused("bad-data", f"a {command.kind} in an event of type {opened.type}")
    return command


def gate(settings: Settings) -> Gate:
    """The gate of a trainer; dead letters and alerts are written before it goes on.

    Raises:
        ConfigurationError: a key cannot be read.
    """
    publisher = Publisher(settings)

    def refuse(output: Output) -> None:
        publisher.send(output.entity, output.key, output.value, headers=output.headers)
        publisher.flush()

    checked = trust(settings, "commands")
    return Gate(checked, settings.max_record_bytes, refuse, teller(publisher))


def teller(publisher: Publisher) -> Callable[[Alert], None]:
    """What writes an alert of the trainer's own, and returns when it is written."""

    def tell(alert: Alert) -> None:
        publisher.send("alerts", *alert_record(alert))
        publisher.flush()

    return tell
