"""Labelled events in the order of time, and which of them a candidate may see before it is judged.

A candidate is judged on the newest slice, so it may learn only what was known when that slice
began: older events, and of these only the ones whose label had come by then. Labels that came later
tell of the very weeks it is judged on (purging: López de Prado, 2018, chapter 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.features import Row
from models.runs import Candidate
from models.spec import ModelSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_HELD_OUT = 30


class TrainingRefused(ValueError):
    """No version can be trained from these examples; the message is the reason.

    Attributes:
        candidates: those that were tried, each with its problem.
    """

    def __init__(self, reason: str, candidates: Sequence[Candidate] = ()) -> None:
        super().__init__(reason)
        self.candidates = candidates


class Examples(NamedTuple):
    """Labelled events in event-time order, all of one length n.

    Attributes:
        rows: feature values in the order of the spec, from `features.check_row`.
        labels: shape (n,), from `losses.encode_label`.
        times_ms: shape (n,), ascending.
        weights: shape (n,), positive.
        known_ms: shape (n,), when each label came; None: at once.
    """

    rows: Sequence[Row]
    labels: Floats
    times_ms: Ints
    weights: Floats
    known_ms: Ints | None = None

    def part(self, start: int, end: int | None = None) -> Examples:
        """Those at places `start` to `end`, as by slicing."""
        at = slice(start, end)
        known = None if self.known_ms is None else self.known_ms[at]
        return Examples(self.rows[at], self.labels[at], self.times_ms[at], self.weights[at], known)

    def newest(self, share: float) -> Examples:
        """The newest share of them, at least one."""
        return self.part(-max(1, round(share * len(self.rows))))

    def known_by(self, time_ms: int) -> Examples:
        """Those whose label had come by a time."""
        if self.known_ms is None or (self.known_ms <= time_ms).all():
            return self
        at = np.flatnonzero(self.known_ms <= time_ms)
        return Examples(
            [self.rows[int(i)] for i in at],
            self.labels[at],
            self.times_ms[at],
            self.weights[at],
            self.known_ms[at],
        )


class Split(NamedTuple):
    """What candidates are fitted on, and what they are judged on.

    Attributes:
        older: those before the newest slice whose label was known when it began.
        newest: held out from every candidate.
        late: how many others are older, but were labelled later.
    """

    older: Examples
    newest: Examples
    late: int

    @property
    def start_ms(self) -> int:
        """Event time at which the held-out slice begins."""
        return int(self.newest.times_ms[0])


def split(spec: ModelSpec, examples: Examples) -> Split:
    """
    Raises:
        TrainingRefused: too few rows in all, on either side, or of a class.
    """
    n, limits = len(examples.rows), spec.training
    if n < limits.minimum_rows:
        raise TrainingRefused(f"{n} labelled examples, at least {limits.minimum_rows}")
    if np.any(np.diff(examples.times_ms) < 0):
        raise ValueError("examples must be in event-time order")
    at = n - round(n * limits.holdout_share)
    if n - at < FEWEST_HELD_OUT or not at:
        raise TrainingRefused(f"{n - at} rows held out, at least {FEWEST_HELD_OUT}")
    at = int(np.searchsorted(examples.times_ms, examples.times_ms[at]))  # equal times stay together
    before, newest = examples.part(0, at), examples.part(at)
    older = before
    if limits.late_labels == "leave_out":
        older = before.known_by(int(newest.times_ms[0]))
    late = len(before.rows) - len(older.rows)
    check_learnable(spec, older, late)
    return Split(older, newest, late)


def check_learnable(spec: ModelSpec, older: Examples, late: int = 0) -> None:
    """Refuse what nothing can be learnt from.

    Args:
        late: examples that were left out because of when their label came.

    Raises:
        TrainingRefused: too few rows, or too few of a class.
    """
    hint = (
        f" ({late} more were labelled only after the held-out slice begins: widen "
        "training.window_seconds)"
        if late
        else ""
    )
    if len(older.rows) < FEWEST_HELD_OUT:
        raise TrainingRefused(f"{len(older.rows)} rows to fit on, at least {FEWEST_HELD_OUT}{hint}")
    if spec.task == "regression":
        return
    counts = np.bincount(older.labels.astype(np.intp), minlength=len(spec.classes))
    if np.count_nonzero(counts) < 2:
        name = spec.classes[int(counts.argmax())]
        raise TrainingRefused(
            f"all {len(older.rows)} examples to fit on have the same label, {name!r}{hint}"
        )
    fewest = spec.training.minimum_per_class
    if np.count_nonzero(counts >= fewest) < 2:
        shown = ", ".join(f"{n} of {c!r}" for c, n in zip(spec.classes, counts, strict=True) if n)
        raise TrainingRefused(
            f"too few of a class to fit on: {shown}; two classes need at least {fewest} each{hint}"
        )
