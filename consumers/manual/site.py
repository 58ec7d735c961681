"""The sources of the site: what is in docs/, the README as its first page, and what code makes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

#: File of the repository -> page of the site.
MOVED: Final = {
    "README.md": "index.md",
    "examples/README.md": "examples.md",
    "CHANGELOG.md": "changelog.md",
}
LINK: Final = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def gather(root: Path, folder: Path) -> None:
    """Lay the hand-written pages of a repository out for mkdocs; `folder` is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root / "docs", folder)
    for source, page in MOVED.items():
        text = (root / source).read_text()
        (folder / page).write_text(relinked(text, Path(source).parent))


def relinked(text: str, place: Path) -> str:
    """Links as they are on the site; what is not on it is named without a link.

    >>> relinked("[a](docs/faults.md#b) [c](examples/README.md) [d](stream/app.py)", Path())
    '[a](faults.md#b) [c](examples.md) d'
    """

    def moved(found: re.Match[str]) -> str:
        picture, shown, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found[0]
        path, hash_, anchor = target.partition("#")
        file = (place / path).as_posix().rstrip("/")
        page = MOVED.get(file) or (file.removeprefix("docs/") if file.startswith("docs/") else None)
        return f"{picture}[{shown}]({page}{hash_}{anchor})" if page else shown

    return LINK.sub(moved, text)
