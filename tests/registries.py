"""What the tests of the registry share: both kinds of database, a clock, a model to play with."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.registry import Registry
from models.spec import Feature, ModelSpec

BACKENDS = ("sqlite", pytest.param("postgres", marks=pytest.mark.postgres))
DIGEST = "0123456789abcdef" * 4
CHURN = ModelSpec(
    name="churn", task="binary", classes=("no", "yes"), features=(Feature(name="age"),)
)


class Clock:
    """Milliseconds that only the test moves."""

    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


def database_url(request: pytest.FixtureRequest, backend: str, folder: Path) -> str:
    if backend == "sqlite":
        return f"sqlite:///{folder}/registry.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


def register(registry: Registry, model: str = "churn", *, run_id: int | None = None) -> int:
    return registry.register_version(
        model,
        run_id=run_id,
        artefact_url=f"file:artefacts/01/{DIGEST}",
        artefact_digest=DIGEST,
        profile_url=f"file:artefacts/01/{DIGEST}",
        profile_digest=DIGEST,
        metrics={"log_loss": 0.25},
    )
