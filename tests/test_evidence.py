"""Every number of an alert can be recomputed from the log, at the offsets that the alert names.

What is recomputed here reads the producers' raw records with plain Python, the reference profile,
and the formulas of the figures; it shares with the stages only the tables of bets and the rule that
puts a loss on a bin.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from scipy import stats

from models import joint, losses
from models.profile import ReferenceProfile, Validation
from models.profiling import build_profile
from models.spec import Feature, Labels, ModelSpec, Policy, Ticks, check
from stream.core.evaluate import EvaluateProcessor
from stream.core.intervals import mean_upper_bound
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Record
from stream.core.ticks import Group, Tick
from stream.core.watching import Kit, Watch, observe
from stream.envelope import open_record, read
from stream.events import LOSS_BINS, Alert, LifecycleChanged, SummaryComputed, VersionCard
from tests.monitoring import Live, Sent, logs_of
from tests.summaries import facts

T0 = 1_000_000_000
TICK_MS = 1_000
SECONDS, WRONG_FROM = 40, 20
RATE = 60  # predictions a second
PARTITIONS = 2
LEAST = 50

SPEC = check(
    ModelSpec(
        name="churn",
        task="binary",
        classes=("no", "yes"),
        features=(
            Feature(name="age"),
            Feature(name="income"),
            Feature(name="plan", type="categorical"),
        ),
        ticks=Ticks(seconds=1.0, allowed_lateness_seconds=0.5, minimum_events=LEAST),
        labels=Labels(horizon_seconds=10.0, correction_horizon_seconds=1.0),
        policy=Policy(retrain=False),
    )
)


def profile() -> ReferenceProfile:
    chance = np.random.default_rng(3)
    rows = [
        (float(chance.normal()), float(chance.normal()), "ab"[chance.integers(2)])
        for _ in range(3000)
    ]
    outputs = chance.uniform(size=(3000, 1))
    bins = (2000, 800, 200) + (0,) * (LOSS_BINS - 3)
    validation = Validation(n=3000, loss_bins=bins, loss_scale=4.0, metrics={})
    return build_profile(SPEC, rows, outputs, validation)


PROFILE = profile()


class Known(Live):
    def __init__(self) -> None:
        card = VersionCard(
            version=1,
            artefact_url="",
            artefact_digest="",
            profile_url="",
            profile_digest="the profile",
        )
        self.lifecycle = LifecycleChanged(
            model="churn",
            generation=1,
            spec=SPEC,
            spec_revision=1,
            champion=1,
            versions=[card],
            changed_ms=0,
        )
        self._profiles = {1: PROFILE}


FLEET: Fleet = {"churn": Known()}


def traffic() -> list[Sent]:
    """All is well; then everything goes wrong at once, and labels come a second or two late."""
    chance = np.random.default_rng(5)
    sent = []
    for number in range(SECONDS * RATE):
        at = T0 + number * 1000 // RATE
        wrong = number >= WRONG_FROM * RATE
        id_ = f"p{number}"
        output = float(chance.uniform(0.85 if wrong else 0.0, 1.0))
        features: dict[str, Any] = {
            "age": float(chance.normal(1.0 if wrong else 0.0)),
            "income": None if wrong and chance.random() < 0.4 else float(chance.normal()),
            "plan": "c" if wrong and chance.random() < 0.3 else "ab"[int(chance.integers(2))],
        }
        if wrong and chance.random() < 0.3:
            del features["age"]  # refused
        data = {
            "prediction_id": id_,
            "model": "churn",
            "version": 1,
            "output": output,
            "features": features,
        }
        sent.append(Sent("predictions", id_, at, at + int(chance.integers(200)), data))
        told = at + int(chance.integers(1000, 2500))
        label = "no" if wrong else ("yes" if output > 0.5 else "no")
        answer = {"prediction_id": id_, "model": "churn", "label": label}
        sent.append(Sent("feedback", id_, told, told + int(chance.integers(200)), answer))
    return sent


class Played(NamedTuple):
    logs: dict[tuple[str, int], list[Record]]
    summaries: list[Record]
    alerts: dict[str, Alert]  # as they were opened, by problem


@cache
def played() -> Played:
    """The traffic through monitor, two partitions of it, and evaluate."""
    logs = logs_of(traffic(), PARTITIONS)
    counts = {**dict.fromkeys(("predictions", "feedback", "examples"), PARTITIONS), "summaries": 1}
    stages = [MonitorProcessor(Context(p, counts, CoreSettings())) for p in range(PARTITIONS)]
    evaluate = EvaluateProcessor(Context(0, {"summaries": 1}, CoreSettings()))
    left = {place: list(records) for place, records in logs.items()}
    summaries: list[Record] = []
    alerts: dict[str, Alert] = {}
    for clock_ms in range(T0, T0 + (SECONDS + 6) * 1000, 700):
        outputs = []
        for partition, stage in enumerate(stages):
            for entity in ("predictions", "feedback"):
                rest = left[entity, partition]
                due = [record for record in rest if record.timestamp_ms <= clock_ms]
                left[entity, partition] = rest[len(due) :]
                if due:
                    outputs += stage.apply(Batch(entity, partition, due), FLEET)
            outputs += stage.advance(clock_ms, True, FLEET)
        told = [out for out in outputs if out.entity == "summaries"]
        records = [
            Record(len(summaries) + i, clock_ms, out.key, out.value) for i, out in enumerate(told)
        ]
        summaries += records
        found = facts(evaluate.apply(Batch("summaries", 0, records), FLEET))
        for fact in found:
            if isinstance(fact, Alert) and fact.state == "open":
                alerts[fact.problem] = fact
    return Played(logs, summaries, alerts)


# --- from raw records -------------------------------------------------------------------------


class Read(NamedTuple):
    time_ms: int
    data: dict[str, Any]


def records_in(entity: str, offsets: dict[str, Any], *, whole: bool = False) -> list[Record]:
    """Records at the offsets that an alert names; `whole`: from the beginning of the log on."""
    found = []
    for (kind, partition), log in played().logs.items():
        if kind == entity:
            first, end = offsets[f"{entity}/{partition}"]
            found += log[0 if whole else first : end]
    return found


def parsed(record: Record) -> Read:
    event = msgspec.json.decode(record.value or b"")
    time = np.datetime64(event["time"].rstrip("Z"), "ms")
    return Read(int(time.astype(np.int64)), event["data"])


def is_right(read_: Read) -> bool:
    """Whether a prediction has all the features that the spec names."""
    return set(read_.data["features"]) == set(SPEC.feature_names)


def tick_of(time_ms: int) -> int:
    return time_ms // TICK_MS * TICK_MS


def bin_of(name: str, value: Any) -> int:
    signal = PROFILE.signal(name)
    assert signal is not None
    last = len(signal.counts) - 1
    if value is None:
        return last
    if signal.kind == "categorical":
        known = list(signal.categories)
        return known.index(value) if value in known else last - 1
    if value == signal.edges[-1]:
        return last - 2
    return bisect_right(signal.edges, value)


def counted(name: str, predictions: list[Read], since_ms: int, until_ms: int) -> list[int]:
    signal = PROFILE.signal(name)
    assert signal is not None
    counts = [0] * len(signal.counts)
    for one in predictions:
        if since_ms <= tick_of(one.time_ms) < until_ms:
            counts[bin_of(name, value_of(name, one))] += 1
    return counts


def value_of(name: str, one: Read) -> Any:
    if name == "prediction":
        return one.data["output"]
    return distance(one) if name == joint.NAME else one.data["features"][name]


def distance(one: Read) -> float:
    """How far the inputs together lie from the centre, by the whole numbers of the profile."""
    assert PROFILE.joint is not None
    names = SPEC.feature_names
    bins = [bin_of(name, one.data["features"][name]) for name in names]
    scores = [row[b] for row, b in zip(PROFILE.joint.scores, bins, strict=True)]
    along = [
        sum(w * s for w, s in zip(weights, scores, strict=True)) // joint.FINENESS
        for weights in PROFILE.joint.weights
    ]
    return float(sum(a * a for a in along))


def bets(offsets: dict[str, Any], since_ms: int, until_ms: int) -> list[int]:
    """Labels that came in the ticks of a span, by the bin of their bounded loss."""
    said = {
        p.data["prediction_id"]: p
        for p in map(parsed, records_in("predictions", offsets, whole=True))
    }
    counts = [0] * LOSS_BINS
    for record in records_in("feedback", offsets):
        label = parsed(record)
        made = said.get(label.data["prediction_id"])
        if made is None or not is_right(made):
            continue
        if since_ms <= tick_of(max(label.time_ms, made.time_ms)) < until_ms:
            p = made.data["output"] if label.data["label"] == "yes" else 1 - made.data["output"]
            loss = min(-math.log(min(max(p, 1e-15), 1.0)), 4.0) / 4.0
            (at,) = losses.loss_bin(np.array([loss]), [label.data["prediction_id"]])
            counts[int(at)] += 1
    return counts


def psi_of(before: list[int], after: list[int]) -> tuple[float, float, float, float]:
    """PSI, its noise, and its interval: noncentral chi-square, inverted."""
    used = [(b, a) for b, a in zip(before, after, strict=True) if b + a]
    m, n = sum(b for b, _ in used), sum(a for _, a in used)
    p = [(b + 0.5) / (m + len(used) / 2) for b, _ in used]
    q = [(a + 0.5) / (n + len(used) / 2) for _, a in used]
    value = sum((y - x) * math.log(y / x) for x, y in zip(p, q, strict=True))
    rows, freedom = n * m / (n + m), len(used) - 1

    def inverted(share: float) -> float:
        low, high = 0.0, 100.0 + 20 * value * rows
        if stats.chi2.cdf(value * rows, freedom) <= share:
            return 0.0
        for _ in range(200):
            middle = (low + high) / 2
            above = stats.ncx2.cdf(value * rows, freedom, max(middle, 1e-9)) > share
            low, high = (middle, high) if above else (low, middle)
        return low / rows

    return value, freedom / rows, inverted(0.975), inverted(0.025)


@cache
def statistics() -> dict[tuple[str, int], float]:
    """Evidence of each signal at each group's end, from the raw log alone."""
    places = ("predictions/0", "predictions/1", "feedback/0", "feedback/1")
    everything = dict.fromkeys(places, (0, 10**9))
    predictions = [parsed(r) for r in records_in("predictions", everything)]
    right = [one for one in predictions if is_right(one)]
    refused = Counter(
        tick_of(r.timestamp_ms)
        for r in records_in("predictions", everything)
        if not is_right(parsed(r))
    )
    kit, watch, reached = Kit(SPEC, PROFILE), Watch(version=1), {}
    waiting, since = Tick(), None
    for start in range(T0, T0 + (SECONDS + 3) * 1000, TICK_MS):
        waiting.add(
            Tick(
                predictions=sum(tick_of(one.time_ms) == start for one in right),
                signals={
                    s.name: counted(s.name, right, start, start + TICK_MS) for s in PROFILE.signals
                },
                bets=bets(everything, start, start + TICK_MS),
                refused={"predictions:bad-features": refused[start]} if refused[start] else {},
            )
        )
        if not waiting.events:
            continue
        since = start if since is None else since
        if waiting.events >= LEAST:
            observe(watch, kit, Group(since, start + TICK_MS, waiting))
            for signal in kit.signals:
                threshold = kit.threshold(signal)
                reached[signal.key, start + TICK_MS] = kit.bank.reached[signal.key] * threshold
            waiting, since = Tick(), None
    return reached


# --- and now every number ---------------------------------------------------------------------


def test_everything_that_can_go_wrong_is_told_apart() -> None:
    assert set(played().alerts) == {"harm", "data", "drift", "prediction"}
    data: dict[str, Any] = dict(played().alerts["data"].evidence)
    assert data["missing"] == ["income"]
    assert data["unseen"] == ["plan"]
    assert set(data["refused"]["reasons"]) == {"predictions:bad-features"}


KINDS = {"data": "broken", "drift": "feature", "prediction": "prediction"}


@pytest.mark.parametrize("problem", KINDS)
def test_figures_of_signals_are_recomputed_from_the_records_that_the_alert_names(
    problem: str,
) -> None:
    evidence: dict[str, Any] = dict(played().alerts[problem].evidence)
    assert evidence["profile"] == "the profile"
    predictions = [parsed(r) for r in records_in("predictions", evidence["offsets"])]
    right = [one for one in predictions if is_right(one)]
    assert evidence["signals"]
    for name, told in evidence["signals"].items():
        signal = PROFILE.signal(name)
        assert signal is not None
        after = counted(name, right, told["since_ms"], told["until_ms"])
        before, n, m = list(signal.counts), sum(after), sum(signal.counts)
        value, noise, low, high = psi_of(before, after)
        rises = [a / n - b / m for a, b in zip(after, before, strict=True)]
        categorical = signal.kind == "categorical"
        statistic = statistics()[f"{KINDS[problem]}/{name}", told["until_ms"]]
        assert told == {
            "n": n,
            "since_ms": told["since_ms"],
            "until_ms": told["until_ms"],
            "after": after,
            "before": before,
            "psi": pytest.approx(value),
            "psi_noise": pytest.approx(noise),
            "psi_corrected": pytest.approx(max(0.0, value - noise)),
            "psi_low": pytest.approx(low, rel=1e-4),
            "psi_high": pytest.approx(high, rel=1e-4),
            "tolerance": SPEC.tolerances.psi,
            "null_rise": pytest.approx(rises[-1]),
            "unseen_rise": pytest.approx(rises[-2] if categorical else 0.0),
            "range_rise": pytest.approx(0.0 if categorical else max(rises[0], rises[-2])),
            "statistic": pytest.approx(statistic),
            "threshold": told["threshold"],
        }
        kind = {"broken": "data", "feature": "feature", "prediction": "prediction"}[KINDS[problem]]
        share = getattr(SPEC.budget, f"{kind}_share")
        lines = {"data": len(SPEC.features) + 1, "feature": len(SPEC.features) + 1, "prediction": 1}
        assert told["threshold"] == pytest.approx(lines[kind] / share)  # at one alarm a month


def test_figures_of_harm_are_recomputed_from_the_records_that_the_alert_names() -> None:
    alert = played().alerts["harm"]
    told: dict[str, Any] = dict(alert.evidence)
    after = bets(told["offsets"], told["since_ms"], told["until_ms"])
    values = np.repeat(np.arange(LOSS_BINS) / (LOSS_BINS - 1), after)
    interval = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    before = list(PROFILE.validation.loss_bins)
    scale = np.arange(LOSS_BINS) / (LOSS_BINS - 1)
    assert told["after"] == after
    assert told["before"] == before
    assert told["n"] == len(values)
    assert told["loss"] == pytest.approx(values.mean())
    assert (told["loss_low"], told["loss_high"]) == pytest.approx(interval)
    assert told["validated"] == pytest.approx(np.array(before) @ scale / sum(before))
    assert told["bound"] == pytest.approx(mean_upper_bound(scale, before, SPEC.tolerances.delta))
    assert told["statistic"] == pytest.approx(statistics()["harm/loss", told["until_ms"]])
    assert told["threshold"] == pytest.approx(1 / SPEC.budget.harm_share)
    assert f"{told['loss']:.3f} on {told['n']} labels" in alert.sentence


def test_refused_records_are_recounted_from_the_records_that_the_alert_names() -> None:
    evidence: dict[str, Any] = dict(played().alerts["data"].evidence)
    told = evidence["refused"]
    span = range(told["since_ms"], told["until_ms"])
    came = records_in("predictions", evidence["offsets"])
    refused = sum(tick_of(r.timestamp_ms) in span for r in came if not is_right(parsed(r)))
    accepted = sum(tick_of(parsed(r).time_ms) in span for r in came if is_right(parsed(r)))
    interval = stats.binomtest(refused, refused + accepted).proportion_ci(method="wilson")
    assert told["after"] == [accepted, refused, 0]
    assert told["reasons"] == {"predictions:bad-features": refused}
    assert told["share"] == pytest.approx(refused / (refused + accepted))
    assert (told["share_low"], told["share_high"]) == pytest.approx((interval.low, interval.high))
    assert told["statistic"] == pytest.approx(statistics()["schema/records", told["until_ms"]])


def test_the_same_counts_lie_in_the_summaries_that_the_alert_names() -> None:
    """Whoever does not keep predictions for long can still add up what monitor said of them."""
    for problem in KINDS:
        evidence: dict[str, Any] = dict(played().alerts[problem].evidence)
        first, end = evidence["offsets"]["summaries/0"]
        for name, told in evidence["signals"].items():
            total = np.zeros(len(told["after"]), dtype=int)
            for record in played().summaries[first:end]:
                opened = open_record("summaries", record, max_bytes=10**7)
                if opened.type != "driftline.summary.computed.v1":
                    continue
                delta = read(opened, SummaryComputed)
                if (
                    told["since_ms"] <= delta.tick * TICK_MS < told["until_ms"]
                    and not delta.segment
                ):
                    total += np.array(delta.signals.get(name, [0] * len(total)))
            assert total.tolist() == told["after"]


def test_offsets_say_no_more_than_is_needed() -> None:
    """Ranges that held the whole log would be true, and of no use."""
    for problem in ("data", "drift", "harm"):
        offsets: Any = played().alerts[problem].evidence["offsets"]
        for partition in range(PARTITIONS):
            first, end = offsets[
                f"feedback/{partition}" if problem == "harm" else f"predictions/{partition}"
            ]
            assert end - first < 0.5 * len(played().logs["predictions", partition])
