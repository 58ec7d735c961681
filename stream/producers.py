"""What a producer of librdkafka's does not say by itself."""

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaException


def flush(producer: Any, seconds: float) -> int:
    """Wait until what is queued is written, at most so long; how many records are left.

    Raises:
        KafkaException: this producer can do no more; a new one can.
    """
    try:
        return int(producer.flush(seconds))
    except SystemError as error:
        # What is fatal is raised, but only at the end: reports of delivery that come before it are
        # called with the exception set, which Python takes for a defect of whatever they call.
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        raise
