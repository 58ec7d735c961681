"""Waiting for what a producer of librdkafka's has queued."""

from __future__ import annotations

import time
from typing import Any

ONCE_SECONDS = 0.1  # below 0.2 a poll is one of librdkafka's, which ends where a callback raised


def flush(producer: Any, seconds: float) -> int:
    """Wait until what is queued is written, at most so long; how many records are left.

    By polls, for the client's own `flush` goes on calling back after a callback raised, as it does
    to tell what is fatal: with the exception set, and, worse, no longer its owner.

    Raises:
        KafkaException: this producer can do no more; a new one can.
    """
    deadline = time.monotonic() + seconds
    while (left := len(producer)) and time.monotonic() < deadline:
        producer.poll(ONCE_SECONDS)
    return left
