"""What was live, by model and generation: from `lifecycle`, and from the registry what it lost.

The topic is compacted: of a model it keeps the newest generation for sure. The registry keeps all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from consumers.relay import lifecycle
from models.state import LiveState
from stream.core.processor import LiveModel, Record
from stream.envelope import open_record, read
from stream.errors import ConfigurationError, Refused
from stream.events import LifecycleChanged
from stream.lifecycle import MAX_LIFECYCLE_BYTES
from stream.loading import Live, Loader
from stream.settings import Settings
from stream.signing import Trust

Lifecycles = dict[tuple[str, int], LifecycleChanged]


class Known(Protocol):
    """What is needed of the registry."""

    def at_generation(self, model: str, generation: int) -> LiveState | None: ...


def published(records: Iterable[Record], trusted: Trust) -> Iterator[LifecycleChanged]:
    """Of records of `lifecycle`, those that a stage would believe."""
    for record in records:
        if record.value is None:
            continue
        try:
            trusted.check(record)
            opened = open_record("lifecycle", record, max_bytes=MAX_LIFECYCLE_BYTES)
            yield read(opened, LifecycleChanged)
        except Refused:
            continue


def complete(
    known: Lifecycles, wanted: Iterable[tuple[str, int]], registry: Known | None
) -> Lifecycles:
    """With those that the topic does not hold any more.

    Raises:
        ConfigurationError: the registry does not know one either.
    """
    found = dict(known)
    for model, generation in sorted(set(wanted) - known.keys()):
        state = registry.at_generation(model, generation) if registry else None
        if state is None:
            raise ConfigurationError(
                f"generation {generation} of {model} is neither on lifecycle nor in the registry: "
                "name the registry that was in use with --registry-url"
            )
        found[model, generation] = lifecycle(state)
    return found


def in_force(known: Lifecycles, time_ms: int) -> dict[str, int]:
    """The newest generation of each model that was made by then, by the registry's clock."""
    newest: dict[str, int] = {}
    for (model, generation), state in known.items():
        if state.changed_ms <= time_ms:
            newest[model] = max(generation, newest.get(model, 0))
    return newest


class Fleets:
    """Models with their profiles, loaded once each."""

    def __init__(
        self, lifecycles: Mapping[tuple[str, int], LifecycleChanged], settings: Settings
    ) -> None:
        def fetch(url: str, digest: str) -> bytes:
            from models import artefacts

            return artefacts.fetch(url, digest, settings.max_artefact_bytes)

        self._lifecycles = lifecycles
        self._load = Loader("monitor", fetch, lambda *_: NotImplemented)
        self._newest: dict[str, Live] = {}
        self._loaded: dict[tuple[str, int], Live] = {}

    def live(self, model: str, generation: int) -> LiveModel:
        """
        Raises:
            BadVersion: a profile can't be had any more.
        """
        place = (model, generation)
        if place not in self._loaded:
            live = self._load(self._lifecycles[place], self._newest.get(model))
            self._loaded[place] = self._newest[model] = live
        return self._loaded[place]
