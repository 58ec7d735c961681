"""What users would pick instead of the score stage, at least once, on the same requests.

    python -m benchmarks.scorers NAME BOOTSTRAP SOURCE TARGET GROUP [MODEL.json]

Each runs until SIGTERM, by the Python of an environment that has the tool; what is imported here is
of that environment. Each is used as its documentation says and told what makes it faster: batches
where it has them, msgspec instead of json. Without a model an output of 0 is written. The model is
handed over as one product of weights, which is what Driftline makes of the pipeline, too.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

COMMIT_SECONDS: Final = 0.1
BATCH: Final = 2000
VERSION: Final = 1  # of the model, as predictions name it


class Model(NamedTuple):
    """P(positive) = 1 / (1 + exp(-(intercept + the sum of weight x feature)))."""

    weights: dict[str, float]
    intercept: float


class Job(NamedTuple):
    """What a scorer is asked to do; `model` None: decode, encode, and nothing else."""

    bootstrap: str
    source: str
    target: str
    group: str
    model: Model | None


def outputs_of(model: Model | None) -> Callable[[Sequence[dict[str, float]]], list[float]]:
    """Features of many requests to their outputs, in one product."""
    if model is None:
        return lambda features: [0.0] * len(features)
    import numpy as np

    names, weights = list(model.weights), np.array(list(model.weights.values()))

    def outputs(features: Sequence[dict[str, float]]) -> list[float]:
        matrix = np.array([[one[name] for name in names] for one in features])
        scores: list[float] = (1 / (1 + np.exp(-(matrix @ weights + model.intercept)))).tolist()
        return scores

    return outputs


def _codec() -> tuple[Callable[[bytes], Any], Callable[[Any, float], bytes]]:
    """A request's decoder, and the encoder of its prediction."""
    import msgspec

    request = msgspec.defstruct(
        "Request", [("prediction_id", str), ("model", str), ("features", dict[str, float])]
    )
    encode = msgspec.json.Encoder().encode

    def write(event: Any, output: float) -> bytes:
        said = {"prediction_id": event.prediction_id, "model": event.model, "version": VERSION}
        return encode({**said, "output": output, "features": event.features})

    return msgspec.json.Decoder(request).decode, write


def bytewax(job: Job) -> None:
    """A dataflow whose source and sink are its own, with a recovery store."""
    import bytewax.operators as op
    from bytewax._bytewax import run_main
    from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
    from bytewax.dataflow import Dataflow
    from bytewax.recovery import RecoveryConfig, init_db_dir

    decode, write = _codec()
    outputs = outputs_of(job.model)

    def score(messages: list[Any]) -> Iterable[Any]:
        events = [decode(message.value) for message in messages]
        said = outputs([event.features for event in events])
        return [
            KafkaSinkMessage(message.key, write(event, output))
            for message, event, output in zip(messages, events, said, strict=True)
        ]

    flow = Dataflow("score")
    source = KafkaSource([job.bootstrap], [job.source], batch_size=BATCH)
    requests = op.input("requests", flow, source)
    predictions = op.flat_map_batch("score", requests, score)
    op.output("predictions", predictions, KafkaSink([job.bootstrap], job.target))
    folder = Path(tempfile.mkdtemp(prefix="bytewax-"))
    init_db_dir(folder, 1)
    run_main(flow, epoch_interval=timedelta(seconds=1), recovery_config=RecoveryConfig(folder))


def pathway(job: Job) -> None:
    """Its engine reads and writes JSON; Python is asked once a row."""
    import pathway as pw

    weights = job.model.weights.items() if job.model else ()
    intercept = job.model.intercept if job.model else 0.0

    def output(features: Any) -> float:
        values = features.as_dict()
        return 1 / (1 + math.exp(-sum((w * values[name] for name, w in weights), intercept)))

    score = pw.udf(output, return_type=float, deterministic=True)
    schema = pw.schema_from_types(prediction_id=str, model=str, features=pw.Json)
    settings = {
        "bootstrap.servers": job.bootstrap,
        "group.id": job.group,
        "auto.offset.reset": "earliest",
    }
    milliseconds = round(COMMIT_SECONDS * 1000)
    requests = pw.io.kafka.read(
        settings,
        topic=job.source,
        format="json",
        schema=schema,
        autocommit_duration_ms=milliseconds,
    )
    predictions = requests.select(
        pw.this.prediction_id,
        pw.this.model,
        pw.this.features,
        version=VERSION,
        output=score(pw.this.features),
    )
    pw.io.kafka.write(
        predictions, settings, job.target, format="json", key=predictions.prediction_id
    )
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


def faust(job: Job) -> None:
    """An agent that takes many events at once, on the transport that Faust comes with."""
    import faust as library

    decode, write = _codec()
    outputs = outputs_of(job.model)
    app = library.App(
        job.group,
        broker=f"kafka://{job.bootstrap}",
        store="memory://",
        datadir=tempfile.mkdtemp(prefix="faust-"),
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        value_serializer="raw",
        key_serializer="raw",
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=COMMIT_SECONDS,
    )
    source = app.topic(job.source, value_type=bytes, key_type=bytes)
    target = app.topic(job.target, value_type=bytes, key_type=bytes)

    async def score(stream: Any) -> None:
        async for values in stream.take(BATCH, within=COMMIT_SECONDS):
            events = [decode(value) for value in values]
            said = outputs([event.features for event in events])
            for event, output in zip(events, said, strict=True):
                key = event.prediction_id.encode()
                await target.send(key=key, value=write(event, output))

    app.agent(source, name="score")(score)
    library.Worker(app, loglevel="WARNING").execute_from_commandline()


def river(job: Job) -> None:
    """A loop around librdkafka, written by hand: river predicts event by event."""
    from confluent_kafka import Consumer, Producer
    from river import linear_model

    assert job.model is not None, "river is asked for its predictions"
    decode, write = _codec()
    model = linear_model.LogisticRegression(intercept_init=job.model.intercept)
    model._weights.update(job.model.weights)  # noqa: SLF001 - it has no door for weights
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    producer = Producer({"bootstrap.servers": job.bootstrap, "linger.ms": 5})
    consumer.subscribe([job.source])
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    due = time.monotonic() + COMMIT_SECONDS
    while not stopping:
        for message in consumer.consume(BATCH, 0.02):
            event = decode(message.value())
            output = model.predict_proba_one(event.features)[True]
            producer.produce(job.target, write(event, output), message.key())
            producer.poll(0)
        if time.monotonic() >= due and consumer.assignment():
            producer.flush()
            _commit(consumer)
            due = time.monotonic() + COMMIT_SECONDS
    consumer.close()


def _commit(consumer: Any) -> None:
    reached = [place for place in consumer.position(consumer.assignment()) if place.offset >= 0]
    if reached:
        consumer.commit(offsets=reached, asynchronous=False)


SCORERS: Final[dict[str, Callable[[Job], None]]] = {
    "bytewax": bytewax,
    "pathway": pathway,
    "faust": faust,
    "river": river,
}


def main(name: str, bootstrap: str, source: str, target: str, group: str, model: str = "") -> None:
    known = Model(**json.loads(Path(model).read_text())) if model else None
    SCORERS[name](Job(bootstrap, source, target, group, known))


if __name__ == "__main__":
    main(*sys.argv[1:])
