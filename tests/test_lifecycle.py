"""What is live changes whole, only forward, and only to what could be loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Literal

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from models import profile as profiles
from models.artefacts import nothing_of
from models.profile import ReferenceProfile, Validation
from models.spec import Feature, ModelSpec
from stream import envelope
from stream.core.processor import Record
from stream.events import Alert, LifecycleChanged, VersionCard
from stream.lifecycle import Lifecycle, alert_record
from stream.loading import BadVersion, Live, Loader, Serving
from stream.topics import Stage

SPEC = ModelSpec(
    name="churn", task="binary", classes=("no", "yes"), features=(Feature(name="age"),)
)
PROFILE = ReferenceProfile(
    model="churn",
    rows=1,
    signals=(),
    validation=Validation(n=1, loss_bins=(1,), loss_scale=4.0, metrics={}),
)


class Model:
    """Serves the number that its artefact is."""

    def __init__(self, data: bytes) -> None:
        self.number = float(data)
        self.warm = False

    def predict(self, rows: Sequence[object]) -> NDArray[np.float64]:
        return np.full((len(rows), 1), self.number)

    def warm_up(self) -> None:
        self.warm = True


class Shelf:
    """Artefacts and profiles by URL; counts what was fetched."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {}
        self.fetched: list[str] = []

    def fetch(self, url: str, digest: str) -> bytes:
        self.fetched.append(url)
        data = self.bytes[url]
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("the digest differs")
        return data

    def card(self, version: int, artefact: bytes) -> VersionCard:
        urls = f"file:v{version}", f"file:p{version}"
        self.bytes.setdefault(urls[0], artefact)
        self.bytes.setdefault(urls[1], profiles.encode(PROFILE))
        return VersionCard(
            version=version,
            artefact_url=urls[0],
            artefact_digest=hashlib.sha256(artefact).hexdigest(),
            profile_url=urls[1],
            profile_digest=hashlib.sha256(profiles.encode(PROFILE)).hexdigest(),
        )


class Elsewhere:
    """A challenger of a model that is served elsewhere, whose champion's bytes are not here."""

    def __init__(self, stage: Stage, served: Literal["here", "elsewhere"] = "elsewhere") -> None:
        self.shelf = Shelf()
        cards = [self.shelf.card(1, nothing_of("churn", 1)), self.shelf.card(2, b"0.2")]
        loader = Loader(stage, self.shelf.fetch, lambda data, _: Model(data))
        state = LifecycleChanged(
            model="churn",
            generation=1,
            spec=msgspec.structs.replace(SPEC, served=served),
            spec_revision=1,
            champion=1,
            challengers=[2],
            versions=cards,
            changed_ms=0,
        )
        self._load = partial(loader, state, None)

    def load(self) -> Live:
        return self._load()


def test_shadow_loads_what_is_here_of_models_that_are_served_elsewhere_and_nothing_else() -> None:
    asked = Elsewhere("shadow")
    assert list(asked.load().models) == [2]
    assert asked.shelf.fetched == ["file:v2"]
    assert Elsewhere("score").load().models == {}
    assert Elsewhere("shadow", "here").load().models == {}
    with pytest.raises(BadVersion):  # score serves it, so it must be here
        Elsewhere("score", "here").load()


class Follower:
    """A lifecycle without its thread, and the alerts that it told.

    Args:
        keep: as of `Lifecycle`.
    """

    def __init__(self, stage: Stage = "score", keep: int | None = None) -> None:
        self.shelf = Shelf()
        self.alerts: list[Alert] = []

        def load(data: bytes, _: ModelSpec) -> Serving:
            return Model(data)

        self.lifecycle = Lifecycle(
            None,  # type: ignore[arg-type]
            Loader(stage, self.shelf.fetch, load),
            self.alerts.append,
            lambda error: pytest.fail(str(error)),
            keep=keep,
        )

    def state(
        self, generation: int, champion: int, *challengers: int, model: str = "churn"
    ) -> LifecycleChanged:
        versions = [self.shelf.card(v, b"%d" % v) for v in (champion, *challengers)]
        return LifecycleChanged(
            model=model,
            generation=generation,
            spec=msgspec.structs.replace(SPEC, name=model),
            spec_revision=1,
            champion=champion,
            challengers=list(challengers),
            versions=versions,
            changed_ms=1000 * generation,
        )

    def take(self, *states: LifecycleChanged) -> None:
        self.lifecycle.take(record(state) for state in states)

    @property
    def live(self) -> Live:
        live = self.lifecycle.fleet["churn"]
        assert isinstance(live, Live)
        return live


def record(state: LifecycleChanged) -> Record:
    value = envelope.write(
        "driftline.lifecycle.changed.v1", state, id="x", source="test", time_ms=state.changed_ms
    )
    return Record(0, state.changed_ms, state.model.encode(), value)


def test_champion_and_shadows_are_loaded_and_warm() -> None:
    """What is switched to has predicted before."""
    follower = Follower()
    follower.take(follower.state(1, 1, 2))

    assert follower.live.predict(2, [(0.0,), (1.0,)]).tolist() == [[2.0], [2.0]]
    assert all(isinstance(m, Model) and m.warm for m in follower.live.models.values())


def test_only_the_newest_state_of_a_model_is_loaded() -> None:
    """A worker that reads a long history loads what is live now, once."""
    follower = Follower()
    follower.take(follower.state(1, 1), follower.state(2, 2), follower.state(3, 3))

    assert follower.live.lifecycle.champion == 3
    assert follower.shelf.fetched == ["file:v3"]


def test_an_older_generation_changes_nothing() -> None:
    follower = Follower()
    follower.take(follower.state(5, 2))
    follower.take(follower.state(4, 1), follower.state(5, 1))

    assert follower.live.lifecycle.champion == 2


def test_what_is_loaded_is_not_fetched_again() -> None:
    """A challenger that becomes champion is served from the same object."""
    follower = Follower()
    follower.take(follower.state(1, 1, 2))
    before = follower.live.models[2]
    follower.take(follower.state(2, 2, 1))

    assert follower.live.models[2] is before
    assert sorted(follower.shelf.fetched) == ["file:v1", "file:v2"]


def test_the_mapping_is_replaced_not_changed() -> None:
    """A batch that began with a fleet ends with it."""
    follower = Follower()
    follower.take(follower.state(1, 1))
    before = follower.lifecycle.fleet
    follower.take(follower.state(2, 2))

    assert before["churn"].lifecycle.generation == 1
    assert follower.live.lifecycle.generation == 2


def test_nothing_new_leaves_the_mapping_as_it_is() -> None:
    """Lifecycle is asked several times a second; partitions begin afresh with another mapping."""
    follower = Follower()
    follower.take(follower.state(1, 1))
    before = follower.lifecycle.fleet
    follower.take()
    follower.take(follower.state(1, 1))

    assert follower.lifecycle.fleet is before


def test_a_bad_artefact_leaves_the_old_version_live_and_raises_one_alert() -> None:
    """Tried again and again, it is one problem, with one id; loaded at last, it is resolved."""
    follower = Follower()
    follower.take(follower.state(1, 1))
    state = follower.state(2, 2)
    follower.shelf.bytes["file:v2"] = b"3"
    follower.take(state)
    follower.lifecycle._adopt([state])

    assert follower.live.lifecycle.champion == 1
    (alert,) = follower.alerts
    assert (alert.problem, alert.state, alert.severity) == ("bad-artefact:2", "open", "critical")
    assert "digest" in alert.sentence
    assert "version 1 goes on" in alert.sentence
    follower.shelf.bytes["file:v2"] = b"2"
    follower.lifecycle._adopt([state])
    assert follower.live.lifecycle.champion == 2
    assert [a.state for a in follower.alerts] == ["open", "resolved"]
    assert len({a.alert_id for a in follower.alerts}) == 1


def test_two_workers_raise_the_same_alert() -> None:
    """Their records have the same key and bytes, so consoles show one."""
    records = []
    for _ in range(2):
        follower = Follower()
        state = follower.state(1, 1)
        follower.shelf.bytes["file:v1"] = b"?"
        follower.take(state)
        records.append(alert_record(follower.alerts[0]))

    assert records[0] == records[1]


def test_monitor_loads_profiles_and_no_artefacts() -> None:
    """Of all versions that it may meet, so that predictions of old ones can be folded."""
    follower = Follower("monitor")
    follower.take(follower.state(1, 1, 2))

    assert follower.live.profile(1) == follower.live.profile(2) == PROFILE
    assert follower.live.profile(3) is None
    assert sorted(follower.shelf.fetched) == ["file:p1", "file:p2"]


def test_models_served_elsewhere_need_no_artefact() -> None:
    follower = Follower()
    state = follower.state(1, 1)
    follower.shelf.bytes.clear()
    elsewhere = msgspec.structs.replace(SPEC, served="elsewhere")
    follower.take(msgspec.structs.replace(state, spec=elsewhere))

    assert follower.live.lifecycle.champion == 1


def test_a_tombstone_removes_a_model() -> None:
    follower = Follower()
    follower.take(follower.state(1, 1))
    follower.lifecycle.take([Record(1, 0, b"churn", None)])

    assert dict(follower.lifecycle.fleet) == {}


def test_rubbish_on_the_topic_is_passed_over() -> None:
    follower = Follower()
    follower.lifecycle.take([Record(0, 0, b"churn", b"{"), record(follower.state(1, 1))])

    assert follower.live.lifecycle.generation == 1


def test_a_restore_waits_for_the_generation_it_knows() -> None:
    """State that saw generation 2 does not meet generation 1; a removed model holds nothing up."""
    follower = Follower()
    follower.lifecycle._ready.set()
    follower.take(follower.state(1, 1))

    assert follower.lifecycle.reached({"churn": 1})
    assert not follower.lifecycle.reached({"churn": 2})
    assert not follower.lifecycle.reached({"other": 1})
    follower.lifecycle.take([Record(1, 0, b"other", None)])
    assert follower.lifecycle.reached({"other": 1})


def test_nothing_is_reached_before_the_topic_was_read() -> None:
    assert not Follower().lifecycle.reached({})


def test_bad_version_names_its_version() -> None:
    card = Shelf().card(7, b"7")

    assert "version 7" in str(BadVersion(card, ValueError("why")))
