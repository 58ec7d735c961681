"""From a request to its visible prediction, at a steady rate, with all three stages at work.

    python -m benchmarks.latency [--quick] [--json]

One process sends requests evenly spaced and reads committed predictions. A latency is the time
from handing a request to the producer to reading its prediction: it holds both clients, the broker,
the worker and the wait for the transaction's commit. Each prediction is answered with its label, so
that monitor and evaluate work as they would.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer
from numpy.typing import NDArray

from benchmarks import workload
from benchmarks.reporting import parser, report, say
from benchmarks.workers import Workers
from stream.settings import Settings
from tests.broker import Broker
from tests.topics import Sent, quiet_client

STRAGGLE_SECONDS = 30.0
ROUNDS_OF_WAITING = 90
WARM_SECONDS = 15.0
QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Driver:
    """Sends requests at a rate, reads predictions, answers with labels."""

    def __init__(self, settings: Settings, requests: Sequence[Sent], rate: float) -> None:
        self._topics = {
            entity: settings.names.topic(entity)
            for entity in ("requests", "predictions", "feedback")
        }
        self._requests = requests
        self._rate = rate
        self._places = {request.key: number for number, request in enumerate(requests)}
        self._sent = np.full(len(requests), np.nan)
        self._seen = np.full(len(requests), np.nan)
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
        """Latency of each request in seconds, in the order of sending; NaN: never seen.

        Args:
            begun: told the monotonic time at which the first of them is sent.
        """
        self._consumer.subscribe([self._topics["predictions"]])
        self._wait_for_first(workers)
        sender = threading.Thread(target=self._send)
        begun(time.monotonic())
        sender.start()
        deadline = time.monotonic() + len(self._requests) / self._rate + STRAGGLE_SECONDS
        while np.isnan(self._seen).any() and time.monotonic() < deadline:
            workers.check()
            self._receive()
        sender.join()
        self._consumer.close()
        latencies: NDArray[np.float64] = self._seen - self._sent
        return latencies

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
        started = time.monotonic()
        for number in range(len(self._requests)):
            ahead = started + number / self._rate - time.monotonic()
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
        """Note what came and answer it; the number of predictions."""
        messages = self._consumer.consume(500, seconds)
        now = time.monotonic()
        for message in messages:
            assert message.error() is None, message.error()
            place = self._places.get(message.key())
            if place is None:
                continue
            assert np.isnan(self._seen[place]), f"{message.key()} was predicted twice"
            self._seen[place] = now
            answer = workload.feedback_for(message.key().decode(), place % 2 == 0)
            self._producer.produce(self._topics["feedback"], answer.value, answer.key)
        return len(messages)


def measure(bootstrap: str, folder: Path, rate: float, seconds: float) -> NDArray[np.float64]:
    """Latencies in seconds, after a warm-up in which all stages start and load what they need."""
    settings = workload.benchmark_settings(bootstrap, "latency", folder)
    workload.go_live(settings, workload.versions(1))
    warm = round(rate * WARM_SECONDS)
    requests = list(workload.requests(warm + round(rate * seconds)))
    command = [sys.executable, "-m", "consumers", "worker"]
    with Workers([command], workload.environment(settings), folder / "worker.log") as workers:
        latencies = Driver(settings, requests, rate).run(workers)
    return latencies[warm:]


def main() -> None:
    one = parser("Milliseconds from a request to its visible prediction.")
    one.add_argument("--rate", type=float, default=2000.0, help="requests a second")
    one.add_argument("--seconds", type=float, help="how long to measure")
    arguments = one.parse_args()
    seconds = arguments.seconds or (10.0 if arguments.quick else 60.0)
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name:
        say("starting Kafka")
        with Broker(Path(name) / "kafka") as broker:
            latencies = measure(broker.bootstrap, Path(name), arguments.rate, seconds)
    lost = int(np.isnan(latencies).sum())
    found = np.nanquantile(latencies, QUANTILES) * 1000
    names = [f"p{quantile * 100:g}".replace(".", "") for quantile in QUANTILES]
    figures = {f"{name}_ms": round(float(ms), 1) for name, ms in zip(names, found, strict=True)}
    more = {"rate": arguments.rate, "seconds": seconds, "requests": len(latencies), "lost": lost}
    title = f"Request to visible prediction at {arguments.rate:,.0f}/s, in milliseconds"
    row = [f"{len(latencies):,}", f"{lost}", *(f"{ms:.0f}" for ms in found)]
    report(title, ["requests", "lost", *names], [row], {**figures, **more}, as_json=arguments.json)


if __name__ == "__main__":
    main()
