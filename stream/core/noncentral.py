"""How far from no change: the noncentrality by which a measured chi-square is an extreme one.

To find it by roots costs ten microseconds for each signal, most of what a comparison costs. It is a
smooth function of the measured value, so that it is interpolated (Chebyshev nodes, as in Trefethen
2013): by less than 1e-9 of the value off.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

NODES: Final = 32
FEWEST: Final = 5  # degrees of freedom; with fewer the function bends too sharply
LARGEST: Final = 25_000.0  # value that is interpolated

_places = np.arange(NODES)
_angles = np.pi * (_places + 0.5) / NODES
_to_line = 2 / NODES * np.cos(np.outer(_places, _angles)) / np.where(_places, 1, 2)[:, None]


def noncentralities(
    values: Array, freedoms: Ints, shares: tuple[float, ...], where: NDArray[np.bool_]
) -> Array:
    """Noncentralities with which a chi-square is at most the value, with each probability.

    Args:
        values, freedoms: what was measured, and its degrees of freedom; shape (...).
        shares: the probabilities, k of them.
        where: there is one: without any the probability is higher. Shape (k, ...); 0 elsewhere.

    >>> there = np.array([[True, True]])
    >>> found = noncentralities(np.array([30.0, 30.0]), np.array([9, 1]), (0.025,), there)
    >>> special.chndtr([30.0, 30.0], [9, 1], found[0]).round(9).tolist()
    [0.025, 0.025]
    """
    found = _interpolated(values, np.maximum(freedoms, FEWEST), shares)
    slow = (freedoms < FEWEST) | (values > LARGEST)
    if slow.any():
        for i, share in enumerate(shares):
            special.chndtrinc(values, freedoms, share, where=where[i] & slow, out=found[i, ...])
    return np.where(where, np.fmax(found, 0.0), 0.0)


def _interpolated(values: Array, freedoms: Ints, shares: tuple[float, ...]) -> Array:
    """Shape (k, ...); of values that are too large, nothing that says anything."""
    every = [_lines(freedom, shares) for freedom in freedoms.ravel().tolist()]
    table = np.concatenate(every, axis=1).reshape(len(shares), *freedoms.shape, -1)
    line, middle, half = table[..., :NODES], table[..., NODES], table[..., NODES + 1]
    near = _near(values)
    angles = np.arccos(np.minimum(np.maximum((near - middle) / half, -1.0), 1.0))
    found: Array = (line * np.cos(angles[..., None] * _places)).sum(-1) / near**2
    return found


@lru_cache(maxsize=1024)
def _lines(freedom: int, shares: tuple[float, ...]) -> Array:
    """Shape (k, 1, NODES + 2): for each share, coefficients of noncentrality * near^2, then the
    middle of their range and half its width."""
    return np.array([[_line(freedom, share)] for share in shares])


def _line(freedom: int, share: float) -> Array:
    low, high = _near(LARGEST), _near(special.chdtri(freedom, 1 - share))
    middle, half = (low + high) / 2, (high - low) / 2
    near = middle + half * np.cos(_angles)
    far = special.chndtrinc((1 / near - 1) ** 2, freedom, share)
    return np.append(_to_line @ (far * near**2), [middle, half])


def _near(value: ArrayLike) -> Array:
    """1 at 0, 0 at infinity: in it the function is smooth at both ends."""
    return np.asarray(1 / (1 + np.sqrt(value)))
