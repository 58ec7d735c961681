"""Harm by late labels: each event is judged once, at one fixed age, and weighs what it stands for.

Labels that come soon differ from those that come late, so a test that takes each as it comes sees
harm in mere impatience. Here an event counts if it is labelled by the judging age a, with weight
w = 1 / pi, where pi = P(labelled by a | predicted and true stratum); one that is not yet labelled
counts nothing. The mean of A w (x - U) over all events is then that of x - U, whatever the weights
(Horvitz, Thompson 1952), so bets of 1 + stake w (x - U) keep the budget exactly if pi is right, and
if how late a label is does not depend on the loss x inside a stratum.

pi is learnt from predictions that are complete. Where it is wrong by a share rho at most, the bets
are against the bound U (1 + rho) / (1 - rho), which keeps the budget all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.core.bets import LOSS_VALUES, BetTable, mean_bets, table_of
from stream.core.delays import Delays
from stream.core.lateness import judging_bin
from stream.events import LOSS_BINS

LEAST_LABELLED: Final = 0.15  # of a stratum by the judging age; with less nothing is judged
HEAVIEST: Final = 1 / LEAST_LABELLED
STAKES: Final = np.array([0.05, 0.1, 0.2, 0.4, 0.8])  # of the largest possible stake
NODES: Final = 41  # values of w (x - U) that bets are laid out on

Array = NDArray[np.float64]
Weights = Mapping[str, float]  # by predicted and true stratum


def weights(delays: Delays, seconds: float) -> Weights | None:
    """1 / P(labelled by the judging age) of each stratum; None where too little is known.

    Whether it is known is seen from complete predictions alone, never from those to be judged.
    """
    by_then = judging_bin(seconds)

    def chance(counts: NDArray[np.int64]) -> float:
        return float(counts[:by_then].sum() / counts.sum())

    known = {f"/{true}": chance(counts) for true, counts in delays.by_label.items()}
    for name in delays.counts:
        if (counts := delays.of(name)) is not None:
            known[name] = chance(counts)
    if not known or min(known.values()) < LEAST_LABELLED:
        return None
    return {name: 1 / value for name, value in known.items()}


def weight_of(weights: Weights, stratum: str) -> float:
    """Of a stratum without a weight of its own that of its label; of a label never seen 1."""
    true = stratum.partition("/")[2]
    return weights.get(stratum, weights.get(f"/{true}", 1.0))


def guarded(bound: float, rho: float) -> float:
    """The bound that holds although weights are wrong by a share rho: both ways at worst."""
    return min(1.0, bound * (1 + rho) / (1 - rho))


def timely_table(edge: float, *, below: bool = False, deflation: float, name: str) -> BetTable:
    """Bets against "the mean loss is at most `edge`", on counts from `on_nodes` with that edge.

    Args:
        below: against "at least" instead.
    """
    values = -_nodes(edge) if below else _nodes(edge)
    rows = mean_bets(values, 0.0, STAKES / max(1e-9, float(-values.min())))
    return table_of(name, rows, STAKES**-0.5, deflation)


def on_nodes(judged: Mapping[str, Sequence[int]], weights: Weights, edge: float) -> list[float]:
    """Counts of w (x - edge) on fixed nodes, each event split between the two next to it.

    The log of a bet is concave, so a split event pays at most what it would pay whole: what is
    won on the nodes is never more than what is won on the events.

    Args:
        judged: labels by bin of the bounded loss, by stratum.
    """
    nodes, counts = _nodes(edge), np.zeros(NODES)
    for stratum, row in sorted(judged.items()):
        values = weight_of(weights, stratum) * (LOSS_VALUES - edge)
        at = np.interp(values, nodes, np.arange(NODES))
        low = np.minimum(at.astype(np.int64), NODES - 2)
        number = np.asarray(row, dtype=float)
        np.add.at(counts, low, number * (low + 1 - at))
        np.add.at(counts, low + 1, number * (at - low))
    return [float(count) for count in counts]


def weighed(judged: Mapping[str, Sequence[int]], weights: Weights) -> list[int]:
    """Labels by bin of the bounded loss, each as many as it stands for."""
    total = np.zeros(LOSS_BINS)
    for stratum, row in sorted(judged.items()):
        total += weight_of(weights, stratum) * np.asarray(row, dtype=float)
    return [round(float(count)) for count in total]


def _nodes(edge: float) -> Array:
    return np.linspace(-HEAVIEST * edge, HEAVIEST * (1 - edge), NODES)
