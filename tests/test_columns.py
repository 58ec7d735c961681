"""Runs of records read as columns have the outcome that each record has alone."""

from __future__ import annotations

import json

import msgspec
import pytest

from stream.core.decoding import Decoded, decode
from stream.core.processor import CoreSettings, Record
from tests.fleets import CHURN, GOOD_FEATURES, FakeLive

NOW = 1_700_000_000_000
FLEET = {CHURN.name: FakeLive(CHURN)}
SETTINGS = CoreSettings()
BAD = {
    "bad-json": b'{"prediction_id": "x", "model": "churn"',
    "bad-id": b'{"prediction_id": "\\u0007", "model": "churn", %s}',
    "unknown-model": b'{"prediction_id": "x", "model": "nobody", %s}',
    "too-large": b'{"prediction_id": "x", "model": "churn", "pad": "%s", ' % (b"x" * 300_000)
    + b"%s}",
    "bad-envelope": b'{"specversion": "9", "id": "1", "source": "s", "type": "t", "data": {}}',
    "bad-envelope, with data as well": b'{"specversion": "9", "prediction_id": "x", '
    b'"model": "churn", %s}',
    "bad-envelope, in disguise": b'{"\\u0073pecversion": "1.0", "id": "1", "source": "s", '
    b'"type": "other.v1", "prediction_id": "x", "model": "churn", %s}',
    "bad-json, no UTF-8": b'{"id": "\xff", "prediction_id": "x", "model": "churn", %s}',
}
REST = {
    "requests": {"features": GOOD_FEATURES},
    "predictions": {"features": GOOD_FEATURES, "version": 1, "output": 0.5},
    "feedback": {"label": "leaves"},
}


def records(entity: str, bad: bytes, places: set[int]) -> list[Record]:
    rest = json.dumps(REST[entity])[1:-1].encode()
    spoilt = bad % rest if b"%s" in bad else bad
    good = b'{"prediction_id": "p%d", "model": "churn", %s}'
    return [
        Record(i, NOW + i, None, spoilt if i in places else good % (i, rest)) for i in range(300)
    ]


def outcome(decoded: Decoded) -> list[tuple[int, str]]:
    events = [
        (e.record.offset, f"{msgspec.json.encode(e.data)!r} {e.row} {e.values} {e.time_ms}")
        for e in decoded.events
    ]
    others = [(r.offset, why.reason) for r, why in (*decoded.refused, *decoded.unknown)]
    return sorted(events + others)


@pytest.mark.parametrize("entity", sorted(REST))
@pytest.mark.parametrize("reason", sorted(BAD))
@pytest.mark.parametrize("places", [set(), {0}, {63, 64}, {299}, set(range(0, 300, 7))])
def test_a_bad_record_in_a_run_costs_its_neighbours_nothing(
    entity: str, reason: str, places: set[int]
) -> None:
    """Batched and one by one, the same events are accepted and the same records refused."""
    run = records(entity, BAD[reason], places)

    batched = outcome(decode(entity, run, FLEET, SETTINGS))
    alone = [pair for one in run for pair in outcome(decode(entity, [one], FLEET, SETTINGS))]
    assert batched == sorted(alone)
    told = reason.partition(",")[0]
    assert [offset for offset, why in batched if why == told] == sorted(places)
