"""The console's HTTP interface: what each page asks for, and how errors look."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from consumers import relay
from consumers.console.feed import MAX_STREAMS
from consumers.console.history import Came
from consumers.console.routes import Parts
from consumers.console.service import guarded
from stream.settings import Settings
from tests.consoles import SCRIPT, command, console, measured, register, settings_in, story

HERE = "http://localhost:8420"
NOW = 1_795_670_000_000


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(relay, "PROBE_SECONDS", 0.1)  # nobody is at the broker
    return settings_in(tmp_path)


@pytest.fixture
def parts(settings: Settings) -> Iterator[Parts]:
    """A console that has read some days of one model; nobody is at its broker."""
    live = register(settings)
    with console(settings) as made:
        batch = [Came(NOW, event) for event in [live, *story()]]
        made.history.add(batch, {})
        made.board.take(batch)
        yield made


@pytest.fixture
def browser(parts: Parts, settings: Settings) -> TestClient:
    app: Any = guarded(settings, parts)
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


def get(browser: TestClient, path: str) -> Any:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_fleet_is_one_line_a_model(browser: TestClient) -> None:
    [row] = get(browser, "/api/fleet")["rows"]

    assert (row["model"], row["state"], row["champion"]) == ("churn", "harmed", 1)
    assert row["sentence"].startswith("churn v1 has done worse than validated for")


def test_a_model_page_is_filled(browser: TestClient) -> None:
    """Every panel gets what it draws."""
    page = get(browser, "/api/models/churn")
    assert page["windows"] == ["86400s"]
    assert page["metrics"] == ["accuracy", "log_loss"]
    assert [a["problem"] for a in page["alerts"]] == ["harm"]

    drawn = get(browser, "/api/models/churn/series?window=86400s&metric=log_loss")
    line = drawn["series"]
    assert len(line["t"]) == len(line["value"]) == len(line["coverage"]) == 72
    assert drawn["more_is_better"] is False
    assert {m["kind"] for m in drawn["markers"]} == {"alert", "command", "held"}

    signals = get(browser, "/api/models/churn/drift")["rows"]
    assert [s["signal"] for s in signals] == ["age", SCRIPT, "plan"]
    opened = get(browser, "/api/models/churn/signal?signal=age")
    assert [b["label"] for b in opened["bins"]][:2] == ["18 to 30", "30 to 50"]
    assert len(opened["past"]) == 72

    assert [m["segment"] for m in get(browser, "/api/models/churn/segments")] == [
        "plan=basic",
        "plan=gold",
    ]
    versions = get(browser, "/api/models/churn/versions")
    assert [v["version"] for v in versions["versions"]] == [2, 1]
    assert [r["version"] for r in versions["reigns"]] == [1]
    assert [r["verdict"] for r in get(browser, "/api/models/churn/runs")] == ["accepted"] * 2
    assert get(browser, "/api/runs/2")["run"]["cause"] == "harm"
    card = browser.get("/api/runs/2/card")
    assert card.headers["content-disposition"] == 'attachment; filename="churn-run-2.html"'
    assert "<h1>" in card.text
    assert get(browser, "/api/runs/1/against/2")["differences"]


def test_what_was_decided_and_what_was_not_is_one_list(parts: Parts, browser: TestClient) -> None:
    """The newest first, each with what came of it."""
    told = get(browser, "/api/models/churn/decisions")

    assert [(one["kind"], one["outcome"], one["cause"]) for one in told] == [
        ("retrain", "commanded", ""),
        ("retrain", "held", "harm"),
        ("retrain", "held", "labels"),
    ]
    assert told[1]["reason"] == "the week's budget of 2 is spent"
    assert told[2]["reason"] == f"too few: {SCRIPT}"

    run = parts.registry.begin_run("churn", cause="harm", command_id="retrain-83")
    parts.registry.finish_run(run, "refused", reason="no better")
    [newest, *_] = get(browser, "/api/models/churn/decisions")
    assert (newest["outcome"], newest["run_id"], newest["run_verdict"]) == ("begun", run, "refused")


def test_a_command_that_the_registry_refused_says_why(parts: Parts, browser: TestClient) -> None:
    late = command("promote", hour=90, version=2, generation=1)
    parts.history.add([Came(NOW, late)], {})
    parts.registry.promote("churn", 2, expected_generation=1, command_id=late.command_id, who="t")

    [newest, *_] = get(browser, "/api/models/churn/decisions")
    assert (newest["kind"], newest["outcome"]) == ("promote", "refused")
    assert newest["reason"]


def test_a_range_of_time_is_one_of_the_series(browser: TestClient) -> None:
    whole = get(browser, "/api/models/churn/series")["series"]["t"]
    part = get(browser, f"/api/models/churn/series?start={whole[10]}&end={whole[20]}")["series"][
        "t"
    ]

    assert part == whole[10:21]


def test_alerts_are_filtered(browser: TestClient) -> None:
    assert [a["state"] for a in get(browser, "/api/alerts")] == ["open", "resolved"]
    assert [a["state"] for a in get(browser, "/api/alerts?state=open")] == ["open"]
    assert get(browser, "/api/alerts?model=other") == []


def test_the_pipeline_page_says_when_nothing_was_sampled(browser: TestClient) -> None:
    page = get(browser, "/api/pipeline")

    assert page["groups"] == []
    assert page["sampled_ms"] is None


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/api/models/other", 404, "no model 'other' was heard of"),
        (f"/api/models/{'x' * 10_000}", 404, "no model"),
        ("/api/models/churn/signal?signal=nothing", 404, "no signal 'nothing'"),
        (f"/api/models/churn/signal?signal={'x' * 400}", 422, "at most 300"),
        ("/api/runs/99", 404, "no run 99"),
        ("/api/runs/1/against/99", 404, "no run 99"),
        ("/api/runs/x", 422, "integer"),
        ("/api/events/newest?entity=lifecycle", 422, "one of predictions"),
        ("/api/alerts?limit=0", 422, "greater than or equal to 1"),
        ("/api/nothing", 404, "Not Found"),
    ],
)
def test_errors_are_a_sentence(browser: TestClient, path: str, status: int, told: str) -> None:
    answer = browser.get(path)

    assert answer.status_code == status
    assert told in answer.json()["error"]
    assert len(answer.text) < 500


def test_a_broker_that_is_away_is_told_and_the_past_still_shown(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = browser.get("/api/events?id=a1")

    assert answer.status_code == 503
    assert "no answer from Kafka at 127.0.0.1:1" in answer.json()["error"]
    assert browser.get("/readyz").status_code == 503
    assert browser.get("/livez").status_code == 200
    assert browser.get("/api/fleet").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/models/churn", "/alerts", "/pipeline", "/events", "/audit"]
)
def test_every_address_that_is_shared_opens_the_page(browser: TestClient, path: str) -> None:
    answer = browser.get(path)

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert '<div id="app">' in answer.text


# --- actions --------------------------------------------------------------------------------------


def asked(parts: Parts, browser: TestClient, what: str, body: Any) -> Any:
    """What ann, who may operate, is answered."""
    if "authorization" not in browser.headers:
        token = parts.access.issue("ann", "operate")
        browser.headers["authorization"] = f"Bearer {token}"
    return browser.post(f"/api/models/churn/{what}", json=body)


def test_a_preview_states_the_effect_and_changes_nothing(parts: Parts, browser: TestClient) -> None:
    told = asked(parts, browser, "preview", {"action": "promote", "version": 2}).json()

    assert told["effect"] == (
        "Version 2 becomes the champion of churn, in place of version 1. Every worker scores with "
        "it from the next event on; none is restarted. Version 1 stays in shadow: if the new "
        "champion does worse on the same events, it is rolled back."
    )
    assert (told["refusal"], told["warning"]) == ("", "")
    state = parts.registry.live("churn")
    assert state is not None
    assert (state.champion, state.generation) == (1, told["generation"])


def test_each_action_does_in_the_registry_what_the_command_line_does(
    parts: Parts, browser: TestClient
) -> None:
    """Promote, roll back, pin, unpin; each recorded with who and why."""
    for body, champion, pinned in (
        ({"action": "promote", "version": 2}, 2, False),
        ({"action": "rollback"}, 1, False),
        ({"action": "pin", "reason": "audit this week"}, 1, True),
        ({"action": "unpin"}, 1, False),
    ):
        answer = asked(parts, browser, "act", body)
        assert answer.status_code == 200, answer.text
        state = parts.registry.live("churn")
        assert state is not None
        assert (state.champion, state.pinned) == (champion, pinned)
    assert [d.reason for d in parts.registry.decisions("churn", 2)] == [
        "unpinned in the console",
        "audit this week",
    ]


def test_what_was_seen_must_still_be_so(parts: Parts, browser: TestClient) -> None:
    """Somebody else was quicker: the person looks again instead of deciding blindly."""
    seen = asked(parts, browser, "preview", {"action": "rollback"}).json()["generation"]
    parts.registry.pin("churn", who="bob")
    answer = asked(parts, browser, "act", {"action": "unpin", "generation": seen})

    assert answer.status_code == 409
    assert "look again" in answer.json()["sentence"]


def test_a_version_that_is_not_on_trial_needs_force(parts: Parts, browser: TestClient) -> None:
    asked(parts, browser, "act", {"action": "promote", "version": 2})
    parts.registry.settle("churn", who="test")
    told = asked(parts, browser, "preview", {"action": "promote", "version": 1}).json()
    refused = asked(parts, browser, "act", {"action": "promote", "version": 1})
    forced = asked(parts, browser, "act", {"action": "promote", "version": 1, "force": True})

    assert "nothing shows that it is better" in told["warning"]
    assert (refused.status_code, forced.status_code) == (409, 200)


@pytest.mark.parametrize(
    "body",
    [{}, {"action": "erase"}, {"action": "pin", "version": 0}, {"action": "pin", "more": 1}, [], 7],
)
def test_what_is_no_action_is_refused(parts: Parts, browser: TestClient, body: Any) -> None:
    assert asked(parts, browser, "act", body).status_code == 422


# --- the stream -----------------------------------------------------------------------------------


def test_too_many_streams_are_refused(parts: Parts, browser: TestClient) -> None:
    """Pages that were left open somewhere do not wear the console out."""
    parts.feed.open = MAX_STREAMS

    assert browser.get("/api/stream").status_code == 503


async def drained(parts: Parts, last: str, n: int, *, model: str | None = None) -> list[Any]:
    events = parts.feed.events(model, 0.01, last, lambda: True)
    found = []
    async for event in events:
        found.append(event)
        if len(found) == 1:
            parts.board.take([Came(NOW, measured(0.5, hour=500))])
        if len(found) == n:
            break
    await events.aclose()  # type: ignore[attr-defined]
    return found


def test_a_stream_begins_whole_goes_on_with_changes_and_resumes(parts: Parts) -> None:
    """A page that lost its connection is sent what it missed, not everything again."""
    first, second, third = asyncio.run(drained(parts, "", 3))
    whole, change, quiet = (json.loads(e.raw_data) for e in (first, second, third))
    assert (whole["whole"], change["whole"], len(change["rows"]), quiet["rows"]) == (
        True,
        False,
        1,
        [],
    )

    parts.board.take([Came(NOW, measured(model="other"))])
    [resumed] = asyncio.run(drained(parts, str(third.id), 1))
    missed = json.loads(resumed.raw_data)
    assert missed["whole"] is False
    assert "other" in [row["model"] for row in missed["rows"]]
    [foreign] = asyncio.run(drained(parts, "0123abcd-3", 1))
    assert json.loads(foreign.raw_data)["whole"] is True
    assert parts.feed.open == 0


def test_a_stream_ends_when_its_token_is_revoked(parts: Parts) -> None:
    async def until_it_ends() -> int:
        async with asyncio.timeout(10):
            return len([e async for e in parts.feed.events(None, 0.01, "", lambda: False)])

    assert asyncio.run(until_it_ends()) == 1


def test_a_model_that_falls_silent_is_told_without_an_event(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staleness comes with time alone."""
    from consumers.console import feed

    monkeypatch.setattr(feed, "CHECK_SECONDS", 0.0)
    clock = {"now": NOW}
    parts.feed._clock = lambda: clock["now"]
    parts.board.take([Came(NOW, measured(0.91, model="quiet"))])

    async def run() -> list[str]:
        found = []
        async for event in parts.feed.events("quiet", 0.01, "", lambda: True):
            found += [row["state"] for row in json.loads(str(event.raw_data))["rows"]]
            clock["now"] += 70_000
            if len(found) == 2:
                break
        return found

    assert asyncio.run(run()) == ["healthy", "stale"]
