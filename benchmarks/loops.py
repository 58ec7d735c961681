"""One model on one stream without Kafka: the core's own verdicts, and a trainer that obeys them.

What monitor and trainer do is done here by the same functions on whole ticks: counts on the
reference's bins, bounded losses on theirs, pairs against every shadow; fits by `models.training`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.real_streams import Stream
from models import losses, serving, training
from models.examples import Examples, TrainingRefused
from models.profile import ReferenceProfile
from models.profiling import Binner
from models.serving import ServingModel
from models.spec import ModelSpec
from stream.core import judging
from stream.core.judging import Case, Verdicts
from stream.core.ticks import Group, Tick
from stream.core.watching import Kit
from stream.events import MICRO, Alert, Command, LifecycleChanged, Pairs

Floats = NDArray[np.float64]


class Version(NamedTuple):
    """A fitted version."""

    model: ServingModel
    profile: ReferenceProfile
    binner: Binner

    @property
    def scale(self) -> float:
        return self.profile.validation.loss_scale


class Fits:
    """Fits of one stream; the same rows are fitted once, whoever asks."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self._stream = stream
        self._seed = seed
        self._known: dict[int, Version | None] = {}

    def until(self, end: int) -> Version | None:
        """A version of the newest rows before `end`; None if none can be fitted."""
        if end not in self._known:
            most = self._stream.spec.training.maximum_rows
            examples = self._stream.examples.part(max(0, end - most), end)
            self._known[end] = fitted(self._stream.spec, examples, self._seed)
        return self._known[end]


def fitted(spec: ModelSpec, examples: Examples, seed: int) -> Version | None:
    try:
        trained = training.fit(spec, examples, seed)
    except TrainingRefused:
        return None
    model = serving.load(trained.artefact, spec)
    return Version(model, trained.profile, Binner(trained.profile, spec))


class Scored(NamedTuple):
    """What a strategy said in one tick, and what was decided after it."""

    outputs: Floats
    alarmed: tuple[str, ...]  # problems whose alert opened
    retrained: bool


def driftline(stream: Stream, first: Version, fits: Fits, ticks: list[range]) -> Iterator[Scored]:
    """The whole loop: harm asks for a fit, its challenger is proven in shadow, then it is live."""
    world = _World(stream, first, fits)
    for tick in ticks:
        yield world.step(tick)


class _World:
    def __init__(self, stream: Stream, first: Version, fits: Fits) -> None:
        self._stream, self._fits = stream, fits
        self._spec = stream.spec
        self._versions = {1: first}
        self._verdicts = Verdicts()
        self._lifecycle = LifecycleChanged(
            model=stream.name,
            generation=1,
            spec=stream.spec,
            spec_revision=1,
            champion=1,
            versions=[],
            changed_ms=0,
        )
        judging.adopt(self._verdicts, self._lifecycle, 0)
        self._kit = Kit(self._spec, first.profile)

    def step(self, tick: range) -> Scored:
        examples = self._stream.examples.part(tick.start, tick.stop)
        champion, watch = self._lifecycle.champion, self._verdicts.watch
        assert champion is not None
        assert watch is not None
        outputs = self._versions[champion].model.predict(examples.rows)
        start_ms, end_ms = self._span(tick)
        group = Group(start_ms, end_ms, self._counts(champion, examples, outputs, tick.start))
        case = Case(self._verdicts, watch, self._kit, self._lifecycle, end_ms)
        facts = list(judging.judge(case, group))
        opened = {f.problem for f in facts if isinstance(f, Alert) and f.opened_ms == end_ms}
        told = [self._obey(f, tick.stop, end_ms) for f in facts if isinstance(f, Command)]
        return Scored(outputs, tuple(sorted(opened)), any(told))

    def _span(self, tick: range) -> tuple[int, int]:
        times = self._stream.examples.times_ms
        return int(times[tick.start]), int(times[tick.stop - 1]) + 1

    def _counts(self, champion: int, examples: Examples, outputs: Floats, start: int) -> Tick:
        version, spec, labels = self._versions[champion], self._spec, examples.labels
        own = losses.losses(spec, outputs, labels)
        mine = losses.bounded(own, version.scale)
        ids = [str(start + i) for i in range(len(labels))]
        bins = np.bincount(losses.loss_bin(mine, ids), minlength=20)
        signals = version.binner.counts(examples.rows, outputs)
        pairs = {}
        for shadow in self._lifecycle.shadows:
            raw = losses.losses(spec, self._versions[shadow].model.predict(examples.rows), labels)
            gain = mine - losses.bounded(raw, version.scale)
            pairs[str(shadow)] = Pairs(
                n=len(gain),
                d_sum=round(gain.sum() * MICRO),
                d_squares=round((gain**2).sum() * MICRO),
                losses=round(own.sum() * MICRO),
                shadow_losses=round(raw.sum() * MICRO),
            )
        counts = {name: count.tolist() for name, count in signals.items()}
        return Tick(predictions=len(labels), signals=counts, bets=bins.tolist(), pairs=pairs)

    def _obey(self, command: Command, end: int, now_ms: int) -> bool:
        """Do what a command says, as the registry would; whether something was fitted."""
        before = self._lifecycle
        if command.generation != before.generation:
            return False
        match command.kind:
            case "retrain":
                version = self._fits.until(end)
                if version is None:
                    # Asked for again in an hour or a hundred ticks; but a tick is of 100 rows here.
                    self._verdicts.issued.pop("retrain")
                    return False
                number = max(self._versions) + 1
                self._versions[number] = version
                self._change(now_ms, challengers=[number])
                return True
            case "promote":
                self._change(
                    now_ms,
                    champion=command.version,
                    previous=before.champion,
                    probation=True,
                    challengers=[],
                )
            case "reject":
                self._change(now_ms, challengers=[])
            case "rollback":
                self._change(now_ms, champion=command.version, previous=None, probation=False)
            case "settle":
                self._change(now_ms, previous=None, probation=False)
        return False

    def _change(self, now_ms: int, **fields: object) -> None:
        before = self._lifecycle
        self._lifecycle = msgspec.structs.replace(
            before, generation=before.generation + 1, changed_ms=now_ms, **fields
        )
        judging.adopt(self._verdicts, self._lifecycle, now_ms)
        champion = self._lifecycle.champion
        if champion is not None and champion != before.champion:
            self._kit = Kit(self._spec, self._versions[champion].profile)
