"""The console's pages as a person meets them: a real browser, a live console, a broker beneath it.

The broker is the embedded one and the events are made here; what the pages show of a whole loop is
looked at with `driftline demo`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Page, Route, expect

from consumers import relay
from consumers.console.history import TREND, Came
from consumers.console.routes import Parts
from consumers.demo.embedded import EmbeddedBroker
from models.database import now_ms
from stream.events import FeedbackReceived, PredictionMade
from stream.settings import Settings
from tests.browsers import Launch, Scheme, held
from tests.consoles import (
    SCRIPT,
    START,
    alert,
    measured,
    publish,
    register,
    served,
    settings_in,
    story,
    wait_until,
)

PAGES = ("/", "/models/churn", "/alerts", "/pipeline", "/events", "/audit")
VIEWS: list[tuple[int, Scheme]] = [(1280, "light"), (1280, "dark"), (375, "light"), (375, "dark")]
HOURS = itertools.count(200)  # of windows that tests publish, each newer than all before


class Scene(NamedTuple):
    """A console that shows one model with a past, and what it took to make it."""

    url: str
    parts: Parts
    settings: Settings


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    broker = EmbeddedBroker()
    settings = settings_in(
        tmp_path_factory.mktemp("console"),
        bootstrap_servers=broker.bootstrap_servers,
        embedded_broker=True,
        clock="event",
    )
    broker.touch(settings.names)
    made = PredictionMade(
        prediction_id="a1", model="churn", version=1, output=0.83, features={SCRIPT: 1.0}
    )
    truth = FeedbackReceived(prediction_id="a1", model="churn", label="leaves")
    publish(settings, [register(settings), *story(), made, truth])
    with served(settings) as (url, parts):
        wait_until(lambda: len(parts.history.accuracies("churn", "86400s")) >= 72)
        yield Scene(url, parts, settings)


class Watched(NamedTuple):
    """A page, and what its console said."""

    page: Page
    said: list[str]

    def open(self, url: str, path: str) -> Page:
        self.page.goto(url + path)
        self.page.wait_for_selector("main h1")
        expect(self.page.locator(".mood.loading")).to_have_count(0)
        return self.page


def watched(page: Page) -> Watched:
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            said.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"a script ran: {dialog.message}"))
    return Watched(page, said)


@pytest.fixture(scope="module")
def browser(chromium: Launch, scene: Scene) -> Watched:
    return watched(chromium(1280, "light"))


# --- every page, both themes, both widths ---------------------------------------------------------


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_every_page_is_accessible_fits_and_breaks_no_policy(
    chromium: Launch, scene: Scene, width: int, scheme: Scheme
) -> None:
    """No violation that axe calls serious, nothing wider than the screen, a silent console."""
    view = watched(chromium(width, scheme, bypass_csp=False))
    axe = Axe()
    for path in (*PAGES, "/models/churn?signal=age", "/events?id=a1"):
        page = view.open(scene.url, path)
        found = axe.run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
        serious = [
            (v["id"], [node["html"][:200] for node in v["nodes"]][:3])
            for v in found.response["violations"]
            if v["impact"] in ("serious", "critical")
        ]
        assert not serious, path
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is {wide} px wide"
    assert view.said == []


def test_strings_from_kafka_are_text(browser: Watched, scene: Scene) -> None:
    """A script in a feature's name or an alert is read, not run."""
    page = browser.open(scene.url, "/models/churn")

    expect(page.locator(".drift").get_by_role("button", name=SCRIPT)).to_be_visible()
    expect(page.locator("#alerts").get_by_text(f"inputs differ: {SCRIPT}")).to_be_visible()
    expect(page.locator("#decisions").get_by_text(f"too few: {SCRIPT}")).to_be_visible()
    browser.open(scene.url, "/events?id=a1")
    page.get_by_text("Whole record").first.click()
    expect(page.locator("pre.json").first).to_contain_text(SCRIPT)
    browser.open(scene.url, f"/models/{'x' * 10_000}")
    expect(page.locator(".mood.failed")).to_contain_text("no model")
    assert page.locator("img[src='x']").count() == 0
    assert [s for s in browser.said if "404" not in s] == []
    browser.said.clear()


def test_code_is_fetched_when_it_is_wanted_and_its_absence_is_said(
    chromium: Launch, scene: Scene
) -> None:
    """Alone, the fleet fetches no chart and no other page; one that cannot be fetched says so, and
    is there when the page is loaded again."""
    view = watched(chromium(1280, "light"))
    fetched: list[str] = []
    view.page.on("request", lambda request: fetched.append(request.url.rpartition("/")[2]))
    page = view.open(scene.url, "/")
    assert "fleet.js" in fetched
    assert not {"model.js", "uPlot.iife.min.js"} & set(fetched)
    page.route("**/model.js", lambda route: route.abort())
    page.locator(".fleet a").first.click()
    expect(page.locator(".mood.failed")).to_contain_text("could not be fetched")
    page.unroute("**/model.js")
    page.get_by_role("button", name="Load the page again").click()
    expect(page.locator("#quality canvas").first).to_be_visible()
    assert fetched.count("uPlot.iife.min.js") == 1


def test_the_page_says_why_nothing_was_done(browser: Watched, scene: Scene) -> None:
    """Held back, with who asked and why not, beside what was commanded; and when there is none."""
    page = browser.open(scene.url, "/models/churn")
    held = page.locator("#decisions li", has_text="budget of 2 is spent")
    expect(held).to_contain_text("held back")
    expect(held).to_contain_text("asked for by harm: what harm says")
    expect(page.locator("#decisions li").first).to_contain_text("commanded")

    page.route("**/decisions", lambda route: route.fulfill(json=[]))
    page.reload()
    expect(page.locator("#decisions .mood.empty")).to_contain_text("Nothing was asked for yet")
    page.unroute("**/decisions")
    page.route("**/decisions", lambda route: route.abort())
    page.reload()
    expect(page.locator("#decisions .mood.failed")).to_contain_text("could not be shown")
    page.unroute("**/decisions")
    browser.said.clear()


# --- live -----------------------------------------------------------------------------------------


def test_a_page_changes_by_itself_and_holds_still_when_paused(
    browser: Watched, scene: Scene
) -> None:
    page = browser.open(scene.url, "/models/churn?refresh=1")
    verdict = page.locator(".verdict")
    publish(scene.settings, [measured(0.612, hour=next(HOURS))])
    expect(verdict).to_contain_text("accuracy 0.612")

    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".liveness")).to_contain_text("paused")
    assert "paused=1" in page.url
    publish(scene.settings, [measured(0.634, hour=next(HOURS))])
    page.wait_for_timeout(2500)
    expect(verdict).to_contain_text("accuracy 0.612")
    page.get_by_role("button", name="Resume").click()
    expect(verdict).to_contain_text("accuracy 0.634")


def test_an_open_page_does_not_grow(browser: Watched, scene: Scene) -> None:
    """Updates replace what is there: nodes and listeners stay, charts that were closed are gone."""
    page = browser.open(scene.url, "/models/churn?refresh=1")
    session = page.context.new_cdp_session(page)

    def size() -> dict[str, float]:
        session.send("HeapProfiler.collectGarbage")
        found = session.send("Memory.getDOMCounters")
        return {name: float(found[name]) for name in ("nodes", "jsEventListeners")}

    def update(times: int) -> None:
        for _ in range(times):
            hour = next(HOURS)
            publish(scene.settings, [measured(0.6 + hour / 10_000, hour=hour)])
            for _ in ("open", "close"):
                page.locator(".drift").get_by_role("button", name="age").click()
                page.wait_for_timeout(250)

    update(5)
    page.wait_for_timeout(1500)
    before = size()
    update(25)
    page.wait_for_timeout(2500)
    after = size()

    assert after["nodes"] <= before["nodes"] * 1.1 + 200
    assert after["jsEventListeners"] <= before["jsEventListeners"] * 1.1 + 20


def test_a_fleet_left_open_holds_no_update_that_is_over(chromium: Launch, tmp_path: Path) -> None:
    """After as many updates as half an hour has, it refers to no more data than at the start.

    A row that something held on to, of each update, would be three times what is allowed.
    """
    names = [f"model-{number:02}" for number in range(40)]
    with served(settings_in(tmp_path), follow=False) as (url, parts):

        def update(hour: int) -> str:
            value = 0.301 + hour / 500  # an odd last digit: as many digits each time
            told = [measured(value, model=name, hour=hour) for name in names]
            parts.board.take([Came(now_ms(), one) for one in told])
            return f"{value:.3f}"

        for hour in range(TREND + 1):  # until lines have all their points
            update(hour)
        page = chromium(1280, "light")
        page.goto(f"{url}/?refresh=0.5&sort=model")
        rows = page.locator(".fleet tbody tr")
        expect(rows).to_have_count(len(names))
        session = page.context.new_cdp_session(page)
        counts = []
        for hour in range(TREND + 1, TREND + 71):
            expect(rows.first).to_contain_text(update(hour))
            if hour in (TREND + 10, TREND + 70):
                page.wait_for_timeout(1500)  # what is under way is no part of what is held
                counts.append(held(session))
        page.goto("about:blank")

    before, after = counts
    assert after.nodes <= before.nodes + 50
    assert after.listeners <= before.listeners + 5
    assert after.data <= before.data * 1.02


def test_loading_empty_stale_and_failed_look_different(browser: Watched, scene: Scene) -> None:
    page = browser.open(scene.url, "/alerts?state=open")
    publish(scene.settings, [alert(state="resolved", resolved_ms=START, revision=9)])
    expect(page.locator(".mood.empty")).to_contain_text("No open alert")

    page.route("**/api/alerts*", lambda route: route.abort())
    page.goto(f"{scene.url}/alerts")
    expect(page.locator(".mood.failed")).to_contain_text("the console does not answer")
    page.unroute("**/api/alerts*")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/api/alerts*", hold)
    page.goto(f"{scene.url}/alerts")
    while not held:
        page.wait_for_timeout(50)
    expect(page.locator(".mood.loading")).to_be_visible()
    held[0].continue_()
    expect(page.locator(".alerts > li").first).to_be_visible()
    page.unroute("**/api/alerts*")
    browser.said.clear()


def test_what_was_chosen_is_in_the_address(browser: Watched, scene: Scene) -> None:
    """Reload and share: window, metric, feature, search and theme come back."""
    page = browser.open(scene.url, "/models/churn")
    page.get_by_label("Metric").select_option("log_loss")
    page.locator(".drift").get_by_role("button", name="age").click()
    expect(page.locator(".histogram")).to_contain_text("18 to 30")
    assert re.search(r"metric=log_loss&signal=age", page.url)
    page.reload()
    expect(page.locator("#quality-title")).to_have_text("Log loss over time")
    expect(page.locator(".histogram")).to_contain_text("18 to 30")

    browser.open(scene.url, "/?q=nothing")
    expect(page.locator(".mood.empty")).to_contain_text("No model fits")
    page.get_by_role("button", name="Show all 1").click()
    expect(page.get_by_role("link", name="churn")).to_be_visible()


# --- keyboard -------------------------------------------------------------------------------------


def test_everything_is_reached_by_keyboard(browser: Watched, scene: Scene) -> None:
    """Letters for pages, rows and search; a dialog closes with Escape and gives the focus back."""
    page = browser.open(scene.url, "/")
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="churn")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("churn")
    for keys, title in (("ga", "Alerts"), ("gp", "Pipeline"), ("ge", "Events"), ("gf", "Fleet")):
        for key in keys:
            page.keyboard.press(key)
        expect(page.locator("h1")).to_have_text(title)
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("gp?t")
    expect(page.locator("h1")).to_have_text("Fleet")
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("next, previous row")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("t")
    page.keyboard.press("p")
    expect(page.locator(".liveness")).to_contain_text("paused")
    page.keyboard.press("p")
    expect(page.locator(".liveness")).to_contain_text("live")


# --- acting ---------------------------------------------------------------------------------------


def test_a_person_signs_in_promotes_pins_and_rolls_back(
    browser: Watched, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each behind a dialog that states the effect; each in the audit; none without a token."""
    published: list[str] = []

    def pump(_registry: object, _settings: object) -> str:
        published.append("published")
        return published[-1]

    monkeypatch.setattr("consumers.console.actions.pump_once", pump)
    token = scene.parts.access.issue("ann", "operate")
    page = browser.open(scene.url, "/models/churn")
    expect(page.get_by_role("button", name="Promote version 2")).to_have_count(0)
    page.get_by_role("button", name="Sign in to promote").click()
    page.get_by_label("Token").fill("dl_wrong")
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("this token opens nothing")
    page.get_by_label("Token").fill(token)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()

    page.get_by_role("button", name="Promote version 2").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Version 2 becomes the champion of churn, in place of version 1")
    page.keyboard.press("Escape")
    assert live(scene) == (1, False)
    page.get_by_role("button", name="Promote version 2").click()
    dialog.get_by_label("Why").fill("checked with sales")
    dialog.get_by_role("button", name="Promote version 2").click()
    expect(page.locator("tr.current")).to_contain_text("v2")
    assert live(scene) == (2, False)

    page.get_by_role("button", name="Roll back …").click()
    expect(dialog).to_contain_text("Version 1 is the champion again")
    dialog.get_by_role("button", name="Roll back").click()
    expect(page.locator("tr.current")).to_contain_text("v1")

    page.get_by_role("button", name="Pin …", exact=True).click()
    expect(dialog).to_contain_text("stays live until it is unpinned")
    dialog.get_by_role("button", name="Pin").click()
    expect(page.get_by_role("button", name="Unpin …")).to_be_visible()
    expect(page.get_by_role("button", name="Roll back …")).to_be_disabled()
    assert live(scene) == (1, True)
    page.get_by_role("button", name="Unpin …").click()
    dialog.get_by_role("button", name="Unpin").click()
    expect(page.get_by_role("button", name="Pin …", exact=True)).to_be_visible()
    assert live(scene) == (1, False)
    assert len(published) == 4

    publish(scene.settings, [alert("data", updated_ms=START + 900)])
    page.locator("#alerts").get_by_role("button", name="Acknowledge").last.click()
    dialog.get_by_label("What others should know").fill("looking at the feed")
    dialog.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("#alerts")).to_contain_text("told to evaluate")

    browser.open(scene.url, "/audit")
    expect(page.locator("tbody tr")).to_have_count(5)
    expect(page.locator("tbody")).to_contain_text("looking at the feed")
    expect(page.locator("tbody")).to_contain_text("checked with sales")
    page.get_by_role("button", name="ann").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    browser.said.clear()


def live(scene: Scene) -> tuple[int | None, bool]:
    state = scene.parts.registry.live("churn")
    assert state is not None
    return state.champion, state.pinned


def test_a_page_that_nobody_may_read_asks_for_a_token(
    chromium: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PROBE_SECONDS", 0.1)
    settings = settings_in(tmp_path, console_anonymous="none")
    register(settings)
    with served(settings) as (url, parts):
        page = chromium(1280, "light")
        page.goto(url)
        expect(page.get_by_role("dialog")).to_contain_text("driftline console token new")
        page.get_by_label("Token").fill(parts.access.issue("bob", "read"))
        page.get_by_role("dialog").get_by_role("button", name="Sign in").click()
        expect(page.locator("h1")).to_have_text("Fleet")
        expect(page.locator(".mood.failed")).to_contain_text("Kafka is away")
        page.goto("about:blank")
