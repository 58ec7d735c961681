"""Which partition a key belongs to: Kafka's two default partitioners.

Java clients and aiokafka hash keys with murmur2, librdkafka with CRC-32. Both are followed to the
bit, so that what producers wrote and what the stages write lies in the same partitions.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
_WIDEST = 512  # bytes; longer keys are hashed one at a time, to keep the padded matrix small


def partition_of(key: bytes, count: int, partitioner: str) -> int:
    """
    >>> partition_of(b"21", 1000, "murmur2")
    340
    """
    return _hash_of(partitioner)(key) % count


def partitions_of(keys: Sequence[bytes], count: int, partitioner: str) -> NDArray[np.int64]:
    """The partition of each key, shape (keys,)."""
    if partitioner == "murmur2" and len(keys) > 8 and max(map(len, keys)) <= _WIDEST:
        hashes = _murmur2_all(keys)
    else:
        hash_ = _hash_of(partitioner)
        hashes = np.fromiter(map(hash_, keys), dtype=np.int64, count=len(keys))
    return hashes % count


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


def _murmur2_all(keys: Sequence[bytes]) -> NDArray[np.int64]:
    """murmur2 of many keys at once: keys padded to words, one step of all keys per word."""
    lengths = np.fromiter(map(len, keys), dtype=np.uint32, count=len(keys))
    words = max(1, -(-int(lengths.max()) // 4))
    matrix = np.array(keys, dtype=f"S{words * 4}").view("<u4").reshape(len(keys), words)
    m, whole = np.uint32(_M), lengths // np.uint32(4)
    tail = lengths % np.uint32(4) != 0
    h = np.uint32(_SEED) ^ lengths
    for word in range(words):
        k = matrix[:, word] * m
        step = h * m ^ (k ^ k >> np.uint32(24)) * m
        last = (h ^ matrix[:, word]) * m
        h = np.where(word < whole, step, np.where((word == whole) & tail, last, h))
    h = (h ^ h >> np.uint32(13)) * m
    return ((h ^ h >> np.uint32(15)) & np.uint32(0x7FFFFFFF)).astype(np.int64)
