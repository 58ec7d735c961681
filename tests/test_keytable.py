"""The table of keys: what was put into it is found, whatever its hashes, and little else."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from stream.core.keytable import Hashes, Ints, KeyTable, hashes_of

#: Few buckets of many, so that they are full; the last one of all, whose next one is the first.
HASHES = st.builds(
    lambda bucket, rest: bucket << 52 | rest << 32,
    st.sampled_from([0, 1, 2048, 4094, 4095]),
    st.integers(0, 3),
)
STEPS = st.lists(st.tuples(st.booleans(), st.lists(HASHES, max_size=40)))


def add(table: KeyTable, hashes: Hashes, places: Ints) -> None:
    if not table.takes(len(hashes)):
        table.renew(1 + int(places.max(initial=0)), lambda places: places > 0)
    table.add(hashes, places)


@settings(max_examples=200)
@given(STEPS)
def test_what_was_added_is_found_until_it_is_made_anew_without_it(
    steps: list[tuple[bool, list[int]]],
) -> None:
    table, known, next_place = KeyTable(), dict[int, set[int]](), 1
    for odd_go, hashes in steps:
        places = np.arange(next_place, next_place + len(hashes))
        next_place += len(hashes)
        add(table, np.array(hashes, dtype=np.uint64), places)
        for hash_, place in zip(hashes, places.tolist(), strict=True):
            known.setdefault(hash_, set()).add(place)
        if odd_go:
            known = {hash_: {p for p in some if p % 2 == 0} for hash_, some in known.items()}
            table.renew(sum(map(len, known.values())), lambda places: places % 2 == 0)
        wanted = sorted(known)
        of, found = table.find_all(np.array(wanted, dtype=np.uint64))
        pairs = sorted(zip(of.tolist(), found.tolist(), strict=True))
        assert pairs == [(n, p) for n, hash_ in enumerate(wanted) for p in sorted(known[hash_])]


def test_one_key_is_found_as_many_are() -> None:
    keys = [f"id-{n}" for n in range(3_000)]
    table = KeyTable()
    add(table, hashes_of(keys), np.arange(1, 3_001))
    table.renew(3_000, lambda places: places > 1_000)
    of, places = table.find_all(hashes_of(keys))
    for number, key in enumerate(keys):
        assert table.find(key) == places[of == number].tolist()
    assert 2_000 <= len(places) < 2_010  # a few share their upper half


def test_one_key_is_looked_for_in_as_many_buckets_as_are_full() -> None:
    table = KeyTable()
    add(table, hashes_of(["id"] * 20), np.arange(1, 21))
    assert table.find("id") == list(range(1, 21))


def test_it_has_room_for_no_more_than_what_is_held() -> None:
    table = KeyTable()
    add(table, hashes_of(list(map(str, range(5_000)))), np.arange(1, 5_001))
    table.renew(1_000, lambda places: places > 4_000)
    assert table._cells.size <= 4_096
    assert table.takes(1_000)
