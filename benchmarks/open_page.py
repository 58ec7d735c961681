"""A page of the console that is left open for an hour: what it holds then, and what at the start.

    python -m benchmarks.open_page [--quick] [--json] [--models 1000] [--updates 120] [--page fleet]

120 updates are those of an hour at the default tick of 30 s: in each, every model has a new window.
They come as fast as the page draws them, so the hour takes minutes. The fleet's page shows every
row, none scrolled out of existence; the model's page has a signal opened, and fetches its panels
after each update, as it does at the real pace. Counted is what can be reached: data by a heap
snapshot, nodes and listeners after a collection; not garbage that nobody has swept yet.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec import structs
from playwright.sync_api import CDPSession, Page

from benchmarks.reporting import parser, report, say
from consumers.console.history import TREND, Came
from consumers.console.routes import Parts
from models.database import now_ms
from stream.events import Measure
from tests.browsers import held, launcher
from tests.consoles import SPEC, drifted, lifecycle, measured, served, settings_in

FIRST: Final = "model-0000"
WARM: Final = TREND + 8  # updates before the first count: until lines have all their points
POINTS: Final = 4  # counts after it
SETTLE_SECONDS: Final = 1.5  # before a count: what is under way is no part of what is held
PATIENCE_MS: Final = 120_000  # with an update on a machine that does something else
MODEL_SECONDS: Final = 2.2  # a model's page fetches its panels at most every 2 s


class Count(NamedTuple):
    """What a page holds after a number of updates."""

    updates: int
    data_mib: float
    nodes: int
    listeners: int


class Fleet:
    """Every model's windows, an hour of event time in each update."""

    def __init__(self, parts: Parts, models: int) -> None:
        self._parts = parts
        self._names = [f"model-{number:04}" for number in range(models)]
        self._hour = 24
        self._take(
            [lifecycle(model=name, spec=structs.replace(SPEC, name=name)) for name in self._names]
        )

    def update(self) -> str:
        """The figure of the first model, as pages write it."""
        self._hour += 1
        value = 0.301 + self._hour / 500  # an odd last digit; those of its interval are even
        interval = Measure(value=value, low=value - 0.021, high=value + 0.021)
        self._take(
            [
                measured(value, model=name, hour=self._hour, metrics={"accuracy": interval})
                for name in self._names
            ]
            + [structs.replace(drifted("age", 0.1, hour=self._hour), model=FIRST)]
        )
        return f"{value:.3f}"

    def _take(self, events: list[Any]) -> None:
        batch = [Came(now_ms(), event) for event in events]
        self._parts.history.add(batch, {})
        self._parts.board.take(batch)


def count(page: Page, session: CDPSession, updates: int) -> Count:
    page.wait_for_timeout(1000 * SETTLE_SECONDS)
    found = held(session)
    return Count(updates, found.data / 2**20, found.nodes, found.listeners)


def play(page: Page, update: Callable[[], None], updates: int) -> list[Count]:
    """Counts after the warm-up and at equal distances from there on."""
    session = page.context.new_cdp_session(page)
    for _ in range(WARM):
        update()
    counts = [count(page, session, 0)]
    for number in range(1, updates + 1):
        update()
        if number % max(1, updates // POINTS) == 0:
            counts.append(count(page, session, number))
    return counts


def fleet_page(page: Page, url: str, fleet: Fleet, models: int, updates: int) -> list[Count]:
    page.goto(f"{url}/?refresh=0.5&sort=model")
    rows = page.locator(".fleet tbody tr")
    rows.first.wait_for()
    while rows.count() < models:
        for edge in ("0", "document.body.scrollHeight"):  # or the end is not seen anew
            page.evaluate(f"scrollTo(0, {edge})")
            page.wait_for_timeout(100)

    def update() -> None:
        rows.first.get_by_text(fleet.update()).first.wait_for()

    return play(page, update, updates)


def model_page(page: Page, url: str, fleet: Fleet, updates: int) -> list[Count]:
    page.goto(f"{url}/models/{FIRST}?refresh=0.5&signal=age")
    page.locator("#quality canvas").first.wait_for()
    page.locator("tr.opened").wait_for()

    def update() -> None:
        begun = time.monotonic()
        page.locator(".verdict").get_by_text(fleet.update()).wait_for()
        page.wait_for_timeout(1000 * max(0.0, MODEL_SECONDS - (time.monotonic() - begun)))

    return play(page, update, updates)


def main() -> None:
    one = parser(__doc__ or "")
    one.add_argument("--models", type=int, default=1000)
    one.add_argument("--updates", type=int, default=120)
    one.add_argument("--page", choices=("fleet", "model"), help="only this one")
    arguments = one.parse_args()
    models, updates = (100, 12) if arguments.quick else (arguments.models, arguments.updates)
    with (
        tempfile.TemporaryDirectory(prefix="driftline-bench-") as name,
        served(settings_in(Path(name)), follow=False) as (url, parts),
        launcher() as launch,
    ):
        fleet, page = Fleet(parts, models), launch()
        page.set_default_timeout(PATIENCE_MS)
        fleet.update()
        found: dict[str, list[Count]] = {}
        if arguments.page != "model":
            say(f"{updates} updates of {models} models, the fleet's page open")
            found["fleet"] = fleet_page(page, url, fleet, models, updates)
        if arguments.page != "fleet":
            say(f"{updates} updates, a model's page open")
            found["model"] = model_page(page, url, fleet, updates)
    report(
        f"a page left open: {updates} updates of {models} models",
        ("page", "updates", "data, MiB", "nodes", "listeners"),
        [
            (page_name, str(c.updates), f"{c.data_mib:.2f}", f"{c.nodes:,}", f"{c.listeners:,}")
            for page_name, counts in found.items()
            for c in counts
        ],
        {"models": models, **{k: [c._asdict() for c in counts] for k, counts in found.items()}},
        as_json=arguments.json,
    )


if __name__ == "__main__":
    main()
