"""Feature values: what one is, and how rows of them become a matrix.

A row is a tuple of checked values in the order of the spec: `float | None` for a numeric feature,
`str | None` for a categorical one. None is a missing value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, starmap
from struct import Struct as Layout
from struct import error as StructError  # noqa: N812

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.spec import ModelSpec

Value = float | str | None
Row = tuple[Value, ...]
#: Of many events: rows, or columns (features, n) where every feature is a number; NaN is missing.
Inputs = Sequence[Row] | NDArray[np.float64]

MAX_TEXT = 256  # characters of a category; longer text is no category
MAX_EXACT = 2**53  # integers beyond it are not exact as JSON numbers
MAX_CATEGORIES = 50  # more distinct values than this share one place, "any other"


def category_text(value: str | bool | int | float) -> str:
    """One spelling for each category, whatever JSON type carried it. JSON does not tell 3 from 3.0.

    >>> [category_text(value) for value in ("UA", True, 3, 3.0)]
    ['UA', 'true', '3', '3']

    Raises:
        ValueError: a fraction, an integer beyond 2**53, or more than 256 characters.
    """
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise ValueError(f"{len(value)} characters, a category has at most {MAX_TEXT}")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if not abs(value) <= MAX_EXACT or value != int(value):
        raise ValueError("a category is text, true, false or an integer")
    return str(int(value))


def check_row(spec: ModelSpec, features: Mapping[str, object]) -> Row:
    """The values in the order of the spec.

    Raises:
        ValueError: names the features that are missing, extra, or of the wrong type.
    """
    missing = [f.name for f in spec.features if not f.optional and f.name not in features]
    if missing:
        raise ValueError(f"missing: {listed(missing)} (a missing value is null)")
    extra = features.keys() - set(spec.feature_names)
    if extra:
        raise ValueError(f"not in the spec: {listed(sorted(extra))}")
    return tuple(_value(f.name, f.type, features.get(f.name)) for f in spec.features)


def _value(name: str, kind: str, value: object) -> Value:
    if value is None:
        return None
    if kind == "categorical":
        if not isinstance(value, str | bool | int | float):
            raise ValueError(f"{name!r} is {type(value).__name__}, not a category")
        try:
            return category_text(value)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name!r} is {type(value).__name__}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name!r} is not finite")
    return number


def listed(names: Sequence[str]) -> str:
    """
    >>> listed(["age", "plan"])
    "'age', 'plan'"
    """
    shown = ", ".join(repr(name[:40]) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class Coder(Struct, frozen=True):
    """Rows to a float matrix, by the categories that training saw.

    Attributes:
        categories: for each feature the known categories, None for a numeric feature. The code of
            a category is its place; any other category has the code after the last.
    """

    categories: tuple[tuple[str, ...] | None, ...]

    @property
    def width(self) -> int:
        """Features that it knows."""
        return len(self.categories)

    @classmethod
    def fit(cls, spec: ModelSpec, rows: Sequence[Row]) -> Coder:
        columns = zip(*rows, strict=True) if rows else iter([()] * len(spec.features))
        return cls(
            tuple(
                frequent(column) if feature.type == "categorical" else None
                for feature, column in zip(spec.features, columns, strict=True)
            )
        )

    def matrix(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Shape (rows, features): numbers, codes of categories, NaN where a value is missing.

        Values beyond those that training saw are of features that the spec has gained since.

        >>> Coder((None, ("a", "b"))).matrix([(1.5, "b"), (None, "zzz"), (2.0, None)])
        array([[1.5, 1. ],
               [nan, 2. ],
               [2. , nan]])
        """
        if all(known is None for known in self.categories):
            return numbers(rows, len(self.categories))
        matrix = np.empty((len(rows), len(self.categories)), order="F")
        columns = zip(*rows, strict=True)
        for place, (known, column) in enumerate(zip(self.categories, columns, strict=False)):
            matrix[:, place] = column if known is None else _codes(known, column)
        return matrix


def numbers(rows: Sequence[Row], width: int) -> NDArray[np.float64]:
    """The first values of rows, all of them numbers, in a third of the time of going by columns.

    >>> numbers([(1.5, 2.0), (None, 3.0)], 2)
    array([[1.5, 2. ],
           [nan, 3. ]])
    >>> numbers([(1.5, "a"), (None, "b")], 1)
    array([[1.5],
           [nan]])
    """
    if rows and len(rows[0]) > width:
        rows = [row[:width] for row in rows]
    if width == 1:
        return np.fromiter(chain.from_iterable(rows), np.float64, len(rows)).reshape(-1, 1)
    pack = Layout(f"{width}d").pack
    try:
        flat = np.frombuffer(bytearray().join(starmap(pack, rows)))
    except StructError:  # something is missing
        flat = np.fromiter(chain.from_iterable(rows), np.float64, len(rows) * width)
    return flat.reshape(len(rows), width)


def columns_of(inputs: Inputs, width: int) -> NDArray[np.float64]:
    """Each feature's values side by side, shape (features, n); of rows the first, as `numbers`."""
    if isinstance(inputs, np.ndarray):
        return inputs
    return np.ascontiguousarray(numbers(inputs, width).T)


def of_events(inputs: Inputs, places: NDArray[np.int64]) -> Inputs:
    """What of the events at these places; as many places as events must be all, in order."""
    if isinstance(inputs, np.ndarray):
        return inputs if len(places) == inputs.shape[1] else inputs[:, places]
    if len(places) == len(inputs):
        return inputs
    return [inputs[place] for place in places.tolist()]


def _codes(known: tuple[str, ...], column: Sequence[Value]) -> list[float]:
    codes: dict[Value, float] = {category: float(code) for code, category in enumerate(known)}
    codes[None] = math.nan
    other = float(len(known))
    return [codes.get(value, other) for value in column]


def frequent(values: Iterable[Value], limit: int = MAX_CATEGORIES) -> tuple[str, ...]:
    """The most frequent categories, most frequent first, ties by text.

    >>> frequent(["b", "a", None, "b"])
    ('b', 'a')
    """
    counts = Counter(value for value in values if isinstance(value, str))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(category for category, _ in ranked[:limit])
