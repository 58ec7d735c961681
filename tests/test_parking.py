"""Records that wait for a model which lifecycle does not know yet."""

from stream.core.parking import CHUNK_BYTES, Parking
from stream.core.processor import CoreSettings, Fleet, Record
from stream.errors import Refused
from tests.fleets import FakeLive

UNKNOWN = Refused("unknown-model", "no model 'churn' is live")
SETTINGS = CoreSettings()
NOBODY: Fleet = {}


def feedback(offset: int, model: str = "churn", pad: int = 0) -> Record:
    value = f'{{"prediction_id":"p{offset}","model":"{model}","label":true,"x":"{"." * pad}"}}'
    return Record(offset, 5_000, b"k", value.encode(), (("h", b"1"),))


def parking(**limits: int) -> Parking:
    return Parking(5_000, **limits)


def test_a_waiting_record_is_let_go_when_its_model_comes() -> None:
    waiting = parking()
    for offset in (3, 4):
        assert waiting.park("feedback", feedback(offset), UNKNOWN)
    waiting.park("feedback", feedback(5, "other"), UNKNOWN)

    ((entity, decoded),) = waiting.retry({"churn": FakeLive()}, SETTINGS)

    assert entity == "feedback"
    assert [event.record.offset for event in decoded.events] == [3, 4]
    assert len(waiting) == 1


def test_nothing_is_tried_again_while_the_fleet_is_the_same() -> None:
    """A fleet is replaced, never changed, so the same object cannot know more models."""
    waiting = parking()
    waiting.park("feedback", feedback(1), UNKNOWN)
    waiting.retry(NOBODY, SETTINGS)

    assert waiting.retry(NOBODY, SETTINGS) == []
    assert len(waiting) == 1


def test_a_record_that_proves_bad_is_let_go_as_refused() -> None:
    waiting = parking()
    waiting.park("feedback", feedback(1)._replace(value=b'{"model":"churn"}'), UNKNOWN)

    ((_, decoded),) = waiting.retry({"churn": FakeLive()}, SETTINGS)

    assert decoded.refused[0][1].reason == "bad-data"
    assert len(waiting) == 0


def test_the_wait_starts_when_time_first_passes_not_at_the_records_own_time() -> None:
    """A backlog's records are hours old, yet their model may just be on its way."""
    waiting = parking()
    waiting.park("feedback", feedback(1), UNKNOWN)

    assert waiting.expired(1_000_000) == []
    assert waiting.expired(1_004_999) == []
    (gone,) = waiting.expired(1_005_000)
    assert (gone.record, gone.refused.reason) == (feedback(1), "unknown-model")
    assert len(waiting) == 0


def test_what_does_not_fit_is_refused_at_once() -> None:
    few, small, none = parking(max_records=1), parking(max_bytes=40), Parking(0)
    assert few.park("feedback", feedback(1), UNKNOWN)

    assert not few.park("feedback", feedback(2), UNKNOWN)
    assert not small.park("feedback", feedback(1), UNKNOWN)
    assert not none.park("feedback", feedback(1), UNKNOWN)


def test_room_is_free_again_after_records_left() -> None:
    waiting = parking(max_records=1)
    waiting.park("feedback", feedback(1), UNKNOWN)
    waiting.expired(0)
    waiting.expired(5_000)

    assert waiting.park("feedback", feedback(2), UNKNOWN)


def test_a_restored_parking_goes_on_where_the_first_was() -> None:
    first = parking()
    first.park("feedback", feedback(1), UNKNOWN)
    first.expired(100)
    first.park("predictions", feedback(2), UNKNOWN)
    second = parking()

    second.restore({k: v for k, v in first.changes(complete=True).items() if v} | {"other": b"?"})

    assert second.changes(complete=False) == {}
    for each in (first, second):
        assert [p.record for p in each.expired(5_100)] == [feedback(1)]
        assert [p.entity for p in each.expired(10_100)] == ["predictions"]


def test_checkpoints_hold_what_changed_in_parts_of_bounded_size() -> None:
    waiting = parking()
    for offset in range(300):
        waiting.park("feedback", feedback(offset, pad=2_000), UNKNOWN)
    written = waiting.changes(complete=False)

    waiting.park("feedback", feedback(300), UNKNOWN)

    assert len(written) > 3
    assert all(value and len(value) < 2 * CHUNK_BYTES for value in written.values())
    assert list(waiting.changes(complete=False)) == [max(written, key=lambda n: int(n[7:]))]
    waiting.retry({"churn": FakeLive()}, SETTINGS)
    assert waiting.changes(complete=False) == dict.fromkeys(written)
    assert waiting.changes(complete=True) == {}
