"""Every record on the wire: facts in the past tense, commands in the imperative.

All are JSON in a CloudEvents 1.0 envelope (`stream.envelope`). Times in data are milliseconds since
1970 UTC, in event time unless the name says otherwise. Unknown fields are ignored, so fields may be
added; a changed meaning is a new type (`.v2`). Sums of reals are integers in millionths ("micro"),
so that they merge to the same bits in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from models.spec import ModelSpec

PredictionId = Annotated[str, Meta(min_length=1, max_length=256)]
Model = Annotated[str, Meta(min_length=1, max_length=100)]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Label = str | bool | int | float
FeatureValue = float | str | bool | None
#: What a model says: P(positive class) or the value, as one number; multiclass: one P per class.
Output = float | list[float]
#: What may be added up and turned into floats whoever wrote it.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Signed = Annotated[int, Meta(ge=-(2**53), le=2**53)]  # a count that corrections lower
Sum = int  # micro; squared errors of a regression need more than 64 bits: see MAX_SUM
Cell = Annotated[str, Meta(pattern="^[0-9]{1,6}$")]  # its number
Time = Annotated[int, Meta(ge=-(2**53), le=2**53)]  # ms, or a number of ticks
Partition = Annotated[int, Meta(ge=0, le=2**20)]
Offset = Annotated[int, Meta(ge=0, le=2**62)]
#: W3C `traceparent`s, a few that stand for many: `stream.core.traces`
Traces = Annotated[list[Annotated[str, Meta(max_length=55)]], Meta(max_length=8)]
MICRO: Final = 1_000_000
LOSS_BINS: Final = 20
MAX_SUM: Final = 10**100  # squares of the largest values that are taken, and room to add them up


# --- what producers write ---------------------------------------------------------------------


class PredictionRequested(Struct, frozen=True, kw_only=True):
    """Score these features."""

    prediction_id: PredictionId
    model: Model
    features: dict[str, FeatureValue]


class PredictionMade(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model version said something about these features, here or elsewhere."""

    prediction_id: PredictionId
    model: Model
    version: Version
    output: Output
    features: dict[str, FeatureValue]
    shadow: dict[str, Output] = {}  # version -> what it would have said
    spec_revision: int = 0
    generation: int = 0


class PredictionShadowed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What versions that are held here would have said where `version` predicted elsewhere.

    It follows the prediction that it is about, in the same partition, under the same key.
    """

    prediction_id: PredictionId
    model: Model
    version: Version
    shadow: dict[str, Output]  # version -> what it would have said
    generation: int = 0


class FeedbackReceived(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The truth about a prediction, late, repeated or corrected as it may be."""

    prediction_id: PredictionId
    model: Model
    label: Label
    weight: Annotated[float, Meta(gt=0)] = 1.0


class ClockAdvanced(Struct, frozen=True, kw_only=True):
    """A replayer says: nothing older than this record's own timestamp comes on this partition.

    Only accepted where the setting `clock` is "event".
    """

    clock_ms: int


# --- what the stages say ----------------------------------------------------------------------


class ExampleLabelled(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prediction has its label. Features stay in `predictions`, at this partition and offset.

    Written until 0.1, still read: now those of a version come together, as `ExamplesLabelled`.
    """

    prediction_id: PredictionId
    model: Model
    version: Version
    partition: int
    offset: int
    predicted_ms: int
    labelled_ms: int
    label: Label
    weight: float = 1.0
    revision: int = 0  # 0 for the first label, counts corrections


class ExamplesLabelled(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Predictions of a version have their labels: columns, a place in each for a prediction.

    Which ones come together means nothing: model, prediction id and revision name an example.

    Attributes:
        weights: of the labels; none if all are 1.
        revisions: 0 for a first label, counts corrections; none if all are 0.
    """

    model: Model
    version: Version
    partition: int  # of `predictions`, as `offsets`
    prediction_ids: list[PredictionId]
    offsets: list[int]
    predicted_ms: list[int]
    labelled_ms: list[int]
    labels: list[Label]
    weights: list[float] = []
    revisions: list[int] = []

    def __post_init__(self) -> None:
        columns = (self.offsets, self.predicted_ms, self.labelled_ms, self.labels)
        count = len(self.prediction_ids)
        if not count or any(len(column) != count for column in columns):
            raise ValueError(f"{count} prediction ids, and columns of other lengths")
        if any(len(column) not in (0, count) for column in (self.weights, self.revisions)):
            raise ValueError(f"{count} prediction ids, but not as many weights or revisions")

    def each(self) -> Iterator[ExampleLabelled]:
        """The examples one by one."""
        columns = (
            *(self.prediction_ids, self.offsets, self.predicted_ms, self.labelled_ms, self.labels),
            self.weights or repeat(1.0),
            self.revisions or repeat(0),
        )
        for id_, offset, predicted_ms, labelled_ms, label, weight, revision in zip(
            *columns, strict=False
        ):
            yield ExampleLabelled(
                prediction_id=id_,
                model=self.model,
                version=self.version,
                partition=self.partition,
                offset=offset,
                predicted_ms=predicted_ms,
                labelled_ms=labelled_ms,
                label=label,
                weight=weight,
                revision=revision,
            )


class Pairs(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The summarised version against a shadow version on the same labelled events.

    D = bounded loss of the summarised version - that of the shadow; positive: shadow better.
    Off, in [-1, 1], is how far a version's certainty is from how often it is right: the probability
    of what it holds likeliest - whether that is so; of a regression, its error by the loss's scale.
    """

    n: Count = 0
    d_sum: Sum = 0
    d_squares: Sum = 0
    losses: Sum = 0  # unbounded loss of the summarised version
    shadow_losses: Sum = 0  # unbounded loss of the shadow
    off: Sum = 0
    off_squares: Sum = 0
    shadow_off: Sum = 0
    shadow_off_squares: Sum = 0

    def __post_init__(self) -> None:
        _check_sums(tuple(msgspec.structs.asdict(self).values()))


class Outcomes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Labelled events of one predicted and true stratum, and the sums of their measures."""

    n: Sum = 0
    sums: dict[str, Sum] = {}  # micro; of the same measures as `SummaryComputed.sums`
    squares: dict[str, Sum] = {}


class SummaryComputed(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one partition adds to one (model, version, segment, tick). Deltas: add them up.

    `signals`, `predicted` and `estimates` belong to the tick of the prediction's event time; so do
    `labelled`, `sums`, `squares` and `outcomes`, which corrections restate (deltas may be
    negative). `arrivals` belong there too, but count first labels and are never restated. `bets`,
    `slices`, `pairs` and `delays` belong to the tick in which the label arrived (max of both event
    times) and are never restated; nor is `judged`, which belongs to the tick in which the
    prediction has the judging age.

    A stratum is that of `models.strata`: "1" of a prediction, "1/0" of a prediction and its label.
    """

    model: Model
    version: Version
    segment: str = ""  # "" is all; else "<feature>=<value>"
    tick: Time  # floor(event time / tick length)
    partition: Partition
    predictions: Count = 0
    signals: dict[str, list[Count]] = {}  # counts on the reference profile's bins, by signal name
    labelled: Signed = 0
    sums: dict[str, Sum] = {}  # correct, log_loss, absolute_error, squared_error, loss (bounded)
    squares: dict[str, Sum] = {}  # of the same
    predicted: dict[str, Count] = {}  # predictions by stratum
    estimates: list[Count] = []  # predictions by bin of the profile's estimator; last: outside
    outcomes: dict[str, Outcomes] = {}  # the labelled by predicted and true stratum
    arrivals: dict[str, dict[str, Count]] = {}  # the same -> delay: floor(4 log2(seconds + 1))
    latest: Time | None = None  # tick in which the last of the labels here arrived; not a sum
    bets: list[Count] = []  # labels by bounded-loss bin, LOSS_BINS of them
    judged: dict[str, list[Count]] = {}  # the same of those that came by the judging age, by strata
    # Labels, the sums of their bounded losses and of the squares of these (micro), by cell of the
    # profile's slices (`models.facets`).
    slices: dict[Cell, tuple[Count, Count, Count]] = {}
    pairs: dict[str, Pairs] = {}  # shadow version -> outcomes
    #: version -> how long the batch took in which it predicted: floor(4 log2(us + 1)) -> requests.
    #: Score says so where versions are compared, in the tick of the request's timestamp.
    latencies: dict[str, dict[str, Count]] = {}
    #: shadow version -> requests that it did not predict, because score was too far behind.
    shed: dict[str, Count] = {}
    delays: dict[str, Count] = {}  # label delay: floor(log2(seconds + 1)) -> count
    counters: dict[
        str, Signed
    ] = {}  # duplicates, conflicts, corrections, orphans, expired, late, ...
    #: "refused:<entity>:<reason>" in `counters`: dead letters that name the model, in the tick of
    #: their record's timestamp. Score says so of requests, and where they lie, in `offsets`.
    offsets: dict[str, tuple[Offset, Offset]] = {}  # "<entity>/<partition>" -> first, end
    traces: Traces = []  # traceparents of a few of the predictions and labels

    def __post_init__(self) -> None:
        _check_sums((*self.sums.values(), *self.squares.values()))


def _check_sums(sums: Iterable[int]) -> None:
    """
    Raises:
        ValueError: one of them could not be turned into a float.
    """
    if any(abs(one) > MAX_SUM for one in sums):
        raise ValueError(f"a sum beyond {MAX_SUM:.0e}")


class Applied(Struct, frozen=True, kw_only=True, array_like=True):
    """One run of records that a partition applied, in order: the journal that replay follows."""

    entity: str
    first: int  # offset
    end: int  # offset after the last one
    generations: dict[str, int] = {}  # lifecycle generation per model, where it changed


class ProgressReported(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far one partition of monitor is. Sent to every partition of `summaries`, also when idle.

    No event older than `watermark_ms` that is on time can come from this partition any more.
    """

    partition: Partition
    partitions: Partition
    sequence: int  # counts this partition's reports
    watermark_ms: Time
    clock_ms: Time
    caught_up: bool
    applied: list[Applied] = []


class Measure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One figure with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


class DetectorRead(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one of river's detectors says of the champion's loss: information, no verdict."""

    alarms: int = 0  # since the champion went live
    last_ms: int | None = None  # the newest


class Estimate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the metrics are expected to be without a look at labels (see `models.estimating`)."""

    metrics: dict[str, Measure]
    reliable: bool
    outside: float  # share of predictions with values that the reference hardly had
    reason: str = ""  # why it is not reliable
    error: dict[str, float] = {}  # estimate - truth, once enough labels are there


class Lateness(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How late labels come: a Kaplan-Meier curve over predictions of complete and young cohorts."""

    predictions: int
    labelled: int
    ages_seconds: list[int]
    shares: list[float]  # labelled before that age


class AccuracyMeasured(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Rolling performance of one version over one window, as of one closed tick.

    `metrics` are plain means over the labels that have come. `weighted` are what they would be had
    all come, where late labels differ from early ones (see `stream.core.weighting`); left out
    until it is known how late labels come.
    """

    model: Model
    version: Version
    segment: str = ""
    window: str  # "86400s" or "1000 labels"
    start_ms: int
    end_ms: int
    revision: int = 0  # counts restatements of the same window and end
    predictions: int
    labelled: int
    coverage: float
    metrics: dict[
        str, Measure
    ]  # accuracy, log_loss | absolute_error, squared_error; loss (bounded)
    baseline: dict[str, float] = {}  # the same metrics, validated before the version went live
    champion: bool = False
    detectors: dict[str, DetectorRead] = {}  # by name in the spec; of the champion, over all
    # What happened in the window: orphans, duplicates, conflicts, corrections, expired (closed
    # unlabelled at the horizon), late, too_late.
    counted: dict[str, Count] = {}
    weighted: dict[str, Measure] = {}
    weighted_share: float = 0.0  # of the predictions that the weighted figures speak for
    estimate: Estimate | None = None
    delays: dict[str, Lateness] = {}  # "" is all, else by predicted class


class DriftMeasured(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One signal against the version's reference profile, as of one closed tick."""

    model: Model
    version: Version
    signal: str  # a feature's name, or "prediction"
    window: str
    start_ms: int
    end_ms: int
    n: int
    psi: float
    psi_noise: float  # what noise alone would give on average
    psi_low: float
    psi_high: float
    js: float  # Jensen-Shannon distance, base 2
    js_noise: float
    null_rate: float
    unseen_rate: float
    evidence: float  # share of the alarm threshold reached: alarm at 1
    counts: list[int] = []
    revision: int = 0  # counts restatements of the same window and end


class Alert(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One problem from opening to resolving: one `alert_id` all along, newest revision wins."""

    alert_id: str
    model: Model
    problem: str  # the deduplication key within the model: "harm", "drift", "bad-artefact:3", ...
    verdict: Literal[
        "data changed",
        "predictions changed",
        "performance harmed",
        "data broken",
        "data missing",
        "operation failed",
    ]
    state: Literal["open", "acknowledged", "snoozed", "resolved"]
    severity: Literal["info", "warning", "critical"]
    sentence: str
    version: int | None = None
    opened_ms: int
    updated_ms: int
    resolved_ms: int | None = None
    revision: int = 0
    evidence: dict[
        str, msgspec.Raw | float | int | str | list[object] | dict[str, object] | None
    ] = {}
    reopened: int = 0  # how often it came back within its cool-down after it was resolved
    handled_by: str = ""  # who acknowledged, snoozed or resolved it
    handled_ms: int | None = None  # when they did: the clock of their machine
    note: str = ""  # what they said
    snoozed_until_ms: int | None = None  # then it is open again, if it still is


class AlertHandled(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A person's word on an open alert, for evaluate, which alone writes the alert.

    acknowledge: someone sees to it. snooze: be quiet about it for `seconds`. resolve: it is over;
    should it not be, it comes back. reopen: forget what was said.

    Alerts of workers and the trainer are not known to evaluate: `alert` is what the person saw.
    """

    model: Model
    alert_id: str
    kind: Literal["acknowledge", "snooze", "resolve", "reopen"]
    who: Annotated[str, Meta(max_length=200)]
    note: Annotated[str, Meta(max_length=2000)] = ""
    handled_ms: Time
    seconds: Annotated[float, Meta(ge=0, le=10**9)] | None = (
        None  # event time, from when it is read; of `alert` from `handled_ms`
    )
    alert: Alert | None = None


class Command(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What evaluate, or a person, wants done; handled once per `command_id`.

    retrain: fit candidates, propose a challenger. canary: challenger `version` answers a share of
    the requests. promote: challenger `version` becomes champion.
    reject: challenger `version` leaves the shadow. rollback: champion goes back to `version`.
    settle: probation is over, `version` (the previous champion) leaves the shadow.
    """

    command_id: str
    kind: Literal["retrain", "canary", "promote", "reject", "rollback", "settle"]
    model: Model
    generation: int  # of lifecycle, that the decision was made on; a later one makes it void
    reason: str
    issued_ms: int
    version: int | None = None
    alert_id: str | None = None
    evidence: dict[str, object] = {}


class RetrainHeld(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something asks for a retrain, and there is none; told once for each reason and period.

    A period of the clock is the policy's, one of labels so many of them as the policy waits for.
    Any ends when a retrain is commanded, when nothing asks any more, or with the champion.
    """

    model: Model
    version: Version  # the champion, which is left as it is
    generation: int  # of lifecycle, that the decision was made on
    cause: Literal["harm", "drift", "clock", "labels"]
    asked: str  # in words: what asks
    reason: str  # why not
    held_ms: int
    labels: Count = 0  # that came since the last retrain was commanded
    alert_id: str | None = None


class GenerationAdopted(Struct, frozen=True, kw_only=True):
    """Evaluate follows lifecycle to this generation: with it, all that it decides can be replayed.

    Records of the model's partition of `summaries` from `offset` on are judged by it.
    """

    model: Model
    generation: int
    partition: Partition
    offset: Offset
    closed_ms: Time  # ticks that end before or then were judged by an earlier one


# --- what is live ------------------------------------------------------------------------------


class VersionCard(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What workers must know of a version: where its bytes lie and how well it validated."""

    version: Version
    artefact_url: str
    artefact_digest: str  # sha256 hex of the bytes handed to the loader
    profile_url: str
    profile_digest: str


class LifecycleChanged(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is live for a model, whole. The newest generation of a model wins."""

    model: Model
    generation: Annotated[int, Meta(ge=1)]
    spec: ModelSpec
    spec_revision: int
    champion: int | None = None
    challengers: list[int] = []
    previous: int | None = None  # in shadow during probation
    probation: bool = False
    pinned: bool = False
    canary: int | None = None  # a challenger that answers `spec.trial.canary_share` of the requests
    versions: list[VersionCard] = []  # those named above, and the newest others
    changed_ms: int  # the registry's clock
    cause: str = ""  # command id, or who did it
    reason: str = ""
    traces: Traces = []  # of a few of the events that led to it

    def card(self, version: int) -> VersionCard | None:
        return next((card for card in self.versions if card.version == version), None)

    @property
    def shadows(self) -> tuple[int, ...]:
        """Versions that score beside the champion."""
        previous = () if self.previous is None else (self.previous,)
        return tuple(v for v in (*self.challengers, *previous) if v != self.champion)


# CloudEvents type -> (struct, entity of the topic it belongs to)
EVENT_TYPES: Final[dict[str, tuple[type[Struct], str]]] = {
    "driftline.prediction.requested.v1": (PredictionRequested, "requests"),
    "driftline.prediction.made.v1": (PredictionMade, "predictions"),
    "driftline.prediction.shadowed.v1": (PredictionShadowed, "predictions"),
    "driftline.feedback.received.v1": (FeedbackReceived, "feedback"),
    "driftline.clock.advanced.v1": (ClockAdvanced, "*"),
    "driftline.example.labelled.v1": (ExampleLabelled, "examples"),
    "driftline.example.labelled.v2": (ExamplesLabelled, "examples"),
    "driftline.summary.computed.v1": (SummaryComputed, "summaries"),
    "driftline.progress.reported.v1": (ProgressReported, "summaries"),
    "driftline.alert.handled.v1": (AlertHandled, "summaries"),
    "driftline.accuracy.measured.v1": (AccuracyMeasured, "accuracy"),
    "driftline.drift.measured.v1": (DriftMeasured, "drift"),
    "driftline.alert.opened.v1": (Alert, "alerts"),
    "driftline.alert.updated.v1": (Alert, "alerts"),
    "driftline.alert.resolved.v1": (Alert, "alerts"),
    "driftline.command.retrain.v1": (Command, "commands"),
    "driftline.command.canary.v1": (Command, "commands"),
    "driftline.command.promote.v1": (Command, "commands"),
    "driftline.command.reject.v1": (Command, "commands"),
    "driftline.command.rollback.v1": (Command, "commands"),
    "driftline.command.settle.v1": (Command, "commands"),
    "driftline.retrain.held.v1": (RetrainHeld, "decisions"),
    "driftline.generation.adopted.v1": (GenerationAdopted, "decisions"),
    "driftline.lifecycle.changed.v1": (LifecycleChanged, "lifecycle"),
}

# The type of a plain JSON value without CloudEvents attributes, by the topic it came on.
DEFAULT_TYPES: Final = {
    "requests": "driftline.prediction.requested.v1",
    "predictions": "driftline.prediction.made.v1",
    "feedback": "driftline.feedback.received.v1",
}
