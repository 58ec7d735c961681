"""Files of a user: CSV or JSON lines, a row at a time, with the line for the error message.

CSV cells are text, an empty one is a missing value; the model's spec says what is a number.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from models.spec import Feature, ModelSpec
from stream.errors import ConfigurationError

Value = str | bool | int | float | None


class FileRow(NamedTuple):
    """One row and where it stands."""

    place: str  # "history.csv:17", for messages
    line: int
    values: dict[str, object]

    def wrong(self, what: object) -> ConfigurationError:
        return ConfigurationError(f"{self.place}: {what}")


def rows(path: Path) -> Iterator[FileRow]:
    """Every row of a .csv file with a header, or of a file with one JSON object a line.

    Raises:
        ConfigurationError: it cannot be read; the message has the line.
    """
    read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    try:
        yield from read(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def features(spec: ModelSpec, row: Mapping[str, object]) -> dict[str, Value]:
    """The values of the spec's features, with text turned into numbers where the spec has one.

    Raises:
        ValueError: a feature is missing, or is no number.
    """
    return {feature.name: _feature(feature, row) for feature in spec.features}


def label(spec: ModelSpec, value: object) -> str | bool | int | float:
    """
    Raises:
    ValueError: there is none, or it is no number where the task needs one.
    """
    if value in (None, ""):
        raise ValueError("the label is missing")
    if spec.task == "regression" and isinstance(value, str):
        return float(value)
    if not isinstance(value, str | bool | int | float):
        raise ValueError(f"{value!r} is no label")
    return value


def time_ms(value: object) -> int:
    """ISO 8601 (UTC where no zone is given) or milliseconds since 1970, as the latter.

    >>> time_ms("1970-01-01T00:00:01Z"), time_ms("1000"), time_ms(1000)
    (1000, 1000, 1000)

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return round(value)
    text = str(value)
    if text.removeprefix("-").isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time; write 2026-11-21T14:00:00+01:00 or milliseconds since 1970"
        ) from None
    return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def _feature(feature: Feature, row: Mapping[str, object]) -> Value:
    if feature.name not in row and not feature.optional:
        raise ValueError(f"feature {feature.name!r} is missing")
    value = row.get(feature.name)
    if value is None or not isinstance(value, str | bool | int | float):
        return None if value is None else _no_value(feature, value)
    if feature.type == "numeric" and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"feature {feature.name!r}: {value!r} is no number") from None
    return value


def _no_value(feature: Feature, value: object) -> Value:
    raise ValueError(f"feature {feature.name!r}: {type(value).__name__} is no value")


def _csv_rows(path: Path) -> Iterator[FileRow]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, strict=True)
        try:
            for row in table:
                place = f"{path.name}:{table.line_num}"
                if None in row or None in row.values():
                    raise ConfigurationError(f"{place}: not as many cells as the header has")
                values: dict[str, object] = {name: cell or None for name, cell in row.items()}
                yield FileRow(place, table.line_num, values)
        except csv.Error as error:
            raise ConfigurationError(f"{path.name}:{table.line_num}: {error}") from error


def _json_rows(path: Path) -> Iterator[FileRow]:
    decode = msgspec.json.Decoder(dict[str, object]).decode
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{path.name}:{number}"
            try:
                yield FileRow(place, number, decode(line))
            except (msgspec.DecodeError, RecursionError) as error:
                raise ConfigurationError(f"{place}: {error}") from error
