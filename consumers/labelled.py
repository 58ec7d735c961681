"""Labelled examples as the topic holds them: many of a version in an event; until 0.1, one."""

from __future__ import annotations

from collections.abc import Sequence

from stream.core.processor import Record
from stream.envelope import open_record, read
from stream.events import ExampleLabelled, ExamplesLabelled


def examples_in(record: Record, max_bytes: int) -> Sequence[ExampleLabelled]:
    """The examples of a record of `examples`, one by one.

    Raises:
        Refused: it holds none.
    """
    opened = open_record("examples", record, max_bytes=max_bytes)
    if opened.type == "driftline.example.labelled.v1":
        return [read(opened, ExampleLabelled)]
    return list(read(opened, ExamplesLabelled).each())
