"""A checkpoint restores what was written, or stops the worker."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from stream import checkpoints
from stream.checkpoints import Manifest, check_counts, check_offsets, digest, parse, records
from stream.errors import CheckpointError, PartitionCountChanged, RetentionOvertook

PARTS = {"pending.1": b"one", "pending.2": b"two"}
MANIFEST = Manifest(
    stage="monitor",
    partition=3,
    next={"predictions": 17, "feedback": 5},
    partitions={"predictions": 4, "feedback": 4, "examples": 4, "summaries": 4},
    generations={"churn": 2},
    parts={name: digest(part) for name, part in PARTS.items()},
)


def log_of(*checkpoint: dict[str, bytes | None]) -> dict[bytes, bytes]:
    """The newest value of each key, as compaction would leave them."""
    latest: dict[str, bytes | None] = {}
    for written in checkpoint:
        latest |= written
    return {key.encode(): value for key, value in latest.items() if value is not None}


def test_what_was_written_is_restored() -> None:
    """Manifest and parts come back as they were."""
    found = parse(log_of(records(MANIFEST, dict(PARTS))), "monitor", 3)

    assert found == (MANIFEST, PARTS)


def test_an_empty_log_is_no_checkpoint() -> None:
    assert parse({}, "monitor", 3) is None


def test_unchanged_parts_are_not_written_again() -> None:
    """A second checkpoint writes one part, and restores both."""
    second = {**PARTS, "pending.2": b"new"}
    manifest = msgspec.structs.replace(
        MANIFEST, parts={name: digest(part) for name, part in second.items()}
    )
    latest = log_of(records(MANIFEST, dict(PARTS)), records(manifest, {"pending.2": b"new"}))

    assert parse(latest, "monitor", 3) == (manifest, second)


def test_stale_parts_are_ignored() -> None:
    """A part that the manifest does not name is not restored, tombstone or not."""
    latest = log_of(records(MANIFEST, {**PARTS, "older": b"left over"}))

    assert parse(latest, "monitor", 3) == (MANIFEST, PARTS)


def test_a_missing_part_halts() -> None:
    latest = log_of(records(MANIFEST, {**PARTS, "pending.1": None}))

    with pytest.raises(CheckpointError, match=r"part 'pending\.1' is missing"):
        parse(latest, "monitor", 3)


def test_a_part_of_another_checkpoint_halts() -> None:
    """Bytes that the manifest does not vouch for are never taken for state."""
    latest = log_of(records(MANIFEST, {**PARTS, "pending.1": b"eno"}))

    with pytest.raises(CheckpointError, match="not the one the manifest names"):
        parse(latest, "monitor", 3)


@pytest.mark.parametrize("change", [{"format": 2}, {"stage": "score"}, {"partition": 1}], ids=str)
def test_a_foreign_manifest_halts(change: dict[str, object]) -> None:
    """Another format, stage or partition is not read as if it were ours."""
    manifest = msgspec.structs.replace(MANIFEST, **change)

    with pytest.raises(CheckpointError, match="manifest is of format"):
        parse(log_of(records(manifest, dict(PARTS))), "monitor", 3)


def test_a_manifest_that_is_no_json_halts() -> None:
    with pytest.raises(CheckpointError, match="can't be read"):
        parse({checkpoints.MANIFEST_KEY.encode(): b"{"}, "monitor", 3)


def test_a_changed_partition_count_halts_with_what_to_do() -> None:
    counts = {**MANIFEST.partitions, "feedback": 8}

    with pytest.raises(PartitionCountChanged, match=r"feedback has 8 .* for 4.*new topics"):
        check_counts(MANIFEST, counts)
    check_counts(MANIFEST, MANIFEST.partitions)


@pytest.mark.parametrize(
    ("resume", "committed", "bounds", "error"),
    [
        (7, 6, (0, 9), CheckpointError),  # one transaction writes both
        (None, 6, (0, 9), CheckpointError),  # offsets without a checkpoint: it was lost
        (7, 7, (8, 9), RetentionOvertook),
        (7, None, (8, 9), RetentionOvertook),
        (7, 7, (0, 6), CheckpointError),  # the topic was made anew
    ],
)
def test_offsets_that_do_not_fit_halt(
    resume: int | None, committed: int | None, bounds: tuple[int, int], error: type[Exception]
) -> None:
    """Neither silent loss nor silent repetition."""
    with pytest.raises(error, match=r"requests\[2\]"):
        check_offsets("requests[2]", resume, committed, bounds)


def test_expired_group_offsets_are_no_error() -> None:
    """The broker forgets offsets of groups that were away for long; the checkpoint knows them."""
    assert check_offsets("requests[2]", 7, None, (0, 9)) == 7


def test_digests_tell_parts_apart() -> None:
    assert digest(b"a") == hashlib.blake2b(b"a", digest_size=16).hexdigest() != digest(b"b")
