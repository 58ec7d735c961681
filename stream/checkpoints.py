"""What a partition's checkpoint is: a manifest and the parts that it names.

Partition p of a stage's checkpoint topic has one writer, the owner of p, whom the manifest names.
The manifest goes in the same transaction as the parts that changed, so the newest manifest and the
newest record of each part it names belong together; their digests prove it. Parts it does not name
are stale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct

from stream.core.processor import Parts
from stream.errors import (
    CheckpointError,
    PartitionCountChanged,
    RetentionOvertook,
    TopicRecreated,
)
from stream.topics import Stage

FORMAT = 1
MANIFEST_KEY = "manifest"
PART_PREFIX = "part/"

#: Topics whose partition counts a stage's state depends on: what it reads, and where its outputs
#: must lie. Another count needs new topics and a replay.
PINNED: dict[Stage, tuple[str, ...]] = {
    "score": ("requests", "predictions"),
    "monitor": ("predictions", "feedback", "examples", "summaries"),
    "evaluate": ("summaries",),
    "shadow": ("predictions",),
}


class Manifest(Struct, frozen=True, kw_only=True):
    """
    Attributes:
        next: the offset to go on at, by input entity.
        partitions: partition counts of the pinned topics, by entity.
        topics: ids of the inputs, by entity; empty where the broker gives none.
        generations: lifecycle generation per model that the state knows of.
        parts: digest by name.
        writer: transactional id of the process that wrote it; empty before release 0.2.
    """

    format: int = FORMAT
    stage: str
    partition: int
    next: dict[str, int]
    partitions: dict[str, int]
    topics: dict[str, str] = {}
    generations: dict[str, int] = {}
    parts: dict[str, str] = {}
    writer: str = ""


_MANIFEST = msgspec.json.Decoder(Manifest)


class _Written(Struct):
    writer: str = ""


_WRITTEN = msgspec.json.Decoder(_Written)


def writer(manifest: bytes | None) -> str:
    """Who wrote a manifest, of whatever format; empty where it does not say."""
    try:
        return _WRITTEN.decode(manifest or b"{}").writer
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return ""


class Checkpoint(NamedTuple):
    manifest: Manifest
    parts: dict[str, bytes]


def digest(part: bytes) -> str:
    return hashlib.blake2b(part, digest_size=16).hexdigest()


def records(manifest: Manifest, changed: Parts) -> dict[str, bytes | None]:
    """The records that write a checkpoint, by key; the manifest last, as a reader of an
    unisolated log (the embedded broker's) needs it.

    >>> manifest = Manifest(stage="score", partition=0, next={"requests": 7}, partitions={})
    >>> list(records(manifest, {"parked": b"x", "old": None}))
    ['part/parked', 'part/old', 'manifest']
    """
    written: dict[str, bytes | None] = {PART_PREFIX + name: part for name, part in changed.items()}
    written[MANIFEST_KEY] = msgspec.json.encode(manifest)
    return written


def parse(latest: Mapping[bytes, bytes], stage: Stage, partition: int) -> Checkpoint | None:
    """The checkpoint that a partition's newest records are, None if there is none yet.

    Raises:
        CheckpointError: a part is missing or is not what the manifest says.
    """
    where = f"checkpoint of {stage}[{partition}]"
    raw = latest.get(MANIFEST_KEY.encode())
    if raw is None:
        return None
    try:
        manifest = _MANIFEST.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{where}: the manifest can't be read: {error}") from error
    if (manifest.format, manifest.stage, manifest.partition) != (FORMAT, stage, partition):
        raise CheckpointError(
            f"{where}: the manifest is of format {manifest.format}, "
            f"{manifest.stage}[{manifest.partition}]; this version reads format {FORMAT}"
        )
    parts = {}
    for name, expected in manifest.parts.items():
        part = latest.get((PART_PREFIX + name).encode())
        if part is None:
            raise CheckpointError(f"{where}: part {name!r} is missing")
        if digest(part) != expected:
            raise CheckpointError(f"{where}: part {name!r} is not the one the manifest names")
        parts[name] = part
    return Checkpoint(manifest, parts)


def check_counts(manifest: Manifest, counts: Mapping[str, int]) -> None:
    """
    Raises:
        PartitionCountChanged: with the topic, both counts and what to do.
    """
    for entity, before in manifest.partitions.items():
        now = counts.get(entity)
        if now != before:
            raise PartitionCountChanged(
                f"{entity} has {now} partitions, but the checkpoints of {manifest.stage} were "
                f"written for {before}. Make new topics under another prefix and replay into them."
            )


def check_topics(manifest: Manifest, ids: Mapping[str, str]) -> None:
    """
    Raises:
        TopicRecreated: with the topic and what to do. Ids that either side lacks are not compared.
    """
    for entity in manifest.topics.keys() & ids.keys():
        if manifest.topics[entity] != ids[entity]:
            raise TopicRecreated(
                f"{entity} was deleted and made anew since the checkpoint of {manifest.stage}"
                f"[{manifest.partition}] was written, so its offsets mean other records now. "
                f"`driftline topics forget {manifest.stage}` begins anew; see docs/OPERATIONS.md."
            )


def check_offsets(
    where: str, resume: int | None, committed: int | None, bounds: tuple[int, int]
) -> int:
    """The offset at which an input goes on.

    Args:
        where: topic and partition, for messages.
        resume: the checkpoint's next offset; None without a checkpoint.
        committed: the group's; None where it has none or it expired.
        bounds: first offset and end of the log.

    Raises:
        CheckpointError: the two disagree, though one transaction writes both; or the log ends
            before them.
        RetentionOvertook: the log begins after them.

    >>> check_offsets("t[0]", 7, 7, (0, 9)), check_offsets("t[0]", None, None, (3, 9))
    (7, 3)
    """
    first, end = bounds
    if committed is not None and committed != resume:
        raise CheckpointError(
            f"{where}: the group's offset is {committed}, the checkpoint's is {resume}. They are "
            "written together, so one of them was changed by hand or belongs to other topics, or "
            "the topic of checkpoints was lost: docs/OPERATIONS.md says how to begin anew."
        )
    if resume is None:
        return first
    if resume < first:
        raise RetentionOvertook(
            f"{where}: the checkpoint goes on at {resume}, but the log begins at {first}: "
            f"{first - resume} offsets are gone. Lengthen the topic's retention; to go on without "
            "them, set DRIFTLINE_LOST_RECORDS=skip."
        )
    if resume > end:
        raise CheckpointError(
            f"{where}: the checkpoint goes on at {resume}, but the log ends at {end}. "
            "Was the topic made anew, or restored from a backup? See docs/OPERATIONS.md."
        )
    return resume
