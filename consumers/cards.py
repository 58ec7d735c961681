"""Model cards as files: Markdown with its plots beside it, or one HTML page that needs nothing."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

from consumers import plots
from models.cards import PLOTS, Subject, markdown

CSS: Final = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b2429; background: #fff; }
table { border-collapse: collapse; font-size: 0.9rem; display: block; overflow-x: auto; }
th, td { text-align: left; padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid #dde3e6;
         vertical-align: top; overflow-wrap: anywhere; min-width: 4rem; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
@media print { body { margin: 0; } }
"""


def page(subject: Subject) -> str:
    """The card as one HTML page, plots inside; it loads nothing."""
    places = {name: f"driftline-plot-{name}" for name in PLOTS}
    drawn = plots.plots(subject.run)
    written = markdown(subject, [(name, places[name]) for name in drawn])
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(written)
    for name, svg in drawn.items():
        picture = f'<figure role="img" aria-label="{name}">{_inner(svg, name)}</figure>'
        body = body.replace(f"<p>{places[name]}</p>", picture, 1)
    title = escape(f"{subject.run.model}: run {subject.run.run_id}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def write(subject: Subject, path: Path) -> list[Path]:
    """Write the card where its suffix says how: .html, or .md with an SVG for each plot.

    Returns the files written, the card first.

    Raises:
        OSError: it cannot be written.
    """
    if path.suffix.lower() in (".html", ".htm"):
        path.write_text(page(subject), encoding="utf-8")
        return [path]
    files = {name: path.with_suffix(f".{name}.svg") for name in PLOTS}
    drawn = plots.plots(subject.run)
    for name, svg in drawn.items():
        files[name].write_bytes(svg)
    links = [(name, f"![{name}](<{files[name].name}>)") for name in drawn]
    path.write_text(markdown(subject, links), encoding="utf-8")
    return [path, *(files[name] for name in drawn)]


def _inner(svg: bytes, name: str) -> str:
    """The svg element alone; on a page with several, each needs ids of its own."""
    text = svg.decode()
    text = text[text.index("<svg") : text.rindex("</svg>") + len("</svg>")]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    return re.sub(r'(href="#|url\(#)', rf"\1{name}-", text)
