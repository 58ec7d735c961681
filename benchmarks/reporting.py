"""Arguments, tables and the closing JSON line, the same for every benchmark."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

SAID = Console(stderr=True, highlight=False)


class Spread(NamedTuple):
    """The median of repeated measurements, with the lowest and the highest."""

    median: float
    low: float
    high: float

    def __format__(self, kind: str) -> str:
        """
        >>> f"{Spread(0.414, 0.4, 0.43):.2f}"
        '0.41 (0.40-0.43)'
        """
        median, low, high = (format(value, kind) for value in self)
        return median if low == high else f"{median} ({low}-{high})"


def spread(values: Sequence[float]) -> Spread:
    """
    >>> spread([3.0, 1.0, 2.0])
    Spread(median=2.0, low=1.0, high=3.0)
    """
    return Spread(statistics.median(values), min(values), max(values))


def parser(description: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    one = argparse.ArgumentParser(description=description)
    one.add_argument("--quick", action="store_true", help="one small round, at most a minute")
    one.add_argument(
        "--json", action="store_true", help="one JSON object as the last line of stdout"
    )
    return one


def say(sentence: str) -> None:
    """Progress, for a person: never on stdout."""
    SAID.print(sentence)


def report(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    figures: Mapping[str, object],
    *,
    as_json: bool,
) -> None:
    """Show the table; with `as_json` also all its figures by plain names, on the last line."""
    table = Table(title=title)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    Console(stderr=as_json, width=None if sys.stdout.isatty() else 110).print(table)
    if as_json:
        print(json.dumps({**figures, "machine": machine()}))


def machine() -> dict[str, object]:
    """What the figures were made on."""
    packages = ("faust-streaming", "confluent-kafka", "scikit-learn")
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
