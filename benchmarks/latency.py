"""From a request to its visible prediction, and from a label to the accuracy that counts it.

    python -m benchmarks.latency [--quick] [--json] [--rate 100 --rate 2000 --rate 10000]

One process sends requests evenly spaced and reads committed predictions, all three stages at work.
A request's latency is the time from when it was to be sent to when its prediction was read: it
holds both clients, the broker, the worker and the wait for the transaction's commit. If the sender
falls behind, that counts too; what the sender itself lost by it is told apart (`sent late`).

Each prediction is answered with its label at once. A label's latency is the time from handing it to
the producer to reading the first window of accuracy that ends with its tick or later. A tick of
this model is 10 s, and it is closed when nothing on time can come for it any more, 5 s later: so
it is 5 to 15 s by the spec, and what is more is Driftline's. From harm to the swap:
`benchmarks.rollback`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import Consumer, Producer
from numpy.typing import NDArray

from benchmarks import workload
from benchmarks.reporting import parser, report, say
from benchmarks.workers import Workers, kafka
from stream.settings import Settings
from tests.topics import Sent, delete_topics, quiet_client

STRAGGLE_SECONDS = 30.0
SETTLE_SECONDS = 20.0  # for the last tick to be closed, and what may be late for it
ROUNDS_OF_WAITING = 90
WARM_SECONDS = 15.0
QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Driver:
    """Sends requests at a rate, reads predictions, answers with labels."""

    def __init__(self, settings: Settings, requests: Sequence[Sent], rate: float) -> None:
        self._topics = {
            entity: settings.names.topic(entity)
            for entity in ("requests", "predictions", "feedback", "accuracy")
        }
        self._requests = requests
        self._rate = rate
        self._places = {request.key: number for number, request in enumerate(requests)}
        self._due = np.full(len(requests), np.nan)
        self._sent = np.full(len(requests), np.nan)
        self._seen = np.full(len(requests), np.nan)
        self._accuracy: list[tuple[float, int]] = []  # when it was read, the end of its window
        self._producer: Any = Producer(
            quiet_client(settings.bootstrap_servers, partitioner="murmur2_random")
        )
        self._consumer: Any = Consumer(
            quiet_client(
                settings.bootstrap_servers,
                **{
                    "group.id": f"{settings.topic_prefix}.latency",
                    "auto.offset.reset": "earliest",
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                },
            )
        )

    def run(
        self, workers: Workers, begun: Callable[[float], object] = lambda _: None
    ) -> NDArray[np.float64]:
        """Latency of each request in seconds, from when it was due; NaN: never seen.

        Args:
            begun: told the monotonic time at which the first of them is sent.
        """
        self._consumer.subscribe([self._topics["predictions"], self._topics["accuracy"]])
        self._wait_for_first(workers)
        sender = threading.Thread(target=self._send)
        begun(time.monotonic())
        sender.start()
        deadline = time.monotonic() + len(self._requests) / self._rate + STRAGGLE_SECONDS
        while np.isnan(self._seen).any() and time.monotonic() < deadline:
            workers.check()
            self._receive()
        sender.join()
        latencies: NDArray[np.float64] = self._seen - self._due
        return latencies

    def late(self) -> NDArray[np.float64]:
        """By how many seconds each request was sent later than it was due."""
        late: NDArray[np.float64] = self._sent - self._due
        return late

    def until_accuracy(self, workers: Workers, seconds: float) -> NDArray[np.float64]:
        """Seconds from each label to the accuracy that counts it; NaN: not in so many seconds more.

        After `run`, while the workers are still at work.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            workers.check()
            self._receive(seconds=0.2)
        epoch_ms = time.time() * 1000 - time.monotonic() * 1000
        tick_ms = workload.SPEC.tick_ms
        ends_ms = np.maximum.accumulate([0, *(end_ms for _, end_ms in self._accuracy)])
        read = np.array([np.nan, *(at for at, _ in self._accuracy), np.nan])
        tick_ends_ms = ((self._sent * 1000 + epoch_ms) // tick_ms + 1) * tick_ms
        found: NDArray[np.float64] = read[np.searchsorted(ends_ms, tick_ends_ms)] - self._seen
        return found

    def close(self) -> None:
        self._consumer.close()

    def _wait_for_first(self, workers: Workers) -> None:
        """Requests that are not measured, one a second, until a prediction comes back."""
        topic = self._topics["requests"]
        for request in workload.requests(ROUNDS_OF_WAITING, prefix="first"):
            workers.check()
            self._producer.produce(topic, request.value, request.key)
            self._producer.flush(5)
            if self._receive(seconds=1.0):
                return
        raise TimeoutError("no prediction came")

    def _send(self) -> None:
        self._due[:] = time.monotonic() + np.arange(len(self._requests)) / self._rate
        for number, due in enumerate(self._due.tolist()):
            ahead = due - time.monotonic()
            if ahead > 0.001:
                time.sleep(ahead)
            self._emit(number)
        self._producer.flush(30)

    def _emit(self, number: int) -> None:
        request = self._requests[number]
        self._sent[number] = time.monotonic()
        self._producer.produce(self._topics["requests"], request.value, request.key)
        self._producer.poll(0)

    def _receive(self, seconds: float = 0.01) -> int:
        """Note what came and answer predictions; how many came."""
        messages = self._consumer.consume(500, seconds)
        now = time.monotonic()
        for message in messages:
            assert message.error() is None, message.error()
            if message.topic() == self._topics["accuracy"]:
                self._accuracy.append((now, json.loads(message.value())["data"]["end_ms"]))
                continue
            place = self._places.get(message.key())
            if place is None:
                continue
            assert np.isnan(self._seen[place]), f"{message.key()} was predicted twice"
            self._seen[place] = now
            answer = workload.feedback_for(message.key().decode(), place % 2 == 0)
            self._producer.produce(self._topics["feedback"], answer.value, answer.key)
        return len(messages)


class Found(NamedTuple):
    """At one rate: seconds of each request, of each label, and how late requests were sent."""

    predictions: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    late: NDArray[np.float64]


def measure(bootstrap: str, folder: Path, rate: float, seconds: float) -> Found:
    """All stages at work, after a warm-up in which they start and load what they need."""
    prefix = f"latency-{rate:g}"
    settings = workload.benchmark_settings(bootstrap, prefix, folder)
    workload.go_live(settings, workload.versions(1))
    warm = round(rate * WARM_SECONDS)
    requests = list(workload.requests(warm + round(rate * seconds)))
    command = [sys.executable, "-m", "consumers", "worker"]
    with Workers([command], workload.environment(settings), folder / "worker.log") as workers:
        driver = Driver(settings, requests, rate)
        predictions = driver.run(workers)
        accuracy = driver.until_accuracy(workers, SETTLE_SECONDS)
        driver.close()
    delete_topics(bootstrap, prefix)
    return Found(predictions[warm:], accuracy[warm:], driver.late()[warm:])


def main() -> None:
    one = parser("Milliseconds from a request to its prediction, from a label to the accuracy.")
    one.add_argument("--rate", type=float, action="append", help="requests a second; several")
    one.add_argument("--seconds", type=float, help="how long to measure each")
    arguments = one.parse_args()
    rates = arguments.rate or ([2000.0] if arguments.quick else [100.0, 2000.0, 10_000.0])
    seconds = arguments.seconds or (5.0 if arguments.quick else 60.0)
    rows, figures = [], dict[str, object](seconds=seconds, rates=rates)
    with kafka(optimised=not arguments.quick) as (broker, folder):
        for rate in rates:
            say(f"{rate:,.0f} requests a second")
            found = measure(broker.bootstrap, folder, rate, seconds)
            for what, values in found._asdict().items():
                row, figured = _told(what, rate, values)
                rows.append(row)
                figures |= figured
    title = "Milliseconds from when it was due; of labels, from when they were sent"
    columns = ["requests/s", "what", "number", "never seen", *map(_name, QUANTILES), "most"]
    report(title, columns, rows, figures, as_json=arguments.json)


TITLES = {
    "predictions": "request to prediction",
    "accuracy": "label to accuracy",
    "late": "sent late by",
}


def _name(quantile: float) -> str:
    return f"p{quantile * 100:g}".replace(".", "")


def _told(
    what: str, rate: float, values: NDArray[np.float64]
) -> tuple[list[str], dict[str, object]]:
    """One row of the table, and the same as figures."""
    lost = int(np.isnan(values).sum())
    found = np.nanquantile(values, (*QUANTILES, 1.0)) * 1000
    names = [*map(_name, QUANTILES), "most"]
    start = f"{what}_{rate:g}"
    figures: dict[str, object] = {
        f"{start}_{name}_ms": round(float(ms), 1) for name, ms in zip(names, found, strict=True)
    }
    figures |= {f"{start}_number": len(values), f"{start}_lost": lost}
    row = [f"{rate:,.0f}", TITLES[what], f"{len(values):,}", f"{lost}"]
    return [*row, *(f"{ms:,.0f}" for ms in found)], figures


if __name__ == "__main__":
    main()
