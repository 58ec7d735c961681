"""What is live: the lifecycle topic as a mapping that changes as a whole.

A thread follows the topic, loads what its stage needs off to the side, checks the digests of the
bytes, warms up, and only then replaces the mapping; partitions see the old one or the new one
between two batches, never a half. What can't be loaded changes nothing but raises an alert.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from models import profile as profiles
from models.artefacts import digest_of, nothing_of
from models.profile import ReferenceProfile
from models.spec import ModelSpec
from stream import envelope
from stream.core.alerts import RAISED_STEP
from stream.core.processor import Fleet, Record
from stream.errors import Refused
from stream.events import Alert, LifecycleChanged, VersionCard
from stream.settings import Settings
from stream.signing import NOBODY, Trust, trust
from stream.suspects import Suspects
from stream.topics import Stage

T = TypeVar("T")
log = structlog.get_logger(__name__)

POLL_SECONDS = 0.2
RETRY_SECONDS = 5.0  # what could not be loaded is tried again
MAX_LIFECYCLE_BYTES = 1_048_576


class Serving(Protocol):
    """What `models.serving.load` gives."""

    def predict(self, rows: Sequence[Any]) -> NDArray[np.float64]: ...
    def warm_up(self) -> None: ...


class Source(Protocol):
    """What `stream.reading.Tail` offers."""

    @property
    def caught_up(self) -> bool: ...
    def poll(self, timeout_seconds: float) -> list[Record]: ...
    def close(self) -> None: ...


class BadVersion(Exception):
    """A version's artefact or profile can't be loaded."""

    def __init__(self, card: VersionCard, error: Exception) -> None:
        super().__init__(f"version {card.version} can't be loaded: {error}")
        self.card = card
        self.error = error


@dataclass(frozen=True)
class Live:
    """One model with all that this stage loads of it. A `stream.core.processor.LiveModel`."""

    lifecycle: LifecycleChanged
    models: Mapping[int, Serving] = field(default_factory=dict)
    profiles: Mapping[int, ReferenceProfile] = field(default_factory=dict)

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
        """
        Raises:
            BadVersion: of the first that can't be loaded.
        """
        if self._stage in ("score", "shadow"):
            models = self._each(state, before, self._model)
            return Live(state, models={v: one for v, one in models.items() if one is not None})
        return Live(state, profiles=self._each(state, before, self._profile))

    def _each(
        self,
        state: LifecycleChanged,
        before: Live | None,
        load: Callable[[LifecycleChanged, VersionCard, Live | None], T],
    ) -> dict[int, T]:
        loaded: dict[int, T] = {}
        for card in self._needed(state):
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


class Lifecycle:
    """Follows the lifecycle topic and holds the fleet.

    Args:
        tell: sends an alert; called on this object's thread.
        on_failure: told what ended the thread; without lifecycle a worker must not go on.
        trusted: whose word counts; what others say changes nothing but raises an alert.
    """

    def __init__(
        self,
        source: Source,
        load: Callable[[LifecycleChanged, Live | None], Live],
        tell: Callable[[Alert], None],
        on_failure: Callable[[BaseException], None],
        trusted: Trust = NOBODY,
    ) -> None:
        self.suspects = Suspects("forged-lifecycle", tell)
        self._trusted = trusted
        self._source = source
        self._load = load
        self._tell = tell
        self._on_failure = on_failure
        self._fleet: Mapping[str, Live] = MappingProxyType({})
        self._failed: dict[str, LifecycleChanged] = {}
        self._alerts: dict[tuple[str, int], Alert] = {}
        self._gone: set[str] = set()
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifecycle", daemon=True)

    @property
    def fleet(self) -> Fleet:
        return self._fleet

    def reached(self, generations: Mapping[str, int]) -> bool:
        """The fleet is complete as of the start, and no older than these generations."""
        return self._ready.is_set() and all(
            model in self._gone
            or (model in self._fleet and self._fleet[model].lifecycle.generation >= generation)
            for model, generation in generations.items()
        )

    def start(self) -> None:
        self._thread.start()

    def wait_ready(self, timeout_seconds: float) -> bool:
        return self._ready.wait(timeout_seconds)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _run(self) -> None:
        retry = time.monotonic() + RETRY_SECONDS
        early: list[Record] = []
        try:
            while not self._stopping.is_set():
                records = self._source.poll(POLL_SECONDS)
                if not self._ready.is_set():
                    early += records
                    if not self._source.caught_up:
                        continue
                    records = early
                self.take(records)
                self._ready.set()
                self.suspects.settle()
                if time.monotonic() > retry:
                    retry = time.monotonic() + RETRY_SECONDS
                    self._adopt(list(self._failed.values()))
        except BaseException as error:
            self._on_failure(error)
        finally:
            self._source.close()

    def take(self, records: Iterable[Record]) -> None:
        """Adopt the newest state of each model among these records."""
        newest: dict[str, LifecycleChanged] = {}
        gone = set()
        for record in filter(self._is_trusted, records):
            if record.value is None:
                gone.add((record.key or b"").decode(errors="replace"))
                continue
            state = _read(record)
            if state is None:
                continue
            gone.discard(state.model)
            if state.generation > self._generation(state.model, newest):
                newest[state.model] = state
        self._gone |= gone
        self._gone -= newest.keys()
        if gone & self._fleet.keys():
            self._swap({name: live for name, live in self._fleet.items() if name not in gone})
        self._adopt([state for state in newest.values() if state.model not in gone])

    def _is_trusted(self, record: Record) -> bool:
        try:
            self._trusted.check(record)
        except Refused as refused:
            log.error("forged lifecycle record", offset=record.offset, error=str(refused))
            self.suspects.report(record, refused)
            return False
        return True

    def _generation(self, model: str, newest: Mapping[str, LifecycleChanged]) -> int:
        live = self._fleet.get(model)
        known = (newest.get(model), self._failed.get(model), live.lifecycle if live else None)
        return max((state.generation for state in known if state), default=0)

    def _adopt(self, states: Iterable[LifecycleChanged]) -> None:
        fleet = dict(self._fleet)
        for state in states:
            try:
                fleet[state.model] = self._load(state, fleet.get(state.model))
            except BadVersion as bad:
                self._failed[state.model] = state
                self._refuse(state, bad)
            else:
                self._failed.pop(state.model, None)
                self._resolve(state)
                log.info(
                    "live",
                    model=state.model,
                    generation=state.generation,
                    champion=state.champion,
                    shadows=state.shadows,
                )
        self._swap(fleet)

    def _swap(self, fleet: dict[str, Live]) -> None:
        self._fleet = MappingProxyType(fleet)

    def _refuse(self, state: LifecycleChanged, bad: BadVersion) -> None:
        place = (state.model, bad.card.version)
        if place in self._alerts:
            return
        live = self._fleet.get(state.model)
        goes_on = f"version {live.lifecycle.champion} goes on" if live else "nothing is served"
        problem = f"bad-artefact:{bad.card.version}"
        self._alerts[place] = Alert(
            alert_id=envelope.derived_id(state.model, problem, bad.card.artefact_digest),
            model=state.model,
            problem=problem,
            verdict="operation failed",
            state="open",
            severity="critical",
            sentence=f"Version {bad.card.version} can't be loaded, so {goes_on}: {bad.error}"[:500],
            version=bad.card.version,
            opened_ms=state.changed_ms,
            updated_ms=state.changed_ms,
            evidence={"generation": state.generation, "artefact_url": bad.card.artefact_url},
        )
        log.error("refused", model=state.model, version=bad.card.version, error=str(bad.error))
        self._tell(self._alerts[place])

    def _resolve(self, state: LifecycleChanged) -> None:
        """Whatever could not be loaded of this model is loaded now, or not wanted any more."""
        for place in [place for place in self._alerts if place[0] == state.model]:
            now_ms = int(time.time() * 1000)
            alert = self._alerts.pop(place)
            resolved = msgspec.structs.replace(
                alert,
                state="resolved",
                resolved_ms=now_ms,
                updated_ms=now_ms,
                revision=RAISED_STEP,
            )
            self._tell(resolved)


def _read(record: Record) -> LifecycleChanged | None:
    try:
        opened = envelope.open_record("lifecycle", record, max_bytes=MAX_LIFECYCLE_BYTES)
        return envelope.read(opened, LifecycleChanged)
    except Refused as error:
        log.error("not a lifecycle record", offset=record.offset, error=str(error))
        return None


def alert_record(alert: Alert) -> tuple[bytes, bytes]:
    """Key and value of an alert that a process sends by itself."""
    kind = "updated" if alert.revision else "opened"
    kind = "resolved" if alert.state == "resolved" else kind
    cause = (alert.alert_id, kind, *([alert.revision] if kind == "updated" else []))
    value = envelope.write(
        f"driftline.alert.{kind}.v1",
        alert,
        id=envelope.derived_id(*cause),
        source="worker",
        time_ms=alert.updated_ms,
    )
    return alert.alert_id.encode(), value


def build(
    stage: Stage,
    settings: Settings,
    source: Source,
    tell: Callable[[Alert], None],
    on_failure: Callable[[BaseException], None],
) -> Lifecycle:
    """The lifecycle of a stage; artefacts come through `models.artefacts`, by digest."""

    def fetch(url: str, digest: str) -> bytes:
        from models import artefacts

        return artefacts.fetch(url, digest, settings.max_artefact_bytes)

    def load(data: bytes, spec: ModelSpec) -> Serving:
        from models import serving  # brings scikit-learn, which only score needs

        return serving.load(data, spec)

    return Lifecycle(
        source, Loader(stage, fetch, load), tell, on_failure, trust(settings, "lifecycle")
    )
