"""What a restart of monitor has to read as the horizon fills: what waits, not what has passed.

    python -m benchmarks.horizon [--quick] [--json] [--horizon N] [--unlabelled SHARE]

Feeds the core of the monitor stage, in this process, with more predictions than one horizon holds.
Most get their label 50,000 predictions later, the others never: those wait until the horizon closes
them. The parts of its checkpoint are kept as the checkpoint topic keeps them after compaction. At
ten points another processor is restored from them.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import numpy as np
from msgspec import structs

from benchmarks.bad_input import resident_mib
from benchmarks.reporting import parser, report, say
from models.spec import Labels, ModelSpec
from stream.core.monitor import MonitorProcessor
from stream.core.processor import Batch, Context, CoreSettings, Fleet, Record
from tests import monitoring

MILLION: Final = 1_000_000
BATCH: Final = 1_000  # predictions between two commits, one a millisecond
LABEL_DELAY: Final = 50_000  # predictions, which are milliseconds
POINTS: Final = 10
_PREDICTION: Final = (
    b'{"prediction_id":"p-%09d","model":"churn","version":1,"output":0.8,'
    b'"features":{"age":20.0,"plan":"a"}}'
)
_FEEDBACK: Final = b'{"prediction_id":"p-%09d","model":"churn","label":"yes"}'


class Point(NamedTuple):
    """
    Attributes:
        passed: predictions so far.
        pending: of them, how many wait for a label.
        checkpoint_mib: of all parts.
        restore_seconds: until another processor has taken them over.
    """

    passed: int
    pending: int
    checkpoint_mib: float
    restore_seconds: float
    resident_mib: float


class Aging:
    """One partition of monitor, and its checkpoint."""

    def __init__(self, horizon: int, unlabelled: float) -> None:
        labels = Labels(
            horizon_seconds=horizon / 1000,
            correction_horizon_seconds=20,
            early_seconds=20,
        )
        spec: ModelSpec = structs.replace(monitoring.SPEC, labels=labels)
        self._fleet: Fleet = {spec.name: monitoring.Live(spec)}
        self._unlabelled = unlabelled
        self._processor = self._new()
        self._parts: dict[str, bytes] = {}
        self._passed = self._labels = 0

    def _new(self) -> MonitorProcessor:
        counts = dict.fromkeys(("predictions", "feedback", "examples", "summaries"), 1)
        return MonitorProcessor(Context(0, counts, CoreSettings()))

    def feed(self) -> None:
        """A batch of predictions, the labels that are due, and a commit."""
        first, now_ms = self._passed, monitoring.T0 + self._passed + BATCH
        predictions = [
            Record(number, now_ms, b"p-%09d" % number, _PREDICTION % number)
            for number in range(first, first + BATCH)
        ]
        self._processor.apply(Batch("predictions", 0, predictions), self._fleet)
        if first >= LABEL_DELAY:
            self._processor.apply(Batch("feedback", 0, self._due(first, now_ms)), self._fleet)
        self._processor.advance(now_ms, True, self._fleet)
        monitoring.keep(self._parts, self._processor.changes(complete=False))
        self._passed += BATCH

    def _due(self, first: int, now_ms: int) -> list[Record]:
        of = first - LABEL_DELAY
        told = np.random.default_rng(of).random(BATCH) >= self._unlabelled
        numbers = (np.flatnonzero(told) + of).tolist()
        before, self._labels = self._labels, self._labels + len(numbers)
        return [
            Record(offset, now_ms, b"p-%09d" % number, _FEEDBACK % number)
            for offset, number in enumerate(numbers, before)
        ]

    def look(self) -> Point:
        started = time.process_time()
        again = self._new()
        again.restore(self._parts)
        seconds = time.process_time() - started
        pending = self._processor.gauges["pending"]
        assert again.gauges["pending"] == pending, "the restore lost rows"
        size = sum(map(len, self._parts.values())) / 2**20
        return Point(self._passed, pending, size, seconds, resident_mib())


def age(horizon: int, unlabelled: float) -> list[Point]:
    """Half as many predictions again as one horizon holds."""
    aging, seen = Aging(horizon, unlabelled), []
    for done in range(BATCH, horizon * 3 // 2 + BATCH, BATCH):
        aging.feed()
        if done % (horizon * 3 // 2 // POINTS) < BATCH:
            seen.append(aging.look())
            say("{:,} passed, {:,} wait: {:.0f} MiB, {:.1f} s, {:.0f} MiB".format(*seen[-1]))
    return seen


def main() -> None:
    one = parser("What a restart of monitor reads as the horizon fills.")
    one.add_argument("--horizon", type=int, help="predictions that one horizon holds")
    one.add_argument("--unlabelled", type=float, default=0.05, help="share without a label, ever")
    given = one.parse_args()
    horizon = given.horizon or (200_000 if given.quick else 20 * MILLION)
    seen = age(horizon, given.unlabelled)
    full = [point for point in seen if point.passed > horizon]
    figures = {
        "horizon_predictions": horizon,
        "unlabelled_share": given.unlabelled,
        "points": [point._asdict() for point in seen],
        "checkpoint_growth_after_one_horizon": round(
            full[-1].checkpoint_mib / full[0].checkpoint_mib, 3
        ),
    }
    rows = [
        [
            f"{point.passed:,}",
            f"{point.pending:,}",
            f"{point.checkpoint_mib:,.0f}",
            f"{point.restore_seconds:.1f}",
        ]
        for point in seen
    ]
    report(
        f"A horizon of {horizon:,} predictions, {given.unlabelled:.0%} of them never labelled",
        ["passed", "waiting", "checkpoint MiB", "CPU seconds to restore"],
        rows,
        figures,
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
