"""Swaps under load: what requests notice of a champion that is replaced, and replaced again.

    python -m benchmarks.swaps [--quick] [--json] [--rate N] [--swaps N]

One worker of score on a real broker, requests at a steady rate. Quiet stretches and stretches with
a swap every second take turns, so that both see the same machine; each swap is a version that was
never loaded before. A latency is as in `benchmarks.latency`. Afterwards all predictions are read:
none may be missing or there twice, and in no partition may a version come after a newer one.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import workload
from benchmarks.latency import Driver
from benchmarks.reporting import parser, report, say
from benchmarks.workers import Workers, kafka
from stream.settings import Settings
from tests.topics import Seen, read_all

WARM_SECONDS: Final = 15.0
STRETCH_SECONDS: Final = 10  # of one kind; then the other
SWAP_SECONDS: Final = 1.0


class Swapping:
    """Makes one version after another the champion, in every other stretch."""

    def __init__(self, settings: Settings, versions: Sequence[workload.Version]) -> None:
        self.times: list[float] = []
        self._settings = settings
        self._versions = versions
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, first: float) -> None:
        """Begin with a quiet stretch at this monotonic time."""
        self._first = first
        self._thread.start()

    def _run(self) -> None:
        for number in range(1, len(self._versions)):
            stretch, swap = divmod(number - 1, STRETCH_SECONDS)
            due = self._first + (2 * stretch + 1) * STRETCH_SECONDS + swap * SWAP_SECONDS
            time.sleep(max(0.0, due - time.monotonic()))
            self.times.append(time.monotonic())
            workload.announce(self._settings, self._versions, champion=number + 1)


class Audit(NamedTuple):
    """What the predictions say that lie in the topic."""

    predictions: int
    doubled: int
    versions: int  # that have served
    backwards: int  # predictions by an older version behind those of a newer one, in a partition


def audited(seen: Sequence[Seen]) -> Audit:
    """Count what must not be.

    Args:
        seen: by partition and offset.
    """
    newest: dict[int, int] = {}
    backwards, versions = 0, set()
    for one in seen:
        version = json.loads(one.value or b"")["data"]["version"]
        backwards += version < newest.get(one.partition, 0)
        newest[one.partition] = max(version, newest.get(one.partition, 0))
        versions.add(version)
    doubled = len(seen) - len({one.key for one in seen})
    return Audit(len(seen), doubled, len(versions), backwards)


class Found(NamedTuple):
    """Latencies in seconds of each kind of stretch; NaN: never seen."""

    quiet: NDArray[np.float64]
    swapping: NDArray[np.float64]
    audit: Audit


def measure(bootstrap: str, folder: Path, rate: float, swaps: int) -> Found:
    settings = workload.benchmark_settings(bootstrap, "swaps", folder)
    say(f"fitting {swaps + 1} versions")
    versions = workload.versions(swaps + 1)
    workload.go_live(settings, versions[:1])
    stretches = 2 * -(-swaps // STRETCH_SECONDS)
    seconds = WARM_SECONDS + stretches * STRETCH_SECONDS
    requests = list(workload.requests(round(rate * seconds)))
    command = [sys.executable, "-m", "consumers", "worker", "--stages", "score"]
    swapping = Swapping(settings, versions)
    with Workers([command], workload.environment(settings), folder / "log") as workers:
        driver = Driver(settings, requests, rate)
        latencies = driver.run(workers, begun=lambda at: swapping.start(at + WARM_SECONDS))
        driver.close()
    at = np.arange(len(requests)) / rate - WARM_SECONDS
    is_swapping = (at // STRETCH_SECONDS) % 2 == 1
    predictions = read_all(bootstrap, settings.names.topic("predictions"))
    return Found(
        latencies[(at >= 0) & ~is_swapping],
        latencies[(at >= 0) & is_swapping],
        audited(predictions),
    )


def main() -> None:
    one = parser("What requests notice of swaps.")
    one.add_argument("--rate", type=float, help="requests a second")
    one.add_argument("--swaps", type=int)
    given = one.parse_args()
    rate = given.rate or (1000.0 if given.quick else 5000.0)
    swaps = given.swaps or (10 if given.quick else 50)
    with kafka() as (broker, folder):
        found = measure(broker.bootstrap, folder, rate, swaps)
    lost = int(np.isnan(found.quiet).sum() + np.isnan(found.swapping).sum())
    quiet, swapping = (
        np.nanquantile(some, (0.5, 0.99)) * 1000 for some in (found.quiet, found.swapping)
    )
    ratio = float(swapping[1] / quiet[1])
    figures: dict[str, object] = {
        "rate": rate,
        "swaps": swaps,
        "lost": lost,
        **{f"audit_{name}": value for name, value in found.audit._asdict().items()},
        "quiet_p50_ms": round(float(quiet[0]), 1),
        "quiet_p99_ms": round(float(quiet[1]), 1),
        "swapping_p50_ms": round(float(swapping[0]), 1),
        "swapping_p99_ms": round(float(swapping[1]), 1),
        "p99_ratio": round(ratio, 2),
    }
    row = [f"{lost}", f"{found.audit.doubled}", f"{found.audit.backwards}"]
    row += [f"{found.audit.versions}", f"{quiet[1]:.0f}", f"{swapping[1]:.0f}", f"{ratio:.2f}"]
    report(
        f"{swaps} swaps under {rate:,.0f} requests/s",
        ["lost", "doubled", "backwards", "versions", "p99 ms, none", "p99 ms, swaps", "ratio"],
        [row],
        figures,
        as_json=given.json,
    )


if __name__ == "__main__":
    main()
