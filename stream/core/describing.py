"""Findings in words and numbers: the sentence and the evidence that an alert carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from stream.core.advisors import readings
from stream.core.bets import HarmBound
from stream.core.distances import Comparison, compare_all
from stream.core.intervals import Interval, mean_interval, wilson
from stream.core.risks import bounded_loss
from stream.core.slices import search
from stream.core.trials import Judgement
from stream.core.watching import (
    EXPECTED,
    HARM,
    LOSS,
    RECORDS,
    Kind,
    Kit,
    Sighting,
    Signal,
    Watch,
)
from stream.envelope import from_ms
from stream.events import LOSS_BINS

CERTAIN = 2.0  # standard errors from which a slice is named as the worst
MAX_SLICES = 5
MAX_NAMED = 5  # signals named in a sentence; the evidence has them all

Finding = tuple[str, dict[str, Any]]  # sentence, evidence


def harm(watch: Watch, kit: Kit) -> Finding:
    """The champion's loss is above what its validation allows."""
    opened, slices = watch.open("harm"), _slices(watch, kit)
    name = LOSS if LOSS in opened else slices[0]["signal"]
    sighting, signal = opened[name], Signal("harm", name)
    bound, validation = kit.harm_bound(signal), kit.validation(signal)
    age = kit.spec.labels.judged_after_seconds
    loss = bounded_loss(sighting.counts)
    sentence = (
        f"version {watch.version} does worse{name.removeprefix(LOSS)} than when it was validated: "
        f"bounded loss {loss:.3f} on {_labels(sighting, age)} since "
        f"{_day(sighting.since_ms)}, validated {bound.mean:.3f} ({_limit(bound)})"
    )
    if name == LOSS and slices and slices[0]["certainty"] >= CERTAIN:
        worst = slices[0]
        sentence += f"; worst in {worst['segment']}: {worst['loss']:.3f}"
    searched = _searched(watch, kit)
    if searched and searched["found"]:
        found = searched["found"][0]
        sentence += f"; where {found['slice']} {found['loss']:.3f}, elsewhere {found['rest']:.3f}"
    interval = _loss_interval(sighting.counts) if age is None else Interval(loss, None, None)
    return sentence, {
        "basis": "measured",
        "judged_after_seconds": age,
        "loss": loss,
        "loss_low": interval.low,
        "loss_high": interval.high,
        "validated": bound.mean,
        "bound": bound.upper,
        "bound_by": "ignorance" if bound.by_ignorance else "validation",
        "loss_scale": validation.loss_scale,
        "before": list(validation.loss_bins),
        "slices": slices[:MAX_SLICES],
        **({"search": searched} if searched else {}),
        **_sighted(sighting),
        **_test(kit, signal, sighting),
        "drifting": sorted(watch.open("feature")),
        **_advice(watch, kit),
        **_places(watch, [sighting]),
    }


def _limit(bound: HarmBound) -> str:
    said = ", as by knowing nothing" if bound.by_ignorance else ""
    return f"at most {bound.upper:.3f}{said}"


def _searched(watch: Watch, kit: Kit) -> dict[str, Any] | None:
    """Slices that nobody declared; None where none were counted, or the whole did not alarm."""
    sighting, reference = watch.open("harm").get(LOSS), kit.profile.slices
    if sighting is None or not sighting.slices or reference is None:
        return None
    return search(reference, sighting.slices, kit.profile.validation.deflation)


def _slices(watch: Watch, kit: Kit) -> list[dict[str, Any]]:
    """The segments that are judged, worst first: those that alarmed, then by how many standard
    errors their loss since their evidence was last low lies above the validated one."""
    found = []
    for signal in kit.signals:
        sighting = watch.sightings.get(signal.key)
        if signal.kind != "harm" or signal.name == LOSS or not sighting or not sighting.counts:
            continue
        before, after = kit.validation(signal), sighting.counts
        rows, n = sum(before.loss_bins), sum(after)
        validated, loss = bounded_loss(list(before.loss_bins)), bounded_loss(after)
        spread = _variance(list(before.loss_bins)) * before.deflation
        found.append(
            {
                "signal": signal.name,
                "segment": signal.name.removeprefix(f"{LOSS} in "),
                "alarmed": sighting.opened_ms is not None,
                "loss": loss,
                "validated": validated,
                "certainty": (loss - validated) / max(1e-9, (spread / n + spread / rows) ** 0.5),
                "n": n,
            }
        )
    found.sort(key=lambda one: (not one["alarmed"], -float(one["certainty"]), one["segment"]))
    return found


def _variance(bets: list[int]) -> float:
    top, n = LOSS_BINS - 1, max(1, sum(bets))
    mean = bounded_loss(bets)
    return sum((i / top) ** 2 * count for i, count in enumerate(bets)) / n - mean * mean


def _labels(sighting: Sighting, age: float | None) -> str:
    n = sum(sighting.counts)
    return f"{n} labels" if age is None else f"labels that stand for {n} predictions"


def expected(watch: Watch, kit: Kit) -> Finding:
    """Without a look at labels: predictions are like those that were often wrong."""
    sighting, bound = watch.open("estimate")["loss"], kit.harm_bound(HARM)
    loss = kit.expected.loss(sighting.counts) if kit.expected else 0.0
    sentence = (
        f"version {watch.version} is expected to do worse than when it was validated, by what it "
        f"predicts, without labels: bounded loss {loss:.3f} on {sum(sighting.counts)} predictions "
        f"since {_day(sighting.since_ms)}, validated {bound.mean:.3f} (at most {bound.upper:.3f})"
    )
    return sentence, {
        "basis": "estimated",
        "loss": loss,
        "validated": bound.mean,
        "bound": bound.upper,
        "loss_scale": kit.profile.validation.loss_scale,
        "before": kit.expected.before if kit.expected else [],
        **_sighted(sighting),
        **_test(kit, EXPECTED, sighting),
        "drifting": sorted(watch.open("feature")),
        **_places(watch, [sighting]),
    }


def broken(watch: Watch, kit: Kit) -> Finding:
    """Records are refused, or values are missing, out of range or of categories never seen."""
    opened = watch.open("broken")
    signals = _compared(kit, "broken", opened)
    records = watch.open("schema").get(RECORDS)
    kinds: dict[str, list[str]] = {"missing": [], "range": [], "unseen": []}
    for name, figures in signals.items():
        rises = {
            "missing": figures["null_rise"],
            "unseen": figures["unseen_rise"],
            "range": figures["range_rise"],
        }
        kinds[max(rises, key=lambda kind: rises[kind])].append(name)
    parts = [f"values of {_named(kinds['missing'])} are missing"] if kinds["missing"] else []
    parts += [f"{_named(kinds['range'])} is out of range"] if kinds["range"] else []
    if kinds["unseen"]:
        parts.append(f"{_named(kinds['unseen'])} has categories that were never seen")
    refused = _refused(kit, records) if records else None
    if refused:
        parts.insert(0, f"{refused['share']:.0%} of records are refused ({refused['worst']})")
    sentence = f"more than when version {watch.version} was trained, {' and '.join(parts)}"
    every = [*opened.values(), *([records] if records else [])]
    return sentence, {
        **kinds,
        "signals": signals,
        **({"refused": refused} if refused else {}),
        **_places(watch, every),
    }


def changed(watch: Watch, kit: Kit, kind: Kind) -> Finding:
    """Predictions or inputs are not distributed as in the reference."""
    opened = watch.open(kind)
    signals = _compared(kit, kind, opened)
    ranked = sorted(signals, key=lambda name: (-signals[name]["psi"], name))
    since = _day(min(figures["since_ms"] for figures in signals.values()))
    if kind == "prediction":
        sentence = f"what version {watch.version} predicts is distributed otherwise since {since}"
    else:
        sentence = (
            f"since {since} inputs differ from what version {watch.version} was trained on: "
            f"{_named(ranked)}"
        )
    places = _places(watch, list(opened.values()))
    return sentence, {"ranked": ranked, "signals": signals, **places}


def probation(version: int, judgement: Judgement) -> Finding:
    """The previous version does better than the one that replaced it."""
    figures = judgement.evidence
    sentence = (
        f"version {version} does worse than version {judgement.version} on the same "
        f"{figures['pairs']} labelled events: mean loss {figures['champion_loss']:.3f} against "
        f"{figures['shadow_loss']:.3f}"
    )
    return sentence, dict(figures)


def _compared(kit: Kit, kind: Kind, opened: Mapping[str, Sighting]) -> dict[str, dict[str, Any]]:
    """Each open signal before and after: the effect with its interval, the test that alarmed."""
    before = [kit.reference(Signal(kind, name)).counts for name in opened]
    every = compare_all(before, [sighting.counts for sighting in opened.values()])
    return {
        name: _effect(kit, Signal(kind, name), sighting, far)
        for (name, sighting), far in zip(opened.items(), every, strict=True)
    }


def _effect(kit: Kit, signal: Signal, sighting: Sighting, far: Comparison) -> dict[str, Any]:
    reference = kit.reference(signal)
    before = list(reference.counts)
    counts, n, m = sighting.counts, sum(sighting.counts), max(1, sum(before))
    rises = [now / n - then / m for then, now in zip(before, counts, strict=True)]
    categorical = reference.kind == "categorical"
    return {
        **_sighted(sighting),
        "psi": far.psi,
        "psi_noise": far.psi_noise,
        "psi_corrected": max(0.0, far.psi - far.psi_noise),
        "psi_low": far.psi_low,
        "psi_high": far.psi_high,
        "tolerance": kit.spec.tolerances.psi,
        "null_rise": rises[-1],
        "unseen_rise": rises[-2] if categorical else 0.0,
        "range_rise": 0.0 if categorical else max(rises[0], rises[-2]),
        "before": before,
        **_test(kit, signal, sighting),
    }


def _refused(kit: Kit, sighting: Sighting) -> dict[str, Any]:
    accepted, refused, _ = sighting.counts
    reasons = dict(sorted(sighting.refused.items()))
    share = wilson(refused, accepted + refused)
    return {
        "share": share.value,
        "share_low": share.low,
        "share_high": share.high,
        "reasons": reasons,
        "worst": max(reasons, key=lambda reason: reasons[reason], default=""),
        **_sighted(sighting),
        **_test(kit, Signal("schema", RECORDS), sighting),
    }


def _test(kit: Kit, signal: Signal, sighting: Sighting) -> dict[str, float]:
    """The statistic that alarmed, and what it had to reach: by itself, or with its like."""
    threshold = kit.threshold(signal)
    return {"statistic": sighting.reached * threshold, "threshold": threshold}


def _loss_interval(bets: list[int]) -> Interval:
    """Mean bounded loss with its interval for a window fixed beforehand, so a little too sure."""
    top = LOSS_BINS - 1
    total = sum(i * n for i, n in enumerate(bets)) / top
    squares = sum(i * i * n for i, n in enumerate(bets)) / top**2
    return mean_interval(sum(bets), total, squares)


def _advice(watch: Watch, kit: Kit) -> dict[str, Any]:
    found = readings(kit.spec.detectors, watch.memory)
    return {"detectors": msgspec.to_builtins(found)} if found else {}


def _places(watch: Watch, sightings: list[Sighting]) -> dict[str, Any]:
    """Where the records lie that were counted, and the traces of a few of them, if they have any.

    Offsets are by "<entity>/<partition>": first, end. Of labels their predictions lie before the
    end, and up to the label horizon before the first.
    """
    since_ms = min(sighting.since_ms for sighting in sightings)
    until_ms = max(sighting.opened_ms or watch.until_ms for sighting in sightings)
    found = watch.trail.between(since_ms, until_ms)
    traces = watch.trail.traces(since_ms, until_ms)
    offsets = {place: list(found[place]) for place in sorted(found)}
    return {"offsets": offsets, **({"traces": traces} if traces else {})}


def _sighted(sighting: Sighting) -> dict[str, Any]:
    return {
        "n": sum(sighting.counts),
        "since_ms": sighting.since_ms,
        "until_ms": sighting.opened_ms,
        "after": sighting.counts,
    }


def _named(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _day(time_ms: int) -> str:
    return f"{from_ms(time_ms):%Y-%m-%d %H:%M}"
