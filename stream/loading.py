"""What a stage loads of a model: the versions it predicts with, or the profiles it counts by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from models import profile as profiles
from models.artefacts import digest_of, nothing_of
from models.profile import ReferenceProfile
from models.spec import ModelSpec
from stream.events import LifecycleChanged, VersionCard
from stream.topics import Stage

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Serving(Protocol):
    """What `models.serving.load` gives."""

    def predict(self, rows: Sequence[Any]) -> NDArray[np.float64]: ...
    def warm_up(self) -> None: ...


class BadVersion(Exception):
    """A version's artefact or profile can't be loaded."""

    def __init__(self, card: VersionCard, error: Exception) -> None:
        super().__init__(f"version {card.version} can't be loaded: {error}")
        self.card = card
        self.error = error


@dataclass(frozen=True)
class Live:
    """One model with what this stage loads of it. A `stream.core.processor.LiveModel`."""

    lifecycle: LifecycleChanged
    models: Mapping[int, Serving] = field(default_factory=dict)
    profiles: Mapping[int, ReferenceProfile] = field(default_factory=dict)
    bad: BadVersion | None = None  # a shadow that it is without

    def predict(self, version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        return self.models[version].predict(rows)

    def profile(self, version: int) -> ReferenceProfile | None:
        return self.profiles.get(version)


class Loader:
    """Loads what one stage needs: score and shadow the artefacts in use, the others all profiles.

    Args:
        fetch: url and digest -> the checked bytes.
        load: bytes and spec -> a model that predicts.
    """

    def __init__(
        self,
        stage: Stage,
        fetch: Callable[[str, str], bytes],
        load: Callable[[bytes, ModelSpec], Serving],
    ) -> None:
        self._stage = stage
        self._fetch = fetch
        self._load = load

    def __call__(self, state: LifecycleChanged, before: Live | None) -> Live:
        """A champion serves without a shadow that can't be loaded, if nothing served before.

        Raises:
            BadVersion: of the first that can't be loaded.
        """
        if self._stage not in ("score", "shadow"):
            profiles = self._each(state, self._needed(state), before, self._profile)
            return Live(state, profiles=profiles)
        cards, bad = self._needed(state), None
        while True:
            try:
                models = self._each(state, cards, before, self._model)
            except BadVersion as error:
                if before is not None or error.card.version == state.champion:
                    raise
                cards, bad = [card for card in cards if card is not error.card], error
            else:
                served = {v: one for v, one in models.items() if one is not None}
                return Live(state, served, bad=bad)

    def _each(
        self,
        state: LifecycleChanged,
        cards: Sequence[VersionCard],
        before: Live | None,
        load: Callable[[LifecycleChanged, VersionCard, Live | None], T],
    ) -> dict[int, T]:
        loaded: dict[int, T] = {}
        for card in cards:
            try:
                loaded[card.version] = load(state, card, before)
            except Exception as error:
                raise BadVersion(card, error) from error
        return loaded

    def _needed(self, state: LifecycleChanged) -> list[VersionCard]:
        if self._stage not in ("score", "shadow"):
            return state.versions
        if (state.spec.served == "elsewhere") != (self._stage == "shadow"):
            return []
        champion = () if state.champion is None else (state.champion,)
        cards = [(version, state.card(version)) for version in (*champion, *state.shadows)]
        missing = [version for version, card in cards if card is None]
        if missing:
            log.error("lifecycle names versions without cards", model=state.model, missing=missing)
        return [card for _, card in cards if card is not None]

    def _model(
        self, state: LifecycleChanged, card: VersionCard, before: Live | None
    ) -> Serving | None:
        """None: the version was made elsewhere, and its bytes are not here."""
        if before is not None and _same(before, state, card, "artefact_digest"):
            return before.models[card.version]
        nothing = digest_of(nothing_of(state.model, card.version))
        if self._stage == "shadow" and card.artefact_digest == nothing:
            return None
        model = self._load(self._fetch(card.artefact_url, card.artefact_digest), state.spec)
        model.warm_up()
        return model

    def _profile(
        self, state: LifecycleChanged, card: VersionCard, before: Live | None
    ) -> ReferenceProfile:
        if before is not None and _same(before, state, card, "profile_digest"):
            return before.profiles[card.version]
        return profiles.decode(self._fetch(card.profile_url, card.profile_digest))


def _same(before: Live, state: LifecycleChanged, card: VersionCard, digest: str) -> bool:
    """What is loaded already is of the same bytes, and means the same."""
    held = before.models if digest == "artefact_digest" else before.profiles
    known = before.lifecycle.card(card.version)
    return (
        card.version in held
        and known is not None
        and getattr(known, digest) == getattr(card, digest)
        and before.lifecycle.spec == state.spec
    )
