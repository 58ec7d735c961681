"""Driftline's monitoring core on the rows of `watched`, with no broker.

    python -m benchmarks.core_work drift ROWS.npz 1000x20

`counts` is how many values lie in each bin, which is what is stored and merged; `distances` is
that and the features' Jensen-Shannon distances. `drift` is all that is told without labels: PSI and
Jensen-Shannon with their noise and intervals, of features and score. `figures` adds accuracy, log
loss and the rest with intervals; `shipped` adds what no peer does on the way: tests under the alarm
budget, expected performance, the worst slice. `stage` is all that, from JSON records to JSON
records: decoding, the join, examples and summaries. What is made once of a reference is made
beforehand, as peers fit theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace

from benchmarks.watched import NAMES, Floats, Rows, Way, answer
from models.examples import Examples
from models.features import Row
from models.joint import NAME as JOINT
from models.profile import ReferenceProfile
from models.profiling import Binner
from models.spec import Feature, Labels, ModelSpec, Ticks, Training, Window
from models.training import Trained, fit
from stream.core.deltas import Deltas
from stream.core.distances import jensen_shannon
from stream.core.evaluate import EvaluateProcessor
from stream.core.evaluation import ModelState
from stream.core.folding import Block, Made, fold_labels, fold_predictions
from stream.core.joining import Joined
from stream.core.labelled import Labelled
from stream.core.monitor import MonitorProcessor
from stream.core.processor import (
    Batch,
    Context,
    CoreSettings,
    Fleet,
    LiveModel,
    Output,
    Record,
    Records,
)
from stream.core.sources import Source, Sources
from stream.core.watching import Kit
from tests.monitoring import Live

ROW_MS: Final = 1_000  # one row a second: a window of n rows is one tick of n seconds
START_MS: Final = 10**12
BATCH: Final = 1_000
LABELS: Final = ("no", "yes")


class Dressed(NamedTuple):
    """A window as the join hands it on: predictions, and labels with what they belong to.

    Attributes:
        inputs, outputs: columns, as `Line.take` makes them of the decoder's tuples: `stage` does.
    """

    inputs: Floats
    outputs: Floats
    labels: list[float]


def spec_of(size: int, *, lean: bool) -> ModelSpec:
    """A model whose window, cell and tick are `size` rows."""
    return ModelSpec(
        name="watched",
        task="binary",
        classes=LABELS,
        features=tuple(Feature(name=name) for name in NAMES),
        searched=() if lean else None,
        windows=(Window(seconds=size * ROW_MS / 1000),),
        labels=Labels(horizon_seconds=10 * size * ROW_MS / 1000),
        ticks=Ticks(seconds=size * ROW_MS / 1000, allowed_lateness_seconds=0),
        training=Training(candidates=("logistic_regression",)),
    )


def live_of(reference: Rows, size: int, *, lean: bool) -> Live:
    """The model with its reference; lean: without what no peer looks at."""
    spec = spec_of(size, lean=lean)
    profile = fitted(spec, reference).profile
    return Live(spec, known=_without_extras(profile) if lean else profile)


def fitted(spec: ModelSpec, reference: Rows) -> Trained:
    """Version 1, on the reference."""
    count = len(reference.labels)
    known = list(map(tuple, reference.features.tolist()))
    times_ms = START_MS + np.arange(count, dtype=np.int64) * ROW_MS
    return fit(spec, Examples(known, reference.labels, times_ms, np.ones(count)), 1)


def _without_extras(profile: ReferenceProfile) -> ReferenceProfile:
    signals = tuple(one for one in profile.signals if one.name != JOINT)
    return replace(profile, signals=signals, joint=None, estimator=None, slices=None)


def dress(_: int, window: Rows) -> Dressed:
    columns = np.ascontiguousarray(window.features.T)
    return Dressed(columns, window.scores[:, None], window.labels.tolist())


class Core:
    """Fold and evaluate, in one process, with what the stages would send in between left out.

    Args:
        kit: with it the champion's ticks are judged.
    """

    def __init__(self, live: Live, *, labels: bool, kit: Kit | None) -> None:
        self._live, self._labels, self._kit = live, labels, kit
        self._source = Sources({live.lifecycle.model: live}).of(live.lifecycle.model, 1, ())

    def watch(self, windows: Sequence[Dressed]) -> list[object]:
        """Everything that is said of windows that follow one another."""
        state, facts = ModelState(), list[object]()
        facts += state.adopt(self._live.lifecycle)
        state.closed = START_MS // self._source.tick_ms
        for number, window in enumerate(windows, start=state.closed):
            deltas = Deltas()
            self._fold(window, number * self._source.tick_ms, deltas)
            for delta in deltas.take(0):
                state.take(delta)
            facts += state.close(number + 1, self._live, self._kit)
        return facts

    def _fold(self, window: Dressed, start_ms: int, deltas: Deltas) -> None:
        source = self._source
        times_ms = np.arange(start_ms, start_ms + len(window.outputs) * ROW_MS, ROW_MS)
        codes = _codes(source, window.inputs)
        block = Block(times_ms, codes, window.inputs, window.outputs)
        fold_predictions(Made(blocks=[(source, block)]), deltas)
        if self._labels:
            at_ms, outputs = times_ms.tolist(), map(tuple, window.outputs.tolist())
            kinds, weights = [source.kind] * len(codes), [1.0] * len(codes)
            ids, offsets = [""] * len(codes), [0] * len(codes)
            columns = ids, kinds, offsets, at_ms, at_ms, at_ms, codes, outputs
            joined = list(map(Joined, *columns, window.labels, weights))
            fold_labels(Labelled.gathered(joined, lambda _: source), deltas)


class Binned:
    """Counts of each window's features and score by bin, and at most how far the features are."""

    def __init__(self, live: Live, *, far: bool) -> None:
        profile = _profile_of(live)
        self._binner, self._far = Binner(profile, live.lifecycle.spec), far
        known = {signal.name: signal.counts for signal in profile.signals}
        self._reference = np.array([known[name] for name in NAMES], dtype=np.float64)

    def watch(self, windows: Sequence[Dressed]) -> list[object]:
        """By window: counts by signal, or distances in the order of the features."""
        return [self._watch(window) for window in windows]

    def _watch(self, window: Dressed) -> object:
        counts = self._binner.counts(window.inputs, window.outputs)
        if not self._far:
            return counts
        return jensen_shannon(self._reference, np.array([counts[name] for name in NAMES]))


def _codes(source: Source, inputs: Floats) -> list[bytes]:
    """Without segments, for which rows would be needed."""
    rows: list[Row] = [()] * inputs.shape[1]
    return source.all_codes(rows, inputs) if source.is_coded else [b""] * len(rows)


def _profile_of(live: Live) -> ReferenceProfile:
    profile = live.profile(1)
    if profile is None:
        raise ValueError("there is no reference")
    return profile


def _kit_of(live: Live) -> Kit:
    return Kit(live.lifecycle.spec, _profile_of(live))


def _core(size: int, *, labels: bool, lean: bool) -> Way:
    def prepare(reference: Rows) -> Callable[[Sequence[Dressed]], object]:
        live = live_of(reference, size, lean=lean)
        return Core(live, labels=labels, kit=None if lean else _kit_of(live)).watch

    return Way(dress, prepare, version("driftline"))


def _binned(size: int, *, far: bool) -> Way:
    def prepare(reference: Rows) -> Callable[[Sequence[Dressed]], object]:
        return Binned(live_of(reference, size, lean=True), far=far).watch

    return Way(dress, prepare, version("driftline"))


class Fitted(EvaluateProcessor):
    """With the champion's tables, which a worker makes once a version, made beforehand."""

    def __init__(self, context: Context, kit: Kit) -> None:
        super().__init__(context)
        self._fitted = kit

    def _kit(self, name: str, live: LiveModel) -> Kit:
        return self._fitted


class Stages:
    """Monitor and evaluate as they run on a partition each, without the broker between them.

    Args:
        kit: of the fleet's only model; without it each model's is made when its first tick closes.
    """

    def __init__(self, fleet: Fleet, kit: Kit | None = None) -> None:
        counts = dict.fromkeys(("predictions", "feedback", "examples", "summaries"), 1)
        context = Context(0, counts, CoreSettings())
        self._fleet, self._now_ms = fleet, START_MS
        self._monitor = MonitorProcessor(context)
        self._evaluate = Fitted(context, kit) if kit else EvaluateProcessor(context)
        self._summaries = 0

    def watch(self, windows: Sequence[Sequence[Sequence[Batch]]]) -> list[Output]:
        """All records that both write about windows, but for the summaries between them."""
        written = [one for batches in chain.from_iterable(windows) for one in self.take(batches)]
        last = self._monitor.advance(self._now_ms + 2 * ROW_MS, True, self._fleet)
        return written + self._sent_on(last)

    def take(self, batches: Sequence[Batch]) -> list[Output]:
        """The same about batches, to the last record of which all partitions have come."""
        written = [
            one
            for batch in batches
            for one in self._sent_on(self._monitor.apply(batch, self._fleet))
        ]
        self._now_ms = batches[-1].records[-1].timestamp_ms
        return written + self._sent_on(self._monitor.advance(self._now_ms, True, self._fleet))

    def checkpoint(self) -> None:
        """Cut out what both write of their state, as workers do with every commit."""
        self._monitor.changes(complete=False)
        self._evaluate.changes(complete=False)

    def _sent_on(self, outputs: Sequence[Output]) -> list[Output]:
        """Summaries are evaluated, the others are written."""
        between = [one for one in outputs if one.entity == "summaries"]
        others = [one for one in outputs if one.entity != "summaries"]
        return others + self._evaluate.apply(self._numbered(between), self._fleet)

    def _numbered(self, outputs: Sequence[Output]) -> Batch:
        first = self._summaries
        self._summaries += len(outputs)
        records = [
            Record(number, START_MS, one.key, one.value)
            for number, one in enumerate(outputs, start=first)
        ]
        return Batch("summaries", 0, records)


def batches(number: int, window: Rows) -> list[list[Batch]]:
    """Predictions as JSON, each thousand with their labels; columns, as the transport makes."""
    first, rows = number * len(window.labels), window.features.tolist()
    made = [
        {
            "prediction_id": f"r-{place:08d}",
            "model": "watched",
            "version": 1,
            "output": score,
            "features": dict(zip(NAMES, row, strict=True)),
        }
        for place, (row, score) in enumerate(
            zip(rows, window.scores.tolist(), strict=True), start=first
        )
    ]
    told = [
        {"prediction_id": one["prediction_id"], "model": "watched", "label": LABELS[int(label)]}
        for one, label in zip(made, window.labels, strict=True)
    ]
    return [
        [
            Batch(entity, 0, Records.of(_record(one, first + at + i) for i, one in enumerate(data)))
            for entity, data in (
                ("predictions", made[at : at + BATCH]),
                ("feedback", told[at : at + BATCH]),
            )
        ]
        for at in range(0, len(rows), BATCH)
    ]


def _record(data: dict[str, Any], place: int) -> Record:
    key = str(data["prediction_id"]).encode()
    return Record(place, START_MS + place * ROW_MS, key, msgspec.json.encode(data))


def _stage(size: int) -> Way:
    def prepare(reference: Rows) -> Callable[[Sequence[Sequence[Sequence[Batch]]]], object]:
        live = live_of(reference, size, lean=False)
        kit = _kit_of(live)
        return lambda windows: Stages({live.lifecycle.model: live}, kit).watch(windows)

    return Way(batches, prepare, version("driftline"))


WAYS: Final[dict[str, Callable[[int], Way]]] = {
    "counts": partial(_binned, far=False),
    "distances": partial(_binned, far=True),
    "drift": partial(_core, labels=False, lean=True),
    "figures": partial(_core, labels=True, lean=True),
    "shipped": partial(_core, labels=True, lean=False),
    "stage": _stage,
}

if __name__ == "__main__":
    answer(WAYS, sys.argv[1:])
