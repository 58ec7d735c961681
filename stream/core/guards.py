"""Guard rails of a trial: what a challenger must not do, however well it does on the whole.

Segments are proven: in each that is guarded it must be shown to be not worse by a margin, so that
one that is worse by it is promoted with probability alpha at most, whatever it does elsewhere.
Calibration is refuted: off by more than the champion and a margin. Latency is measured, no test:
batches that are slow are slow together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from msgspec import Struct

from models.profile import ReferenceProfile
from models.spec import ModelSpec, Trial
from stream.core.ticks import Group, add_counts
from stream.core.trial import PairedTest
from stream.events import MICRO, Pairs

RARE: Final = 0.2  # of its share in the reference: a segment that comes less often guards nothing
P99: Final = 0.99
FEWEST_TIMED: Final = 200  # requests, of each version

Guarded = Mapping[str, float]  # segments by name, with their shares of the reference


class Guards(Struct, omit_defaults=True):
    """What guards have seen of one shadow beside one champion."""

    n: int = 0
    segments: dict[str, list[float]] = {}  # snapshots of the paired test
    off: list[float] = []  # of the champion's calibration
    shadow_off: list[float] = []
    latencies: dict[str, int] = {}  # requests by bin of `latency_bin`, of the champion
    shadow_latencies: dict[str, int] = {}

    def observe(self, champion: int, shadow: int, group: Group) -> None:
        """Take one group of ticks in."""
        add_counts(self.latencies, group.counts.latencies.get(str(champion), {}))
        add_counts(self.shadow_latencies, group.counts.latencies.get(str(shadow), {}))
        pairs = group.counts.pairs.get(str(shadow), Pairs())
        self.n += pairs.n
        self.off = _updated(self.off, pairs.n, pairs.off, pairs.off_squares)
        self.shadow_off = _updated(
            self.shadow_off, pairs.n, pairs.shadow_off, pairs.shadow_off_squares
        )
        for name, part in sorted(group.counts.segments.items()):
            inside = part.pairs.get(str(shadow))
            if inside is not None:
                before = self.segments.get(name, [])
                self.segments[name] = _updated(before, inside.n, inside.d_sum, inside.d_squares)


class Finding(NamedTuple):
    """What the guards say.

    Attributes:
        broken: why it must not go live, in words; None: nothing is.
        unproven: segments in which it is not shown yet to be not worse.
    """

    broken: str | None
    unproven: tuple[str, ...]


def guarded(spec: ModelSpec, profile: ReferenceProfile) -> Guarded:
    """Values of declared segments that make up enough of the reference."""
    found: dict[str, float] = {}
    if spec.trial.segment_margin is None:
        return {}
    for feature in spec.segments:
        signal = profile.signal(feature)
        if signal is not None:
            counted = dict(zip(signal.categories, signal.counts, strict=False))
            found |= {f"{feature}={value}": n / sum(signal.counts) for value, n in counted.items()}
    return {name: share for name, share in found.items() if share >= spec.trial.segment_share}


def judge(guards: Guards, spec: Trial, segments: Guarded) -> Finding:
    """What the guards say now."""
    come, needed = _coming(guards, segments), 1 / spec.alpha
    worse = [name for name in come if _segment_test(guards, spec, name, -1).e_value >= needed]
    unproven = [name for name in come if _segment_test(guards, spec, name).e_value < needed]
    broken = [f"it does worse where {', '.join(worse)}"] if worse else []
    broken += filter(None, (_miscalibrated(guards, spec), _slow(guards, spec)))
    return Finding(" and ".join(broken) or None, tuple(unproven))


def evidence(guards: Guards, spec: Trial, segments: Guarded) -> dict[str, Any]:
    """All that the guards look at, in figures."""
    tests = {name: _segment_test(guards, spec, name) for name in _coming(guards, segments)}
    mine, theirs = _restored(guards.off), _restored(guards.shadow_off)
    low, high = theirs.interval(spec.alpha / 2)
    return {
        "segments": {
            name: {
                "pairs": test.n,
                "difference": test.mean,
                "difference_low": test.interval()[0],
                "difference_high": test.interval()[1],
                "e_value": test.e_value,
            }
            for name, test in tests.items()
        },
        "calibration": {
            "champion": mine.mean,
            "shadow": theirs.mean,
            "shadow_low": low,
            "shadow_high": high,
        },
        "latency": {
            "champion_p99_ms": quantile_ms(guards.latencies, P99),
            "shadow_p99_ms": quantile_ms(guards.shadow_latencies, P99),
        },
    }


def _coming(guards: Guards, segments: Guarded) -> list[str]:
    """The segments that come about as often as they did in the reference."""
    seen = {name: guards.segments.get(name, [0.0])[0] for name in segments}
    return [name for name, share in segments.items() if seen[name] >= RARE * share * guards.n]


def _segment_test(guards: Guards, spec: Trial, name: str, sign: int = 1) -> PairedTest:
    """+1: of "it is worse by the margin", -1: of "it is not"."""
    return _restored(guards.segments.get(name, []), -(spec.segment_margin or 0.0), sign)


def _miscalibrated(guards: Guards, spec: Trial) -> str | None:
    """Off by more than the champion and the margin, by intervals that hold at any time."""
    if spec.calibration_margin is None:
        return None
    mine, theirs = _restored(guards.off), _restored(guards.shadow_off)
    if abs(theirs.mean) <= abs(mine.mean) + spec.calibration_margin:
        return None  # intervals hold their means, and cost more
    low, high = theirs.interval(spec.alpha / 2)
    most = max(map(abs, mine.interval(spec.alpha / 2)))
    if max(low, -high) <= most + spec.calibration_margin:
        return None
    return f"its certainty is off by {abs(theirs.mean):.2f}, the champion's by {abs(mine.mean):.2f}"


def _slow(guards: Guards, spec: Trial) -> str | None:
    champion = quantile_ms(guards.latencies, P99)
    shadow = quantile_ms(guards.shadow_latencies, P99)
    if spec.latency_p99_ms is None or champion is None or shadow is None:
        return None
    if shadow <= max(spec.latency_p99_ms, spec.latency_factor * champion):
        return None
    return f"it takes {shadow:.0f} ms at p99, the champion {champion:.0f} ms"


def latency_bin(seconds: float) -> int:
    """floor(4 log2(us + 1)): a fifth of a latency at most.

    >>> [latency_bin(seconds) for seconds in (0.0, 1e-6, 0.001, 0.0012)]
    [0, 4, 39, 40]
    """
    return int(4 * math.log2(seconds * 1e6 + 1))


def quantile_ms(counts: Mapping[str, int], share: float) -> float | None:
    """The upper edge of the bin that the quantile lies in, ms; None of too few.

    >>> quantile_ms({"39": 990, "60": 10}, 0.99) < 1.1
    True
    """
    total = sum(counts.values())
    if total < FEWEST_TIMED:
        return None
    below = 0
    for bin_ in sorted(map(int, counts)):
        below += counts[str(bin_)]
        if below >= share * total:
            return float((2 ** ((bin_ + 1) / 4) - 1) / 1000)
    return None


def _updated(snapshot: list[float], n: int, total: int, squares: int) -> list[float]:
    test = _restored(snapshot)
    test.update(n, total / MICRO, squares / MICRO)
    return test.snapshot()


def _restored(snapshot: list[float], null_mean: float = 0.0, sign: int = 1) -> PairedTest:
    test = PairedTest(null_mean, sign)
    if snapshot:
        test.restore(snapshot)
    return test
