"""What the runtime and the pure stages say to each other.

A processor is the state of one partition of one stage. The runtime feeds it records and time, takes
its outputs, and writes its changed parts in the same transaction as those outputs and the offsets.
Nothing here or in a processor reads a clock, draws a random number, or does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, overload, runtime_checkable

from msgspec import Struct

from stream.events import LifecycleChanged

if TYPE_CHECKING:  # settings name these types, and whoever reads settings needs no NumPy
    import numpy as np
    from numpy.typing import NDArray

    from models.profile import ReferenceProfile

Header = tuple[str, bytes | None]
Headers = tuple[Header, ...]


class Record(NamedTuple):
    """One record as it lies in the log."""

    offset: int
    timestamp_ms: int  # LogAppendTime, or the replayer's clock: "now" for this record
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


_new_record = partial(tuple.__new__, Record)  # from its fields; half the price of Record(...)


class Records(Sequence[Record]):
    """Records as columns; a `Record` is made where one is looked at, for most never.

    Attributes:
        offsets, stamps_ms, keys, values, headers: one of each for each record.
    """

    __slots__ = ("headers", "keys", "offsets", "stamps_ms", "values")

    def __init__(
        self,
        offsets: Sequence[int],
        stamps_ms: Sequence[int],
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Headers],
    ) -> None:
        self.offsets = offsets
        self.stamps_ms = stamps_ms
        self.keys = keys
        self.values = values
        self.headers = headers

    @classmethod
    def of(cls, records: Iterable[Record]) -> Records:
        """The columns of records, or the object itself if it has them already."""
        if isinstance(records, Records):
            return records
        columns: list[Any] = list(zip(*records, strict=True))
        return cls(*columns) if columns else cls((), (), (), (), ())

    @classmethod
    def joined(cls, parts: Iterable[Records]) -> Records:
        """The records of several, one after the other."""
        columns = zip(*(part._columns for part in parts), strict=True)  # noqa: SLF001
        return cls(*(list(chain.from_iterable(column)) for column in columns))

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> Records: ...
    def __getitem__(self, place: int | slice) -> Record | Records:
        if isinstance(place, slice):
            return Records(*(column[place] for column in self._columns))
        return Record(*(column[place] for column in self._columns))

    def __iter__(self) -> Iterator[Record]:
        return map(_new_record, zip(*self._columns, strict=True))

    def take(self, places: Sequence[int]) -> Records:
        """The records at these places."""
        return Records(*([column[place] for place in places] for column in self._columns))

    @property
    def _columns(self) -> tuple[Any, ...]:
        return self.offsets, self.stamps_ms, self.keys, self.values, self.headers


class Batch(NamedTuple):
    """Records of one topic and partition in offset order; offsets may have gaps.

    Attributes:
        ahead: records that were known to lie behind them when they were fetched.
    """

    entity: str
    partition: int
    records: Sequence[Record]
    ahead: int = 0


class Output(Struct, frozen=True, gc=False):
    """One record to produce. `partition` None: by the key, with the configured partitioner.

    `timestamp_ms` None: now. Where a replayer is the clock, what goes to a stage's input topic
    (predictions, re-routed records) must carry the timestamp of the record that caused it.
    """

    entity: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None


class LiveModel(Protocol):
    """One model as this worker holds it: lifecycle, loaded versions, loaded profiles."""

    @property
    def lifecycle(self) -> LifecycleChanged: ...

    def predict(self, version: int, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        """Outputs of one loaded version: shape (rows, spec.outputs)."""
        ...

    def profile(self, version: int) -> ReferenceProfile | None:
        """The reference profile of a known version, None if the version is not known."""
        ...


#: What is live, as of one moment: model name -> live model. A new mapping replaces the old one.
Fleet = Mapping[str, LiveModel]

#: Checkpoint parts by name. None: the part is gone.
Parts = dict[str, bytes | None]


class Context(NamedTuple):
    """What a processor is told when it is made; constant for its life."""

    partition: int
    partitions: Mapping[str, int]  # partition counts by entity, of the stage's inputs and outputs
    settings: CoreSettings
    #: Seconds that pass, to say how long predicting takes: an observation. By it score lets slow
    #: models wait (`shares`); no value of any output depends on it. None: nobody is timed.
    stopwatch: Callable[[], float] | None = None


class CoreSettings(NamedTuple):
    """The settings that the core knows, as plain values with units."""

    clock: str = "append"  # "append": records are stamped by the broker; "event": by a replayer
    partitioner: str = "murmur2"
    unknown_model_wait_ms: int = 5_000
    summary_interval_ms: int = 1_000
    max_event_bytes: int = 262_144
    max_late_ms: int = (
        30 * 86_400_000
    )  # event time older than the record's clock by more is refused
    max_ahead_ms: int = 300_000
    shed_shadows_lag: int = 0  # records; 0: shadows predict whatever waits
    slow_model_ms: float = 0.0  # a row, from which on a model may have to wait; 0: none has to


class Processor(Protocol):
    """One partition of one stage. Built by `(Context) -> Processor`, then restored or used."""

    def restore(self, parts: Mapping[str, bytes]) -> None:
        """Take over the parts of the last committed checkpoint. Called once, and first."""
        ...

    def apply(self, batch: Batch, fleet: Fleet) -> list[Output]:
        """Take records in. Never raises for what a record holds: those become dead letters."""
        ...

    def advance(self, clock_ms: int, caught_up: bool, fleet: Fleet) -> list[Output]:
        """Time has passed: called before every flush.

        `clock_ms` is the wall clock, an input that is journaled; `caught_up`: every record that lay
        in the inputs when the clock was read is applied.
        """
        ...

    def changes(self, *, complete: bool) -> Parts:
        """Parts that differ from the last call (all if `complete`); marks them as written."""
        ...

    @property
    def generations(self) -> Mapping[str, int]:
        """Newest lifecycle generation used, by model.

        Kept beside the parts by the runtime: a worker whose fleet is older waits with applying.
        """
        ...

    @property
    def counters(self) -> Mapping[str, int]:
        """Monotone counts for metrics, since this object was made: `<name>` or `<name>:<label>`."""
        ...


@runtime_checkable
class Deferring(Protocol):
    """A processor that may take records in without being done with them."""

    @property
    def backlog(self) -> int:
        """Records that it has taken in and not worked off. They are in its state."""
        ...

    def proceed(self, fleet: Fleet) -> list[Output]:
        """Nothing else is to be done: work off a piece of the backlog."""
        ...
