"""A model's spec: what it predicts, from what, and how it is watched.

A spec is plain data, written by people as JSON or TOML, stored in the registry and carried by
every lifecycle record, so that stream stages need no database.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[a-z0-9][a-z0-9._-]*$")]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Probability = Annotated[float, Meta(gt=0, lt=1)]
Task = Literal["binary", "multiclass", "regression"]

DAY_SECONDS = 86_400.0
FACETS: Final = 6  # features that are searched for the worst slice, where the spec names none
MOST_FACETS: Final = 12
#: What every run tries beside the candidates, for comparison: what always says the same.
BASELINE = "constant"

#: Detectors of the library river that may be shown beside the verdict.
DETECTORS: Final = frozenset(
    {"ADWIN", "DDM", "EDDM", "FHDDM", "HDDM_A", "HDDM_W", "KSWIN", "PageHinkley"}
)


class Feature(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input of the model. A missing value is null and is counted, not refused.

    Records may leave an optional one out, which is null as well. So a model gains one while it is
    live: versions that were fitted before do without.
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    type: Literal["numeric", "categorical"] = "numeric"
    optional: bool = False


class Labels(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How late a label may be (event time)."""

    horizon_seconds: Positive = 30 * DAY_SECONDS  # then a prediction is closed unlabelled
    correction_horizon_seconds: NotNegative = 7 * DAY_SECONDS  # after the label came
    early_seconds: NotNegative = DAY_SECONDS  # a label waits this long for its prediction
    # So old, predictions have nearly all labels they will get: how soon labels come is learnt from
    # them. None: the horizon.
    complete_seconds: Positive | None = None
    # Harm is judged by each label as it comes, which is right if early labels are like late ones.
    # With an age, each prediction is judged once, when it is so old, by labels weighted by how soon
    # such labels come (and not before predictions are complete, to learn that from).
    judged_after_seconds: Positive | None = None
    # By what share of itself the chance of having come by that age may be wrong.
    delay_error: Annotated[float, Meta(ge=0, lt=1)] = 0.1


class Ticks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base ticks: the grain of every count; cut by event time only."""

    seconds: Positive = 30.0
    allowed_lateness_seconds: NotNegative = (
        10.0  # how far behind its partition's clock an event may be
    )
    minimum_events: Annotated[int, Meta(ge=1)] = 100  # tests see whole ticks of at least this many


class Window(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sliding window over closed ticks: by event time or by labels. Exactly one is set."""

    seconds: Positive | None = None
    labels: Annotated[int, Meta(ge=1)] | None = None


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many false alarms the model may raise, over all its signals."""

    false_alarms_per_month: Positive = 1.0
    false_alarms_per_million_events: Positive | None = None  # if set, counts instead of the month
    harm_share: NotNegative = 0.40
    data_share: NotNegative = 0.20
    prediction_share: NotNegative = 0.15
    feature_share: NotNegative = 0.25


class Tolerances(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is no news, in units a person understands."""

    psi: NotNegative = 0.01
    loss: NotNegative = 0.0  # on the bounded loss, added to the upper bound of the validated loss
    loss_objective: Positive | None = (
        None  # a mean loss that is promised (nats, or the label's unit): harm is to exceed it
    )
    delta: Probability = 0.005  # chance that a version's validated loss exceeds its upper bound


class Trial(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Champion against challenger on the same labelled events (bounded loss)."""

    alpha: Probability = 0.01  # chance that one is promoted which is no better
    margin: NotNegative = 0.02  # "not worse by" when the champion is harmed
    # What a challenger has to prove: that it is "better", or "not worse" by the margin, as beside a
    # harmed champion (alpha is then the chance of one that is worse by it). The second is for
    # worlds that move on, where the newer is likely the better.
    to_prove: Literal["better", "not worse"] = "better"
    # Guard rails, whatever it does on the whole. In a segment that makes up this share of the
    # reference it must be shown to be not worse by this margin; None: segments guard nothing.
    segment_margin: NotNegative | None = 0.02
    segment_share: Probability = 0.1
    # So much further off than the champion its certainty may be (see `stream.core.guards`).
    calibration_margin: NotNegative | None = 0.05
    # Slow is what takes longer than this at p99 to predict a batch, and this many times longer than
    # the champion on the same batches.
    latency_p99_ms: Positive | None = 50.0
    latency_factor: Annotated[float, Meta(ge=1)] = 2.0
    minimum_pairs: Annotated[int, Meta(ge=1)] = 200
    maximum_pairs: Annotated[int, Meta(ge=1)] = 20_000
    cycle_seconds: NotNegative = 7 * DAY_SECONDS  # judged at whole business cycles; 0 = at any tick
    # One that is proven answers this share of the requests first, by a hash of their keys, until it
    # has so many labels without being proven worse. 0: it answers all at once.
    canary_share: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    canary_pairs: Annotated[int, Meta(ge=1)] = 1_000
    rollback_alpha: Probability = 0.01
    rollback_tolerance: NotNegative = 0.0
    probation_pairs: Annotated[int, Meta(ge=1)] = (
        5_000  # then the previous version leaves the shadow
    )


class CandidateSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A learner to try, with parameters of its own.

    Attributes:
        learner: one of `models.learners`, or yours by import path: "package.module:factory".
        name: of it in the run's record; the learner's, if it has none.
        parameters: keyword arguments of the learner's factory.
        history: share of the examples that it learns from, the newest of them.
    """

    learner: Annotated[str, Meta(min_length=1, max_length=200)]
    name: Annotated[str, Meta(max_length=100)] = ""
    parameters: dict[str, str | bool | int | float | None] = {}
    history: Annotated[float, Meta(gt=0, le=1)] = 1.0

    @property
    def shown(self) -> str:
        """
        >>> CandidateSpec(learner="linear", history=0.25).shown
        'linear, newest 25 %'
        """
        newest = f", newest {100 * self.history:g} %" if self.history < 1 else ""
        return self.name or f"{self.learner}{newest}"


class Training(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a retrain may use and must reach."""

    candidates: tuple[str | CandidateSpec, ...] = ("logistic_regression", "hist_gradient_boosting")
    window_seconds: Positive = 28 * DAY_SECONDS  # newest labelled examples by event time
    minimum_rows: Annotated[int, Meta(ge=1)] = 200
    minimum_per_class: Annotated[int, Meta(ge=1)] = 10  # of two classes at least, to fit on
    maximum_rows: Annotated[int, Meta(ge=1)] = 100_000
    holdout_share: Annotated[float, Meta(gt=0, lt=0.9)] = (
        0.25  # the newest slice, that no candidate has seen
    )
    late_labels: Literal["leave_out", "use"] = (
        "leave_out"  # of events before that slice, those labelled only after it began
    )
    # Fit the chosen candidate again on all examples, the held-out slice too. What serves is then
    # not what was measured: the figures are those of the same candidate on older examples.
    refit: bool = False
    timeout_seconds: Positive = 600.0
    seed: int = 0

    @property
    def tried(self) -> tuple[CandidateSpec, ...]:
        """The candidates, those that are named only among them."""
        return tuple(
            CandidateSpec(learner=each) if isinstance(each, str) else each
            for each in self.candidates
        )


class Alerts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an alert lives (event time)."""

    cooldown_seconds: NotNegative = 3600.0  # what returns sooner is the same alert, opened again
    stale_seconds: Positive = DAY_SECONDS  # without a prediction for so long, nothing is known


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may happen without a person."""

    retrain: bool = True
    promote: bool = True
    rollback: bool = True
    cooldown_seconds: NotNegative = DAY_SECONDS  # between two retrain commands
    # A challenger by the clock (event time), also beside a champion that does well: it is promoted
    # like any other, if it is proven better. None: only harm asks for one.
    retrain_every_seconds: Positive | None = None
    # The same after so many labels since the last retrain, and while an alert on drift is open.
    retrain_after_labels: Annotated[int, Meta(ge=1)] | None = None
    retrain_on_drift: bool = False
    # Whatever asks: no retrain with fewer new labels, and at most so many in any seven days.
    retrain_minimum_labels: Annotated[int, Meta(ge=0)] = 0
    retrains_per_week: Annotated[int, Meta(ge=1)] | None = None
    rollback_cooloff_seconds: NotNegative = DAY_SECONDS
    estimated_harm: Literal["inform", "page"] = "inform"  # it never commands


class ModelSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything Driftline knows of a model before its first version.

    >>> spec = ModelSpec(name="churn", task="binary", classes=("no", "yes"),
    ...                  features=(Feature(name="age"),))
    >>> check(spec).outputs
    1
    """

    name: Name
    task: Task
    features: tuple[Feature, ...]
    classes: tuple[
        str, ...
    ] = ()  # binary: (negative, positive); multiclass: in the order of probabilities
    time_zone: str = "UTC"  # whose hours and weekdays inputs may follow, such as "Europe/Berlin"
    segments: tuple[str, ...] = ()  # names of categorical features whose values are judged apart
    # Features whose values, and pairs of values, are searched for the slice that harm is worst in;
    # None: the first six, (): none.
    searched: tuple[str, ...] | None = None
    windows: tuple[Window, ...] = (Window(seconds=DAY_SECONDS), Window(labels=1000))
    labels: Labels = Labels()
    ticks: Ticks = Ticks()
    budget: Budget = Budget()
    tolerances: Tolerances = Tolerances()
    trial: Trial = Trial()
    training: Training = Training()
    policy: Policy = Policy()
    alerts: Alerts = Alerts()
    detectors: tuple[str, ...] = ()  # of DETECTORS, shown as information beside the verdict
    served: Literal["here", "elsewhere"] = "here"
    owner: str = ""
    description: str = ""

    @property
    def outputs(self) -> int:
        """Floats a prediction has: 1 (P of the positive class, or the value), or one a class."""
        return len(self.classes) if self.task == "multiclass" else 1

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def facets(self) -> tuple[str, ...]:
        """Features that are searched for the slice that harm is worst in."""
        return self.feature_names[:FACETS] if self.searched is None else self.searched

    @property
    def tick_ms(self) -> int:
        return round(self.ticks.seconds * 1000)


def complete_seconds(labels: Labels) -> float:
    """So old, predictions have nearly all labels they will get."""
    return labels.complete_seconds or labels.horizon_seconds


def check(spec: ModelSpec) -> ModelSpec:
    """Return the spec if its parts fit together.

    Raises:
        ValueError: with one sentence that says which part to change.
    """
    names = spec.feature_names
    categorical = {feature.name for feature in spec.features if feature.type == "categorical"}
    problems = {
        "features: name at least one": not names,
        "features: at least one is not optional": all(f.optional for f in spec.features),
        "features: names must differ": len(set(names)) < len(names),
        "classes: a binary model has two, (negative, positive)": (
            spec.task == "binary" and len(spec.classes) != 2
        ),
        "classes: a multiclass model has at least three": (
            spec.task == "multiclass" and len(spec.classes) < 3
        ),
        "classes: a regression model has none": spec.task == "regression" and bool(spec.classes),
        "classes: names must differ": len(set(spec.classes)) < len(spec.classes),
        "segments: name categorical features": not set(spec.segments) <= categorical,
        f"time_zone: {spec.time_zone!r} is none": not is_time_zone(spec.time_zone),
        "labels: complete_seconds must be at most horizon_seconds": (
            (spec.labels.complete_seconds or 0) > spec.labels.horizon_seconds
        ),
        "labels: judged_after_seconds must be at most complete_seconds": (
            (spec.labels.judged_after_seconds or 0) > complete_seconds(spec.labels)
        ),
        "windows: each has either seconds or labels": any(
            (window.seconds is None) == (window.labels is None) for window in spec.windows
        ),
        "windows: name at least one": not spec.windows,
        "ticks: seconds must be at least 0.001": spec.tick_ms < 1,
        "budget: the four shares add up to 1": not 0.999 < _shares(spec.budget) < 1.001,
        f"searched: at most {MOST_FACETS} different features": (
            not set(spec.searched or ()) <= set(names)
            or not len(set(spec.searched or ())) == len(spec.searched or ()) <= MOST_FACETS
        ),
        f"detectors: choose from {', '.join(sorted(DETECTORS))}": (
            not set(spec.detectors) <= DETECTORS
        ),
        "training: name at least one candidate": not spec.training.candidates,
        "training: names of candidates must differ": (
            len({each.shown for each in spec.training.tried}) < len(spec.training.candidates)
        ),
        f"training: no candidate may be called {BASELINE!r}": (
            BASELINE in [each.shown for each in spec.training.tried]
        ),
    }
    for sentence, broken in problems.items():
        if broken:
            raise ValueError(f"spec of model {spec.name!r}: {sentence}")
    return spec


def _shares(budget: Budget) -> float:
    return budget.harm_share + budget.data_share + budget.prediction_share + budget.feature_share


def read_spec(text: bytes | str, *, toml: bool = False) -> ModelSpec:
    """Decode and check a spec.

    Raises:
        ValueError: what is wrong and where (`$.features[0].name`).
    """
    try:
        decode = msgspec.toml.decode if toml else msgspec.json.decode
        return check(decode(text, type=ModelSpec))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError(f"spec: {error}") from error


def model_name_is_valid(name: str) -> bool:
    return len(name) <= 100 and re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) is not None


def is_time_zone(name: str) -> bool:
    """
    >>> is_time_zone("Europe/London"), is_time_zone("Middle/Earth")
    (True, False)
    """
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
