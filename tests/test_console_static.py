"""The pages: vendored as they were published, nothing from elsewhere, readable in both themes."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from consumers.console.routes import STATIC

VENDOR = STATIC / "vendor"
OURS = sorted([*STATIC.glob("*.html"), *STATIC.glob("*.css"), *STATIC.glob("js/*.js")])
STYLE = (STATIC / "style.css").read_text()
#: What is written in a colour on a background, in both themes; WCAG 2.2 AA asks for 4.5 to 1.
PAIRS = [
    *(
        (text, ground)
        for text in ("text", "muted", "link")
        for ground in ("page", "panel", "raised")
    ),
    *((state, f"{state}-bg") for state in ("harmed", "broken", "changed", "healthy", "quiet")),
    *(("text", f"{state}-bg") for state in ("harmed", "broken", "changed", "healthy", "quiet")),
    *((state, "panel") for state in ("harmed", "broken", "changed", "healthy", "quiet")),
    ("muted", "healthy-bg"),
    ("on-accent", "accent"),
]
#: Lines and signs of a chart: 3 to 1.
DRAWN = [
    "line", "baseline", "marker-version", "marker-command", "marker-alert", "marker-held",
    "reference", "live",
    "shadow-1", "shadow-2", "shadow-3", "shadow-4",
]  # fmt: skip


def colours(theme: int) -> dict[str, tuple[int, int, int]]:
    """The style sheet's colours in one theme (0: light, 1: dark), without their transparency."""
    found = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", STYLE)
    return {
        name: tuple(int(pair[theme][i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[misc]
        for name, *pair in found
    }


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance by WCAG 2.2."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (x / 255 for x in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_what_the_standard_says() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((118, 118, 118), (255, 255, 255)) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_everything_written_can_be_read(theme: int) -> None:
    known = colours(theme)
    poor = {
        pair: round(contrast(known[pair[0]], known[pair[1]]), 2)
        for pair in PAIRS
        if contrast(known[pair[0]], known[pair[1]]) < 4.5
    }
    faint = {name for name in DRAWN if contrast(known[name], known["panel"]) < 3}

    assert not poor
    assert not faint


def test_vendored_files_are_the_published_ones() -> None:
    """Each file is in the table with its digest and its licence, and nothing else is there."""
    table = (VENDOR / "VENDORED.md").read_text()
    rows = re.findall(r"^\| `([\w.-]+)` \|.*`([0-9a-f]{64})` \|$", table, re.MULTILINE)
    licences = set(re.findall(r"`(LICENSE\.\w+)`", table))

    assert {
        name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name, _ in rows
    } == dict(rows)
    assert {path.name for path in VENDOR.iterdir()} == {*dict(rows), *licences, "VENDORED.md"}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_pages_fetch_nothing_from_elsewhere_and_make_no_markup_of_data(path: Path) -> None:
    """They work offline, and what came from Kafka is set as text."""
    text = path.read_text()

    assert not re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", text.replace("xmlns", ""))
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "dangerously",
    ):
        assert word not in text


def test_the_page_has_no_inline_script_or_style() -> None:
    page = (STATIC / "index.html").read_text()

    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert re.findall(r"<style|style=|\son\w+=", page) == []


def test_every_module_is_imported_from_where_it_lies() -> None:
    for path in STATIC.glob("js/*.js"):
        for name in re.findall(r'(?:from |import\()"(\.[^"]+)"', path.read_text()):
            assert (path.parent / name).resolve().exists(), f"{path.name}: {name}"


def weight(paths: Iterable[Path]) -> int:
    """Bytes, as they are sent."""
    return sum(len(gzip.compress(path.read_bytes(), 5)) for path in paths)


def test_everything_together_is_light() -> None:
    """Quick also on a bad line."""
    assert weight([*OURS, *VENDOR.glob("*.js"), *VENDOR.glob("*.css")]) < 75_000


def test_the_first_page_is_lighter_still() -> None:
    """What the frame and the fleet import; other pages, and charts, are fetched when they are
    wanted."""
    page = STATIC / "index.html"
    found = {page, STATIC / "icon.svg"}
    at_once = re.sub(r"<template.*?</template>", "", page.read_text())
    found |= {STATIC / name for name in re.findall(r'"/static/([^"]+)"', at_once)}
    waiting = list(found)
    while waiting:
        path = waiting.pop()
        names = re.findall(r'from "(\.[^"]+)"', path.read_text())
        new = {(path.parent / name).resolve() for name in names} - found
        found |= new
        waiting += new
    assert STATIC / "js" / "fleet.js" in found
    assert not found & {STATIC / "js" / "model.js", VENDOR / "uPlot.iife.min.js"}
    assert weight(found) < 30_000
