"""Findings in words and numbers: the sentence and the evidence that an alert carries."""

from __future__ import annotations

from typing import Any

from stream.core.distances import compare
from stream.core.trials import Judgement
from stream.core.watching import Kit, Sighting, Watch, bounded_loss
from stream.envelope import from_ms

MAX_NAMED = 5  # signals named in a sentence; the evidence has them all

Finding = tuple[str, dict[str, Any]]  # sentence, evidence


def harm(watch: Watch, kit: Kit) -> Finding:
    """The champion's loss is above what its validation allows."""
    sighting = watch.open("harm")["loss"]
    bound = kit.harm_bound
    loss = bounded_loss(sighting.counts)
    sentence = (
        f"version {watch.version} does worse than when it was validated: bounded loss {loss:.3f} "
        f"on {sum(sighting.counts)} labels since {_day(sighting.since_ms)}, "
        f"validated {bound.mean:.3f} (at most {bound.upper:.3f})"
    )
    return sentence, {
        "loss": loss,
        "validated": bound.mean,
        "bound": bound.upper,
        "loss_scale": kit.profile.validation.loss_scale,
        "before": list(kit.profile.validation.loss_bins),
        **_sighted(sighting),
        "drifting": sorted(watch.open("feature")),
    }


def broken(watch: Watch, kit: Kit) -> Finding:
    """Nulls or unseen categories are more frequent than in the reference."""
    signals = {name: _compared(kit, name, s) for name, s in watch.open("broken").items()}
    missing = [
        name for name, figures in signals.items() if figures["null_rise"] >= figures["unseen_rise"]
    ]
    unseen = [name for name in signals if name not in missing]
    parts = [f"values of {_named(missing)} are missing"] if missing else []
    parts += [f"{_named(unseen)} has categories that were never seen"] if unseen else []
    sentence = f"more than when version {watch.version} was trained, {' and '.join(parts)}"
    return sentence, {"missing": missing, "unseen": unseen, "signals": signals}


def changed(watch: Watch, kit: Kit, kind: Any) -> Finding:
    """Predictions or inputs are not distributed as in the reference."""
    signals = {name: _compared(kit, name, s) for name, s in watch.open(kind).items()}
    ranked = sorted(signals, key=lambda name: (-signals[name]["psi"], name))
    since = _day(min(figures["since_ms"] for figures in signals.values()))
    if kind == "prediction":
        sentence = f"what version {watch.version} predicts is distributed otherwise since {since}"
    else:
        sentence = (
            f"since {since} inputs differ from what version {watch.version} was trained on: "
            f"{_named(ranked)}"
        )
    return sentence, {"signals": signals}


def probation(version: int, judgement: Judgement) -> Finding:
    """The previous version does better than the one that replaced it."""
    figures = judgement.evidence
    sentence = (
        f"version {version} does worse than version {judgement.version} on the same "
        f"{figures['pairs']} labelled events: mean loss {figures['champion_loss']:.3f} against "
        f"{figures['shadow_loss']:.3f}"
    )
    return sentence, dict(figures)


def _compared(kit: Kit, name: str, sighting: Sighting) -> dict[str, Any]:
    reference = kit.profile.signal(name)
    before = list(reference.counts) if reference else []
    counts, n, m = sighting.counts, sum(sighting.counts), max(1, sum(before))
    far = compare(before, counts)
    categorical = reference is not None and reference.kind == "categorical"
    return {
        **_sighted(sighting),
        "psi": far.psi,
        "psi_noise": far.psi_noise,
        "psi_low": far.psi_low,
        "psi_high": far.psi_high,
        "null_rise": counts[-1] / n - before[-1] / m,
        "unseen_rise": counts[-2] / n - before[-2] / m if categorical else 0.0,
        "before": before,
    }


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
