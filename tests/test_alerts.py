"""Alerts: one object per problem, the newest revision wins."""

from __future__ import annotations

import msgspec

from stream.core.alerts import Book
from stream.events import Alert


def report(book: Book, now_ms: int, sentence: str = "x moved") -> Alert:
    return book.report("drift", sentence, {"names": ["x"]}, model="m", version=1, now_ms=now_ms)


def test_more_of_the_same_problem_is_a_revision_of_the_same_alert() -> None:
    book = Book()
    first, second = report(book, 10), report(book, 20, "x and y moved")
    assert (second.alert_id, second.opened_ms) == (first.alert_id, 10)
    assert (first.revision, second.revision, second.updated_ms) == (0, 1, 20)


def test_what_is_added_in_the_same_moment_is_no_new_revision() -> None:
    book = Book()
    report(book, 10)
    noted = book.note("drift", 10, action="none")
    assert noted is not None
    assert noted.revision == 0
    assert book.note("drift", 20, action="none") is None
    assert book.note("harm", 20, action="none") is None


def test_a_resolved_alert_is_the_last_word_and_the_next_one_is_another() -> None:
    book = Book()
    opened = report(book, 10)
    resolved = book.resolve("drift", 10, "over")
    assert (resolved.state, resolved.resolved_ms, resolved.revision) == ("resolved", 10, 1)
    assert book.open == {}
    assert report(book, 30).alert_id != opened.alert_id


def test_an_open_alert_survives_plain_data() -> None:
    book = Book()
    book.report(
        "harm", "worse", {"n": 3, "loss": 0.1, "before": [1, 2], "signals": {"x": {"psi": 0.2}}},
        model="m", version=1, now_ms=5,
    )  # fmt: skip
    data = msgspec.json.encode(book)
    assert msgspec.json.encode(msgspec.json.decode(data, type=Book)) == data
