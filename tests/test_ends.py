"""A client of the broker that is stuck is not the end of looking: another one takes over."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from stream import connecting, ends
from stream.ends import FAILURES, BrokerAway, Ends
from stream.settings import Settings

TIMED_OUT = KafkaException(KafkaError(KafkaError._TIMED_OUT))


class Clients:
    """Makes clients of which the first is never answered."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, properties: object) -> Client:
        self.made += 1
        return Client(stuck=self.made == 1)


class Client:
    def __init__(self, *, stuck: bool) -> None:
        self._stuck = stuck

    def list_topics(self, timeout: float) -> None:
        assert timeout > 0
        if self._stuck:
            raise TIMED_OUT


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Clients:
    made = Clients()
    monkeypatch.setattr(ends, "AdminClient", made)
    return made


def test_a_client_that_is_never_answered_is_replaced(clients: Clients) -> None:
    """What looks after a stage would say for ever that the broker is away."""
    looked = Ends(Settings())
    for _ in range(FAILURES):
        with pytest.raises(BrokerAway):
            looked.probe()
    looked.probe()
    assert clients.made == 2


def test_each_look_around_has_a_client_of_its_own(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose first look a cut connection ended begins with nothing that it left."""
    used: list[Ends] = []

    def look_around(*arguments: Any) -> str:
        used.append(arguments[-1])
        if len(used) < 3:
            raise TIMED_OUT
        return "seen"

    monkeypatch.setattr(connecting, "_look_around", look_around)
    monkeypatch.setattr(Ends, "wait", lambda self: None)
    seen: object = connecting.connect("score", Settings(), None, lambda error: None)
    assert seen == "seen"
    assert len(set(map(id, used))) == clients.made == 3
