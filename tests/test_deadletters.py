"""Refused records keep their bytes."""

from stream.core.deadletters import HEADERS, dead_letter
from stream.core.processor import Record
from stream.errors import Refused


def test_a_dead_letter_holds_the_whole_record_and_why() -> None:
    record = Record(7, 1234, b"\xff", b"{", (("trace", None), ("x", b"1")))

    output = dead_letter("requests", record, Refused("bad-json", "truncated"), "score", 3)

    assert (output.entity, output.key, output.value) == ("requests.dlq", b"\xff", b"{")
    assert output.partition == 3
    assert output.headers[:2] == record.headers
    assert dict(output.headers[2:]) == {
        "dl_reason": b"bad-json",
        "dl_detail": b"truncated",
        "dl_topic": b"requests",
        "dl_partition": b"3",
        "dl_offset": b"7",
        "dl_timestamp_ms": b"1234",
        "dl_stage": b"score",
    }


def test_a_record_that_is_refused_again_has_the_newest_reason_only() -> None:
    once = dead_letter(
        "feedback", Record(1, 0, None, None), Refused("null-value", ""), "monitor", 0
    )

    again = dead_letter(
        "feedback", Record(9, 0, None, None, once.headers), Refused("too-large", ""), "monitor", 0
    )

    assert [name for name, _ in again.headers] == list(HEADERS)
    assert dict(again.headers)["dl_reason"] == b"too-large"


def test_a_detail_that_utf8_cannot_hold_is_still_written() -> None:
    output = dead_letter(
        "requests", Record(1, 0, None, b""), Refused("bad-id", "\ud800"), "score", 0
    )

    assert dict(output.headers)["dl_detail"] == b"?"
