"""The runtime on the real broker: whatever happens to workers, every record counts once."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stream.settings import Settings
from stream.topics import Stage
from tests.kafka.copies import Workers, copying, exact, outputs, send, state, until
from tests.kafka.loop import DIED_AT_FAILPOINT
from tests.patience import GRACE_SECONDS, PATIENCE_SECONDS
from tests.topics import Sent, make_topics, produce, read_all


@pytest.fixture
def workers(kafka_settings: Settings, tmp_path: Path) -> Iterator[Workers]:
    with copying(kafka_settings, tmp_path) as started:
        yield started


def test_records_are_copied_once_and_sigterm_drains(workers: Workers) -> None:
    """A quiet run is exact, and SIGTERM ends it with 0 within the grace, all committed."""
    send(workers.settings, 0, 10_000)
    worker = workers.start()
    exact(workers, 10_000)
    send(workers.settings, 10_000, 1000)
    started = time.monotonic()
    assert workers.end(worker) == 0, workers.logs
    assert time.monotonic() - started < GRACE_SECONDS
    workers.start()
    exact(workers, 11_000)


def test_sigkill_loses_and_doubles_nothing(workers: Workers) -> None:
    """Two workers, killed in turn in mid-stream: every record still counts once."""
    dice = random.Random(7)
    total = 0
    started = [workers.start(COPY_PACE_SECONDS="0.0003") for _ in range(2)]
    workers.until_log("restored", 4)
    for _ in range(3):
        send(workers.settings, total, 5000)
        total += 5000
        time.sleep(dice.uniform(0.3, 1.0))
        workers.end(started.pop(dice.randrange(2)), signal.SIGKILL)
        started.append(workers.start(COPY_PACE_SECONDS="0.0003"))
        workers.until_log("assigned", workers.count("assigned") + 2)
    exact(workers, total)


@pytest.mark.parametrize("place", ["send_offsets:1", "begin:3", "before_commit:3"])
def test_a_stopped_worker_comes_back_fenced(workers: Workers, place: str) -> None:
    """SIGSTOP in a transaction, past the session timeout: another goes on, and the zombie can't
    write on waking, and mostly ends. In its first one perhaps no manifest names it yet."""
    zombie = workers.start(DRIFTLINE_FAILPOINT=f"{place}:stop")
    workers.until_log("restored", 4)
    process = psutil.Process(zombie.pid)
    total = 0
    while process.status() != psutil.STATUS_STOPPED:
        send(workers.settings, total, 400)
        total += 400
        time.sleep(0.5)
    workers.start()
    until(lambda: state(workers.settings)[0] == total, workers)
    zombie.send_signal(signal.SIGCONT)
    until(lambda: bool(workers.count("fenced")) or zombie.poll() == 1, workers)
    send(workers.settings, total, 400)
    exact(workers, total + 400)


@pytest.mark.parametrize(
    "failpoints",
    [
        ("init", "restore", "apply:2", "begin:3"),
        ("produce:2", "send_offsets:2", "before_commit:3", "after_commit:2"),
    ],
)
def test_death_at_each_step_is_exact(workers: Workers, failpoints: tuple[str, ...]) -> None:
    """Workers that die at their own step each, in one group, leave nothing lost or doubled."""

    def start(failpoint: str) -> subprocess.Popen[bytes]:
        return workers.start(DRIFTLINE_FAILPOINT=failpoint, COPY_PACE_SECONDS="0.001")

    doomed = {failpoint: start(failpoint) for failpoint in failpoints}
    total = 0
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(process.poll() != DIED_AT_FAILPOINT for process in doomed.values()):
        assert time.monotonic() < deadline, workers.logs
        for failpoint, process in doomed.items():
            if process.poll() == 1:  # fenced before it came to its step, as on a slow machine
                doomed[failpoint] = start(failpoint)
        send(workers.settings, total, 100)
        total += 100
        time.sleep(0.2)
    workers.start()
    exact(workers, total)


def test_a_rebalance_in_the_moment_of_a_commit_is_exact(workers: Workers) -> None:
    """Members come and go while every commit takes long, so rebalances find one under way."""
    slow = {"DRIFTLINE_FAILPOINT": "before_commit:1:0.5", "COPY_PACE_SECONDS": "0.0005"}
    send(workers.settings, 0, 6000)
    first = workers.start("score", **slow)
    workers.until_log("restored", 4)
    second = workers.start("score", **slow)
    workers.until_log("assigned", 3)
    send(workers.settings, 6000, 2000)
    assert workers.end(first) == 0, workers.logs
    third = workers.start("score", **slow)
    workers.until_log("assigned", 6)
    workers.end(second, signal.SIGKILL)
    exact(workers, 8000)
    assert third.poll() is None, workers.logs


def test_a_restore_that_comes_late_is_harmless(workers: Workers) -> None:
    """It goes on when its partitions have long been another's: that owner goes on, too."""
    send(workers.settings, 0, 2000)
    late = workers.start(DRIFTLINE_FAILPOINT="init:1:stop")
    process = psutil.Process(late.pid)
    until(lambda: process.status() == psutil.STATUS_STOPPED, workers)
    owner = workers.start()
    workers.until_log("restored", 4)  # the group has given the stopped one up
    exact(workers, 2000)
    late.send_signal(signal.SIGCONT)
    workers.until_log("assigned", workers.count("assigned") + 2)  # it has joined again
    send(workers.settings, 2000, 2000)
    exact(workers, 4000)
    assert owner.poll() is None, workers.logs
    assert late.poll() is None, workers.logs


def test_nobody_waits_for_the_transaction_of_a_dead_worker(
    kafka_settings: Settings, tmp_path: Path
) -> None:
    """Who takes over ends it, long before the broker would give it up."""
    patient = kafka_settings.model_copy(update={"transaction_timeout_ms": 120_000})
    make_topics(patient)
    workers = Workers(patient, tmp_path)
    try:
        doomed = workers.start(DRIFTLINE_FAILPOINT="before_commit:3")
        workers.until_log("restored", 4)
        total = 0
        while doomed.poll() is None:
            send(patient, total, 400)
            total += 400
            time.sleep(0.3)
        workers.start()
        exact(workers, total)
    finally:
        for process in workers.running:
            process.kill()
            process.wait()


def test_more_workers_than_partitions(workers: Workers) -> None:
    """The fifth of four partitions stands by, and takes over when others go."""
    send(workers.settings, 0, 4000)
    started = [workers.start(COPY_PACE_SECONDS="0.001") for _ in range(5)]
    workers.until_log("partitions=[]", 1)
    send(workers.settings, 4000, 2000)
    for process in started[:3]:
        workers.end(process, signal.SIGKILL)
    exact(workers, 6000)
    assert workers.end(started[4]) == 0, workers.logs


def test_a_bug_in_a_processor_ends_the_worker(workers: Workers) -> None:
    """An exception is not continued past: exit code 1, and the log names the offsets."""
    bootstrap, topic = workers.settings.bootstrap_servers, workers.settings.names.topic("requests")
    produce(bootstrap, topic, [Sent(b"k", b"1", 2), Sent(b"k", b"poison", 2)])
    worker = workers.start()
    assert worker.wait(PATIENCE_SECONDS) == 1
    assert f"{topic}[2] 0..0" in workers.logs
    assert outputs(workers.settings) == []


def test_two_inputs_of_one_partition_share_its_state(workers: Workers) -> None:
    """monitor reads predictions and feedback; both count into one state, through a takeover."""
    send(workers.settings, 0, 2000, "predictions")
    first = workers.start("monitor", COPY_PACE_SECONDS="0.0005")
    until(lambda: state(workers.settings, "monitor")[0] > 0, workers)
    workers.end(first, signal.SIGKILL)
    send(workers.settings, 2000, 2000, "feedback")
    workers.start("monitor")
    until(lambda: state(workers.settings, "monitor")[0] >= 4000, workers)
    assert state(workers.settings, "monitor") == (4000, sum(range(4000)))
    numbers = sorted(number for number, _, _ in outputs(workers.settings, "summaries"))
    assert numbers == list(range(4000))


def test_three_stages_in_a_chain_are_exact_when_each_is_killed(workers: Workers) -> None:
    """score feeds monitor feeds evaluate; each dies once in mid-stream."""
    paced = {"COPY_PACE_SECONDS": "0.0005"}
    stages: tuple[Stage, ...] = ("score", "monitor", "evaluate")
    running = {stage: workers.start(stage, **paced) for stage in stages}
    workers.until_log("restored", 12)
    for round_number, stage in enumerate(stages):
        send(workers.settings, 2000 * round_number, 2000)
        time.sleep(0.5)
        workers.end(running[stage], signal.SIGKILL)
        running[stage] = workers.start(stage)
    until(lambda: state(workers.settings, "evaluate")[0] >= 6000, workers)
    for entity in ("predictions", "summaries", "accuracy"):
        numbers = sorted(number for number, _, _ in outputs(workers.settings, entity))
        assert numbers == list(range(6000)), workers.logs


def test_an_idle_partition_is_told_that_it_is_caught_up(workers: Workers) -> None:
    """Although a transaction's marker lies at the end of its input; and it commits nothing."""
    send(workers.settings, 0, 400)
    feeder = workers.start()  # its outputs end in markers, and monitor reads them
    exact(workers, 400)
    workers.end(feeder)
    workers.start("monitor", COPY_TELLS_CAUGHT_UP="1")
    until(lambda: len(caught_up(workers.settings, 100)) >= 4, workers)


def caught_up(settings: Settings, count: int) -> list[bytes]:
    """What copying processors said on being told that they are caught up, at this count."""
    records = read_all(settings.bootstrap_servers, settings.names.topic("alerts"))
    return [r.value for r in records if r.value and r.value.endswith(b":%d" % count)]


def test_a_lost_checkpoint_part_halts_the_worker(workers: Workers) -> None:
    """Rather than to start from nothing, it says what is missing and ends."""
    send(workers.settings, 0, 400)
    worker = workers.start()
    exact(workers, 400)
    workers.end(worker)
    names = workers.settings.names
    produce(
        workers.settings.bootstrap_servers,
        names.checkpoints("score"),
        [Sent(b"part/state", None, 1)],
    )
    assert workers.start().wait(PATIENCE_SECONDS) == 1
    assert "part 'state' is missing" in workers.logs


def test_missing_topics_are_a_configuration_error(kafka_settings: Settings, tmp_path: Path) -> None:
    """Exit code 2 tells a supervisor not to try again."""
    bare = Workers(kafka_settings, tmp_path)
    assert bare.start().wait(PATIENCE_SECONDS) == 2
    assert "driftline topics apply" in bare.logs
