"""Debian's chromium, driven by playwright: nothing is downloaded, nothing is remembered."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from playwright.sync_api import BrowserContext, CDPSession, Page, expect, sync_playwright

from tests.patience import PATIENCE_SECONDS

HOW_TO_GET = "run scripts/prepare-system as root (Debian: apt-get install chromium)"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
#: Nodes of a heap snapshot that are not a page's data: the browser's own, and code, of which there
#: is the more the hotter it runs.
NOT_DATA = frozenset({"native", "synthetic", "hidden", "code", "object shape"})
Scheme = Literal["light", "dark"]
Launch = Callable[..., Page]


class Unavailable(Exception):
    """The machine has no chromium; the message says how to get it."""


def program() -> str:
    """Raises:
    Unavailable: it is not installed.
    """
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise Unavailable(f"the tests of the console's pages need chromium: {HOW_TO_GET}")
    return found


@contextmanager
def launcher() -> Iterator[Launch]:
    """Opens pages of a width and a theme, each in a browser with a new and empty directory."""
    where = program()
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    with ExitStack() as stack:
        driver = stack.enter_context(sync_playwright())

        def launch(width: int = 1280, scheme: Scheme = "light", **more: Any) -> Page:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="driftline-browser-"))
            context: BrowserContext = driver.chromium.launch_persistent_context(
                Path(folder) / "profile",
                executable_path=where,
                args=FLAGS,
                viewport={"width": width, "height": 900},
                color_scheme=scheme,
                **more,
            )
            stack.callback(context.close)
            context.set_default_timeout(PATIENCE_SECONDS * 1000)
            return context.pages[0]

        yield launch


class Held(NamedTuple):
    """What a page holds on to; `data` are the bytes of JavaScript's that can be reached."""

    data: int
    nodes: int
    listeners: int


def held(session: CDPSession) -> Held:
    """Garbage is not counted: what V8 calls used includes what it has not swept yet, by a third and
    more after large updates, however often it is told to collect. A snapshot walks what is reached.
    """
    parts: list[str] = []

    def take(event: dict[str, Any]) -> None:
        parts.append(event["chunk"])

    session.on("HeapProfiler.addHeapSnapshotChunk", take)
    session.send("HeapProfiler.collectGarbage")
    session.send("HeapProfiler.takeHeapSnapshot", {"reportProgress": False})
    session.remove_listener("HeapProfiler.addHeapSnapshotChunk", take)
    found = session.send("Memory.getDOMCounters")
    return Held(_data("".join(parts)), int(found["nodes"]), int(found["jsEventListeners"]))


def _data(snapshot: str) -> int:
    told = json.loads(snapshot)
    meta = told["snapshot"]["meta"]
    fields, [kinds, *_] = meta["node_fields"], meta["node_types"]
    width, kind, size = len(fields), fields.index("type"), fields.index("self_size")
    counted = {n for n, name in enumerate(kinds) if name not in NOT_DATA}
    nodes = told["nodes"]
    return sum(
        bytes_
        for of, bytes_ in zip(nodes[kind::width], nodes[size::width], strict=True)
        if of in counted
    )
