"""Tables of benchmarks in the pages of docs/, between marks, with the command that made them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

BEGIN: Final = "<!-- tables -->"
END: Final = "<!-- end of tables -->"
Rows = list[list[str]]


class Table(NamedTuple):
    title: str
    columns: list[str]
    rows: Rows

    def markdown(self) -> str:
        lines = [self.columns, ["---", *["--:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join([f"**{self.title}**", "", *[f"| {' | '.join(line)} |" for line in lines]])


def write_page(page: Path, tables: Sequence[Table], command: str) -> None:
    """Put the tables between the page's marks, with the command that made them."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    told = "\n\n".join([f"`{command}`", *[table.markdown() for table in tables]])
    page.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}")
