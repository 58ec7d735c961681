"""Lines of waiting records: in order, in turn, and whole after a restart."""

from __future__ import annotations

import random

from stream.core.lines import Lines
from stream.core.parking import Parking
from stream.core.processor import Record


def record(offset: int, size: int = 100) -> Record:
    return Record(offset, 5_000, b"k", b"v" * size, (("h", b"1"),))


def offsets(records: list[Record]) -> list[int]:
    return [one.offset for one in records]


def test_a_line_is_first_in_first_out_and_its_model_then_waits_for_its_next_turn() -> None:
    lines = Lines("requests")
    lines.stand("a", [record(0), record(1), record(2)])
    lines.stand("b", [record(3)])
    assert [*lines.lengths.items()] == [("a", 3), ("b", 1)]

    assert offsets(lines.take("a", 2)) == [0, 1]
    assert [*lines.lengths.items()] == [("b", 1), ("a", 1)]

    assert offsets(lines.take("b", 5)) == [3]
    assert "b" not in lines
    assert len(lines) == 1


def test_they_are_full_by_records_or_by_bytes() -> None:
    for lines in (Lines("requests", max_records=2), Lines("requests", max_bytes=250)):
        lines.stand("a", [record(0), record(1)])
        assert not lines.full
        lines.stand("a", [record(2)])
        assert lines.full
        lines.take("a", 1)
        assert not lines.full


def test_what_differs_since_the_last_checkpoint_makes_the_next_one_whole() -> None:
    """Whatever stands and goes, a restart from the parts that were written has the same lines."""
    rng = random.Random(7)
    lines, kept, offset = Lines("requests"), dict[str, bytes](), 0
    for _ in range(300):
        for model in rng.sample("abc", rng.randint(0, 2)):
            count = rng.randint(1, 60)
            lines.stand(model, [record(offset + i, rng.randint(1, 9_000)) for i in range(count)])
            offset += count
        for model in [m for m in lines.lengths if rng.random() < 0.7]:
            lines.take(model, rng.randint(1, 60))
        for name, part in lines.changes(complete=False).items():
            if part is None:
                kept.pop(name, None)
            else:
                kept[name] = part
        again = Lines("requests")
        again.restore(kept)
        assert again.lengths == dict(lines.lengths)
        assert again.changes(complete=True) == lines.changes(complete=True)
    for model in [*lines.lengths]:
        assert offsets(again.take(model, 10**6)) == offsets(lines.take(model, 10**6))


def test_a_chunk_is_written_anew_only_where_records_come_or_go() -> None:
    lines = Lines("requests")
    lines.stand("a", [record(i, 1_000) for i in range(1_000)])
    assert len(lines.changes(complete=False)) > 10

    lines.take("a", 1)
    lines.stand("a", [record(1_000)])
    assert len(lines.changes(complete=False)) == 2
    assert lines.changes(complete=False) == {}


def test_lines_and_parking_leave_each_others_parts_alone() -> None:
    lines, parking = Lines("requests"), Parking(5_000)
    lines.stand("a", [record(0)])
    parts = {name: part for name, part in lines.changes(complete=True).items() if part}

    parking.restore(parts)
    assert len(parking) == 0

    lines.restore({"parked.0": b"no line"})
    assert len(lines) == 1
