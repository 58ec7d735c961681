"""OAuth access tokens by client credentials (RFC 6749, section 4.4)."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlencode

from stream.errors import DriftlineError

TIMEOUT_SECONDS = 10.0
RENEWED_AT = 0.8  # of a token's life
SHORTEST_SECONDS = 1.0  # a token that says nothing of its life is not asked for at every connection


class NoToken(DriftlineError):
    """The token endpoint did not give one; the message says where and why, and no secret."""


class Tokens:
    """Gives the token in hand, and fetches another before that one expires. Thread-safe.

    Args:
        url: https (or on loopback http); `stream.security` has checked that.
        ca_file: who signed the endpoint's certificate; None: the system's authorities.
    """

    def __init__(
        self, url: str, client_id: str, secret: str, scope: str | None, *, ca_file: str | None
    ) -> None:
        pair = f"{client_id}:{secret}"  # as librdkafka sends it, so both are known by one name
        self._url = url
        self._form = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
        self._headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        self._context = ssl.create_default_context(cafile=ca_file)
        self._lock = threading.Lock()
        self._token = ""
        self._renew = 0.0  # by the monotonic clock

    def token(self) -> str:
        """
        Raises:
            NoToken: the endpoint cannot be reached, or refuses, or answers something else.
        """
        with self._lock:
            if time.monotonic() >= self._renew:
                answer = self._fetch()
                try:
                    self._token = str(answer["access_token"])
                    life_seconds = float(answer.get("expires_in", 0))
                except (KeyError, TypeError, ValueError):
                    raise NoToken(f"{self._url}: the answer holds no access_token") from None
                self._renew = time.monotonic() + max(life_seconds * RENEWED_AT, SHORTEST_SECONDS)
            return self._token

    def _fetch(self) -> dict[str, Any]:
        body = urlencode(self._form).encode()
        request = urllib.request.Request(self._url, body, self._headers)  # noqa: S310
        try:
            with urllib.request.urlopen(  # noqa: S310
                request, timeout=TIMEOUT_SECONDS, context=self._context
            ) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            error.close()
            raise NoToken(
                f"{self._url}: {error.code} {error.reason}; are client id and secret right?"
            ) from None
        except (OSError, ValueError) as error:
            raise NoToken(f"{self._url}: {error}") from None
        if not isinstance(found, dict):
            raise NoToken(f"{self._url}: the answer is no JSON object")
        return found
