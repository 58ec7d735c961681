"""Labels that met their predictions, as columns, so that many are counted at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from stream.core.grouping import Floats, Groups, Ints, chosen, group, places_of
from stream.core.joining import Joined
from stream.core.packing import Kind
from stream.core.sources import Source


class Labelled(Struct, frozen=True):
    """Columns of labels with the sources of their predictions; fields not told of as in `Joined`.

    Attributes:
        sources: the different ones.
        of: index of each label's source, shape (n,).
        before: what each label corrects; NaN where nothing.
    """

    sources: Sequence[Source]
    of: Ints
    ids: Sequence[str]
    predicted_ms: Ints
    labelled_ms: Ints
    arrived_ms: Ints
    codes: Sequence[bytes]
    values: Sequence[tuple[float, ...]]
    labels: Floats
    before: Floats

    @classmethod
    def gathered(cls, joined: Sequence[Joined], source_of: Callable[[Kind], Source]) -> Labelled:
        """The columns of labels, one or more."""
        known, of = _numbered([one.kind for one in joined])
        before = [one.before for one in joined]
        return cls(
            sources=[source_of(kind) for kind in known],
            of=of,
            ids=[one.id for one in joined],
            predicted_ms=np.array([one.predicted_ms for one in joined], dtype=np.int64),
            labelled_ms=np.array([one.labelled_ms for one in joined], dtype=np.int64),
            arrived_ms=np.array([one.arrived_ms for one in joined], dtype=np.int64),
            codes=[one.codes for one in joined],
            values=[one.values for one in joined],
            labels=np.array([one.label for one in joined]),
            before=np.full(len(before), np.nan)  # as of None below, but sooner
            if before.count(None) == len(before)
            else np.array(before, dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.of)

    def take(self, places: Ints) -> Labelled:
        """The labels at these places; as many places as labels must be all of them, in order."""
        if len(places) == len(self):
            return self
        return Labelled(
            sources=self.sources,
            of=self.of[places],
            ids=chosen(self.ids, places),
            predicted_ms=self.predicted_ms[places],
            labelled_ms=self.labelled_ms[places],
            arrived_ms=self.arrived_ms[places],
            codes=chosen(self.codes, places),
            values=chosen(self.values, places),
            labels=self.labels[places],
            before=self.before[places],
        )

    def alike(self) -> Iterable[Labelled]:
        """Labels by task and outputs, which must not differ among those judged together."""
        like = places_of([(one.spec.task, one.kind.outputs) for one in self.sources])
        if len(like) == 1:
            return [self]
        return [self._of_sources(some) for some in like.values()]

    def _of_sources(self, some: Ints) -> Labelled:
        number = np.full(len(self.sources), -1)
        number[some] = np.arange(len(some))
        mine = self.take(np.flatnonzero(number[self.of] >= 0))
        return replace(mine, sources=chosen(self.sources, some), of=number[mine.of])

    def each(self, field: Callable[[Source], float]) -> NDArray[Any]:
        """A number of each label's source, shape (n,)."""
        return np.array([field(source) for source in self.sources])[self.of]

    def grouped(self, times_ms: Ints) -> Groups:
        """By the ticks of these times, shape (n,)."""
        return group(self.sources, self.of, times_ms, self.codes)


def _numbered(kinds: Sequence[Kind]) -> tuple[Sequence[Kind], Ints]:
    """The different ones in the order in which they come, and the number of each."""
    if kinds.count(kinds[0]) == len(kinds):
        return kinds[:1], np.zeros(len(kinds), dtype=np.int64)
    known = list(dict.fromkeys(kinds))
    numbers = {kind: number for number, kind in enumerate(known)}
    return known, np.fromiter(map(numbers.__getitem__, kinds), np.int64, len(kinds))
