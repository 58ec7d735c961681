"""One POST, to the URL that was configured and nowhere else."""

from __future__ import annotations

import asyncio
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from consumers.sinks.outcomes import NotTaken
from consumers.sinks.shapes import Request
from consumers.sinks.wording import cut, line

TOO_MANY: Final = 429
#: What says that this very request is wrong; anything else may pass: a wrong password is mended.
FOR_GOOD: Final = frozenset({400, 410, 413, 414, 415, 422})
MOST_ANSWER_BYTES: Final = 65_536
SHOWN_CHARACTERS: Final = 200


async def post(request: Request, tls: ssl.SSLContext, proxy: str | None) -> None:
    """Send it, and read the answer whole. The caller sets the time limit.

    Redirects are not followed, cookies not kept, compressed answers not unpacked, and proxies of
    the environment not used.

    Raises:
        NotTaken: it was not answered with a status from 200 to 299.
    """
    headers = {"user-agent": "driftline", "accept-encoding": "identity", **request.headers}
    connector = aiohttp.TCPConnector(ssl=tls, force_close=True)
    try:
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as session,
            session.post(
                request.url,
                data=request.body,
                headers=headers,
                allow_redirects=False,
                proxy=proxy,
            ) as answer,
        ):
            said = await _body(answer)
            _check(answer, said)
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError) as error:
        raise NotTaken("tls", _reason(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise NotTaken("unreachable", _reason(error)) from error


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """The beginning of it: an answer that goes on for ever is answer enough."""
    said = b""
    while len(said) < MOST_ANSWER_BYTES:
        piece = await answer.content.read(MOST_ANSWER_BYTES)
        if not piece:
            break
        said += piece
    return said


def _check(answer: aiohttp.ClientResponse, said: bytes) -> None:
    status = answer.status
    if status // 100 == 2:
        return
    text = cut(line(said[:1000].decode(errors="replace")), SHOWN_CHARACTERS)
    detail = f"status {status}" + (f": {text}" if text else "")
    if status // 100 == 3:
        raise NotTaken("redirect", f"status {status}; redirects are not followed")
    raise NotTaken(
        "rate-limited" if status == TOO_MANY else "rejected" if status in FOR_GOOD else "status",
        detail,
        for_good=status in FOR_GOOD,
        after_seconds=after_seconds(answer.headers.get("retry-after"), time.time()),
    )


def after_seconds(header: str | None, now_seconds: float) -> float | None:
    """What Retry-After says: seconds, or a date by RFC 9110.

    >>> after_seconds("120", 0), after_seconds("Thu, 01 Jan 1970 00:01:00 GMT", 15)
    (120.0, 45.0)
    >>> after_seconds("soon", 0) is None
    True
    """
    if header is None:
        return None
    if header.strip().isdecimal() and len(header) < 12:
        return float(header)
    try:
        return max(parsedate_to_datetime(header).timestamp() - now_seconds, 0.0)
    except (ValueError, OverflowError):
        return None


def _reason(error: BaseException) -> str:
    """What happened, without the URL: it may be the secret."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    if isinstance(error, asyncio.IncompleteReadError | aiohttp.ClientPayloadError):
        return "the answer ended early"
    return type(error).__name__
