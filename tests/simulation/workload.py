"""What producers and people do: requests, predictions made elsewhere, feedback, and rubbish."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from stream.core.processor import Headers
from tests.simulation.kafka import by_key
from tests.simulation.log import ABORTED, COMMITTED, Log, Transaction
from tests.simulation.models import EARLY_MS, GHOST, HORIZON_MS, truth

POISON: tuple[bytes | None, ...] = (
    None,
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 2000,
    b'{"prediction_id":"x"}',
    b'{"prediction_id":"","model":"churn","features":{}}',
    b'{"prediction_id":7,"model":"churn"}',
    b'{"specversion":"9","id":"1","source":"s","type":"t","data":{}}',
    b'{"specversion":"1.0","id":"1","source":"s","type":"driftline.alert.opened.v1","data":{}}',
    b'{"prediction_id":"p","model":"churn","version":1,"output":2,"features":{"age":1,"plan":"a"}}',
    b'{"prediction_id":"p","model":"churn","label":"perhaps"}',
    b'{"clock_ms":7}',
)
TYPES = {
    "requests": "driftline.prediction.requested.v1",
    "predictions": "driftline.prediction.made.v1",
    "feedback": "driftline.feedback.received.v1",
}


_GAPS_MS = (0, 100, 300, 300, 900, -EARLY_MS // 2, HORIZON_MS, HORIZON_MS + 3_000)
_NO_HEADERS: Headers = ()
Form = Literal["structured", "binary", "plain"]


class _Known(NamedTuple):
    """What was asked or predicted."""

    id: str
    model: str
    age: int
    time_ms: int
    form: Form


class Producers:
    """Producers outside of Driftline.

    Args:
        topics: full name by entity.
        counts: partitions by entity.
        names: models that exist by now.

    Attributes:
        sent: how many of each kind, for the summary of a run.
        labelled: whether feedback comes at all at the moment.
    """

    def __init__(
        self,
        log: Log,
        rng: random.Random,
        topics: dict[str, str],
        counts: dict[str, int],
        names: Callable[[], list[str]],
        now_ms: Callable[[], int],
    ) -> None:
        self.sent: Counter[str] = Counter()
        self.hostile = rng.random() < 0.8
        self._log, self._rng = log, rng
        self._topics, self._counts = topics, counts
        self._names, self._now_ms = names, now_ms
        self._known: list[_Known] = []
        self._number = 0
        self._open: list[Transaction] = []

    def some(self) -> str:
        """A few events, perhaps in a transaction that stays open or is aborted."""
        rng = self._rng
        transaction = self._transaction() if self.hostile and rng.random() < 0.08 else None
        before = self.sent.total()
        for _ in range(rng.randint(1, 4)):
            self._one(transaction)
        if transaction is not None and rng.random() < 0.6:
            self.end_one()
        return f"{self.sent.total() - before} events{' in a transaction' * bool(transaction)}"

    def end_one(self) -> str:
        """Commit or abort the oldest open transaction."""
        if not self._open:
            return ""
        transaction = self._open.pop(0)
        if transaction.decided:
            return "timed out"
        how = self._rng.choice((ABORTED, COMMITTED))
        self._log.decide(transaction, how)
        return "committed" if how == COMMITTED else "aborted"

    def end_all(self) -> None:
        while self._open:
            self.end_one()

    def _transaction(self) -> Transaction:
        owner = f"upstream-{self._number}-{len(self._open)}"
        transaction = self._log.begin(owner, self._log.init(owner))
        self._open.append(transaction)
        return transaction

    def _one(self, transaction: Transaction | None) -> None:
        draw = self._rng.random()
        if self.hostile and draw < 0.06:
            entity = self._rng.choice(list(TYPES))
            self._send(entity, None, self._rng.choice(POISON), transaction, "poison")
        elif draw < 0.35 or not self._known:
            self._request(transaction)
        elif draw < 0.5:
            self._prediction(transaction)
        else:
            self._feedback(transaction)

    def _new(self) -> _Known:
        rng = self._rng
        self._number += 1
        form = self._form()
        age = rng.randint(0, 40)
        if self.hostile and self._known and rng.random() < 0.1:
            # The same event once more, perhaps with another age: a duplicate or a conflict.
            known = rng.choice(self._known[-8:])
            form = "structured" if form == "plain" else form
            return known._replace(age=rng.choice((age, known.age)), form=form)
        names = self._names()
        names = [*names, names[-1]]  # the newest comes late, and has its share all the same
        model = GHOST if self.hostile and rng.random() < 0.02 else rng.choice(names)
        time_ms = self._now_ms() if form == "plain" else self._time()
        self._known.append(_Known(f"id-{self._number}", model, age, time_ms, form))
        return self._known[-1]

    def _form(self) -> Form:
        """A plain value has no time of its own: it happens at its record's."""
        return self._rng.choices(("structured", "binary", "plain"), cum_weights=(6, 7, 10))[0]

    def _request(self, transaction: Transaction | None) -> None:
        id_, model, age, time_ms, form = self._new()
        data = f'{{"prediction_id":"{id_}","model":"{model}","features":{self._features(age)}}}'
        self._event("requests", id_, data, time_ms, form, transaction)

    def _prediction(self, transaction: Transaction | None) -> None:
        rng = self._rng
        id_, model, age, time_ms, form = self._new()
        version = rng.choice((1, 1, 1, 2, 2, 2, 3)) if self.hostile else 1
        version = 99 if self.hostile and rng.random() < 0.02 else version
        shadow = ',"shadow":{"2":0.25}' if rng.random() < 0.3 else ""
        output = rng.choice((0.1, 0.9))
        data = (
            f'{{"prediction_id":"{id_}","model":"{model}","version":{version},"output":{output}'
            f'{shadow},"features":{self._features(age)}}}'
        )
        self._event("predictions", id_, data, time_ms, form, transaction)

    def _feedback(self, transaction: Transaction | None) -> None:
        rng = self._rng
        id_, model, age, made_ms, _ = rng.choice(self._known[-12:])
        label = truth(age) != (rng.random() < 0.1)
        if self.hostile and rng.random() < 0.05:
            id_ = f"orphan-{self._number}"
        gap_ms = rng.choice((0, 100, 300, -EARLY_MS // 2, HORIZON_MS, HORIZON_MS + 3_000))
        time_ms = (
            min(made_ms + gap_ms, self._now_ms() + 200) if rng.random() < 0.7 else self._time()
        )
        weight = ',"weight":2.5' if rng.random() < 0.1 else ""
        said = ("no", "yes")[label]
        data = f'{{"prediction_id":"{id_}","model":"{model}","label":"{said}"{weight}}}'
        self._event("feedback", id_, data, time_ms, self._form(), transaction)

    def _features(self, age: int) -> str:
        plan = self._rng.choice(("a", "b", "c"))
        if self.hostile and self._rng.random() < 0.03:
            return f'{{"age":"{age}","plan":"{plan}"}}'
        return f'{{"age":{age},"plan":"{plan}"}}'

    def _time(self) -> int:
        """Event time: mostly now or within the allowed lateness; sometimes far off."""
        rng, now = self._rng, self._now_ms()
        draw = rng.random()
        if not self.hostile or draw < 0.85:
            return now - rng.choice((0, 0, 50, 150))
        return now - rng.choice((1_500, 6_000, 20_000, 60_000, -100, -20_000))

    def _event(
        self,
        entity: str,
        id_: str,
        data: str,
        time_ms: int,
        form: Form,
        transaction: Transaction | None,
    ) -> None:
        value, headers = data.encode(), _NO_HEADERS
        kind, time = TYPES[entity], datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()
        if form == "structured":
            value = (
                f'{{"specversion":"1.0","id":"e{self._number}","source":"s","type":"{kind}",'
                f'"time":"{time}","data":{data}}}'
            ).encode()
        elif form == "binary":
            pairs = {"specversion": "1.0", "id": "e", "source": "s", "type": kind, "time": time}
            headers = tuple((f"ce_{name}", text.encode()) for name, text in pairs.items())
        self._send(entity, id_.encode(), value, transaction, entity, headers)
        if self.hostile and self._rng.random() < 0.05:  # it retries without idempotence
            self._send(entity, id_.encode(), value, transaction, "retried", headers)

    def _send(
        self,
        entity: str,
        key: bytes | None,
        value: bytes | None,
        transaction: Transaction | None,
        kind: str,
        headers: Headers = _NO_HEADERS,
    ) -> None:
        rng, count = self._rng, self._counts[entity]
        partition = by_key(key, count)
        if key is None or (self.hostile and rng.random() < 0.04):
            partition = rng.randrange(count)
        self.sent[kind] += 1
        self._log.append((self._topics[entity], partition), key, value, headers, transaction)
