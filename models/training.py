"""Training one version: split by time, try the candidates, keep the best, measure it honestly.

Pure and seeded: the same examples, spec and seed give the same bytes. The newest slice is held out
from every candidate; the version that is kept is the very one that was measured on it, unless the
spec asks for the chosen one to be fitted again on all rows (`training.refit`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, Protocol

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict, replace
from numpy.typing import NDArray

from models import serving
from models.candidates import Lesson, Unusable, learner
from models.estimating import fit_estimator
from models.examples import Examples, Split, TrainingRefused, check_learnable, split
from models.features import Coder
from models.losses import LOG_LOSS_SCALE
from models.profile import ReferenceProfile, Validation
from models.profiling import build_profile
from models.runs import Candidate, Figure
from models.serving import ServingModel
from models.slicing import sliced
from models.spec import BASELINE, CandidateSpec, ModelSpec
from models.threads import one_thread
from models.validation import constant, judged_by, kept, validate

Floats = NDArray[np.float64]


class TooCostly(Exception):
    """A candidate took more time than it may; the others stay in the race."""


class Watch(Protocol):
    """Is told what is being fitted, and may end it by raising `TooCostly` within the context."""

    def trying(self, name: str, place: int, of: int) -> AbstractContextManager[None]: ...


class Trained(Struct, frozen=True):
    """A version, ready to be registered.

    Attributes:
        fitted_rows, held_out_rows: examples in each slice; the held-out one is the newest.
        late_rows: older examples that were left out because their label came in the newest slice.
        split_ms: event time of the first held-out example.
    """

    algorithm: str
    artefact: bytes
    profile: ReferenceProfile
    candidates: tuple[Candidate, ...]
    fitted_rows: int
    held_out_rows: int
    late_rows: int
    first_ms: int
    split_ms: int
    last_ms: int
    parameters: dict[str, object]

    @property
    def metrics(self) -> dict[str, Figure]:
        return next(c.metrics for c in self.candidates if c.chosen)


class _Fit(NamedTuple):
    asked: CandidateSpec
    candidate: Candidate
    artefact: bytes
    outputs: Floats  # on the held-out slice


class _Judge:
    """Measures every candidate on the held-out slice, in the same way."""

    def __init__(self, spec: ModelSpec, slices: Split, scale: float) -> None:
        self.newest = slices.newest
        self._spec = spec
        self._scale = scale
        self._constant = constant(spec, slices.older, len(slices.newest.rows))

    def candidate(self, name: str, outputs: Floats) -> Candidate:
        found = validate(self._spec, outputs, self.newest, self._scale, self._constant)
        return Candidate(name=name, **found._asdict())

    def baseline(self) -> Candidate:
        found = validate(self._spec, self._constant, self.newest, self._scale)
        return Candidate(name=BASELINE, metrics=found.metrics)

    def validation(self, best: _Fit) -> Validation:
        metrics = best.candidate.metrics
        return kept(self._spec, best.outputs, self.newest.labels, self._scale, metrics)


def fit(
    spec: ModelSpec,
    examples: Examples,
    seed: int,
    *,
    watch: Watch | None = None,
    champion: ServingModel | None = None,
    modules: Sequence[str] = (),
) -> Trained:
    """Fit the spec's candidates on the older rows and keep the best on the newest.

    Args:
        watch: is told what is being fitted.
        champion: the live version; an online learner of its kind goes on from it.
        modules: packages that a user's own learners may be imported from.

    Raises:
        TrainingRefused: too few rows, one class only, or every candidate failed.
    """
    examples = examples.part(-spec.training.maximum_rows)
    slices = split(spec, examples)
    judge = _Judge(spec, slices, loss_scale(spec, slices.older.labels))
    coder = Coder.fit(spec, slices.older.rows)
    lesson = Lesson(spec, coder, slices.older, seed, champion)
    one_thread()
    candidates = spec.training.tried
    of = len(candidates) + spec.training.refit
    tried = []
    for place, one in enumerate(candidates, start=1):
        watching = watch.trying(one.shown, place, of) if watch else nullcontext()
        tried.append(_try(one, lesson, judge, modules, watching))
    fits = [one for one in tried if isinstance(one, _Fit)]
    if not fits:
        failed = [one for one in tried if isinstance(one, Candidate)]
        raise TrainingRefused("; ".join(f"{c.name}: {c.problem}" for c in failed), failed)
    best = min(fits, key=lambda f: f.candidate.metrics[judged_by(spec)].value)
    serving_rows, artefact = 0, best.artefact
    if spec.training.refit:
        again = lesson._replace(coder=Coder.fit(spec, examples.rows), older=examples)
        watching = watch.trying(f"{best.asked.shown} again", of, of) if watch else nullcontext()
        serving_rows, artefact = _again(best, again, modules, watching)
    return Trained(
        algorithm=best.candidate.name,
        artefact=artefact,
        profile=_profile(spec, examples, slices.newest, best.outputs, judge.validation(best)),
        candidates=(
            *(_record(t, chosen=t is best) for t in tried),
            judge.baseline(),
        ),
        fitted_rows=len(slices.older.rows),
        held_out_rows=len(slices.newest.rows),
        late_rows=slices.late,
        first_ms=int(examples.times_ms[0]),
        split_ms=slices.start_ms,
        last_ms=int(examples.times_ms[-1]),
        parameters={
            "seed": seed,
            "holdout_share": spec.training.holdout_share,
            **({"refitted_rows": serving_rows} if spec.training.refit else {}),
        },
    )


def loss_scale(spec: ModelSpec, labels: Floats) -> float:
    """The loss that counts as wholly wrong: 4 nats, or the range of all but 2 % of the labels."""
    if spec.task != "regression":
        return LOG_LOSS_SCALE
    low, high = np.quantile(labels, [0.01, 0.99])
    return float(high - low) or max(1.0, abs(float(high)))


def _try(
    candidate: CandidateSpec,
    lesson: Lesson,
    judge: _Judge,
    modules: Sequence[str],
    watching: AbstractContextManager[None],
) -> _Fit | Candidate:
    """What came of it. Whatever goes wrong with one is no concern of the others."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = learner(candidate, modules)
            with watching:
                artefact = serving.dump(found.fit(_remembered(candidate, lesson)))
                model = serving.load(artefact, lesson.spec)  # measured is what will serve
                model.warm_up()
                outputs = model.predict(judge.newest.rows)
        except Exception as error:  # of a library, or of a user's own code
            return Candidate(name=candidate.shown, problem=_sentence(error))
    notes = sorted({f"{w.category.__name__}: {str(w.message)[:200]}" for w in caught})
    judged = judge.candidate(candidate.shown, outputs)
    record = found.record if model.taught is None else found.record | asdict(model.taught)
    return _Fit(candidate, replace(judged, notes=notes, parameters=record), artefact, outputs)


def _remembered(candidate: CandidateSpec, lesson: Lesson) -> Lesson:
    """What a candidate wants to know of the past.

    Raises:
        TrainingRefused: it is too little to learn from.
    """
    if candidate.history == 1:
        return lesson
    some = lesson.older.newest(candidate.history)
    check_learnable(lesson.spec, some)
    return lesson._replace(older=some)


def _again(
    best: _Fit, everything: Lesson, modules: Sequence[str], watching: AbstractContextManager[None]
) -> tuple[int, bytes]:
    """The chosen candidate, fitted on the newest rows too.

    Returns:
        how many rows it has learnt from, and its bytes; 0 and those that were measured if it could
        not be fitted again (no time was left, or it takes no such rows).
    """
    try:
        lesson = _remembered(best.asked, everything)
        with warnings.catch_warnings(), watching:
            warnings.simplefilter("ignore")  # they were told of the fit that was measured
            artefact = serving.dump(learner(best.asked, modules).fit(lesson))
            serving.load(artefact, everything.spec).warm_up()
    except Exception:  # of a library, or of a user's own code
        return 0, best.artefact
    return len(lesson.older.rows), artefact


def _profile(
    spec: ModelSpec, examples: Examples, newest: Examples, outputs: Floats, validation: Validation
) -> ReferenceProfile:
    """The reference, with an estimator that has learnt from rows the version was not fitted on."""
    profile = build_profile(
        spec, examples.rows, outputs, validation, examples.times_ms, examples.labels
    )
    estimator = fit_estimator(spec, profile, newest.rows, outputs, newest.labels)
    return replace(profile, estimator=estimator, **sliced(spec, profile, newest, outputs))


def _record(tried: _Fit | Candidate, *, chosen: bool) -> Candidate:
    return replace(tried.candidate, chosen=chosen) if isinstance(tried, _Fit) else tried


def _sentence(error: Exception) -> str:
    if isinstance(error, TooCostly | Unusable | TrainingRefused):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
