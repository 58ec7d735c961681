"""What may be shown of values that may hold a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping

HIDDEN = "***"
SECRET_WORDS = ("password", "passwd", "passphrase", "secret", "key", "token", "jaas", "credential")

# Greedy up to the last @ before a slash or a query: a password may hold an @ that nobody quoted.
_USER_INFO = re.compile(r"^([^:/?#]+://[^:@/]*):[^/?#]*@")
_PARAMETER = re.compile(r"([?&]([^=&#]*)=)([^&#]*)")


def is_secret(name: str) -> bool:
    """
    >>> is_secret("sasl.password"), is_secret("client.id")
    (True, False)
    """
    return any(word in name.lower() for word in SECRET_WORDS)


def url(text: str) -> str:
    """A URL without its password, wherever it stands.

    >>> url("postgresql://ann:hu@sh@db/x?sslmode=require&password=hush")
    'postgresql://ann:***@db/x?sslmode=require&password=***'
    """

    def parameter(found: re.Match[str]) -> str:
        return found[1] + (HIDDEN if is_secret(found[2]) else found[3])

    return _PARAMETER.sub(parameter, _USER_INFO.sub(rf"\1:{HIDDEN}@", text))


def properties(values: Mapping[str, object]) -> dict[str, object]:
    """
    >>> properties({"sasl.password": "hush", "client.id": "a"})
    {'sasl.password': '***', 'client.id': 'a'}
    """
    return {name: HIDDEN if is_secret(name) else value for name, value in values.items()}
