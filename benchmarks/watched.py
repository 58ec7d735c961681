"""The rows that `monitoring_cost` has every tool watch, and how each is asked for its CPU.

Every tool runs as a process of its own and reads the rows from one file, so that all get the same
bytes; what it says it got is compared. Imports numpy alone: the peers' environments have little.

    python -m benchmarks.peer_work evidently ROWS.npz 1000x3 10000x1
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

FEATURES: Final = 20
DRIFTED: Final = 5  # features whose mean moves in the second half
NAMES: Final = tuple(f"x{number:02d}" for number in range(FEATURES))
REFERENCE_ROWS: Final = 5_000
SEED: Final = 7

Floats = NDArray[np.float64]


class Rows(NamedTuple):
    """Features (n, 20), the model's P of the positive class (n,), labels of 0 and 1 (n,)."""

    features: Floats
    scores: Floats
    labels: Floats

    def windows(self, size: int, count: int) -> list[Rows]:
        """The first `count` windows of `size` rows, back to back.

        Raises:
            ValueError: there are not so many rows.
        """
        if size * count > len(self.scores):
            raise ValueError(f"{count} windows of {size} rows are more than {len(self.scores)}")
        cuts = range(0, size * count, size)
        return [Rows(*(column[at : at + size] for column in self)) for at in cuts]

    def digest(self) -> str:
        """SHA-256 of the bytes of all three."""
        whole = hashlib.sha256()
        for column in self:
            whole.update(np.ascontiguousarray(column).tobytes())
        return whole.hexdigest()


class Way(NamedTuple):
    """How one tool watches: what is not timed, then what is.

    Attributes:
        dress: the number of a window and the window to what the tool wants; not timed.
        prepare: of the reference, to a function that does the work on dressed windows.
        version: of the tool.
    """

    dress: Callable[[int, Rows], Any]
    prepare: Callable[[Rows], Callable[[Sequence[Any]], object]]
    version: str


def draw(count: int, *, seed: int, drift: bool) -> Rows:
    """A logistic model on normal features, some of which move halfway if `drift`."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, FEATURES))
    if drift:
        features[count // 2 :, :DRIFTED] += 0.5
    weights = np.linspace(-1.0, 1.0, FEATURES)
    scores = 1 / (1 + np.exp(-features @ weights / 2))
    labels = (random.random(count) < scores).astype(np.float64)
    return Rows(features, scores, labels)


def save(path: Path, count: int) -> str:
    """Put a reference and `count` rows to watch in a file; the digest of the latter."""
    reference = draw(REFERENCE_ROWS, seed=SEED, drift=False)
    watched = draw(count, seed=SEED + 1, drift=True)
    named = {
        f"{which}_{name}": column
        for which, rows in (("reference", reference), ("watched", watched))
        for name, column in rows._asdict().items()
    }
    np.savez(path, **named)
    return watched.digest()


def load(path: Path) -> tuple[Rows, Rows]:
    """The reference, and the rows to watch."""
    with np.load(path) as held:
        reference, watched = (
            Rows(*(held[f"{which}_{name}"] for name in Rows._fields))
            for which in ("reference", "watched")
        )
    return reference, watched


def cpu_seconds(way: Way, reference: Rows, windows: Sequence[Rows]) -> float:
    """CPU of the work alone, of all threads; one window of warm-up is left out."""
    dressed = [way.dress(number, window) for number, window in enumerate(windows)]
    work = way.prepare(reference)
    work(dressed[:1])
    began = time.process_time()
    work(dressed)
    return time.process_time() - began


def answer(ways: dict[str, Callable[[int], Way]], arguments: Sequence[str]) -> None:
    """Do what the command line says, and print a line of JSON.

    Args:
        ways: by name, for windows of so many rows.
        arguments: a name, the file of rows, then `<rows>x<windows>`.
    """
    name, path, *cuts = arguments
    reference, watched = load(Path(path))
    seconds, version = {}, ""
    for cut in cuts:
        size, count = map(int, cut.split("x"))
        way = ways[name](size)
        windows, version = watched.windows(size, count), way.version
        seconds[size] = cpu_seconds(way, reference, windows)
    said = {"digest": watched.digest(), "version": version, "cpu_seconds": seconds}
    print(json.dumps(said))
