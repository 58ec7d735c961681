"""Labels that met their predictions, as columns, so that many are counted at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from models.features import numbers
from stream.core.grouping import Floats, Groups, Ints, among, chosen, group, numbered, places_of
from stream.core.joining import Joined, Meetings
from stream.core.packing import Kind
from stream.core.sources import Source


class Labelled(Struct, frozen=True):
    """Columns of labels with the sources of their predictions; fields not told of as in `Joined`.

    Attributes:
        sources: the different ones.
        of: index of each label's source, shape (n,).
        values: shape (n, the most outputs that any version has with its shadows); NaN beyond.
        before: what each label corrects; NaN where nothing.
    """

    sources: Sequence[Source]
    of: Ints
    ids: Sequence[str]
    predicted_ms: Ints
    labelled_ms: Ints
    arrived_ms: Ints
    codes: Sequence[bytes]
    values: Floats
    labels: Floats
    before: Floats

    @classmethod
    def gathered(
        cls,
        joined: Sequence[Joined],
        source_of: Callable[[Kind], Source],
        met: Iterable[Meetings] = (),
    ) -> list[Labelled]:
        """The columns of labels; of each task and number of outputs, which must not differ among
        those judged together, apart.

        Args:
            met: more labels, in columns already.
        """
        whole = [cls._met(one, source_of) for one in met]
        if joined:
            whole.append(cls._one_by_one(joined, source_of))
        alike: dict[object, list[Labelled]] = {}
        for one in whole:
            for judged_as, part in one._apart():  # noqa: SLF001
                alike.setdefault(judged_as, []).append(part)
        return [cls._together(some) for some in alike.values()]

    @classmethod
    def _met(cls, met: Meetings, source_of: Callable[[Kind], Source]) -> Labelled:
        return cls(
            sources=list(map(source_of, met.kinds)),
            of=met.of,
            ids=met.ids,
            predicted_ms=met.predicted_ms,
            labelled_ms=met.labelled_ms,
            arrived_ms=met.arrived_ms,
            codes=met.codes,
            values=met.values,
            labels=np.array(met.labels, dtype=np.float64),
            before=np.full(len(met.ids), np.nan),
        )

    @classmethod
    def _one_by_one(cls, joined: Sequence[Joined], source_of: Callable[[Kind], Source]) -> Labelled:
        kinds, of = numbered([one.kind for one in joined])
        before = [one.before for one in joined]
        return cls(
            sources=list(map(source_of, kinds)),
            of=of,
            ids=[one.id for one in joined],
            predicted_ms=np.array([one.predicted_ms for one in joined], dtype=np.int64),
            labelled_ms=np.array([one.labelled_ms for one in joined], dtype=np.int64),
            arrived_ms=np.array([one.arrived_ms for one in joined], dtype=np.int64),
            codes=[one.codes for one in joined],
            values=_padded([one.values for one in joined]),
            labels=np.array([one.label for one in joined], dtype=np.float64),
            before=np.full(len(before), np.nan)  # as of None below, but sooner
            if before.count(None) == len(before)
            else np.array(before, dtype=np.float64),
        )

    def _apart(self) -> Iterator[tuple[object, Labelled]]:
        """By task and number of outputs."""
        for judged_as, some in places_of(list(map(_judged_as, self.sources))).items():
            if len(some) == len(self.sources):
                yield judged_as, self
                return
            mine = np.flatnonzero(among(self.of, some, len(self.sources)))
            if len(mine):
                part = self.take(mine)
                of = np.searchsorted(some, part.of)
                yield judged_as, replace(part, sources=chosen(self.sources, some), of=of)

    @classmethod
    def _together(cls, parts: Sequence[Labelled]) -> Labelled:
        if len(parts) == 1:
            return parts[0]
        sources = list(dict.fromkeys(chain.from_iterable(part.sources for part in parts)))
        number = {source: i for i, source in enumerate(sources)}
        width = max(part.values.shape[1] for part in parts)
        of = [np.array(list(map(number.__getitem__, p.sources)))[p.of] for p in parts]
        return cls(
            sources=sources,
            of=np.concatenate(of),
            ids=list(chain.from_iterable(part.ids for part in parts)),
            predicted_ms=np.concatenate([part.predicted_ms for part in parts]),
            labelled_ms=np.concatenate([part.labelled_ms for part in parts]),
            arrived_ms=np.concatenate([part.arrived_ms for part in parts]),
            codes=list(chain.from_iterable(part.codes for part in parts)),
            values=np.concatenate([_widened(part.values, width) for part in parts]),
            labels=np.concatenate([part.labels for part in parts]),
            before=np.concatenate([part.before for part in parts]),
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
            values=self.values[places],
            labels=self.labels[places],
            before=self.before[places],
        )

    def each(self, field: Callable[[Source], float]) -> NDArray[Any]:
        """A number of each label's source, shape (n,)."""
        return np.array([field(source) for source in self.sources])[self.of]

    def grouped(self, times_ms: Ints) -> Groups:
        """By the ticks of these times, shape (n,)."""
        return group(self.sources, self.of, times_ms, self.codes)


def _judged_as(source: Source) -> object:
    return source.spec.task, source.kind.outputs


def _padded(values: Sequence[tuple[float, ...]]) -> Floats:
    """Shape (n, the widest); NaN beyond what each has."""
    widths = set(map(len, values))
    widest = max(widths)
    if len(widths) > 1:
        values = [(*one, *repeat(np.nan, widest - len(one))) for one in values]
    return numbers(values, widest)


def _widened(values: Floats, width: int) -> Floats:
    if values.shape[1] == width:
        return values
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=np.nan)
