"""What is live: the lifecycle topic as a mapping that changes as a whole.

A thread follows the topic, loads what its stage needs off to the side, checks the digests of the
bytes, warms up, and only then replaces the mapping; partitions see the old one or the new one
between two batches, never a half. What can't be loaded changes nothing but raises an alert.

Where versions are held in bounded number, those that are live as the process starts are loaded when
their model is first asked for; what changes later, before it is live.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

import msgspec
import structlog

from models.spec import ModelSpec
from stream import envelope
from stream.core.alerts import RAISED_STEP
from stream.core.processor import Fleet, Record
from stream.errors import Refused
from stream.events import Alert, LifecycleChanged
from stream.holding import NEVER, Held, Holdings, Load, Waiting, idle
from stream.loading import BadVersion, Loader, Serving
from stream.settings import Settings
from stream.signing import NOBODY, Trust, trust
from stream.suspects import Suspects
from stream.topics import Stage

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.2
RETRY_SECONDS = 5.0  # what could not be loaded is tried again
MAX_LIFECYCLE_BYTES = 1_048_576


class Source(Protocol):
    """What `stream.reading.Tail` offers."""

    @property
    def caught_up(self) -> bool: ...
    def poll(self, timeout_seconds: float) -> list[Record]: ...
    def close(self) -> None: ...


class Lifecycle:
    """Follows the lifecycle topic and holds the fleet.

    Args:
        tell: sends an alert; called on this object's thread.
        on_failure: told what ended the thread; without lifecycle a worker must not go on.
        trusted: whose word counts; what others say changes nothing but raises an alert.
        keep: versions that are held at most, beside those of models with traffic; None: all are.
    """

    def __init__(
        self,
        source: Source,
        load: Load,
        tell: Callable[[Alert], None],
        on_failure: Callable[[BaseException], None],
        trusted: Trust = NOBODY,
        keep: int | None = None,
    ) -> None:
        self.suspects = Suspects("forged-lifecycle", tell)
        self._trusted = trusted
        self._source = source
        self._load = load
        self._tell = tell
        self._on_failure = on_failure
        self._keep = keep
        self._waiting = None if keep is None else Waiting(load)
        self._held: dict[str, Held] = {}
        self._fleet: Fleet = MappingProxyType({})
        self._failed: dict[str, LifecycleChanged] = {}
        self._alerts: dict[tuple[str, int], Alert] = {}
        self._gone: set[str] = set()
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lifecycle", daemon=True)

    @property
    def fleet(self) -> Fleet:
        return self._fleet

    @property
    def generations(self) -> Mapping[str, int]:
        """Of what is live, by model; nothing is loaded to tell it."""
        return {name: held.lifecycle.generation for name, held in self._held.items()}

    def reached(self, generations: Mapping[str, int]) -> bool:
        """The fleet is complete as of the start, and no older than these generations."""
        held = self._held
        return self._ready.is_set() and all(
            model in self._gone
            or (model in held and held[model].lifecycle.generation >= generation)
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
        if self._waiting is not None:
            self._waiting.stop()

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
                self.tend()
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
        if gone & self._held.keys():
            self._swap({name: held for name, held in self._held.items() if name not in gone})
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
        held = self._held.get(model)
        known = (newest.get(model), self._failed.get(model), held.lifecycle if held else None)
        return max((state.generation for state in known if state), default=0)

    def _adopt(self, states: Sequence[LifecycleChanged]) -> None:
        if not states:
            return  # whoever meets another mapping begins afresh
        fleet = dict(self._held)
        for state in states:
            before = fleet.get(state.model)
            asked = before.asked if before else NEVER
            if self._may_wait(state, before):
                fleet[state.model] = Held(state, self._waiting, None, asked)
                _say_live(state)
                continue
            try:
                live = self._load(state, before.live if before else None)
            except BadVersion as bad:
                self._failed[state.model] = state
                self._refuse(state, bad)
            else:
                self._held = fleet = fleet | {state.model: Held(state, self._waiting, live, asked)}
                if live.bad is not None:
                    self._failed[state.model] = state
                    self._refuse(state, live.bad)
                else:
                    self._failed.pop(state.model, None)
                    self._resolve(state)
                _say_live(state)
        self._swap(fleet)

    def _may_wait(self, state: LifecycleChanged, before: Held | None) -> bool:
        """Whether it can be live before it is loaded: at the start, and where it is not loaded
        anyhow and has the same versions. What is new must prove first that it can be loaded."""
        if self._waiting is None:
            return False
        if not self._ready.is_set():
            return True
        return before is not None and before.is_cold and _brings_nothing(state, before.lifecycle)

    def tend(self) -> None:
        """See to what was loaded because it was asked for; let go what nobody asks for any more."""
        if self._waiting is None or self._keep is None:
            return
        tried = [held for held in self._waiting.done() if self._is_current(held)]
        for held in tried:
            if held.bad is not None:
                self._failed[held.lifecycle.model] = held.lifecycle
                self._refuse(held.lifecycle, held.bad)
        unasked = {held.lifecycle.model: held.cold() for held in idle(self._held, self._keep)}
        if tried or unasked:
            self._swap(self._held | unasked)

    def _is_current(self, held: Held) -> bool:
        return self._held.get(held.lifecycle.model) is held

    def _swap(self, held: dict[str, Held]) -> None:
        """A new mapping, so that what waits is tried again."""
        self._held = held
        if self._waiting is not None:
            self._fleet = Holdings(held)
        else:
            lives = {name: one.live for name, one in held.items() if one.live is not None}
            self._fleet = MappingProxyType(lives)

    def _refuse(self, state: LifecycleChanged, bad: BadVersion) -> None:
        place = (state.model, bad.card.version)
        if place in self._alerts:
            return
        held = self._held.get(state.model)
        goes_on = "nothing is served"
        if held is not None and (held.live is not None or held.is_cold):
            goes_on = f"version {held.lifecycle.champion} goes on"
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


def _say_live(state: LifecycleChanged) -> None:
    log.info(
        "live",
        model=state.model,
        generation=state.generation,
        champion=state.champion,
        shadows=state.shadows,
    )


def _brings_nothing(new: LifecycleChanged, old: LifecycleChanged) -> bool:
    """All that predicts is of the same bytes and means the same."""
    return new.spec == old.spec and _predicting(new) <= _predicting(old)


def _predicting(state: LifecycleChanged) -> set[tuple[int, str]]:
    cards = {card.version: card.artefact_digest for card in state.versions}
    wanted = {state.champion, *state.shadows} - {None}
    return {(version, cards.get(version, "")) for version in wanted if version is not None}


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
    predicts = stage in ("score", "shadow")

    def fetch(url: str, digest: str) -> bytes:
        from models import artefacts

        return artefacts.fetch(url, digest, settings.max_artefact_bytes)

    def load(data: bytes, spec: ModelSpec) -> Serving:
        from models import serving

        return serving.load(data, spec)

    return Lifecycle(
        source,
        Loader(stage, fetch, load),
        tell,
        on_failure,
        trust(settings, "lifecycle"),
        settings.held_versions if predicts else None,
    )
