"""Labels by stratum: what they said of the predictions of a tick, and how late they came.

Whether a label has come yet may depend on what it says (see `models.strata`), so each pair of
predicted and true stratum is counted apart. What they said is restated by corrections; how late
they came is a fact about first labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Final

import numpy as np

from models.strata import MAX_STRATA
from stream.core.deltas import Delta, Deltas, Place, add_named
from stream.core.grouping import Floats, Groups, Ints, distinct, micro, sums_by
from stream.core.labelled import Labelled
from stream.core.lateness import BINS, judged_on, lateness_bin
from stream.events import LOSS_BINS

_PAIRS: Final = MAX_STRATA**2
NEVER: Final = np.iinfo(np.int64).min
_tick_ms = attrgetter("tick_ms")


def strata_of(labelled: Labelled, outputs: Floats, labels: Floats) -> Ints:
    """Predicted stratum * MAX_STRATA + true stratum of each event, shape (n,).

    Args:
        labelled: of one task, with as many outputs.
    """
    strata = [source.strata for source in labelled.sources]
    if len(strata) == 1 or not strata[0].by_value:
        return strata[0].of_outputs(outputs) * MAX_STRATA + strata[0].of_labels(labels)
    pairs = zip(labelled.of.tolist(), outputs[:, 0].tolist(), labels.tolist(), strict=True)
    found = [strata[i].of_value(o) * MAX_STRATA + strata[i].of_value(y) for i, o, y in pairs]
    return np.array(found, dtype=np.int64)


@cache
def name_of(stratum: int) -> str:
    """
    >>> name_of(MAX_STRATA + 3)
    '1/3'
    """
    predicted, true = divmod(stratum, MAX_STRATA)
    return f"{predicted}/{true}"


def count_outcomes(
    strata: Ints,
    signs: Floats,
    measures: Mapping[str, Floats],
    groups: Groups,
    deltas: Sequence[Delta],
) -> None:
    """Add measures to the places of the predictions, by stratum and in all.

    Args:
        signs: -1 where a correction takes away what an earlier label said, else 1; shape (n,).
        measures: of each event, shape (n,).
        deltas: of the groups' places.
    """
    who = groups.who
    cells, of = distinct(groups.of * _PAIRS + strata[who])

    def totals(values: Floats) -> list[int]:
        return sums_by(of, (signs * micro(values))[who], len(cells))

    names = list(measures)
    n = np.bincount(of, weights=signs[who], minlength=len(cells)).astype(np.int64).tolist()
    sums = zip(*[totals(values) for values in measures.values()], strict=True)
    squares = zip(*[totals(values**2) for values in measures.values()], strict=True)
    places, strata = (one.tolist() for one in np.divmod(cells, _PAIRS))
    told = zip(places, map(name_of, strata), n, sums, squares, strict=True)
    for place, stratum, count, total, squared in told:
        deltas[place].add_outcomes(stratum, count, names, total, squared)


def count_arrivals(
    strata: Ints, labelled: Labelled, groups: Groups, deltas: Sequence[Delta]
) -> None:
    """Count first labels by stratum and delay in the places of their predictions."""
    delays = labelled.arrived_ms - labelled.predicted_ms
    columns = (groups.of * _PAIRS + strata[groups.who]) * BINS + lateness_bin(delays)[groups.who]
    cells, of = distinct(columns)
    rest, late = np.divmod(cells, BINS)
    places, pairs = (one.tolist() for one in np.divmod(rest, _PAIRS))
    told = zip(places, map(name_of, pairs), late.tolist(), np.bincount(of).tolist(), strict=True)
    for place, stratum, delay, count in told:
        arrivals = deltas[place].arrivals
        known = arrivals.get(stratum)
        if known is None:
            known = arrivals[stratum] = {}
        add_named(known, str(delay), count)
    ticks = labelled.arrived_ms // labelled.each(_tick_ms)
    latest = np.full(len(groups.places), NEVER)
    np.maximum.at(latest, groups.of, ticks[groups.who])
    for delta, tick in zip(deltas, latest.tolist(), strict=True):
        if tick > (NEVER if delta.latest is None else delta.latest):
            delta.latest = tick


def count_judged(strata: Ints, bins: Ints, labelled: Labelled, deltas: Deltas) -> None:
    """Count first labels that came by the judging age of their model, in all and in the segments
    that are judged apart.

    Args:
        strata: from `strata_of`, shape (n,).
        bins: of the bounded losses, shape (n,).
    """
    late = lateness_bin(labelled.arrived_ms - labelled.predicted_ms).tolist()
    predicted_ms = labelled.predicted_ms.tolist()
    for i, of in enumerate(labelled.of.tolist()):
        source = labelled.sources[of]
        by_then = source.judging_bin
        if by_then is not None and late[i] < by_then:
            tick = judged_on(predicted_ms[i], by_then, source.tick_ms)
            for segment in ("", *source.apart(labelled.codes[i])):
                place = Place(source.kind.model, source.kind.version, segment, tick)
                judged = deltas.at(place).judged
                row = judged.setdefault(name_of(int(strata[i])), [0] * LOSS_BINS)
                row[int(bins[i])] += 1
