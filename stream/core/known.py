"""A live model as its events are judged: what is asked of it for every event, remembered."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from stream.core.checking import MAX_WEIGHT, floats, label_of
from stream.core.processor import LiveModel
from stream.core.shapes import Shape
from stream.errors import Refused
from stream.events import FeedbackReceived, PredictionMade

_MODEL: Final = re.compile(rb'"model"\s*:\s*"([a-z0-9._-]{1,100})"')
_NAMED = frozenset({str, bool})  # what labels by name are


class Known(NamedTuple):
    """A live model and how its events are read, looked up once per fleet.

    Attributes:
        versions: those found to be known so far.
        labels: encoded, by what was said; text and booleans only, as 1 and True are one key.
    """

    name: str
    live: LiveModel
    shape: Shape
    versions: set[int]
    labels: dict[str | bool, tuple[float]]

    def label(self, data: FeedbackReceived) -> tuple[float]:
        """The encoded label.

        Raises:
            Refused: bad-label, bad-data.
        """
        said: Any = data.label
        if type(said) not in _NAMED:
            return label_of(data, self.live)
        label = self.labels.get(said)
        if label is None or data.weight > MAX_WEIGHT:
            label = self.labels[said] = label_of(data, self.live)
        return label

    def labels_of(self, data: Sequence[FeedbackReceived]) -> Sequence[tuple[float]]:
        """As `label` of each."""
        said: list[Any] = [one.label for one in data]
        if not _NAMED.issuperset(map(type, said)) or max([one.weight for one in data]) > MAX_WEIGHT:
            return list(map(self.label, data))
        if not self.labels.keys() >= set(said):
            for one in dict(zip(said, data, strict=True)).values():
                self.label(one)
        return list(map(self.labels.__getitem__, said))

    def outputs_of(self, data: Sequence[PredictionMade]) -> Sequence[tuple[float, ...]]:
        """As `output` of each."""
        if self.live.lifecycle.spec.task == "multiclass":
            return list(map(self.output, data))
        versions = [one.version for one in data]
        if versions.count(versions[0]) == len(data):
            self.output(data[0])
        else:
            for one in dict(zip(versions, data, strict=True)).values():
                self.output(one)
        return list(zip([one.output for one in data], strict=True))  # type: ignore[arg-type]

    def output(self, data: PredictionMade) -> tuple[float, ...]:
        """The version's output; those of the shadows are checked.

        Raises:
            Refused: unknown-version, bad-output.
        """
        if data.version not in self.versions:
            if self.live.profile(data.version) is None:
                raise Refused("unknown-version", f"version {data.version} of {self.name!r}")
            self.versions.add(data.version)
        for version, shadow in data.shadow.items():
            floats(shadow, f"shadow {version}")
        output = data.output
        return floats(output, "the output") if isinstance(output, list) else (output,)


def _nothing(_known: Known, _data: object) -> tuple[float, ...]:
    return ()


#: By entity, the values of an event.
VALUES: Final[dict[str, Callable[[Any, Any], tuple[float, ...]]]] = {
    "requests": _nothing,
    "predictions": Known.output,
    "feedback": Known.label,
}


def values_of(
    entity: str, models: Mapping[str, Known | None], data: Sequence[Any]
) -> Sequence[tuple[float, ...]]:
    """The values of many events, whose models are known and of one shape.

    Raises:
        Refused: one of them is not right.
    """
    if entity == "requests":
        return ((),) * len(data)
    (known, *others) = models.values()
    if known and not others:
        return known.labels_of(data) if entity == "feedback" else known.outputs_of(data)
    each: list[Any] = [models[one.model] for one in data]
    found = _met_before(entity, each, data)
    return found or list(map(VALUES[entity], each, data))


def _met_before(
    entity: str, models: Sequence[Known], data: Sequence[Any]
) -> Sequence[tuple[float, ...]] | None:
    """As `values_of`, if the like of each was found to be right before. `models`: of each."""
    if entity == "predictions":
        if models[0].live.lifecycle.spec.task == "multiclass":
            return None
        pairs = zip(models, data, strict=True)
        if not all(one.version in known.versions for known, one in pairs):
            return None
        return list(zip([one.output for one in data], strict=True))
    said = [one.label for one in data]
    if not _NAMED.issuperset(map(type, said)) or max([one.weight for one in data]) > MAX_WEIGHT:
        return None
    found = [known.labels.get(label) for known, label in zip(models, said, strict=True)]
    return None if None in found else found  # type: ignore[return-value]


def named_in(value: bytes, end: int = sys.maxsize) -> str:
    """The model that the beginning of a text seems to be of; "" if it names none.

    >>> named_in(b'{"model": "churn", "features": 7}')
    'churn'
    """
    at = value.find(b'"model"', 0, end)  # much faster than the pattern where there is none
    found = _MODEL.search(value, at, end) if at >= 0 else None
    return found[1].decode() if found else ""


def served_here(live: LiveModel) -> bool:
    """Whether its requests are scored by us, and it can."""
    return live.lifecycle.champion is not None and live.lifecycle.spec.served == "here"
