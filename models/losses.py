"""Labels and losses: how wrong an output was, per event.

Classification is judged by log loss in nats, regression by absolute error. The tests need a loss in
[0, 1], so each loss is cut at a scale and divided by it; a cut, bounded log loss still ranks honest
probabilities first as long as no p falls under exp(-scale).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.features import category_text
from models.spec import ModelSpec

LOG_LOSS_SCALE = 4.0  # nats: p = 0.018 on what happened counts as wholly wrong
LOSS_BINS = 20  # values i/19, i = 0..19; the same number as stream.events.LOSS_BINS
MIN_PROBABILITY = 1e-6
MAX_VALUE = 1e12  # of a regression's output or label: sums in millionths stay far from overflow

Floats = NDArray[np.float64]


def encode_label(spec: ModelSpec, label: str | bool | int | float) -> float:
    """The class index, or the value.

    A class is given by its name; a binary label also as true/false or 1/0, also as text.

    Raises:
        ValueError: not a label of this task.
    """
    if spec.task == "regression":
        return _number(label)
    text = category_text(label)
    if text in spec.classes:
        return float(spec.classes.index(text))
    if spec.task == "binary" and text in _BINARY:
        return _BINARY[text]
    raise ValueError(f"{text[:40]!r} is none of the classes {', '.join(spec.classes)[:200]}")


_BINARY = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0}


def _number(label: str | bool | int | float) -> float:
    if isinstance(label, str | bool):
        raise ValueError(f"{type(label).__name__} is not a number")
    if not abs(label) <= MAX_VALUE:
        raise ValueError(f"beyond ±{MAX_VALUE:g}")
    return float(label)


def losses(spec: ModelSpec, outputs: Floats, labels: Floats) -> Floats:
    """Log loss in nats (p at least 1e-6), or absolute error.

    Args:
        outputs: shape (n, spec.outputs).
        labels: shape (n,), from `encode_label`.

    Returns:
        shape (n,), unbounded.
    """
    if spec.task == "regression":
        absolute: Floats = np.abs(outputs[:, 0] - labels)
        return absolute
    if spec.task == "binary":
        chosen = np.where(labels == 1.0, outputs[:, 0], 1.0 - outputs[:, 0])
    else:
        chosen = outputs[np.arange(len(labels)), labels.astype(np.intp)]
    logs: Floats = -np.log(np.clip(chosen, MIN_PROBABILITY, 1.0))
    return logs


def bounded(values: Floats, scale: float) -> Floats:
    """Losses cut at `scale`, as a share of it: in [0, 1].

    >>> bounded(np.array([1.0, 9.0]), scale=4.0)
    array([0.25, 1.  ])
    """
    return np.minimum(values, scale) / scale


def correct(spec: ModelSpec, outputs: Floats, labels: Floats) -> NDArray[np.bool_]:
    """Whether the likeliest class is the label; for regression never."""
    if spec.task == "regression":
        return np.zeros(len(labels), dtype=np.bool_)
    if spec.task == "binary":
        likeliest = (outputs[:, 0] >= 0.5).astype(np.intp)
    else:
        likeliest = np.argmax(outputs, axis=1)
    return np.equal(likeliest, labels.astype(np.intp))


def off(spec: ModelSpec, outputs: Floats, labels: Floats, scales: Floats) -> Floats:
    """How far certainty is from being right, in [-1, 1]; of a calibrated version 0 on average.

    Classification: the probability of the likeliest class - whether it is the label, so that
    overconfidence is positive. Regression: the signed error, cut at the scale of the loss.

    Args:
        scales: shape (n,), of the bounded loss.
    """
    if spec.task == "regression":
        return np.clip((outputs[:, 0] - labels) / scales, -1.0, 1.0)
    if spec.task == "binary":
        certainty = np.maximum(outputs[:, 0], 1.0 - outputs[:, 0])
    else:
        certainty = outputs.max(axis=1)
    return np.clip(certainty, 0.0, 1.0) - correct(spec, outputs, labels)


def measures(spec: ModelSpec, outputs: Floats, labels: Floats, scale: float) -> dict[str, Floats]:
    """All measures of each event by name, shape (n,) each: the names of `SummaryComputed.sums`.

    Classification: correct, log_loss, loss. Regression: absolute_error, squared_error, loss.
    `loss` is the bounded one, by the scale that the version was validated with.
    """
    raw = losses(spec, outputs, labels)
    if spec.task == "regression":
        named = {"absolute_error": raw, "squared_error": raw**2}
    else:
        named = {"correct": correct(spec, outputs, labels).astype(np.float64), "log_loss": raw}
    return named | {"loss": bounded(raw, scale)}


def loss_bin(values: Floats, ids: Sequence[str]) -> NDArray[np.int64]:
    """The bin of each bounded loss, rounded up with a probability equal to its fraction.

    The bin's value i/19 then has the loss as its mean, so tests on bins test the mean loss itself.
    The draw is a hash of the event's id: the same event always falls in the same bin.
    """
    scaled = np.clip(values, 0.0, 1.0) * (LOSS_BINS - 1)
    floor = np.floor(scaled)
    return (floor + (fractions(ids) < scaled - floor)).astype(np.int64)


def fractions(ids: Sequence[str]) -> Floats:
    """Hashes in [0, 1), shape (n,).

    CRC-32 is linear, so MurmurHash3's finaliser (Appleby, 2011) mixes it.
    """
    h = np.fromiter(map(zlib.crc32, map(str.encode, ids)), dtype=np.uint32, count=len(ids))
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h / 2.0**32
