"""librdkafka's in-process cluster, told to answer with errors: Kafka that is well, but busy.

Its functions are exported by the library that confluent-kafka brings, and have no other way in.
It does not isolate or fence transactions, so it serves for nothing but errors on the way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import confluent_kafka

PRODUCER: Final = 0  # rd_kafka_type_t
NODES: Final = 3


def _library() -> Any:
    folder = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
    (path,) = folder.glob("librdkafka-*.so*")
    library = ctypes.CDLL(str(path))
    for name in ("conf_new", "new", "mock_cluster_new"):
        getattr(library, f"rd_kafka_{name}").restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


class BusyCluster:
    """Three brokers on loopback for as long as this is open; a context manager.

    Attributes:
        bootstrap: their addresses.
    """

    def __enter__(self) -> Self:
        self._library = _library()
        conf = ctypes.c_void_p(self._library.rd_kafka_conf_new())
        error = ctypes.create_string_buffer(512)
        self._library.rd_kafka_conf_set(conf, b"log_level", b"3", error, ctypes.c_size_t(512))
        self._client = ctypes.c_void_p(
            self._library.rd_kafka_new(PRODUCER, conf, error, ctypes.c_size_t(len(error)))
        )
        self._cluster = ctypes.c_void_p(
            self._library.rd_kafka_mock_cluster_new(self._client, ctypes.c_int(NODES))
        )
        assert self._cluster, error.value
        found = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster)
        self.bootstrap = found.decode()
        return self

    def __exit__(self, *_: object) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)

    def create(self, topic: str, partitions: int) -> None:
        numbers = ctypes.c_int(partitions), ctypes.c_int(NODES)
        done = self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), *numbers)
        assert done == 0, f"{topic}: error {done}"

    def answer(self, request: int, errors: Sequence[int]) -> None:
        """The next requests of a kind (a key of Kafka's protocol) get these errors, one each; 0 is
        none."""
        listed = (ctypes.c_int * len(errors))(*errors)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(errors)), listed
        )

    def slow_down(self, milliseconds: int) -> None:
        """Every answer of every broker takes so much longer."""
        for node in range(1, NODES + 1):
            self._library.rd_kafka_mock_broker_set_rtt(
                self._cluster, ctypes.c_int32(node), ctypes.c_int(milliseconds)
            )
