"""Which partition a key belongs to: Kafka's two default partitioners.

Java clients and aiokafka hash keys with murmur2, librdkafka with CRC-32. Both are followed to the
bit, so that what producers wrote and what the stages write lies in the same partitions.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_BETWEEN = b"\n"  # no id holds it
FEW = 8  # keys that are sooner hashed one at a time
_WIDEST = 512  # bytes; longer keys are hashed one at a time, to keep the padded matrix small


def partition_of(key: bytes, count: int, partitioner: str) -> int:
    """
    >>> partition_of(b"21", 1000, "murmur2")
    340
    """
    return _hash_of(partitioner)(key) % count


def partitions_of(keys: Sequence[bytes], count: int, partitioner: str) -> NDArray[np.int64]:
    """The partition of each key, shape (keys,)."""
    if partitioner == "murmur2" and len(keys) > FEW:
        hashes = _murmur2_all(_BETWEEN.join((*keys, b"")), len(keys))
        if hashes is not None:
            return (hashes % np.uint32(count)).astype(np.int64)
    hash_ = _hash_of(partitioner)
    return np.fromiter(map(hash_, keys), dtype=np.int64, count=len(keys)) % count


def partitions_of_ids(ids: Sequence[str], count: int, partitioner: str) -> NDArray[np.int64]:
    """As `partitions_of`, of ids as keys: no key is made of any of them."""
    if partitioner == "murmur2" and len(ids) > FEW:
        hashes = _murmur2_all(_BETWEEN.decode().join((*ids, "")).encode(), len(ids))
        if hashes is not None:
            return (hashes % np.uint32(count)).astype(np.int64)
    return partitions_of(list(map(str.encode, ids)), count, partitioner)


def murmur2(key: bytes) -> int:
    """MurmurHash2 (Appleby, 2008) as in Kafka's Java client, its sign bit cleared."""
    whole = len(key) & ~3
    h = _SEED ^ len(key)
    for start in range(0, whole, 4):
        k = int.from_bytes(key[start : start + 4], "little") * _M & _MASK
        h = h * _M & _MASK ^ (k ^ k >> 24) * _M & _MASK
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return (h ^ h >> 15) & 0x7FFFFFFF


def _hash_of(partitioner: str) -> Callable[[bytes], int]:
    hashes: dict[str, Callable[[bytes], int]] = {"murmur2": murmur2, "crc32": zlib.crc32}
    return hashes[partitioner]


def _murmur2_all(joined: bytes, count: int) -> Words | None:
    """murmur2 of many keys at once, one step of all keys per word; None if that is not for them.

    Args:
        joined: the keys with `_BETWEEN` after each.
    """
    data = np.frombuffer(joined, dtype=np.uint8)
    (ends,) = (data == ord(_BETWEEN)).nonzero()
    if len(ends) != count:  # some key holds it, too
        return None
    lengths = ends.astype(np.uint32)
    lengths[1:] -= lengths[:-1] + np.uint32(1)
    shortest, longest = int(lengths.min()), int(lengths.max())
    if longest > _WIDEST:
        return None
    padded = np.zeros((count, -(-longest // 4) * 4), dtype=np.uint8)
    if shortest == longest:
        padded[:, :longest] = data.reshape(count, longest + 1)[:, :longest]
    else:
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = data[data != ord(_BETWEEN)]
    return _hashes(np.ascontiguousarray(padded.view("<u4").T), lengths, shortest // 4)


def _hashes(words: Words, lengths: Words, of_all: int) -> Words:
    """murmur2 of keys of these lengths in bytes.

    Args:
        words: of the keys, padded with zeros; shape (words, keys).
        of_all: how many words each key fills.
    """
    m = np.uint32(_M)
    h = np.uint32(_SEED) ^ lengths
    for word in words[:of_all]:
        k = word * m
        h = h * m ^ (k ^ k >> np.uint32(24)) * m
    for number, word in enumerate(words[of_all:], start=of_all):
        k = word * m
        step, last = h * m ^ (k ^ k >> np.uint32(24)) * m, (h ^ word) * m
        is_whole, is_over = lengths >= 4 * number + 4, lengths <= 4 * number
        h = np.where(is_whole, step, np.where(is_over, h, last))
    h = (h ^ h >> np.uint32(13)) * m
    return (h ^ h >> np.uint32(15)) & np.uint32(0x7FFFFFFF)
