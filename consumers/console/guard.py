"""The door of the console: hosts, origins, tokens, and the headers of every answer.

Plain ASGI, before any route: what is refused here reaches no code of ours. Bound to loopback,
whoever is on this machine may read; to act, or to come from elsewhere, takes a token. The address
that a connection comes from proves nothing (a proxy is on loopback as well), so it is not asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from starlette.concurrency import run_in_threadpool

from consumers.console.access import Access, Visitor
from models.database import RegistryError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE: Final = "driftline_token"
LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
SAFE: Final = ("GET", "HEAD")
DOORS: Final = ("/livez", "/readyz")  # asked by probes, by whatever name; they tell nothing
OPEN: Final = (*DOORS, "/api/session")  # and the pages themselves, which hold no data
MAX_BODY: Final = 10_000  # bytes
CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "x-frame-options": "DENY",
}
ANYONE: Final = Visitor("this machine", "read")


class Refusal(Exception):
    """Not let in: an HTTP status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Guard:
    """Wraps the console's application.

    Args:
        origins: as a browser spells them, `https://console.example.org`; loopback is always one.
        open_on_loopback: whoever comes by a loopback name may read without a token.
    """

    def __init__(
        self, app: App, access: Access, *, port: int, origins: Iterable[str], open_on_loopback: bool
    ) -> None:
        self._app = app
        self._access = access
        self._loopback = frozenset(f"{host}:{port}" for host in LOOPBACK)
        self._origins = {f"http://{host}" for host in self._loopback} | set(origins)
        self._hosts = {urlsplit(origin).netloc for origin in self._origins}
        self._open = open_on_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        try:
            scope["visitor"] = await self.admit(scope["method"], scope["path"], headers)
        except Refusal as refusal:
            await _answer(_headed(send, scope), refusal.status, str(refusal))
            return
        except RegistryError as error:
            await _answer(_headed(send, scope), 503, str(error))
            return
        await self._app(scope, receive, _headed(send, scope))

    async def admit(self, method: str, path: str, headers: dict[str, str]) -> Visitor | None:
        """Who asks; None where the path is open to all.

        Raises:
            Refusal: by host, origin, size or token.
        """
        if path in DOORS and method in SAFE:
            return None
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            raise Refusal(421, "this console does not answer to that host name")
        token, borne = token_of(headers)
        if method not in SAFE:
            self._check_origin(headers, borne=borne)
        visitor = await run_in_threadpool(self._access.visitor, token) if token else None
        if visitor is None and not token and self._open and host in self._loopback:
            visitor = ANYONE
        if visitor is None and path.startswith("/api/") and path not in OPEN:
            raise Refusal(401, "sign in with a token: driftline console token new NAME")
        return visitor

    def _check_origin(self, headers: dict[str, str], *, borne: bool) -> None:
        """A page of another origin must not act through a browser that is signed in here."""
        origin = headers.get("origin")
        scheme_and_host = f"{urlsplit(origin or '').scheme}://{headers.get('host', '')}"
        if origin is not None and (origin not in self._origins or origin != scheme_and_host):
            raise Refusal(403, "the request comes from another origin")
        if origin is None and not borne:
            raise Refusal(403, "the request does not say where it comes from")
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal() or int(length) > MAX_BODY:
            raise Refusal(413, f"a request says its length, of at most {MAX_BODY} bytes")


def token_of(headers: dict[str, str]) -> tuple[str, bool]:
    """The token of a request, and whether it is borne in a header, which no browser adds itself."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip(), True
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return "", False
    found = cookies.get(COOKIE)
    return (found.value if found else "", False)


def _headed(send: Send, scope: Scope) -> Send:
    """Adds the headers of every answer; only what is in `static/` may be kept by a browser."""
    cached = scope["path"].startswith("/static/")

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = HEADERS | {"cache-control": "no-cache" if cached else "no-store"}
            known = [(n, v) for n, v in message["headers"] if n.decode().lower() not in extra]
            more = [(name.encode(), value.encode()) for name, value in extra.items()]
            message = {**message, "headers": [*known, *more]}
        await send(message)

    return answer


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = msgspec.json.encode({"error": sentence})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
