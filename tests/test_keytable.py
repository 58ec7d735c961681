"""The table of keys: what was put into it is found, whatever its hashes, and little else."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from stream.core.keytable import KeyTable, hashes_of

#: Few buckets of many, so that they are full; the last one of all, whose next one is the first.
HASHES = st.builds(
    lambda bucket, rest: bucket << 52 | rest << 32,
    st.sampled_from([0, 1, 2048, 4094, 4095]),
    st.integers(0, 3),
)
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.lists(HASHES, max_size=40)))


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_what_was_added_is_found_until_it_is_removed(steps: list[tuple[str, list[int]]]) -> None:
    table, known, next_place = KeyTable(), dict[int, set[int]](), 1
    for step, hashes in steps:
        if step == "add":
            places = list(range(next_place, next_place + len(hashes)))
            next_place += len(hashes)
            table.add(np.array(hashes, dtype=np.uint64), np.array(places, dtype=np.int64))
            for hash_, place in zip(hashes, places, strict=True):
                known.setdefault(hash_, set()).add(place)
        else:
            gone = [(hash_, known[hash_].pop()) for hash_ in set(hashes) if known.get(hash_)]
            table.remove(
                np.array([hash_ for hash_, _ in gone], dtype=np.uint64),
                np.array([place for _, place in gone], dtype=np.int64),
            )
        wanted = sorted(known)
        of, found = table.find_all(np.array(wanted, dtype=np.uint64))
        pairs = sorted(zip(of.tolist(), found.tolist(), strict=True))
        assert pairs == [(n, p) for n, hash_ in enumerate(wanted) for p in sorted(known[hash_])]


def test_one_key_is_found_as_many_are() -> None:
    keys = [f"id-{n}" for n in range(3_000)]
    table = KeyTable()
    table.add(hashes_of(keys), np.arange(1, 3_001))
    table.remove(hashes_of(keys[:1_000]), np.arange(1, 1_001))
    of, places = table.find_all(hashes_of(keys))
    for number, key in enumerate(keys):
        assert table.find(key) == places[of == number].tolist()
    assert len(places) < 2_010  # a few share their upper half


def test_one_key_is_looked_for_in_as_many_buckets_as_are_full() -> None:
    table = KeyTable()
    table.add(hashes_of(["id"] * 20), np.arange(1, 21))
    assert table.find("id") == list(range(1, 21))


def test_keys_that_come_and_go_do_not_make_it_larger() -> None:
    table = KeyTable()
    for start in range(0, 200_000, 1_000):
        hashes = hashes_of([f"id-{n}" for n in range(start, start + 1_000)])
        table.add(hashes, np.arange(1, 1_001))
        table.remove(hashes, np.arange(1, 1_001))
    assert table._cells.size <= 16_384
