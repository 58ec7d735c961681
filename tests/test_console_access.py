"""Who gets into the console, from where, and what remains of what they did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from sqlalchemy import select
from starlette.testclient import TestClient

from consumers import relay
from consumers.console import tables as t
from consumers.console.access import Access, Deed
from consumers.console.guard import HEADERS, Guard
from consumers.console.routes import Parts
from consumers.console.service import guarded
from consumers.console.store import open_database
from models.database import RegistryMisuse, RegistryUnavailable
from stream.settings import Settings
from tests.commands import run, settle_in
from tests.consoles import console, register, settings_in
from tests.registries import Clock

HERE = "http://localhost:8420"
ELSEWHERE = "https://console.example.org"
PROMOTE = {"action": "promote", "version": 2, "reason": "it does better"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(relay, "PROBE_SECONDS", 0.1)  # nobody is at the broker
    made = settings_in(tmp_path)
    register(made)
    return made


@pytest.fixture
def parts(settings: Settings) -> Iterator[Parts]:
    with console(settings) as made:
        yield made


def client(parts: Parts, settings: Settings, base: str = HERE, **more: Any) -> TestClient:
    changed = settings.model_copy(update=more)
    app: Any = guarded(changed, parts)
    return TestClient(app, base_url=base, raise_server_exceptions=False)


def act(browser: TestClient, *, origin: str | None = HERE, **headers: str) -> Response:
    sent = headers | ({"origin": origin} if origin else {})
    return browser.post("/api/models/churn/act", json=PROMOTE, headers=sent)


def champion(parts: Parts) -> int | None:
    state = parts.registry.live("churn")
    return state.champion if state else None


# --- tokens ---------------------------------------------------------------------------------------


def test_a_token_is_kept_as_a_hash_and_shown_once(parts: Parts, settings: Settings) -> None:
    """Whoever reads the database opens nothing with it."""
    token = parts.access.issue("ann", "operate")
    database = open_database(settings.console_url)
    [row] = database.read(lambda c: c.execute(select(t.tokens)).mappings().all())
    database.close()

    assert token not in str(dict(row))
    assert token.removeprefix("dl_") not in str(dict(row))
    assert len(token) >= 43
    assert parts.access.visitor(row["digest"]) is None


def test_revoked_and_expired_tokens_open_nothing(tmp_path: Path) -> None:
    clock = Clock()
    database = open_database(f"sqlite:///{tmp_path}/console.db")
    access = Access(database, clock)
    revoked, brief = access.issue("ann", "read"), access.issue("bob", "read", days=1)
    assert access.visitor(revoked) is not None
    assert access.visitor(brief) is not None

    access.revoke("ann")
    clock.ms += 86_400_000

    assert access.visitor(revoked) is None
    assert access.visitor(brief) is None
    assert access.visitor("") is None
    with pytest.raises(RegistryMisuse, match="was, a token 'ann'"):
        access.issue("ann", "read")
    with pytest.raises(RegistryMisuse, match="no token 'ann'"):
        access.revoke("ann")
    database.close()


def test_tokens_are_made_listed_and_revoked_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle_in(tmp_path, monkeypatch)
    made = run("console", "token", "new", "ann", "--role", "operate")
    token = made.stdout.strip()
    assert (made.exit_code, token[:3]) == (0, "dl_")

    listed = run("console", "token", "list")
    assert "ann" in listed.stdout
    assert token not in listed.stdout
    revoked = run("console", "token", "revoke", "ann", "--json")
    assert json.loads(revoked.stdout) == {"name": "ann", "revoked": True}
    assert run("console", "token", "revoke", "bob").exit_code == 2
    assert run("console", "token", "new", "bob", "--role", "boss").exit_code == 2
    assert run("console", "audit").exit_code == 0


# --- the door -------------------------------------------------------------------------------------


def test_on_loopback_anyone_reads_and_nobody_acts(parts: Parts, settings: Settings) -> None:
    browser = client(parts, settings)

    assert browser.get("/api/fleet").status_code == 200
    assert browser.get("/api/session").json()["role"] == "read"
    assert act(browser).status_code == 403
    assert champion(parts) == 1


@pytest.mark.parametrize(
    "more", [{"console_host": "0.0.0.0"}, {"console_anonymous": "none"}], ids=["bound", "asked"]
)
def test_elsewhere_nobody_reads_without_a_token(
    parts: Parts, settings: Settings, more: dict[str, str]
) -> None:
    """Also where the connection comes from loopback, as a proxy's does."""
    browser = client(parts, settings, **more)

    for path in (
        "/api/fleet",
        "/api/audit",
        "/api/stream",
        "/api/events?id=a",
        "/api/openapi.json",
    ):
        assert browser.get(path).status_code == 401, path
    assert browser.get("/").status_code == 200  # the page, which holds no data
    assert browser.get("/static/style.css").status_code == 200
    assert browser.get("/api/session").json()["role"] is None
    token = parts.access.issue("ann", "read")
    assert (
        browser.get("/api/fleet", headers={"authorization": f"Bearer {token}"}).status_code == 200
    )


@pytest.mark.parametrize("token", ["dl_wrong", "", "x" * 5000, "\x00", "a; b=c"])
def test_a_wrong_token_opens_nothing_even_on_loopback(
    parts: Parts, settings: Settings, token: str
) -> None:
    """Who presents one is not let in as nobody instead, but for an empty one."""
    browser = client(parts, settings)
    answer = browser.get("/api/fleet", headers=[(b"authorization", f"Bearer {token}".encode())])

    assert answer.status_code == (401 if token.strip() else 200)
    assert (
        browser.post("/api/session", json={"token": token}, headers={"origin": HERE}).status_code
        == 401
    )


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost", "localhost:8421", "127.0.0.1.nip.io:8420"]
)
def test_another_host_name_is_not_answered(parts: Parts, settings: Settings, host: str) -> None:
    """A name that somebody points at loopback (DNS rebinding) reads nothing."""
    answer = client(parts, settings).get("/api/fleet", headers={"host": host})

    assert answer.status_code == 421
    assert "rows" not in answer.text


def signed_in(parts: Parts, browser: TestClient, role: Any, origin: str = HERE) -> TestClient:
    token = parts.access.issue(f"ann who may {role}", role)
    answer = browser.post("/api/session", json={"token": token}, headers={"origin": origin})
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert ("Secure" in cookie) == origin.startswith("https")
    return browser


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "https://evil.example",
        "http://localhost:8421",
        "http://127.0.0.1:8420",
        "file://",
    ],
)
def test_a_page_of_another_origin_does_not_act_through_a_signed_in_browser(
    parts: Parts, settings: Settings, origin: str | None
) -> None:
    """The cookie comes with the request, and the request is refused all the same."""
    browser = signed_in(parts, client(parts, settings), "operate")

    assert act(browser, origin=origin).status_code == 403
    assert act(browser, origin=origin, authorization="Basic YTpi").status_code == 403
    assert champion(parts) == 1
    assert act(browser).status_code == 200
    assert champion(parts) == 2


def test_a_program_with_a_token_needs_no_origin(parts: Parts, settings: Settings) -> None:
    token = parts.access.issue("deploy", "operate")
    answer = act(client(parts, settings), origin=None, authorization=f"Bearer {token}")

    assert answer.status_code == 200
    assert champion(parts) == 2


def test_a_configured_origin_takes_a_token_and_gets_a_secure_cookie(
    parts: Parts, settings: Settings
) -> None:
    """Behind a proxy that keeps the host name, nobody reads without a token."""
    browser = client(parts, settings, ELSEWHERE, console_origins=(ELSEWHERE,))

    assert browser.get("/api/fleet").status_code == 401
    signed_in(parts, browser, "operate", ELSEWHERE)
    assert browser.get("/api/fleet").status_code == 200
    assert act(browser, origin=HERE).status_code == 403
    assert act(browser, origin=ELSEWHERE).status_code == 200


def test_who_may_read_may_not_operate_and_signing_out_ends_it(
    parts: Parts, settings: Settings
) -> None:
    browser = signed_in(parts, client(parts, settings, console_anonymous="none"), "read")

    assert act(browser).status_code == 403
    assert champion(parts) == 1
    assert browser.delete("/api/session", headers={"origin": HERE}).status_code == 200
    assert browser.get("/api/fleet").status_code == 401


def test_a_large_or_unmeasured_body_is_not_read(parts: Parts, settings: Settings) -> None:
    browser = client(parts, settings)
    large = browser.post("/api/session", content=b"x" * 20_000, headers={"origin": HERE})
    unmeasured = browser.post("/api/session", content=iter([b"x"]), headers={"origin": HERE})

    assert (large.status_code, unmeasured.status_code) == (413, 413)


def test_every_answer_carries_the_headers_that_hold_a_page_in(
    parts: Parts, settings: Settings
) -> None:
    """Refusals and errors too. No inline script, no other origin, no frame around it."""
    browser = client(parts, settings)
    policy = HEADERS["content-security-policy"]

    for path in ("/", "/models/x", "/static/js/main.js", "/api/fleet", "/api/nothing", "/livez"):
        headers = browser.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS, path
    assert browser.get("/", headers={"host": "evil"}).headers["content-security-policy"] == policy
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy


def test_a_websocket_is_closed(parts: Parts, settings: Settings) -> None:
    from starlette.websockets import WebSocketDisconnect

    with (
        pytest.raises(WebSocketDisconnect),
        client(parts, settings).websocket_connect("/api/stream"),
    ):
        pass


# --- the audit ------------------------------------------------------------------------------------


def test_every_action_leaves_a_row_done_or_refused(parts: Parts, settings: Settings) -> None:
    browser = signed_in(parts, client(parts, settings), "operate")
    act(browser)
    act(browser)  # version 2 is the champion already
    act(client(parts, settings))  # whoever is on this machine

    rows = [(d.who, d.action, d.version, d.outcome) for d in parts.access.audit()]
    assert rows == [
        ("this machine", "promote", 2, "refused"),
        ("ann who may operate", "promote", 2, "refused"),
        ("ann who may operate", "promote", 2, "done"),
    ]
    assert parts.access.audit()[-1].reason == "it does better"
    [decision, *_] = parts.registry.decisions("churn")
    assert (decision.who, decision.reason) == ("ann who may operate (console)", "it does better")


def test_nothing_is_done_that_cannot_be_audited(
    parts: Parts, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_access: Access, _deed: Deed) -> int:
        raise RegistryUnavailable("the disk is full")

    monkeypatch.setattr(Access, "record", full)
    answer = act(signed_in(parts, client(parts, settings), "operate"))

    assert (answer.status_code, champion(parts)) == (503, 1)


def test_the_guard_is_around_the_whole_application(parts: Parts, settings: Settings) -> None:
    assert isinstance(guarded(settings, parts), Guard)
