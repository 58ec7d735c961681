"""Workers with one protection removed, so that a row can be seen to fail.

`python -m tests.faults.sabotage <name> <module> <stage>` runs the module as it would run by itself,
after one class or function was replaced in this process. Nothing in `stream/` knows of it.
"""

from __future__ import annotations

import runpy
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer, TopicPartition

from stream import checkpoints, committing, reading, transactions
from stream.errors import Expelled, Fenced
from stream.partitions import Partition, World
from stream.settings import Settings
from stream.transactions import Delta, Membership, Transactor, group_metadata

NOBODY = Membership(-1, "")


class Plain(Transactor):
    """Outputs go out beside the transaction, which holds checkpoints and offsets only."""

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        super().__init__(settings, transactional_id)
        more = {"partitioner": "murmur2_random", "log_level": 3}
        self._beside: Any = Producer({"enable.idempotence": True, **more, **settings.client()})

    def commit(
        self, deltas: Sequence[Delta], topics: Mapping[str, str], group_metadata: object
    ) -> None:
        for one in (output for delta in deltas for output in delta.outputs):
            where = -1 if one.partition is None else one.partition
            topic, headers = topics[one.entity], list(one.headers)
            self._beside.produce(topic, one.value, one.key, where, headers=headers)
        self._beside.flush()
        super().commit([delta._replace(outputs=[]) for delta in deltas], topics, group_metadata)


class Unordered(Plain):
    """The same by a producer that may repeat what it sends, in whatever order."""

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        super().__init__(settings, transactional_id)
        at_once = {"enable.idempotence": False, "max.in.flight.requests.per.connection": 5}
        more = {"linger.ms": 0, "batch.num.messages": 1, "log_level": 3}
        self._beside = Producer({**at_once, **more, **settings.client()})


class Deaf(Transactor):
    """Goes on with a new producer after a fence or a failure, as if the commit had happened."""

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        super().__init__(settings, transactional_id)
        self._again = partial(Transactor.__init__, self, settings, transactional_id)

    def commit(
        self, deltas: Sequence[Delta], topics: Mapping[str, str], group_metadata: object
    ) -> None:
        try:
            super().commit(deltas, topics, group_metadata)
        except (Expelled, Fenced, KafkaException):
            self._again()
            self.init()


def forget_the_generation() -> None:
    """Offsets are sent as by one who is no member, and nobody ends what others left open."""
    setattr(committing, "group_metadata", lambda group, _: group_metadata(group, NOBODY))  # noqa: B010
    setattr(Partition, "_fence", lambda _: None)  # noqa: B010


def use(writer: type[Transactor]) -> Callable[[], None]:
    return lambda: setattr(transactions, "Transactor", writer)


def read_uncommitted() -> None:
    """The stages read what transactions have not committed, and what they have aborted."""
    import aiokafka

    original = aiokafka.AIOKafkaConsumer

    def consumer(**arguments: Any) -> Any:
        return original(**{**arguments, "isolation_level": "read_uncommitted"})

    aiokafka.AIOKafkaConsumer = consumer


def forgive_parts() -> None:
    """A checkpoint's parts that are missing or not the named ones are left out in silence."""
    original = checkpoints.parse

    def parse(latest: Mapping[bytes, bytes], *where: Any) -> Any:
        raw = latest.get(checkpoints.MANIFEST_KEY.encode())
        if raw is None:
            return None
        manifest = msgspec.json.decode(raw)
        manifest["parts"] = {
            name: digest
            for name, digest in manifest["parts"].items()
            if checkpoints.digest(latest.get(b"part/" + name.encode(), b"")) == digest
        }
        mended = {checkpoints.MANIFEST_KEY.encode(): msgspec.json.encode(manifest)}
        return original({**latest, **mended}, *where)

    setattr(checkpoints, "parse", parse)  # noqa: B010


def trust_the_group() -> None:
    """Goes on where the group's offsets are, or at the log's beginning, whatever the checkpoint."""

    def check_offsets(
        _: str, __: int | None, committed: int | None, bounds: tuple[int, int]
    ) -> int:
        return bounds[0] if committed is None else committed

    setattr(checkpoints, "check_offsets", check_offsets)  # noqa: B010


def jump_gaps() -> None:
    """Goes on at the first offset that the log has, or at its end, where the right one is gone."""

    def check_offsets(_: str, resume: int | None, __: int | None, bounds: tuple[int, int]) -> int:
        return bounds[0] if resume is None else min(max(resume, bounds[0]), bounds[1])

    setattr(checkpoints, "check_offsets", check_offsets)  # noqa: B010


def stop_at_the_first_end() -> None:
    """A restore takes what it can see for all there is, whatever an open transaction hides."""
    original = reading.LogReader.latest

    def latest(self: Any, topic: str, partition: int, _: int) -> dict[bytes, bytes]:
        place = TopicPartition(topic, partition)
        _, visible = self._reader.get_watermark_offsets(place, timeout=10)
        return original(self, topic, partition, visible)

    setattr(reading.LogReader, "latest", latest)  # noqa: B010


def step_clocks() -> None:
    """The wall clock is read whenever the time is asked for."""
    import time

    prepare = World.__post_init__

    def stepping(world: World) -> None:
        object.__setattr__(world, "clock", lambda: time.time())  # noqa: PLW0108  late, it is skewed
        prepare(world)

    setattr(World, "__post_init__", stepping)  # noqa: B010


def forget_topics() -> None:
    """Nobody looks whether a topic is still the same one."""
    setattr(checkpoints, "check_topics", lambda *_: None)  # noqa: B010


def forget_counts() -> None:
    """Partition counts are not compared."""
    setattr(reading, "same_counts", lambda *_: None)  # noqa: B010
    setattr(checkpoints, "check_counts", lambda *_: None)  # noqa: B010


def forget_state() -> None:
    """A restore takes the offsets and leaves the state."""
    from stream.core.evaluate import EvaluateProcessor
    from stream.core.monitor import MonitorProcessor

    for processor in (MonitorProcessor, EvaluateProcessor):
        setattr(processor, "restore", lambda *_: None)  # noqa: B010


def believe_artefacts() -> None:
    """Bytes are not compared with their digest."""
    from models import artefacts

    setattr(artefacts, "_checked", lambda data, *_: data)  # noqa: B010


def write_in_place() -> None:
    """Artefacts are written where they are to lie; fits run without this protection too."""
    from pathlib import Path

    from consumers.fitting import Fit
    from models import artefacts

    def write(path: Path, data: bytes) -> None:
        path.write_bytes(data)

    setattr(artefacts, "_write_whole", write)  # noqa: B010
    child = (sys.executable, "-m", "tests.faults.sabotage", "inplace", "consumers.fit_child")
    (Fit.__init__.__kwdefaults__ or {})["command"] = child


def forget_commands() -> None:
    """The registry takes each delivery of a command for another command."""
    from models.registry import Registry

    begin_run, apply = Registry.begin_run, Registry._apply

    def begin_again(self: Any, model: str, *, command_id: str, **more: Any) -> int:
        return begin_run(self, model, command_id=f"{command_id}~{uuid.uuid4()}", **more)

    def apply_again(self: Any, asked: Any, rule: Any) -> Any:
        command_id = asked.command_id and f"{asked.command_id}~{uuid.uuid4()}"
        return apply(self, msgspec.structs.replace(asked, command_id=command_id), rule)

    setattr(Registry, "begin_run", begin_again)  # noqa: B010
    setattr(Registry, "_apply", apply_again)  # noqa: B010


def ignore_generations() -> None:
    """Commands are carried out whatever has changed since they were decided."""
    from models import changes

    setattr(changes, "_stale", lambda *_: None)  # noqa: B010


def fetch_everything() -> None:
    """Partitions are fetched however full their queues are."""
    from stream.transport import Intake

    setattr(Intake, "wanted", lambda self: list(self._held))  # noqa: B010


#: What is removed, by name: how, and in words.
SABOTAGES: dict[str, tuple[Callable[[], None], str]] = {
    "plain": (use(Plain), "outputs are written outside the transaction"),
    "unfenced": (forget_the_generation, "offsets are sent without a generation, nobody is fenced"),
    "deaf": (use(Deaf), "a fence, an expulsion or a failed commit is ignored"),
    "uncommitted": (read_uncommitted, "stages read uncommitted"),
    "forgiving": (forgive_parts, "missing and corrupt parts are left out"),
    "trusting": (trust_the_group, "the group's offsets decide, not the checkpoint"),
    "impatient": (stop_at_the_first_end, "a restore ends at the first open transaction"),
    "stepping": (step_clocks, "the wall clock is read again and again"),
    "unidentified": (forget_topics, "the ids of topics are not compared"),
    "uncounted": (forget_counts, "partition counts are not compared"),
    "amnesiac": (forget_state, "a restore takes the offsets, not the state"),
    "inplace": (write_in_place, "artefacts are written where they are to lie"),
    "credulous": (believe_artefacts, "bytes are not compared with their digest"),
    "forgetful": (forget_commands, "the registry does not remember command ids"),
    "blind": (ignore_generations, "commands are not compared with the generation in force"),
    "jumping": (jump_gaps, "a gap in the log is jumped over"),
    "boundless": (fetch_everything, "a partition is fetched however full its queue is"),
    "unordered": (use(Unordered), "outputs are sent without idempotence, outside the transaction"),
}


if __name__ == "__main__":
    _, chosen, module, *rest = sys.argv
    SABOTAGES[chosen][0]()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
