"""Labelled examples for the tests of what reads them."""

from __future__ import annotations

from msgspec.structs import replace

from stream.events import ExampleLabelled, ExamplesLabelled


def example(prediction_id: str, **more: object) -> ExampleLabelled:
    """One of model churn, version 1."""
    plain = ExampleLabelled(
        prediction_id=prediction_id,
        model="churn",
        version=1,
        partition=0,
        offset=0,
        predicted_ms=1,
        labelled_ms=2,
        label="yes",
    )
    return replace(plain, **more)


def together(*examples: ExampleLabelled) -> ExamplesLabelled:
    """Those of one version as monitor tells them."""
    first = examples[0]
    return ExamplesLabelled(
        model=first.model,
        version=first.version,
        partition=first.partition,
        prediction_ids=[one.prediction_id for one in examples],
        offsets=[one.offset for one in examples],
        predicted_ms=[one.predicted_ms for one in examples],
        labelled_ms=[one.labelled_ms for one in examples],
        labels=[one.label for one in examples],
        weights=[one.weight for one in examples],
        revisions=[one.revision for one in examples],
    )
