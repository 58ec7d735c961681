"""Debian's chromium, driven by playwright: nothing is downloaded, nothing is remembered."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import BrowserContext, Page, sync_playwright

HOW_TO_GET = "run scripts/prepare-system as root (Debian: apt-get install chromium)"
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
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
            context.set_default_timeout(15_000)
            return context.pages[0]

        yield launch
