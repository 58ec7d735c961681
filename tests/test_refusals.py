"""A broken schema is broken data: it alerts, asks for no retrain, and resolves when mended."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from models.spec import Policy
from stream.core.processor import Batch, Context, CoreSettings, Record
from stream.core.scoring import ScoreProcessor
from stream.envelope import open_record, read
from stream.events import SummaryComputed
from tests.fleets import CHURN, GOOD_FEATURES, FakeLive
from tests.monitoring import FLEET, T0, merged, monitor, prediction, summaries_of
from tests.test_evaluate import World


def test_a_schema_break_is_a_data_alert_and_no_retrain() -> None:
    world = World()
    world.days(30)
    world.days(6, n=0, refused=24)
    alert = world.newest("data")
    assert (alert.state, alert.verdict, alert.severity) == ("open", "data broken", "warning")
    refused: Any = alert.evidence["refused"]
    assert refused["reasons"] == {"predictions:bad-features": 24}
    assert "100% of records are refused (predictions:bad-features)" in alert.sentence
    assert world.commands == []
    world.days(20)
    assert world.newest("data").state == "resolved"


def test_while_records_are_refused_harm_in_the_rest_is_not_retrained() -> None:
    world = World()
    world.days(30)
    world.days(3, refused=24)
    world.days(20, refused=24, bad=0.7)
    assert world.newest("harm").state == "open"
    assert world.newest("harm").evidence["action"] == (
        "held: records are refused: the data must be mended first"
    )
    assert world.commands == []


def test_a_trickle_of_bad_records_is_no_news() -> None:
    """One in a thousand, where the reference has 2,000 rows."""
    world = World(policy=Policy(retrain=False))
    for number in range(300):
        world.days(1, refused=int(number % 40 == 0))
    assert world.alerts("data") == []


def test_monitor_counts_what_it_refuses_of_a_live_model() -> None:
    stage = monitor()
    good = prediction("p0", 0).record(0)
    broken = good._replace(offset=1, value=re.sub(rb'"age":[^,]*,', b"", good.value or b""))
    stranger = good._replace(offset=2, value=b'{"model": "other", "x": 1}')
    nothing = good._replace(offset=3, value=b"junk")
    stage.apply(Batch("predictions", 0, [good, broken, stranger, nothing]), FLEET)
    stage.apply(Batch("feedback", 0, [broken._replace(value=b'{"model": "churn"}')]), FLEET)
    found = merged(summaries_of(stage.advance(T0 + 10**5, True, FLEET)))
    counters: dict[str, int] = {}
    for total in found.values():
        counters |= total.get("counters", {})
    assert counters == {"refused:predictions:bad-features": 1, "refused:feedback:bad-data": 1}


def score(*records: Record, fleet: Any) -> list[SummaryComputed]:
    """What score says of requests that it refused, with the next commit."""
    counts = {"requests": 1, "predictions": 1, "summaries": 4}
    stage = ScoreProcessor(Context(0, counts, CoreSettings()))
    outputs = stage.apply(Batch("requests", 0, list(records)), fleet)
    outputs += stage.advance(0, True, fleet)
    assert stage.advance(1, True, fleet) == []  # said once
    told = [out for out in outputs if out.entity == "summaries"]
    assert {out.key for out in told} <= {b"churn"}
    opened = [open_record("summaries", Record(0, 0, o.key, o.value), max_bytes=10**6) for o in told]
    return [read(one, SummaryComputed) for one in opened]


def request(offset: int, features: object, model: str = "churn") -> Record:
    data = {"prediction_id": f"r{offset}", "model": model, "features": features}
    return Record(offset, T0 + offset, b"k", msgspec.json.encode(data))


def test_score_says_in_summaries_what_it_refused_and_where_it_lies() -> None:
    fleet = {"churn": FakeLive()}
    good = request(3, GOOD_FEATURES)
    broken = [request(offset, {}) for offset in (4, 9)]
    (told,) = score(good, *broken, request(12, {}, "other"), fleet=fleet)
    assert (told.model, told.version, told.tick) == ("churn", 1, T0 // CHURN.tick_ms)
    assert told.counters == {"refused:requests:bad-features": 2}
    assert told.offsets == {"requests/0": (4, 10)}
    assert score(good, fleet=fleet) == []


def test_what_score_says_depends_on_nothing_that_it_said_before() -> None:
    """None of it is part of a checkpoint, so a restart must not show."""
    counts = {"requests": 1, "predictions": 1, "summaries": 4}
    fleet: Any = {"churn": FakeLive()}
    late, early = request(9, {}), request(4, {})
    told = []
    for before in ([late], []):
        stage = ScoreProcessor(Context(0, counts, CoreSettings()))
        for record in (*before, early):
            stage.apply(Batch("requests", 0, [record]), fleet)
            outputs = stage.advance(0, True, fleet)
        told.append(outputs)
    assert told[0] == told[1]
    assert len(told[0]) == 1
