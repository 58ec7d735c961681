"""Tables of benchmarks in the pages of docs/, between marks, with the command that made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

Rows = list[list[str]]


class Table(NamedTuple):
    title: str
    columns: list[str]
    rows: Rows

    def markdown(self) -> str:
        lines = [self.columns, ["---", *["--:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join([f"**{self.title}**", "", *[f"| {' | '.join(line)} |" for line in lines]])


def write_page(page: Path, tables: Sequence[Table], command: str, mark: str = "tables") -> None:
    """Put the tables between the page's marks of that name, with the command that made them."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, found, rest = page.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{page} has no {begin} with an {end}")
    told = "\n\n".join([f"`{command}`", *[table.markdown() for table in tables]])
    page.write_text(f"{before}{begin}\n\n{told}\n\n{end}{after}")
