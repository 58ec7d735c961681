"""`python -m consumers.manual`: write the documents, and what `make docs` builds the site from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from consumers.manual import asyncapi, openapi, pages, site

#: Kept in the repository, because others build on them; a test holds them to the code.
DOCUMENTS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "asyncapi.json": asyncapi.document,
    "openapi.json": openapi.document,
}
#: Made anew whenever the site is built.
PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/settings.md": pages.settings,
    "reference/topics.md": pages.topics,
    "reference/events.md": pages.events,
    "reference/commands.md": pages.commands,
}


def documents() -> dict[str, str]:
    """File name -> text of each document."""
    return {
        name: json.dumps(make(), indent=1, ensure_ascii=False) + "\n"
        for name, make in DOCUMENTS.items()
    }


def write(root: Path) -> None:
    """The documents into docs/, and the sources of the site into .cache/docs."""
    for name, text in documents().items():
        (root / "docs" / name).write_text(text)
    site.gather(root, root / ".cache" / "docs")
    for name, make in PAGES.items():
        path = root / ".cache" / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make())


if __name__ == "__main__":
    write(Path(__file__).parents[2])
