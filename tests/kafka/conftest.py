"""What several tests on the real broker begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.registry import Registry
from stream.settings import Settings
from tests.kafka.children import Children
from tests.kafka.traffic import launch
from tests.topics import make_topics


@pytest.fixture
def settings(kafka_settings: Settings) -> Settings:
    """Its topics are made; logs can be read by machines."""
    chosen = kafka_settings.model_copy(update={"log_format": "json"})
    make_topics(chosen)
    return chosen


@pytest.fixture
def registry(settings: Settings) -> Iterator[Registry]:
    """With version 1 of the model live."""
    one = launch(settings)
    yield one
    one.close()


@pytest.fixture
def children(kafka_settings: Settings, tmp_path: Path) -> Iterator[Children]:
    """Starts processes, which end with the test."""
    started = Children(kafka_settings, tmp_path)
    yield started
    started.end()
