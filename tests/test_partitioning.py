"""Keys land where Kafka's own clients put them."""

import zlib

import pytest
from aiokafka.partitioner import murmur2 as aiokafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from stream.core.partitioning import murmur2, partition_of, partitions_of


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_the_values_of_kafkas_own_test(key: bytes, signed: int) -> None:
    """The Java client's UtilsTest lists these as signed integers."""
    assert murmur2(key) == signed & 0x7FFFFFFF


@given(st.lists(st.binary(max_size=300), max_size=40), st.integers(1, 1024))
def test_many_keys_at_once_land_where_each_does_alone(keys: list[bytes], count: int) -> None:
    """The vectorised form, the plain one and aiokafka's agree for keys of mixed lengths."""
    together = partitions_of(keys, count, "murmur2").tolist()

    assert together == [partition_of(key, count, "murmur2") for key in keys]
    assert together == [(aiokafka_murmur2(key) & 0x7FFFFFFF) % count for key in keys]


def test_crc32_is_unsigned() -> None:
    keys = [b"a", b"bb", b"", b"c" * 600]

    assert partitions_of(keys, 7, "crc32").tolist() == [zlib.crc32(key) % 7 for key in keys]


def test_librdkafka_puts_keys_where_crc32_says() -> None:
    """Its default partitioner, tried on its in-process broker."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    producer = confluent_kafka.Producer({"bootstrap.servers": "x:1", "test.mock.num.brokers": 1})
    count = len(producer.list_topics("keys", timeout=10).topics["keys"].partitions)
    landed: dict[bytes, int] = {}
    for i in range(40):
        producer.produce(
            "keys",
            key=f"id-{i}",
            value=b"",
            on_delivery=lambda _, message: landed.update({message.key(): message.partition()}),
        )
    producer.flush(10)

    assert landed == {key: partition_of(key, count, "crc32") for key in landed}
    assert len(landed) == 40


def test_very_long_keys_do_not_widen_the_matrix_of_all() -> None:
    keys = [b"k" * 100_000] + [b"short-%d" % i for i in range(20)]

    assert partitions_of(keys, 4, "murmur2").tolist() == [murmur2(key) % 4 for key in keys]
