"""The log of packed rows: what is put is there, across restores, and parts stay in proportion."""

from __future__ import annotations

from collections.abc import Mapping

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from stream.core import keytable, rowlog, settled
from stream.core.processor import Parts
from stream.core.rowlog import RowLog
from stream.core.rowparts import HEAD

KEYS = st.sampled_from([f"id-{n}" for n in range(12)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 50)),
        st.tuples(st.just("pop"), KEYS, st.just(0)),
        st.tuples(st.just("due"), st.just(""), st.integers(0, 50)),
        st.tuples(st.just("drop"), st.just(""), st.integers(0, 50)),
        st.tuples(st.just("write"), st.just(""), st.integers(0, 9)),
    ),
    max_size=120,
)


def keep(stored: dict[str, bytes], changed: Parts) -> None:
    """What a checkpoint does with changed parts."""
    for name, data in changed.items():
        if data is None:
            stored.pop(name, None)
        else:
            stored[name] = data


def restored(stored: Mapping[str, bytes]) -> RowLog:
    log = RowLog("join")
    log.restore(stored)
    return log


@settings(max_examples=300)
@given(STEPS, st.sampled_from([0, 3, rowlog.FRESH]), st.booleans())
def test_rows_equal_a_plain_dict_and_a_restored_log_goes_on_byte_for_byte(
    steps: list[tuple[str, str, int]], fresh: int, alike: bool
) -> None:
    """However many of the rows are packed, and where the hashes of all keys are alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowlog, "FRESH", fresh)
        if alike:
            patch.setattr(keytable, "hash", lambda _: 7 << 40, raising=False)
        go_through(steps)


def head_of(row: NDArray[np.uint8]) -> tuple[int, bytes]:
    """When a row is due, and what its body begins with."""
    _, due_ms = HEAD.unpack_from(row.tobytes())
    return due_ms, row[HEAD.size :].tobytes()


def go_through(steps: list[tuple[str, str, int]]) -> None:
    log, rows, stored = RowLog("join"), dict[str, tuple[int, bytes]](), dict[str, bytes]()
    twin = RowLog("join")
    for number, (step, key, value) in enumerate(steps):
        if step == "put":
            rows[key] = (value, f"{key} {number}".encode())
            log.put(key, *rows[key])
            twin.put(key, *rows[key])
        elif step == "pop":
            assert log.pop(key) == twin.pop(key) == rows.pop(key, (0, None))[1]
        elif step == "due":
            due = sorted((at, k, body) for k, (at, body) in rows.items() if at < value)
            for taken in (log.take_due(value), twin.take_due(value)):
                assert [(row.due_ms, row.key, row.body) for row in taken] == due
            rows = {k: row for k, row in rows.items() if row[0] >= value}
        elif step == "drop":
            heads = sorted((at, body[:3]) for at, body in rows.values() if at < value)
            for dropped in (log.drop_due(value, 3), twin.drop_due(value, 3)):
                assert sorted(map(head_of, dropped)) == heads
            rows = {k: row for k, row in rows.items() if row[0] >= value}
        else:
            changed = log.changes(complete=value == 0)
            assert changed == twin.changes(complete=value == 0)
            keep(stored, changed)
            twin = restored(stored)
        assert {key: log.get(key) for key in rows} == rows
        assert len(log) == len(twin) == len(rows)
        keys = [f"id-{n}" for n in range(12)]
        assert log.are_new(keys).tolist() == [key not in rows for key in keys]
        assert [row[16:] for row in log.get_all(keys)] == [rows.get(k, (0, b""))[1] for k in keys]


@pytest.mark.parametrize("puts", [1, 2, 3])
def test_a_restored_log_merges_the_same_parts_whatever_went_before_they_were_written(
    puts: int,
) -> None:
    """Predictions and labels of one commit, of which as many rows as there were puts are one."""
    log, twin, stored, merged = RowLog("join"), RowLog("join"), dict[str, bytes](), 0
    for part in range(20):
        for row in range(800 + 60 * (part % 7)):
            for time in range(puts):
                for one in (log, twin):
                    one.put(f"{part}/{row}", 10**9, bytes([time]) * (80 + 9 * (part % 5)))
        changed = log.changes(complete=False)
        assert changed == twin.changes(complete=False)
        merged += None in changed.values()
        keep(stored, changed)
        twin = restored(stored)
    assert merged


def test_equal_rows_make_equal_bytes_when_written_whole() -> None:
    one, other = RowLog("join"), RowLog("join")
    for key in ("a", "b", "c"):
        one.put(key, 5, b"x")
    one.changes(complete=False)
    for key in ("c", "x", "b", "a"):
        other.put(key, 5, b"x")
    other.pop("x")
    assert other.changes(complete=True) == {
        name: data for name, data in one.changes(complete=True).items() if data is not None
    }


def test_a_restore_reads_in_proportion_to_what_is_live() -> None:
    """100,000 rows pass, one in twenty stays: few parts, at most twice the live rows in them."""
    log, stored, written = RowLog("join"), dict[str, bytes](), 0
    for start in range(0, 100_000, 200):
        for n in range(start, start + 200):
            log.put(f"prediction-{n}", n, b"b" * 50)
        for n in range(max(0, start - 1000), max(0, start - 800)):
            if n % 20:
                log.pop(f"prediction-{n}")
        changed = log.changes(complete=False)
        written += sum(len(data) for data in changed.values() if data)
        keep(stored, changed)
    row_bytes = 50 + 16 + len("prediction-12345") + 4
    assert len(log) < 7000
    assert sum(map(len, stored.values())) < 2.2 * len(log) * row_bytes
    assert len(stored) < 60
    assert written < 3.5 * 100_000 * row_bytes


def test_a_large_part_of_which_little_is_left_gives_up_its_survivors() -> None:
    log, stored = RowLog("join"), dict[str, bytes]()
    for n in range(20_000):
        log.put(f"prediction-{n}", n, b"b" * 50)
    keep(stored, log.changes(complete=False))
    before = sum(map(len, stored.values()))
    for n in range(20_000):
        if n % 20:
            log.pop(f"prediction-{n}")
    keep(stored, log.changes(complete=False))
    assert sum(map(len, stored.values())) < before / 15
    assert len(restored(stored)) == 1000


@pytest.mark.parametrize("fresh", [1_000, rowlog.FRESH])
def test_rows_that_go_in_the_order_they_came_are_hardly_written_more_often_than_if_they_stayed(
    fresh: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few are moved because others of their part have gone."""
    monkeypatch.setattr(rowlog, "FRESH", fresh)
    written = [0, 0]
    for place, kept in enumerate((20_000, 100_000)):
        log = RowLog("join")
        for start in range(0, 100_000, 200):
            for n in range(start, start + 200):
                log.put(f"prediction-{n:06}", n, b"b" * 50)
            log.drop_due(start + 200 - kept, 4)
            written[place] += sum(
                len(data)
                for name, data in log.changes(complete=False).items()
                if data and not name.endswith("gone")
            )
        assert len(log) == kept
    assert written[0] < 1.1 * written[1]


def test_wide_rows_that_go_early_leave_no_more_than_narrow_ones_that_stay() -> None:
    """Bytes count, not rows; and what has gone wholly is erased at once."""
    log, stored = RowLog("join"), dict[str, bytes]()
    for n in range(50_000):
        log.put(f"narrow-{n}", 10**9, b"b" * 60)
    for step in range(100):
        keep(stored, log.changes(complete=False))
        for n in range(400):
            log.put(f"wide-{step}-{n}", step, b"b" * 2_000)
        log.take_due(step)
    keep(stored, log.changes(complete=False))
    rows = sum(map(len, log.get_all([f"narrow-{n}" for n in range(50_000)])))
    assert sum(map(len, stored.values())) < 1.6 * rows
    assert all(part.live for part in log._parts if part.name)


def test_rows_that_all_stay_end_up_in_few_parts() -> None:
    log, stored = RowLog("join"), dict[str, bytes]()
    for n in range(16_000):
        log.put(f"prediction-{n}", n, b"b" * 50)
        if n % 50 == 0:
            keep(stored, log.changes(complete=False))
    assert len(stored) < 40


def test_a_part_fits_a_record_of_the_brokers_default_size() -> None:
    log = RowLog("join")
    for n in range(30_000):
        log.put(f"prediction-{n}", n, b"b" * 100)
    sizes = [len(data or b"") for data in log.changes(complete=False).values()]
    assert len(sizes) > 3
    assert max(sizes) < 1_048_576 - rowlog.FAN * 1024


def test_rows_that_come_and_go_between_two_writes_leave_no_trace() -> None:
    log = RowLog("join")
    log.put("a", 1, b"x")
    log.pop("a")
    assert log.changes(complete=False) == {}


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.integers(0, 30), unique=True), max_size=8),
    st.integers(1, 6),
    st.sampled_from([0, 5, rowlog.FRESH]),
)
def test_many_put_at_once_are_put_as_each_in_turn(
    batches: list[list[int]], rows: int, fresh: int
) -> None:
    """Also where parts fill up in between, and are packed."""
    one, other = RowLog("join"), RowLog("join")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowlog, "MAX_BYTES", rows * 30)
        patch.setattr(rowlog, "FRESH", fresh)
        for number, batch in enumerate(batches):
            keys = [f"id-{key}" for key in batch]
            dues_ms = np.array([key * number for key in batch], dtype=np.int64)
            bodies = np.full((len(batch), 2), number, dtype=np.uint8)
            old = [int.from_bytes(row[:8], "little") for row in one.get_all(keys) if row]
            one.put_all(keys, dues_ms, bodies, np.array(old, dtype=np.uint64))
            for place, key in enumerate(keys):
                other.put(key, int(dues_ms[place]), bodies[place].tobytes())
            assert one.get_all(keys) == other.get_all(keys)
            assert one.take_due(number) == other.take_due(number)
            if number % 3:
                complete = number % 3 == 1
                assert one.changes(complete=complete) == other.changes(complete=complete)


def test_parts_that_go_are_named_in_order() -> None:
    """A set's order is that of a process's hashes; a seed of the simulator replays in any."""
    log = RowLog("join")
    for number in range(6):
        for row in range(1 << (6 - number)):  # parts of sizes that are not merged
            log.put(f"{number}/{row}", number, b"x")
        log.changes(complete=False)
        log.pop(f"{number}/0")
        log.changes(complete=False)
    log.take_due(9)
    gone = [name for name, data in log.changes(complete=False).items() if data is None]
    assert len(gone) > 5
    assert gone == sorted(gone)


@settings(max_examples=50)
@given(STEPS)
def test_a_checkpoint_does_not_tell_which_rows_were_packed(
    steps: list[tuple[str, str, int]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written = []
        for fresh in (0, 100):
            patch.setattr(rowlog, "FRESH", fresh)
            log, parts = RowLog("join"), list[Parts]()
            for number, (step, key, value) in enumerate(steps):
                if step == "put":
                    log.put(key, value, b"%d" % number)
                elif step == "pop":
                    log.pop(key)
                elif step == "due":
                    log.take_due(value)
                else:
                    parts.append(log.changes(complete=value == 0))
            written.append(parts)
        assert written[0] == written[1]


def test_packed_rows_that_go_before_they_were_written_are_let_go_of() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowlog, "FRESH", 0)
        patch.setattr(rowlog, "MAX_BYTES", 100)
        log = RowLog("join")
        for number in range(20):
            log.put(f"id-{number}", 5, b"x")
        assert log._settled.live > 10
        log.take_due(6)
        assert log.changes(complete=False) == {}
    assert not log._settled._parts


def test_many_rows_cost_no_object_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100,000 rows that wait, far fewer than those lie in the dict; all are found."""
    monkeypatch.setattr(rowlog, "FRESH", 16_384)  # so that most of the rows are more
    log = RowLog("join")
    keys = [f"prediction-{n}" for n in range(100_000)]
    for start in range(0, len(keys), 1_000):
        some = keys[start : start + 1_000]
        log.put_all(some, np.arange(start, start + 1_000), np.zeros((1_000, 20), np.uint8))
    assert len(log._rows) < 3 * rowlog.FRESH
    assert len(log) == len(keys)
    assert not log.are_new(keys).any()
    assert log.get("prediction-7") == (7, bytes(20))
    assert [row.key for row in log.take_due(3)] == ["prediction-0", "prediction-1", "prediction-2"]
    assert len(log) == len(keys) - 3


def test_packed_rows_that_come_and_go_do_not_make_the_table_of_keys_larger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor do they use up the numbers of parts, of which there may be few."""
    monkeypatch.setattr(rowlog, "FRESH", 0)
    monkeypatch.setattr(rowlog, "MAX_BYTES", 10_000)
    monkeypatch.setattr(settled, "MAX_PARTS", 40)
    log = RowLog("join")
    for start in range(0, 100_000, 1_000):
        for number in range(start, start + 1_000):
            log.put(f"id-{number}", number, b"x" * 20)
        log.take_due(start)
        log.changes(complete=False)
        assert log.get(f"id-{start}") == (start, b"x" * 20)
        assert log.get(f"id-{start - 1}") is None
    assert len(log._settled._parts) > 4
    assert log._settled._table._cells.size <= 16_384
